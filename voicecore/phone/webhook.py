"""The carrier's HTTP side: signed requests for TwiML, callbacks, and sounds to play.

Numbers from twilio.com/docs/usage/webhooks: 5 s to connect, 15 s in all, ten redirects, cookies
kept for a call.  A sound is fetched unsigned: no page of Twilio's promises a signature there, so a
server that asked for one would be silent.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import httpx
import trio

from ..audio import wav
from ..errors import LineClosed, RemoteProtocolError
from .signing import form_signature
from .twiml import MAX_BYTES, parse
from .verbs import Verb

CONNECT_S = 5.0
TOTAL_S = 15.0
MAX_REDIRECTS = 10
SOUND_S = 10.0
SOUND_BYTES = 10 << 20
SOUND_MINUTES = 60
SOUND_RATES = range(4000, 192001)
THREAD_BYTES = 1 << 20
"""A sound beyond this is decoded in a thread: it would hold up the 20 ms of other calls."""


class _Limit(NamedTuple):
    """What an answer may be."""

    most_bytes: int
    seconds: float


_DOCUMENT, _SOUND = _Limit(MAX_BYTES, TOTAL_S), _Limit(SOUND_BYTES, SOUND_S)

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
    if not base:
        return None
    scheme, _, rest = base.partition("://")
    return f"{family}{'s' if scheme in ('https', 'wss') else ''}://{rest}"


def _is_under(url: str, base: str) -> bool:
    return url == base or url.startswith((base + "/", base + "?"))


class Webhooks:
    """One call's HTTP client."""

    def __init__(
        self,
        addresses: Addresses,
        token: str | None,
        tls: ssl.SSLContext,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect over sockets, or over `transport`."""
        self._addresses = addresses
        self._token = token
        self._client = httpx.AsyncClient(
            verify=tls,
            transport=transport,
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
        target, kind, document = await self._signed(method, url, form)
        if kind not in TWIML_TYPES:
            raise RemoteProtocolError(f"{target} answered {kind or 'no type'!r}, not TwiML (12300)")
        return parse(document, target)

    async def notify(self, method: str, url: str, form: Mapping[str, str]) -> None:
        """Report something; what is answered does not count, as long as it is a success.

        Raises:
            LineClosed: nobody answers, or too late.
            RemoteProtocolError: refused.
        """
        await self._signed(method, url, form)

    async def sound(self, url: str) -> bytes:
        """Fetch a WAV of any rate and return it as 8 kHz mu-law, at most an hour of it.

        Raises:
            LineClosed: nobody answers, or too late.
            RemoteProtocolError: no sound that can be played (12300).
        """
        target = self._addresses.dialled(url.partition("#")[0])
        kind, content = await self._bounded("GET", target, {}, {}, _SOUND)
        if len(content) > SOUND_BYTES:
            raise RemoteProtocolError(f"{target}: a sound of more than {SOUND_BYTES >> 20} MB")
        if not kind.startswith("audio/") and kind != "application/octet-stream":
            raise RemoteProtocolError(f"{target} answered {kind or 'no type'!r}, no sound (12300)")
        try:
            if len(content) > THREAD_BYTES:
                return await trio.to_thread.run_sync(_telephone, content)
            return _telephone(content)
        except ValueError as error:
            raise RemoteProtocolError(f"{target}: {error}") from None

    async def _signed(
        self, method: str, url: str, form: Mapping[str, str]
    ) -> tuple[str, str, bytes]:
        """Make a signed request; return where it went, the answer's type and the answer."""
        target = self._addresses.dialled(url.partition("#")[0])
        signed = self._addresses.signed(target)
        if method == "GET":
            target, signed = (_with_query(each, form) for each in (target, signed))
        body = form if method == "POST" else {}
        headers = {}
        if self._token is not None:
            headers["X-Twilio-Signature"] = form_signature(self._token, signed, body)
        return target, *await self._bounded(method, target, body, headers, _DOCUMENT)

    async def _bounded(
        self,
        method: str,
        url: str,
        form: Mapping[str, str],
        headers: Mapping[str, str],
        limit: _Limit,
    ) -> tuple[str, bytes]:
        """Ask within the deadline; the answer is cut one byte beyond what it may have."""
        try:
            with trio.fail_after(limit.seconds):
                return await self._ask(method, url, form, headers, limit.most_bytes)
        except trio.TooSlowError:
            late = f"{url} did not answer within {limit.seconds:.0f} s (11205)"
            raise LineClosed(late) from None
        except httpx.InvalidURL as error:
            raise RemoteProtocolError(f"malformed URL {url!r:.80}: {error}") from None
        except httpx.HTTPError as error:
            raise LineClosed(
                f"cannot reach {url} ({error or type(error).__name__}); "
                "start the server (python server.py) or check the URL"
            ) from None

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str],
        headers: Mapping[str, str],
        most: int,
    ) -> tuple[str, bytes]:
        body = dict(form) if method == "POST" else None
        async with self._client.stream(method, url, data=body, headers=headers) as response:
            status = response.status_code
            if status == 403:
                raise RemoteProtocolError(
                    f"{url} answered 403: it refused the signature; "
                    "give its auth token with --auth-token (and --public-url, if it has one)"
                )
            if not response.is_success:
                raise RemoteProtocolError(f"{url} answered {status} (11200)")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            content = bytearray()
            async for piece in response.aiter_bytes():
                # What is too long is refused by whoever asked; it is read to its end, or to the
                # deadline, for an iteration left half-way leaves httpx's generators open.
                content += piece[: most + 1 - len(content)]
        return kind, bytes(content)


def _with_query(url: str, form: Mapping[str, str]) -> str:
    """Add a form to a URL's query; parameters that it has already stay, as with Twilio."""
    try:
        return str(httpx.URL(url).copy_merge_params(form))
    except httpx.InvalidURL as error:
        raise RemoteProtocolError(f"malformed URL {url!r:.80}: {error}") from None


def _telephone(content: bytes) -> bytes:
    """Read a stranger's WAV: the rate in its header must not blow up a few bytes to hours."""
    recording = wav.read(content)
    if recording.rate not in SOUND_RATES or recording.seconds > 60 * SOUND_MINUTES:
        raise ValueError(f"{recording!r}: takes 4 to 192 kHz and at most {SOUND_MINUTES} minutes")
    return wav.read_telephone(content)
