"""One connection under a media stream: the network's half of `transport`.

Rules that hold here:

* A write is never torn: it is shielded, and has a deadline instead.  A peer that takes nothing for
  `SEND_S` loses its connection.
* Reading says how it ended by an empty result, whatever the way.
"""

from __future__ import annotations

import os
import struct

import trio

from ...call.line import SEND_S
from .limits import LINGER_S, MEDIA_READ_BYTES, MEDIA_SEND_BUFFER, MESSAGE_BYTES


class Peer:
    """The other end.  `early` is what it sent behind its request."""

    def __init__(self, transport: trio.abc.Stream, early: bytes) -> None:
        self._transport = transport
        self._socket = transport.socket if isinstance(transport, trio.SocketStream) else None
        self._early = early
        self._unsent = b""
        self._senders = 0
        self._send_lock = trio.Lock()
        self._gone = trio.Event()
        self.listening = False
        """Whether we wait for it to send something."""
        self._prepare()

    @property
    def is_sending(self) -> bool:
        """Whether something waits for room on its way to the peer."""
        return self._senders > 0

    @property
    def has_unsent(self) -> bool:
        """Whether the kernel took only a part of what `write_now` was given."""
        return bool(self._unsent)

    async def read(self) -> bytes:
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
            self._gone.set()
        return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` whole, behind what is unsent, even if the caller is cancelled meanwhile.

        Raises:
            BrokenResourceError: the peer is gone, or took nothing for `SEND_S`.
        """
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

    def write_now(self, data: bytes) -> bool:
        """Write without waiting; return false if that is not possible now.

        What the kernel has no room for is kept, and goes first when anything else is sent.
        """
        if self._socket is None or self._unsent or self._senders:
            return False
        try:
            written = os.write(self._socket.fileno(), data)
        except OSError:
            return False  # full, or broken: the way that waits finds out which
        self._unsent = data[written:]
        return True

    async def wait_room(self) -> None:
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

    async def close(self) -> None:
        """Close at once."""
        await trio.aclose_forcefully(self._transport)

    async def linger(self) -> None:
        """End our side, and let the peer end its own: somebody reads on, or we do."""
        if not self.listening:
            await linger(self._transport)
        elif isinstance(self._transport, trio.abc.HalfCloseableStream):
            await self._transport.send_eof()
            with trio.move_on_after(LINGER_S):
                await self._gone.wait()

    async def _read_socket(self) -> bytes:
        if self._socket is None:
            return bytes(await self._transport.receive_some(MEDIA_READ_BYTES))
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("we have closed it")  # trio raises a ValueError for it
        # trio's own way tries to read first, which here is nearly always too early: another
        # system call, and three times the Python.
        await trio.lowlevel.wait_readable(self._socket)
        return os.read(self._socket.fileno(), MEDIA_READ_BYTES)

    def _prepare(self) -> None:
        if isinstance(self._transport, trio.SocketStream):
            try:
                self._transport.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
                self._transport.setsockopt(
                    trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, MEDIA_SEND_BUFFER
                )
            except OSError:
                pass  # the peer has gone; the first read says so


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
