"""Connections to one server: a pool, and beside it one or two that are open and wait.

A new connection costs two round trips (TCP, TLS 1.3) before the first byte of a request: at 30 ms
each the first byte came after 101 ms on a new connection, after 34 ms on a spare one (medians of
25; `bench/connections.py`).  And with HTTP/1.1 an answer that is not read to its end costs its
connection: closing it is what tells the server to stop.  Speculation and barge-in cancel all the
time, so:

* What was lost is replaced at once, in the background: the next request finds a connection.
* `warm_up` opens what is missing before anything is asked for: at the webhook, say.
* A spare is TCP and TLS, no more: no request goes out that nobody wants, which a vendor would
  count and log.  Browsers do the same ("preconnect").
* Two spares at most: one for the next request, one for the request after a cancelled one, or for
  LLM and TTS by one vendor.  Unused they close after `SPARE_S`, as idle connections do.
* Somebody reads from a spare all the time: TLS 1.3 sends session tickets after the handshake, so
  "readable" does not mean "closed by the server", and only reading tells.

HTTP/2 would need no spares (35 ms after a cancelled answer), but httpcore 1.0 sends no RST_STREAM
(its pull requests 944 and 1098).  Of 25 cancelled answers none was stopped: each went on to its
end, 1.4 s of speech that somebody pays for; with HTTP/1.1 all were, after 20 ms of speech.  And a
write that is cancelled half-way would tear the connection that all calls share.

httpcore 1.0 counts busy connections, too, against its limit of idle ones (its pull request 1000),
so a busy pool would keep none; and it closes an old one only when the next request comes.  Here
the limit is off, and a task closes what is old.
"""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore
import httpx
import trio

CONNECT_S = 3.0
"""For TCP and TLS together."""

CONNECTIONS, SPARES, SPARE_S = 400, 2, 60.0
"""Connections at once; how many wait open for a request; how long one may wait."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Spare:
    """A connection that waits for its request, and the wait."""

    stream: httpcore.AsyncNetworkStream
    wait: trio.CancelScope
    claimed: bool = False
    alive: bool = False
    over: trio.Event = field(default_factory=trio.Event)


class Dialler(httpcore.AsyncNetworkBackend):
    """Opens connections to one server, and hands out the spare ones first."""

    def __init__(
        self,
        url: httpx.URL,
        tls: ssl.SSLContext | None,
        nursery: trio.Nursery,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._host = url.raw_host.decode("ascii")
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self.tls = tls
        self._nursery = nursery
        self._backend = backend or httpcore.TrioBackend()
        self._spares: list[_Spare] = []
        self._opening = 0
        self._news = trio.Event()

    @property
    def spares(self) -> int:
        """How many wait, or will in a moment."""
        return len(self._spares) + self._opening

    def open_spare(self) -> None:
        """Open one in the background."""
        self._opening += 1
        self._nursery.start_soon(self._keep)

    async def opened(self) -> None:
        """Return when a spare stands, or none is being opened any more."""
        while self._opening and not self._spares:
            await self._news.wait()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Give the pool what it asks for: a spare, or a new one.  TLS is up already."""
        stream = await self._claimed()
        if stream is None:
            stream = await self._connected()
        return _Secured(stream) if self.tls else stream

    async def _connected(self) -> httpcore.AsyncNetworkStream:
        """Connect.  httpcore's own way leaves the socket open if TLS is cancelled."""
        deadline = trio.current_time() + CONNECT_S
        try:
            stream = await self._backend.connect_tcp(self._host, self._port, CONNECT_S)
        except ValueError:  # from encodings.idna, for a name that is none
            raise httpcore.ConnectError("no such name") from None
        if self.tls is None:
            return stream
        secured = None
        try:
            left = max(0, deadline - trio.current_time())
            secured = await stream.start_tls(self.tls, self._host, left)
        finally:
            if secured is None:
                await stream.aclose()
        return secured

    async def _claimed(self) -> httpcore.AsyncNetworkStream | None:
        """Take a spare that is alive, the newest first; None if there is none."""
        while self._spares:
            spare = self._spares.pop()
            spare.claimed = True
            spare.wait.cancel()
            with trio.CancelScope(shield=True):  # at once: its wait is cancelled
                await spare.over.wait()
            if spare.alive:
                return spare.stream
        return None

    async def _keep(self) -> None:
        """Be one spare: connect, and wait to be claimed, closed by the server, or too old."""
        try:
            stream = await self._connected()
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
            _log.debug("no spare connection to %s: %s", self._host, type(error).__name__)
            return
        finally:
            self._opening -= 1
            self._news, news = trio.Event(), self._news
            news.set()
        spare = _Spare(stream, trio.CancelScope(deadline=trio.current_time() + SPARE_S))
        self._spares.append(spare)
        try:
            with spare.wait:
                await self._ended(stream)
            spare.alive = spare.claimed and spare.wait.cancelled_caught
        finally:
            spare.over.set()
            if not spare.claimed:
                self._spares.remove(spare)
            if not spare.alive:
                await stream.aclose()

    async def _ended(self, stream: httpcore.AsyncNetworkStream) -> None:
        """Return when the server closes, or speaks out of turn."""
        try:
            await stream.read(1)
        except httpcore.NetworkError:
            pass


