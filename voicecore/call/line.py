"""A trio-websocket connection as a call's line.

The library's own promises end where a cancel or a stuck peer begins: a message cancelled on its way
out tears the stream, and a send to a peer that reads nothing waits for ever.  So every send here is
shielded, and has a deadline instead.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import LocalProtocolError

from ..errors import LineClosed

SEND_S = 15.0
"""How long the carrier may take to accept one message.  Then it is stuck, and its call ends."""

CLOSE_S = 2.0
"""How long we wait for the carrier's half of the closing handshake."""

_REASON_BYTES = 120


class Shortcut(Protocol):
    """A way past the WebSocket library, for the messages that come and go fifty times a second.

    The library's way costs three times as much.  What is not plain goes through the library.
    """

    async def read(self) -> tuple[list[str | bytes], int]:
        """Read once: messages, and how many the library has got after them.

        Raises:
            RemoteProtocolError: the peer breaks a limit.
        """

    async def drain(self) -> None:
        """Let the library have what still comes, while it closes."""

    @property
    def has_unsent(self) -> bool:
        """Whether the kernel took only a part of what was written."""

    def write_now(self, frames: bytes) -> bool:
        """Take whole WebSocket frames without waiting; false: not now, nothing was taken."""

    async def flush(self) -> None:
        """Wait until everything that was taken has been sent."""


class WebSocketLine:
    """A `Line` over a WebSocket that is open."""

    def __init__(self, websocket: WebSocketConnection, shortcut: Shortcut | None = None) -> None:
        self._websocket = websocket
        self._shortcut = shortcut
        self._waiting: deque[str | bytes] = deque()
        self._library_has = 0

    async def receive(self) -> str | bytes:
        """Return the next message: text, or bytes if it was binary.

        Raises:
            LineClosed: the carrier is gone.
            RemoteProtocolError: it breaks a limit of the transport.
        """
        if self._shortcut is not None:
            while not self._waiting and not self._library_has:
                messages, self._library_has = await self._shortcut.read()
                self._waiting.extend(messages)
            if self._waiting:
                return self._waiting.popleft()
            self._library_has -= 1
        try:
            message = await self._websocket.get_message()
        except ConnectionClosed as error:
            raise LineClosed(_why(error)) from None
        return message

    async def send(self, *messages: str | bytes) -> None:
        """Send messages, each whole, even if the caller is cancelled meanwhile.

        Raises:
            LineClosed: the carrier is gone, or took nothing for `SEND_S`.
        """
        shortcut = self._shortcut
        if shortcut is not None and self._websocket.closed is None:
            taken = shortcut.write_now(b"".join(map(whole_frame, messages)))
            if taken and not shortcut.has_unsent:
                return
            messages = () if taken else messages
        deadline = trio.current_time() + SEND_S
        with trio.CancelScope(deadline=deadline, shield=True) as patience:
            if shortcut is not None:
                await shortcut.flush()
            for message in messages:
                await self._send(message)
        if patience.cancelled_caught:
            await trio.aclose_forcefully(self._websocket)
            raise LineClosed(f"the carrier took nothing for {SEND_S:.0f} s")

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._websocket.send_message(message)
        except ConnectionClosed as error:
            raise LineClosed(_why(error)) from None
        except LocalProtocolError:
            # The peer's close frame has been read, and the library's state has moved on.
            raise LineClosed("closing") from None

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with a WebSocket code; after `CLOSE_S` without the carrier's consent."""
        short = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        with trio.move_on_after(CLOSE_S):
            async with trio.open_nursery() as nursery:
                if self._shortcut is not None and self._websocket.closed is None:
                    nursery.start_soon(self._shortcut.drain, name="drain")
                try:
                    await self._websocket.aclose(code, short or None)
                except (ConnectionClosed, LocalProtocolError):
                    pass  # closed by the carrier at the same moment
                nursery.cancel_scope.cancel()


def whole_frame(message: str | bytes) -> bytes:
    """Return a server's WebSocket frame of one message (RFC 6455, section 5.2)."""
    if isinstance(message, str):
        head, payload = b"\x81", message.encode()
    else:
        head, payload = b"\x82", message
    size = len(payload)
    if size < 126:
        return head + bytes((size,)) + payload
    if size < 65536:
        return head + b"\x7e" + size.to_bytes(2) + payload
    return head + b"\x7f" + size.to_bytes(8) + payload


def _why(error: ConnectionClosed) -> str:
    reason = error.reason
    if reason is None:
        return "closed"
    return f"closed with {reason.code}" + (f": {reason.reason:.80}" if reason.reason else "")
