"""The stream under a media WebSocket: what stands between the WebSocket library and the network.

Rules that hold here:

* The library sees a request that we wrote, not the peer's: it decodes the peer's headers with
  codecs whose errors nothing catches.
* A write is never torn: it is shielded, and has a deadline instead.  A peer that takes nothing for
  `SEND_S` loses its connection.
* A peer that sends too much is not read.  One that breaks a limit is reported once to `on_offence`
  and read on without a word, so that its close frame does not get lost in a reset.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import trio

from ..call.line import CLOSE_S, SEND_S
from ..errors import LineClosed, RemoteProtocolError
from .frames import FrameBudget, FrameScanner
from .limits import (
    FRAME_BURST,
    FRAME_RATE,
    LINGER_S,
    MEDIA_READ_BYTES,
    MEDIA_SEND_BUFFER,
    MESSAGE_BYTES,
    MESSAGE_FRAGMENTS,
    THROTTLED_S,
)

HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
CLOSE_FRAME = b"\x88"

INBOX_MESSAGES = 64
"""Messages that wait for the line; full: the peer is not read."""

Offence = Callable[[RemoteProtocolError], None]


class MediaTransport(trio.abc.Stream):
    """A connection that was upgraded.  `early` is what the peer sent behind its request."""

    def __init__(
        self, transport: trio.abc.Stream, key: str, early: bytes, on_offence: Offence
    ) -> None:
        self._transport = transport
        self._handshake = HANDSHAKE.format(key=key).encode()
        self._accepted = trio.Event()
        self._early = early
        self._inbox, self.inbox = trio.open_memory_channel[str | int](INBOX_MESSAGES)
        """Messages in order; a number: the next so many are the library's."""
        self._on_offence = on_offence
        self._scanner = FrameScanner(MESSAGE_BYTES, MESSAGE_FRAGMENTS)
        self._budget = FrameBudget(FRAME_RATE, FRAME_BURST, trio.current_time())
        self._resume_at = 0.0
        self._unsent = b""
        self._close_sent = False
        self._closing = False
        self._senders = 0
        self._send_lock = trio.Lock()
        self._closed = trio.Event()
        self._reading_out: trio.Event | None = None
        self.listening = False
        """Whether we wait for the peer to send something."""
        self.heard_at = trio.current_time()
        """When the peer last sent anything."""
        self.failure_code: Callable[[], int | None] = lambda: None
        """Says with which code the WebSocket layer gave up, if it did without a close frame."""
        _prepare(transport)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes that the WebSocket layer may see; empty at the end."""
        if self._handshake:
            handshake, self._handshake = self._handshake, b""
            await trio.lowlevel.checkpoint()
            return handshake
        if not self._accepted.is_set():
            await self._accepted.wait()
        if self._resume_at:
            await trio.sleep_until(self._resume_at)
            self._resume_at = 0.0
        try:
            return await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._inbox.close()
            raise

    async def _receive(self) -> bytes:
        """Read until there is something for the library; the plain messages are for the line."""
        while True:
            data = await self._read()
            try:
                rest = await self._take(data)
            except RemoteProtocolError as offence:
                self._on_offence(offence)
                self._reading_out = trio.Event()
                await self._read_to_the_end()
                self._reading_out.set()
                rest = data = b""
            if rest or not data:
                if not data:
                    self._inbox.close()
                return rest
            if self._resume_at:
                await trio.sleep_until(self._resume_at)
                self._resume_at = 0.0

    async def _take(self, data: bytes) -> bytes:
        """Put plain messages into the inbox, in order with the library's; return what is its."""
        texts, rest = self._scanner.plain_texts(data)
        before = self._scanner.messages
        frames = len(texts) + self._scanner.feed(rest)
        now = self.heard_at = trio.current_time()
        wait = self._budget.spend(frames, now)
        if wait:
            self._resume_at = now + wait
            if self._budget.strained_for(now) > THROTTLED_S:
                raise RemoteProtocolError("too many messages", 1008)
        try:
            for text in texts:
                await self._inbox.send(text)
            if self._scanner.messages > before:
                await self._inbox.send(self._scanner.messages - before)
        except trio.BrokenResourceError:
            pass  # nobody listens any more
        return rest

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` whole, even if the caller is cancelled meanwhile.

        Raises:
            BrokenResourceError: the peer is gone, or took nothing for `SEND_S`.
        """
        self._close_sent = self._close_sent or bytes(data[:1]) == CLOSE_FRAME
        self._senders += 1
        try:
            with trio.CancelScope(deadline=trio.current_time() + SEND_S, shield=True) as patience:
                async with self._send_lock:
                    data, self._unsent = self._unsent + data, b""
                    await self._transport.send_all(data)
        finally:
            self._senders -= 1
        if patience.cancelled_caught:
            await self.abort()
            raise trio.BrokenResourceError(f"nothing taken for {SEND_S:.0f} s")
        self._accepted.set()

    @property
    def has_unsent(self) -> bool:
        """Whether the kernel took only a part of what `write_now` was given."""
        return bool(self._unsent)

    async def flush(self) -> None:
        """Send what the kernel had no room for.

        Raises:
            LineClosed: the peer is gone, or took nothing for `SEND_S`.
        """
        try:
            await self.send_all(b"")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LineClosed(str(error)) from None

    def write_now(self, frames: bytes) -> bool:
        """Write whole frames without waiting; return false if that is not possible now.

        What the kernel has no room for is kept, and goes first when anything else is sent.
        """
        if self._unsent or self._senders or self._close_sent or not self._accepted.is_set():
            return False
        if not isinstance(self._transport, trio.SocketStream):
            return False
        try:
            written = os.write(self._transport.socket.fileno(), frames)
        except OSError:
            return False  # full, or broken: the way that waits finds out which
        self._unsent = frames[written:]
        return True

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for more."""
        await self._transport.wait_send_all_might_not_block()

    async def abort(self) -> None:
        """Drop the connection now; whoever reads or writes it notices."""
        if isinstance(self._transport, trio.SocketStream):
            # Reset instead of lingering: the kernel forgets what the peer never took.
            try:
                self._transport.setsockopt(
                    trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            except OSError:
                pass  # closed already
        await trio.aclose_forcefully(self._transport)

    async def aclose(self) -> None:
        """Close in order: the close frame that may be due, the end of our side, then the rest."""
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        try:
            with trio.move_on_after(CLOSE_S):
                code = self.failure_code()
                if code in (1002, 1007) and not self._close_sent and not self._senders:
                    # The library closes on a malformed frame without telling the peer.
                    await self._transport.send_all(
                        self._unsent + CLOSE_FRAME + struct.pack("!BH", 2, code)
                    )
                if self._reading_out is not None:
                    await self._reading_out.wait()
                agreed = self._close_sent and self._scanner.closed
                if not agreed and not self.listening and not self._senders:
                    await linger(self._transport)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            self._closed.set()
            await trio.aclose_forcefully(self._transport)

    async def _read(self) -> bytes:
        if self._early:
            data, self._early = self._early[:MEDIA_READ_BYTES], self._early[MEDIA_READ_BYTES:]
            await trio.lowlevel.checkpoint()
            return data
        self.listening = True
        try:
            return bytes(await self._transport.receive_some(MEDIA_READ_BYTES))
        finally:
            self.listening = False

    async def _read_to_the_end(self) -> None:
        with trio.move_on_after(CLOSE_S):
            while not self._scanner.closed and (data := await self._read()):
                try:
                    self._scanner.feed(data)
                except RemoteProtocolError:
                    continue


async def linger(transport: trio.abc.Stream) -> None:
    """End our side and read on for a moment.

    Closing a socket with unread bytes resets it, and a reset can overtake the last response.
    """
    left = 16 * MESSAGE_BYTES
    try:
        with trio.move_on_after(LINGER_S):
            if isinstance(transport, trio.abc.HalfCloseableStream):
                await transport.send_eof()
            while left > 0 and (data := await transport.receive_some(MESSAGE_BYTES)):
                left -= len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the peer has closed already


def _prepare(transport: trio.abc.Stream) -> None:
    if isinstance(transport, trio.SocketStream):
        try:
            transport.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, MEDIA_SEND_BUFFER)
        except OSError:
            pass  # the peer has gone; the first read says so
