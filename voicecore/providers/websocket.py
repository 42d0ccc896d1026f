"""WebSockets to a vendor, as a phone call needs them: deadlines, bounds, one door for errors.

* The library runs its reader in our nursery, and lets exceptions of its own, of its parsers and of
  TLS out of it.  Here the reader is contained: whatever ends it, ends the connection and no more.
* A message is never torn: sending is shielded from cancels, and has a deadline instead.
* Leaving takes `CLOSE_S` at most: the vendor's goodbye, the closing handshake, then the socket.
* No proxies from the environment, no redirects (a key must not travel), no compression.
"""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import h11
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from ..errors import ProviderError
from .http import CONNECT_S, error_code

SEND_S = 5.0
"""How long a vendor may take to accept one message; live audio is worth nothing after that."""

CLOSE_S = 0.5
MESSAGE_BYTES = 1 << 20
MESSAGES = 64
"""That wait to be received; while there is room, pings are answered."""


class Refusal(ProviderError):
    """The vendor does not want us: asking again at once will not help."""


class Closed(ProviderError):
    """The connection has ended; `code` is the vendor's close code, if there was one."""

    def __init__(self, provider: str, detail: str, code: int | None = None) -> None:
        super().__init__(provider, "cut", detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a vendor is, as a ``ws`` or ``wss`` URL, with which headers, and how to say goodbye."""

    provider: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    goodbye: str = ""
    message_bytes: int = MESSAGE_BYTES
    """The longest message that it may send."""


Connect = Callable[[str, int, bool], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and a port, with TLS or without."""


async def connect_tcp(host: str, port: int, tls: bool) -> trio.abc.Stream:
    """Open a connection over the network.

    Raises:
        OSError, trio.BrokenResourceError, ValueError: there is none to be had.
    """
    stream = await trio.open_tcp_stream(host, port)
    if not tls:
        return stream
    context = await trio.to_thread.run_sync(_tls_context)  # reads every root certificate
    secure = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await secure.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secure


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Reader:
    """The nursery that the library is given for its reader task: one that cannot fail.

    `opening` is cancelled when the reader ends, because the library would wait for the upgrade for
    ever on a connection that is gone.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.opening = trio.CancelScope()
        self.failure: Exception | None = None
        self._nursery = nursery

    def start_soon(self, read: Callable[[], Awaitable[None]]) -> None:
        """Start the reader."""
        self._nursery.start_soon(self._run, read, name="reader")

    async def _run(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await read()
        except _READER_FAILURES as error:
            self.failure = error
        self.opening.cancel()


_READER_FAILURES = (
    trio_websocket.HandshakeError,
    trio_websocket.ConnectionClosed,
    RemoteProtocolError,
    LocalProtocolError,
    h11.ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    OSError,  # TLS too
    ValueError,  # UnicodeError too
)


class WebSocket:
    """An open WebSocket to a vendor."""

    def __init__(self, provider: str, websocket: trio_websocket.WebSocketConnection) -> None:
        self._provider = provider
        self._websocket = websocket

    @property
    def is_closed(self) -> bool:
        """Whether it is known that the other side is gone."""
        return self._websocket.closed is not None

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            Closed: there will be none.
        """
        try:
            return await self._websocket.get_message()
        except trio_websocket.ConnectionClosed:
            raise self._end() from None

    async def send(self, message: str | bytes) -> None:
        """Send a message, whole, even if the caller is cancelled meanwhile.

        Raises:
            Closed: it cannot be sent any more.
            ProviderError: timeout: the vendor takes nothing.
        """
        with trio.CancelScope(deadline=trio.current_time() + SEND_S, shield=True) as patience:
            try:
                await self._websocket.send_message(message)
            except (trio_websocket.ConnectionClosed, LocalProtocolError, OSError):
                raise self._end() from None
        if patience.cancelled_caught:  # half a frame may be out: nothing more can be
            await trio.aclose_forcefully(self._websocket)
            raise ProviderError(self._provider, "timeout", f"took nothing for {SEND_S:g} s")

    async def ping(self) -> None:
        """Return when the other side has answered a ping; hold no deadline.

        Raises:
            Closed: it is gone.
        """
        try:
            await self._websocket.ping()
        except (trio_websocket.ConnectionClosed, LocalProtocolError, OSError):
            raise self._end() from None

    async def leave(self, goodbye: str) -> None:
        """Say goodbye and close; after `CLOSE_S` without the vendor's consent."""
        with trio.CancelScope(deadline=trio.current_time() + CLOSE_S, shield=True):
            try:
                if goodbye and not self.is_closed:
                    await self._websocket.send_message(goodbye)
                await self._websocket.aclose()
            except (trio_websocket.ConnectionClosed, LocalProtocolError, OSError):
                pass  # closed by the vendor at the same moment

    def _end(self) -> Closed:
        reason = self._websocket.closed
        if reason is None or reason.code == 1006:
            return Closed(self._provider, "the connection broke")
        # Vendors write codes such as NET-0001, but prose too, which may quote what we sent.
        text = reason.reason or ""
        known = f" {text}" if re.fullmatch(r"[A-Z0-9_-]{1,30}", text) else ""
        return Closed(self._provider, f"closed with {reason.code}{known}", reason.code)


@asynccontextmanager
async def open_websocket(
    endpoint: Endpoint, connect: Connect = connect_tcp
) -> AsyncIterator[WebSocket]:
    """Connect to `endpoint`; leaving says goodbye and closes.

    A `ProviderError` raised inside comes out as it is, in no exception group.

    Raises:
        Refusal: the vendor answered the upgrade with an error that is ours.
        ProviderError: connect, timeout, status, cut, garbage.
    """
    failed: ProviderError | None = None
    async with trio.open_nursery() as nursery:
        try:
            stream, websocket = await _opened(nursery, endpoint, connect)
            socket = WebSocket(endpoint.provider, websocket)
            try:
                yield socket
            finally:
                await socket.leave(endpoint.goodbye)
                # The library leaves it open where the vendor closed first.
                await trio.aclose_forcefully(stream)
        except ProviderError as error:  # which the nursery would wrap
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed


async def _opened(
    nursery: trio.Nursery, endpoint: Endpoint, connect: Connect
) -> tuple[trio.abc.Stream, trio_websocket.WebSocketConnection]:
    provider = endpoint.provider
    with trio.move_on_after(CONNECT_S):
        try:
            url = urlsplit(endpoint.url)
            tls, host = url.scheme == "wss", url.hostname or ""
            stream = await connect(host, url.port or (443 if tls else 80), tls)
        except (OSError, ValueError, trio.BrokenResourceError):
            raise ProviderError(provider, "connect", "no connection") from None
        try:
            return stream, await _upgraded(nursery, endpoint, stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
    raise ProviderError(provider, "timeout", f"no connection within {CONNECT_S:g} s")


async def _upgraded(
    nursery: trio.Nursery, endpoint: Endpoint, stream: trio.abc.Stream
) -> trio_websocket.WebSocketConnection:
    url = urlsplit(endpoint.url)
    reader = _Reader(nursery)
    with reader.opening:
        return await trio_websocket.wrap_client_stream(
            cast("trio.Nursery", reader),
            cast("trio.SocketStream", stream),  # any stream will do
            url.netloc.rpartition("@")[2],
            (url.path or "/") + (f"?{url.query}" if url.query else ""),
            extra_headers=[(name.encode(), value.encode()) for name, value in endpoint.headers],
            message_queue_size=MESSAGES,
            max_message_size=endpoint.message_bytes,
        )
    failure = reader.failure
    if isinstance(failure, trio_websocket.ConnectionRejected):
        raise _refused(endpoint.provider, failure)
    if failure is None or isinstance(failure, (trio_websocket.ConnectionClosed, OSError)):
        raise ProviderError(endpoint.provider, "cut", "the connection broke before the upgrade")
    raise ProviderError(endpoint.provider, "garbage", f"no upgrade: {type(failure).__name__}")


def _refused(provider: str, rejection: trio_websocket.ConnectionRejected) -> ProviderError:
    """Return what an answer other than 101 means."""
    status = rejection.status_code
    detail = f"HTTP {status} {error_code(rejection.body or b'')}".rstrip()
    if status in (401, 402, 403):
        return Refusal(provider, "refused", detail)
    if status == 429:
        return Refusal(provider, "busy", detail)
    return (ProviderError if status >= 500 else Refusal)(provider, "status", detail)
