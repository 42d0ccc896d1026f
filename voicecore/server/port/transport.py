"""The stream under a media WebSocket: what stands between the WebSocket library and the network.

Rules that hold here:

* The library sees a request that we wrote, not the peer's: it decodes the peer's headers with
  codecs whose errors nothing catches.
* A peer that sends too much is not read.  One that breaks a limit is closed, and read on until its
  own close frame, so that ours does not get lost in a reset.
* The line reads (`read`, then `drain` while it closes); the library gets what is not plain.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import trio

from ...call.line import CLOSE_S
from ...errors import LineClosed, RemoteProtocolError
from .frames import FrameBudget, FrameScanner
from .limits import FRAME_BURST, FRAME_RATE, MESSAGE_BYTES, MESSAGE_FRAGMENTS, THROTTLED_S
from .peer import Peer

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
CLOSE_FRAME = b"\x88"


class MediaTransport(trio.abc.Stream):
    """A connection that was upgraded.  `early` is what the peer sent behind its request."""

    def __init__(self, transport: trio.abc.Stream, key: str, early: bytes) -> None:
        self.peer = Peer(transport, early)
        self._handshake = HANDSHAKE.format(key=key).encode()
        self._to_library, self._for_library = trio.open_memory_channel[bytes](0)
        self._scanner = FrameScanner(MESSAGE_BYTES, MESSAGE_FRAGMENTS)
        self._budget = FrameBudget(FRAME_RATE, FRAME_BURST, trio.current_time())
        self._resume_at = 0.0
        self._accepted = self._close_sent = False
        self._closing = False
        self._closed = trio.Event()
        self.heard_at = trio.current_time()
        """When the peer last sent anything."""
        self.failure_code: Callable[[], int | None] = lambda: None
        """Says with which code the WebSocket layer gave up, if it did without a close frame."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes that the WebSocket library may see; empty at the end."""
        if self._handshake:
            handshake, self._handshake = self._handshake, b""
            await trio.lowlevel.checkpoint()
            return handshake
        try:
            return await self._for_library.receive()
        except trio.EndOfChannel:
            return b""

    async def read(self) -> tuple[list[str | bytes], int]:
        """Read once: return the plain messages, and how many the library has got after them.

        At the end the library has one more, the news of it.

        Raises:
            RemoteProtocolError: the peer breaks a limit; its `close_code` says which.
        """
        if self._resume_at:
            await trio.sleep_until(self._resume_at)
            self._resume_at = 0.0
        data = await self.peer.read()
        before = self._scanner.messages
        messages, rest = self._scanner.plain_messages(data)
        frames = len(messages) + self._scanner.feed(rest)
        now = self.heard_at = trio.current_time()
        if wait := self._budget.spend(frames, now):
            self._resume_at = now + wait
            if self._budget.strained_for(now) > THROTTLED_S:
                raise RemoteProtocolError("too many messages", 1008)
        if rest or not data:
            await self._pass_on(rest)
        ended = not data or self._scanner.closed
        return messages, self._scanner.messages - before + ended

    async def drain(self) -> None:
        """Read on until the peer's close frame or its end; the library gets that, and all else."""
        while not self._scanner.closed:
            data = await self.peer.read()
            try:
                self._scanner.feed(data)
            except RemoteProtocolError:
                continue  # it has been told already
            await self._pass_on(data)
            if not data:
                return

    async def _pass_on(self, data: bytes) -> None:
        try:
            if data:
                await self._to_library.send(data)
            else:
                self._to_library.close()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the library has closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` whole, even if the caller is cancelled meanwhile.

        Raises:
            BrokenResourceError: the peer is gone, or took nothing for a long time.
        """
        self._close_sent = self._close_sent or bytes(data[:1]) == CLOSE_FRAME
        await self.peer.send(data)
        self._accepted = True

    @property
    def has_unsent(self) -> bool:
        """Whether the kernel took only a part of what `write_now` was given."""
        return self.peer.has_unsent

    def write_now(self, frames: bytes) -> bool:
        """Write whole frames, between the library's, without waiting; false: not possible now."""
        return self._accepted and not self._close_sent and self.peer.write_now(frames)

    async def flush(self) -> None:
        """Send what the kernel had no room for.

        Raises:
            LineClosed: the peer is gone, or took nothing for a long time.
        """
        try:
            await self.peer.send(b"")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LineClosed(str(error)) from None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more."""
        await self.peer.wait_room()

    async def aclose(self) -> None:
        """Close in order: the close frame that may be due, the end of our side, then the rest."""
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        try:
            with trio.move_on_after(CLOSE_S):
                code = self.failure_code()
                if code in (1002, 1007) and not self._close_sent and not self.peer.is_sending:
                    # The library closes on a malformed frame without telling the peer.
                    await self.peer.send(CLOSE_FRAME + struct.pack("!BH", 2, code))
                agreed = self._close_sent and self._scanner.closed
                if not agreed and not self.peer.is_sending:
                    await self.peer.linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            self._closed.set()
            self._to_library.close()
            await self.peer.close()
