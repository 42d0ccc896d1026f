"""A trio-websocket connection as a call's line.

The library's own promises end where a cancel or a stuck peer begins: a message cancelled on its way
out tears the stream, and a send to a peer that reads nothing waits for ever.  So every send here is
shielded, and has a deadline instead.
"""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import LocalProtocolError

from ..errors import LineClosed

SEND_S = 15.0
"""How long the carrier may take to accept one message.  Then it is stuck, and its call ends."""

CLOSE_S = 2.0
"""How long we wait for the carrier's half of the closing handshake."""

_REASON_BYTES = 120


class WebSocketLine:
    """A `Line` over a WebSocket that is open.

    `write_now`, where the transport offers it, takes bytes without waiting, and says whether it
    took them: whole WebSocket frames, between those of the library.  Fifty frames a second a call
    make it worth while: the library's way costs three times as much as the write itself.
    """

    def __init__(
        self,
        websocket: WebSocketConnection,
        write_now: Callable[[bytes], bool] = lambda data: False,
    ) -> None:
        self._websocket = websocket
        self._write_now = write_now

    async def receive(self) -> str:
        """Return the next text message.

        Carriers send no binary messages.  One is returned as an empty text, which the wire counts
        as a bad message like any other.

        Raises:
            LineClosed: the carrier is gone.
        """
        try:
            message = await self._websocket.get_message()
        except ConnectionClosed as error:
            raise LineClosed(_why(error)) from None
        return message if isinstance(message, str) else ""

    async def send(self, *texts: str) -> None:
        """Send messages, each whole, even if the caller is cancelled meanwhile.

        Raises:
            LineClosed: the carrier is gone, or took nothing for `SEND_S`.
        """
        if self._websocket.closed is None and self._write_now(b"".join(map(text_frame, texts))):
            return
        deadline = trio.current_time() + SEND_S
        with trio.CancelScope(deadline=deadline, shield=True) as patience:
            for text in texts:
                await self._send(text)
        if patience.cancelled_caught:
            await trio.aclose_forcefully(self._websocket)
            raise LineClosed(f"the carrier took nothing for {SEND_S:.0f} s")

    async def _send(self, text: str) -> None:
        try:
            await self._websocket.send_message(text)
        except ConnectionClosed as error:
            raise LineClosed(_why(error)) from None
        except LocalProtocolError:
            # The peer's close frame has been read, and the library's state has moved on.
            raise LineClosed("closing") from None

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with a WebSocket code; after `CLOSE_S` without the carrier's consent."""
        short = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        with trio.move_on_after(CLOSE_S):
            try:
                await self._websocket.aclose(code, short or None)
            except (ConnectionClosed, LocalProtocolError):
                pass  # closed by the carrier at the same moment


def text_frame(text: str) -> bytes:
    """Return a server's WebSocket frame of one text message (RFC 6455, section 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes((size,)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def _why(error: ConnectionClosed) -> str:
    reason = error.reason
    if reason is None:
        return "closed"
    return f"closed with {reason.code}" + (f": {reason.reason:.80}" if reason.reason else "")
