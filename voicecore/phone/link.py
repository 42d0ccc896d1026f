"""The phone's end of a media WebSocket: what a call needs of it, and a real one over sockets.

Errors of sockets, TLS and handshakes become two here: `LineClosed` (there is no line) and
`RemoteProtocolError` (something answers, but not as a media stream does).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

import trio
import trio_websocket

from ..errors import LineClosed, RemoteProtocolError

CONNECT_S = 5.0
CLOSE_S = 5.0
SEND_S = 10.0
"""A server that takes nothing for so long is given up."""
MAX_MESSAGE_BYTES = 1 << 20
USER_AGENT = "Twilio.TmeWs/1.0"

_Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Link(Protocol):
    """A text-message connection, already open."""

    async def send(self, text: str) -> None:
        """Send one message, whole or not at all.

        Raises:
            LineClosed: the server is gone.
        """

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            LineClosed: the server has closed; the message has the close code.
        """

    async def aclose(self) -> None:
        """Close with code 1000.  Takes a few seconds at most and never raises."""


class WebSocketLink:
    """A `Link` over trio-websocket."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket

    async def send(self, text: str) -> None:
        """Send one message; shielded, for half a frame would break the connection."""
        try:
            with trio.fail_after(SEND_S, shield=True):
                await self._socket.send_message(text)
        except trio.TooSlowError:
            raise LineClosed(f"the server took nothing for {SEND_S:.0f} s") from None
        except trio_websocket.ConnectionClosed as closed:
            raise _line_closed(closed) from None

    async def receive(self) -> str | bytes:
        """Return the next message."""
        try:
            message: str | bytes = await self._socket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise _line_closed(closed) from None
        return message

    async def aclose(self) -> None:
        """Close with code 1000, with a deadline."""
        with trio.move_on_after(CLOSE_S, shield=True):
            await self._socket.aclose()


def _line_closed(closed: trio_websocket.ConnectionClosed) -> LineClosed:
    reason = closed.reason
    if reason is None:
        return LineClosed("closed")
    words = f": {reason.reason}" if reason.reason else ""
    return LineClosed(f"{reason.code}{words}")


@asynccontextmanager
async def open_link(url: str, headers: Mapping[str, str]) -> AsyncIterator[WebSocketLink]:
    """Open a media stream's WebSocket with a real upgrade's headers and those given.

    Raises:
        LineClosed: nobody is there (Twilio's 31901, 31902, 31910).
        RemoteProtocolError: an answer other than 101 (31920).
    """
    # The TCP stream is ours to close: trio-websocket leaves it open when the server closed first.
    async with await _dial(url) as stream:
        try:
            async with trio.open_nursery() as nursery:
                link = WebSocketLink(await _upgrade(nursery, stream, url, headers))
                try:
                    yield link
                finally:
                    await link.aclose()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            _raise_known(group, url)
            raise


async def _dial(url: str) -> _Stream:
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        with trio.fail_after(CONNECT_S):
            if not secure:
                return await trio.open_tcp_stream(host, port)
            stream = await trio.open_ssl_over_tcp_stream(host, port, https_compatible=True)
            async with AsyncExitStack() as unless_it_fails:
                unless_it_fails.push_async_callback(trio.aclose_forcefully, stream)
                await stream.do_handshake()
                unless_it_fails.pop_all()
            return stream
    except trio.TooSlowError:
        raise LineClosed(f"31901: {url}: no connection within {CONNECT_S:.0f} s") from None
    except trio.BrokenResourceError as error:
        raise LineClosed(f"31910: {url}: no TLS ({error.__cause__ or error})") from None
    except OSError as error:
        raise LineClosed(
            f"31902: cannot reach {url} ({error}); start the server (python server.py) "
            "or check the URL"
        ) from None


async def _upgrade(
    nursery: trio.Nursery, stream: _Stream, url: str, headers: Mapping[str, str]
) -> trio_websocket.WebSocketConnection:
    names = {"user-agent": USER_AGENT, **headers, "accept-encoding": "gzip"}
    parts = urlsplit(url)
    try:
        with trio.fail_after(CONNECT_S):
            return await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                parts.netloc.rpartition("@")[2],
                parts.path or "/",
                extra_headers=[(name.encode(), value.encode()) for name, value in names.items()],
                max_message_size=MAX_MESSAGE_BYTES,
            )
    except trio.TooSlowError:
        raise LineClosed(
            f"31920: {url}: no WebSocket within {CONNECT_S:.0f} s; is a media stream served there?"
        ) from None


def _raise_known(group: BaseExceptionGroup[BaseException], url: str) -> None:
    """Take the one error out of a nursery's group that a caller of `open_link` can expect."""
    for error in group.exceptions:
        if isinstance(error, trio_websocket.ConnectionRejected):
            status = error.status_code
            raise RemoteProtocolError(f"31920: {url} answered {status}, not 101") from None
        if isinstance(error, LineClosed):
            raise error from None
