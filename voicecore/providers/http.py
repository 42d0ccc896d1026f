"""HTTP to a vendor, as a phone call needs it: deadlines, bounds, one door for errors.

* Deadlines are trio's: connecting, the first byte (retry included), the silence between bytes, and
  all waiting together.  Only waiting counts: a reader who takes its time is not the vendor's fault.
* One quick retry, after a connect error, a 5xx or a cut before the first byte; nothing else is
  repeated.  A 429 is `busy` at once: nobody on the phone waits for Retry-After.
* Leaving closes the connection: with HTTP/1.1 that is what tells the server to stop.  What that
  costs, and why spare connections and not HTTP/2 make up for it, is in `connections`.
* No proxies from the environment, no redirects (a key must not travel), no compression.
"""

from __future__ import annotations

import random
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import trio

from ..errors import ProviderError
from .connections import CONNECT_S as CONNECT_S
from .connections import Connections, open_connections

RETRY_JITTER_S = 0.1
"""At most, before the retry: callers who fail together shall not come back together."""

SPARE_WAIT_S = 0.05
"""For the end of an answer after its last useful byte; less than a new connection costs."""

ERROR_BYTES, ERROR_S = 4096, 0.3
"""What is read of an error's body, for its code."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """In seconds: to the first byte, between bytes, and all waiting for one answer."""

    first_byte: float
    idle: float
    total: float


class Body:
    """The body of an answer, in pieces as they come."""

    def __init__(self, provider: str, response: httpx.Response, deadlines: Deadlines) -> None:
        self._provider = provider
        self._response = response
        self._deadlines = deadlines
        self._raw = response.aiter_raw()
        named: str = response.headers.get("content-type", "")
        self._media_type = named.partition(";")[0].strip().lower(), named.partition(";")[2].lower()
        self._first: bytes | None = None
        self._waited = 0.0

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece, never an empty one.

        Raises:
            ProviderError: timeout, cut.
        """
        if self._first is not None:
            piece, self._first = self._first, None
            return piece
        began = trio.current_time()
        patience = min(self._deadlines.idle, self._deadlines.total - self._waited)
        with trio.move_on_after(patience), _errors(self._provider):
            try:
                return await anext(self._raw)
            finally:
                self._waited += trio.current_time() - began
        raise ProviderError(self._provider, "timeout", f"no byte within {max(0, patience):.1f} s")

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if the server names none."""
        return self._media_type[0]

    @property
    def parameters(self) -> str:
        """The media type's parameters, such as ``rate=16000``."""
        return self._media_type[1]

    async def read(self, limit: int) -> bytes:
        """Return all of it.

        Raises:
            ProviderError: timeout, cut; garbage, if it is longer than `limit` bytes.
        """
        whole = bytearray()
        async for piece in self:
            whole += piece
            if len(whole) > limit:
                raise ProviderError(self._provider, "garbage", f"more than {limit} bytes")
        return bytes(whole)

    async def begin(self) -> None:
        """Wait for the first byte, or the end."""
        try:
            with _errors(self._provider):
                self._first = await anext(self._raw)
        except StopAsyncIteration:
            pass

    async def spare(self) -> None:
        """Read a rest that is not needed, if it comes at once: it keeps the connection usable."""
        with trio.move_on_after(SPARE_WAIT_S):
            try:
                async for _ in self:
                    pass
            except ProviderError:
                pass

    async def leave(self) -> None:
        """Close the connection, unless the body was read to its end.

        httpx reads through a chain of async generators; closing the outer one leaves the others to
        the garbage collector.  A cancelled read unwinds them all, and each closes what it holds.
        """
        with trio.CancelScope(shield=True) as scope:
            scope.cancel()
            try:
                while True:
                    await anext(self._raw)
            except (StopAsyncIteration, httpx.HTTPError, httpx.StreamError):
                pass
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._response.aclose()


class Client(httpx.AsyncClient):
    """A client of one server; `connections` is its pool."""

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(transport=connections, **options)
        self.connections = connections


