"""The stream under a media WebSocket: what stands between the WebSocket library and the network.

Rules that hold here:

* The library sees a request that we wrote, not the peer's: it decodes the peer's headers with
  codecs whose errors nothing catches.
* A write is never torn: it is shielded, and has a deadline instead.  A peer that takes nothing for
  `SEND_S` loses its connection.
* A peer that sends too much is not read.  One that breaks a limit is closed, and read on until its
  own close frame, so that ours does not get lost in a reset.
* The line reads (`read`, then `drain` while it closes); the library gets what is not plain.
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


class MediaTransport(trio.abc.Stream):
    """A connection that was upgraded.  `early` is what the peer sent behind its request."""

    def __init__(self, transport: trio.abc.Stream, key: str, early: bytes) -> None:
        self._transport = transport
        self._socket = transport.socket if isinstance(transport, trio.SocketStream) else None
        self._handshake = HANDSHAKE.format(key=key).encode()
        self._accepted = False
        self._early = early
        self._to_library, self._for_library = trio.open_memory_channel[bytes](0)
        self._scanner = FrameScanner(MESSAGE_BYTES, MESSAGE_FRAGMENTS)
        self._budget = FrameBudget(FRAME_RATE, FRAME_BURST, trio.current_time())
        self._resume_at = 0.0
        self._unsent = b""
        self._close_sent = False
        self._closing = False
        self._senders = 0
        self._send_lock = trio.Lock()
        self._closed = trio.Event()
        self._peer_gone = trio.Event()
        self.listening = False
        """Whether we wait for the peer to send something."""
        self.heard_at = trio.current_time()
        """When the peer last sent anything."""
        self.failure_code: Callable[[], int | None] = lambda: None
        """Says with which code the WebSocket layer gave up, if it did without a close frame."""
        _prepare(transport)

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

    async def read(self) -> tuple[list[str], int]:
        """Read once: return the plain messages, and how many the library has got after them.

        At the end the library has one more, the news of it.

        Raises:
            RemoteProtocolError: the peer breaks a limit; its `close_code` says which.
        """
        if self._resume_at:
            await trio.sleep_until(self._resume_at)
            self._resume_at = 0.0
        data = await self._read()
        before = self._scanner.messages
        texts, rest = self._scanner.plain_texts(data)
        frames = len(texts) + self._scanner.feed(rest)
        now = self.heard_at = trio.current_time()
        if wait := self._budget.spend(frames, now):
            self._resume_at = now + wait
            if self._budget.strained_for(now) > THROTTLED_S:
                raise RemoteProtocolError("too many messages", 1008)
        if rest or not data:
            await self._pass_on(rest)
        ended = not data or self._scanner.closed
        return texts, self._scanner.messages - before + ended

    async def drain(self) -> None:
        """Read on until the peer's close frame or its end; the library gets that, and all else."""
        while not self._scanner.closed:
            data = await self._read()
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
        self._accepted = True

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
        if self._unsent or self._senders or self._close_sent or not self._accepted:
            return False
        if self._socket is None:
            return False
        try:
            written = os.write(self._socket.fileno(), frames)
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
                agreed = self._close_sent and self._scanner.closed
                if not agreed and not self._senders:
                    await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            self._closed.set()
            self._to_library.close()
            await trio.aclose_forcefully(self._transport)

    async def _linger(self) -> None:
        """End our side, and let the peer end its own: by the line, if that is reading, or by us."""
        if not self.listening:
            await linger(self._transport)
        elif isinstance(self._transport, trio.abc.HalfCloseableStream):
            await self._transport.send_eof()
            with trio.move_on_after(LINGER_S):
                await self._peer_gone.wait()

    async def _read(self) -> bytes:
        """Return what the peer has sent; empty when it has gone, in whatever way."""
        if self._early:
            data, self._early = self._early[:MEDIA_READ_BYTES], self._early[MEDIA_READ_BYTES:]
            await trio.lowlevel.checkpoint()
            return data
        self.listening = True
        try:
            data = await self._read_socket()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        finally:
            self.listening = False
        if not data:
            self._peer_gone.set()
        return data

    async def _read_socket(self) -> bytes:
        if self._socket is None:
            return bytes(await self._transport.receive_some(MEDIA_READ_BYTES))
        # trio's own way tries to read first, which here is nearly always too early: another
        # system call, and three times the Python.
        await trio.lowlevel.wait_readable(self._socket)
        return os.read(self._socket.fileno(), MEDIA_READ_BYTES)


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
