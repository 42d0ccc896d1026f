"""The carrier's HTTP side: signed requests for TwiML, as Twilio makes them.

Numbers from twilio.com/docs/usage/webhooks: 5 s to connect, 15 s in all, ten redirects, cookies
kept for a call.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import httpx
import trio

from ..errors import LineClosed, RemoteProtocolError
from .signing import form_signature
from .twiml import MAX_BYTES, Verb, parse

CONNECT_S = 5.0
TOTAL_S = 15.0
MAX_REDIRECTS = 10
TWIML_TYPES = frozenset({"text/xml", "application/xml", "text/html", "text/plain"})


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server is, and where it believes to be.

    Behind a proxy a server checks signatures against its public URL.  With `public` (scheme and
    host) set, requests under it go to `local` and are signed as if they had come through the proxy.
    """

    local: str
    public: str | None = None

    def dialled(self, url: str) -> str:
        """Return where to connect for a URL that the server gave."""
        for scheme in ("http", "ws"):
            public, local = (_with_family(base, scheme) for base in (self.public, self.local))
            if public and local and _is_under(url, public):
                return local + url[len(public) :]
        # A plain-HTTP server cannot speak TLS on its port: its wss:// is meant for a proxy.
        own = _with_family(self.local, "ws")
        if own and own.startswith("ws://") and _is_under(url, own.replace("ws://", "wss://", 1)):
            return "ws" + url.removeprefix("wss")
        return url

    def signed(self, url: str) -> str:
        """Return the URL that the server expects under the signature."""
        for scheme in ("http", "ws"):
            public, local = (_with_family(base, scheme) for base in (self.public, self.local))
            if public and local and _is_under(url, local):
                return public + url[len(local) :]
        return url


def origin(url: str) -> str:
    """Return a URL's scheme, host and port."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"


def _with_family(base: str | None, family: str) -> str | None:
    """Return an origin as ``http(s)`` or ``ws(s)``; they go together."""
    if base is None:
        return None
    scheme, _, rest = base.partition("://")
    return f"{family}{'s' if scheme in ('https', 'wss') else ''}://{rest}"


def _is_under(url: str, base: str) -> bool:
    return url == base or url.startswith((base + "/", base + "?"))


class Webhooks:
    """One call's HTTP client."""

    def __init__(self, addresses: Addresses, token: str | None, tls: ssl.SSLContext) -> None:
        self._addresses = addresses
        self._token = token
        self._client = httpx.AsyncClient(
            verify=tls,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=httpx.Timeout(TOTAL_S, connect=CONNECT_S),
            headers={"user-agent": "TwilioProxy/1.1", "accept": "*/*"},
        )

    async def __aenter__(self) -> Webhooks:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with trio.move_on_after(CONNECT_S, shield=True):
            await self._client.aclose()

    async def twiml(self, method: str, url: str, form: Mapping[str, str]) -> tuple[Verb, ...]:
        """Ask for a document.

        Raises:
            LineClosed: nobody answers, or too late (Twilio's 11200, 11205).
            RemoteProtocolError: an answer that is not TwiML.
        """
        target = self._addresses.dialled(url.partition("#")[0])
        signed = self._addresses.signed(target)
        if method == "GET":
            target, signed = (str(httpx.URL(each, params=form)) for each in (target, signed))
        headers = {}
        if self._token is not None:
            body = form if method == "POST" else {}
            headers["X-Twilio-Signature"] = form_signature(self._token, signed, body)
        try:
            with trio.fail_after(TOTAL_S):
                return await self._ask(method, target, form, headers)
        except trio.TooSlowError:
            raise LineClosed(f"{target} did not answer within {TOTAL_S:.0f} s (11205)") from None
        except httpx.InvalidURL as error:
            raise RemoteProtocolError(f"malformed URL {target!r:.80}: {error}") from None
        except httpx.HTTPError as error:
            raise LineClosed(
                f"cannot reach {target} ({error or type(error).__name__}); "
                "start the server (python server.py) or check the URL"
            ) from None

    async def _ask(
        self, method: str, url: str, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[Verb, ...]:
        body = dict(form) if method == "POST" else None
        async with self._client.stream(method, url, data=body, headers=headers) as response:
            status = response.status_code
            if status == 403:
                raise RemoteProtocolError(
                    f"{url} answered 403: it refused the signature; "
                    "give its auth token with --auth-token (and --public-url, if it has one)"
                )
            if not response.is_success:
                raise RemoteProtocolError(f"{url} answered {status} instead of TwiML (11200)")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in TWIML_TYPES:
                raise RemoteProtocolError(
                    f"{url} answered {kind or 'no type'!r}, not TwiML (12300)"
                )
            document = bytearray()
            async for piece in response.aiter_bytes():
                # What is too long is refused below; it is read to its end, or to the deadline,
                # for an iteration that is left half-way leaves httpx's generators open.
                document += piece[: MAX_BYTES + 1 - len(document)]
        return parse(bytes(document), url)