class Api:
    """One vendor's API: requests go in, bodies come out."""

    def __init__(self, provider: str, client: Client) -> None:
        self._provider = provider
        self._client = client

    async def warm_up(self) -> None:
        """Return when a connection stands that waits for a request, or after a failure to have one.

        Costs nothing if one stands already.  Never raises for the vendor's failure.
        """
        await self._client.connections.warm_up()

    @asynccontextmanager
    async def post(self, path: str, deadlines: Deadlines, **content: Any) -> AsyncIterator[Body]:
        """Send a request (`content` as httpx takes it), give the body of its 200; leaving ends it.

        Raises:
            ProviderError: of any kind.
        """
        body = await self._answered(path, deadlines, content)
        try:
            yield body
        finally:
            await body.leave()

    async def _answered(self, path: str, deadlines: Deadlines, content: dict[str, Any]) -> Body:
        with trio.move_on_after(deadlines.first_byte):
            try:
                return await self._attempt(path, deadlines, content)
            except _Transient:
                await trio.sleep(random.uniform(0, RETRY_JITTER_S))
            return await self._attempt(path, deadlines, content)
        detail = f"no answer within {deadlines.first_byte:g} s"
        raise ProviderError(self._provider, "timeout", detail)

    async def _attempt(self, path: str, deadlines: Deadlines, content: dict[str, Any]) -> Body:
        async with AsyncExitStack() as undo:
            with _errors(self._provider):
                request = self._client.build_request("POST", path, **content)
                response = await self._client.send(request, stream=True)
            body = Body(self._provider, response, deadlines)
            undo.push_async_callback(body.leave)
            if response.status_code != 200:
                await self._refuse(response.status_code, body)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProviderError(
                    self._provider, "garbage", "compressed, which was not asked for"
                )
            await body.begin()
            undo.pop_all()
            return body

    async def _refuse(self, status: int, body: Body) -> None:
        """Raise what an error status means."""
        code = ""
        with trio.move_on_after(ERROR_S):
            try:
                code = error_code(await body.read(ERROR_BYTES))
            except ProviderError:
                pass
        detail = f"HTTP {status} {code}".rstrip()
        if status in (401, 403):
            raise ProviderError(self._provider, "refused", detail)
        if status == 429:
            raise ProviderError(self._provider, "busy", detail)
        raise (_Transient if status >= 500 else ProviderError)(self._provider, "status", detail)


class _Transient(ProviderError):
    """Nothing was used yet, and a second try may help."""


@contextmanager
def _errors(provider: str) -> Iterator[None]:
    """Turn what httpx raises into what the rest of the house knows.  Its texts may hold secrets."""
    try:
        yield
    except httpx.TimeoutException:
        raise ProviderError(provider, "timeout", f"no connection within {CONNECT_S:g} s") from None
    except httpx.ConnectError:
        raise _Transient(provider, "connect", "no connection") from None
    except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.StreamError):
        raise _Transient(provider, "cut", "the connection broke") from None
    except httpx.HTTPError as error:
        raise ProviderError(provider, "garbage", type(error).__name__) from None


def error_code(body: bytes) -> str:
    """Return the code in an error's JSON if it is a plain word; its message may quote keys.

    Vendors write ``{"error": {"code": …, "type": …}}``, ``{"detail": {"status": …}}`` or
    ``{"err_code": …}``.
    """
    try:
        answer = msgspec.json.decode(body)
        nested = answer.get("error", answer.get("detail", answer))
        found = answer if isinstance(nested, str) else nested
        names = ("code", "err_code", "error_code", "status", "type")
        code = next((str(found[name]) for name in names if found.get(name)), "")
    except (msgspec.DecodeError, RecursionError, UnicodeError, TypeError, AttributeError):
        return ""
    return code if re.fullmatch(r"[A-Za-z0-9_]{1,60}", code) else ""


def bearer(key: str) -> dict[str, str]:
    """Return the header with which most vendors want their key; none without a key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


@asynccontextmanager
async def open_client(
    base_url: str, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """Open a pool of connections to one server; `headers` go with every request.

    `tls` says whose certificates are trusted; by default those of the public authorities.
    """
    async with (
        open_connections(httpx.URL(base_url), tls) as connections,
        Client(
            connections,
            base_url=base_url,
            headers={"Accept-Encoding": "identity", **(headers or {})},
            timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
            trust_env=False,
            follow_redirects=False,
        ) as client,
    ):
        yield client