class _Secured(httpcore.AsyncNetworkStream):
    """What the pool takes for a TCP stream, and asks for its TLS."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return the stream, whose TLS stands."""
        return self._stream


class Connections(httpx.AsyncBaseTransport):
    """The transport of an `httpx.AsyncClient` that talks to one server, by HTTP/1.1."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=dialler.tls,
            max_connections=CONNECTIONS,
            keepalive_expiry=SPARE_S,
            network_backend=dialler,
        )
        self._used = trio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; raise what httpx raises."""
        url, content = request.url, _Question(await request.aread())
        self._used.set()
        lost = True
        try:
            with _as_httpx():
                answer = await self._pool.handle_async_request(
                    httpcore.Request(
                        request.method,
                        httpcore.URL(
                            scheme=url.raw_scheme,
                            host=url.raw_host,
                            port=url.port,
                            target=url.raw_path,
                        ),
                        headers=request.headers.raw,
                        content=content,
                        extensions=request.extensions,
                    )
                )
            lost = False
        except httpx.TransportError:
            lost = False  # the server's doing: no haste to have another
            raise
        finally:
            if lost:
                self.top_up()
        assert isinstance(answer.stream, AsyncIterable)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Answer(answer.stream, self.top_up),
            extensions=answer.extensions,
        )

    def top_up(self) -> None:
        """Open in the background what is missing to `SPARES` connections without a request."""
        idle = sum(link.is_idle() and not link.has_expired() for link in self._pool.connections)
        for _ in range(SPARES - idle - self._dialler.spares):
            self._dialler.open_spare()

    async def warm_up(self) -> None:
        """Return when a connection stands, or none can be had; never raises for that."""
        self.top_up()
        await self._dialler.opened()

    async def close_old(self) -> None:
        """Close idle connections when they are too old, for ever."""
        while True:
            await self._used.wait()
            self._used = trio.Event()
            while not all(link.is_closed() for link in self._pool.connections):
                await trio.sleep(SPARE_S / 4)
                for link in self._pool.connections:
                    if link.is_idle() and link.has_expired():
                        await link.aclose()

    async def aclose(self) -> None:
        """Close all that the pool holds."""
        await self._pool.aclose()


class _Question:
    """A request's body, whole.

    httpx and httpcore have generators for that, which a send that fails leaves to the collector.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._left: list[bytes] = []

    def __aiter__(self) -> _Question:
        self._left = [self._body]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class _Answer(httpx.AsyncByteStream):
    """A response's body; calls `lost` if it is left before its end, for that costs a connection."""

    def __init__(self, stream: AsyncIterable[bytes], lost: Callable[[], None]) -> None:
        self._stream = stream
        self._pieces = aiter(stream)
        self._lost = lost
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            with _as_httpx():
                return await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            raise

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        await self._stream.aclose()  # type: ignore[attr-defined]  # httpcore's streams have it
        if not self._ended:
            self._ended = True
            self._lost()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error


@functools.cache
def _public_authorities() -> ssl.SSLContext:
    """Read the certificates that everybody trusts, once: it takes 25 ms."""
    return httpx.create_ssl_context(trust_env=False)


@asynccontextmanager
async def open_connections(
    url: httpx.URL, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Connections]:
    """Open a pool to the server of `url`; no connection is made before one is needed.

    `tls` is for servers with a certificate of their own authority.  What is raised inside comes out
    as it is, not in a group.
    """
    if url.scheme == "https" and tls is None:
        tls = _public_authorities()
    if tls is not None:
        tls.set_alpn_protocols(["http/1.1"])
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            connections = Connections(Dialler(url, tls, nursery))
            nursery.start_soon(connections.close_old)
            yield connections
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        failure = group.exceptions[0]
    if failure is not None:
        raise failure
