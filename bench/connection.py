"""One caller's connection: the socket, the WebSocket, the carrier's playback buffer."""

from __future__ import annotations

import socket
import time
from typing import Protocol

from client import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    BadStream,
    CountedBuffer,
    FrameReader,
    Stream,
    frame,
)

CONNECT_S = 5.0


class Listener(Protocol):
    """Who is told what comes over a connection.  Times are those of `time.perf_counter`."""

    def opened(self, now: float) -> None:
        """The stream has begun."""

    def heard(self, message: bytes, size: int, now: float) -> None:
        """A media message with so many bytes of audio has come."""

    def cleared(self, now: float) -> None:
        """`clear` has come."""

    def lost(self, why: str, *, broken: bool) -> None:
        """The connection has ended: by the server, or because something broke.  Once."""


class Connection:
    """A non-blocking connection to the server.  `ready` when readable, `tick` every 20 ms."""

    def __init__(self, place: tuple[str, int, str], number: int, listener: Listener) -> None:
        host, port, path = place
        self._listener = listener
        self._stream = Stream(number)
        self._reader = FrameReader()
        self._handshake = b""
        self.buffer = CountedBuffer()
        self.is_open = self.is_over = False
        self._sock = socket.create_connection((host, port), timeout=CONNECT_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(UPGRADE.format(path=path, host=host, port=port).encode())
        self._sock.setblocking(False)
        self.fd = self._sock.fileno()

    def tick(self, payload: bytes) -> None:
        """Say 20 ms, base64, and hear 20 ms."""
        self._send(self._stream.media(payload))
        self._echo(self.buffer.play())

    def ready(self) -> None:
        """Take what the server has sent."""
        try:
            data = self._sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"receive: {error}")
            return
        if not data:
            self._lose("the server closed", broken=False)
            return
        try:
            self._take(data, time.perf_counter())
        except BadStream as error:
            self._lose(str(error))

    def hang_up(self) -> None:
        """Say `stop`, and begin to close."""
        if self.is_open and not self.is_over:
            self._send(self._stream.stop() + frame(b"\x03\xe8", CLOSE))

    def close(self) -> None:
        """Let go of the socket."""
        self.is_over = True
        self._sock.close()

    def _take(self, data: bytes, now: float) -> None:
        if not self.is_open:
            data = self._take_handshake(data, now)
        for head, payload in self._reader.feed(data):
            if head == TEXT:
                self._understand(payload, now)
            elif head == PING:
                self._send(frame(payload, PONG))
            elif head == CLOSE:
                code = int.from_bytes(payload[:2])
                self._lose(f"close {code} {payload[2:].decode(errors='replace')}", broken=False)
                return

    def _take_handshake(self, data: bytes, now: float) -> bytes:
        self._handshake += data
        head, end, rest = self._handshake.partition(b"\r\n\r\n")
        if not end:
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            raise BadStream(f"not upgraded: {head[:60]!r}")
        self.is_open = True
        self._listener.opened(now)
        self._send(self._stream.opening())
        return rest

    def _understand(self, message: bytes, now: float) -> None:
        event, value = self._stream.understand(message)
        if event == "media":
            assert isinstance(value, int)
            self.buffer.media(value)
            self._listener.heard(message, value, now)
        elif event == "mark":
            self._echo(self.buffer.mark(str(value)))
        else:
            self._echo(self.buffer.clear())
            self._listener.cleared(now)

    def _echo(self, names: list[str]) -> None:
        for name in names:
            self._send(self._stream.mark(name))

    def _send(self, data: bytes) -> None:
        if self.is_over:
            return
        try:
            if self._sock.send(data) != len(data):
                self._lose("the server reads too slowly")
        except OSError as error:
            self._lose(f"send: {error}")

    def _lose(self, why: str, *, broken: bool = True) -> None:
        if not self.is_over:
            self.is_over = True
            self._listener.lost(why, broken=broken)
