"""The inside of an engine process: plain blocking code between two pipes.

The embedded engines are C libraries: a crash of theirs must end no call, and what they compute must
not stall the event loop.  So each runs in a process of its own; `engines` is the other end.

Frames go both ways: one byte of kind, four of length, the payload.

    to the engine     REQUEST payload    one at a time
                      CANCEL             stop what you do; answer DONE all the same
    from the engine   READY              once, when everything is loaded
                      DATA payload       any number an answer
                      DONE | FAILED why  exactly one an answer

An engine ends when its stdin does, so it outlives no parent, however that one died.  It ignores
SIGINT and SIGTERM: both may go to a whole process group, and a draining server needs its engines.
"""

from __future__ import annotations

import os
import select
import signal
import struct
from collections.abc import Callable

HEADER = struct.Struct("<cI")
MAX_PAYLOAD = 4 << 20
"""Bytes.  A minute of mu-law, the longest turn, is a ninth of it."""

REQUEST, CANCEL = b"R", b"C"
READY, DATA, DONE, FAILED = b"L", b"D", b"E", b"F"

NICENESS = 2
"""Speech may come a little later; the audio of running calls may not."""


class EngineFault(Exception):
    """This request cannot be answered; the engine lives on.  One line, without the text spoken."""


class Job:
    """What an engine sees of the request that it answers."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink

    def send(self, data: bytes) -> None:
        """Send a piece of the answer; blocks while the other side is not reading."""
        write_frame(self._sink, DATA, data)

    def cancelled(self) -> bool:
        """Return whether nobody waits for the answer any more.  To be asked every 50 ms or so.

        Raises:
            EOFError: the parent is gone.
        """
        readable, _, _ = select.select([self._source], [], [], 0)
        return bool(readable) and read_frame(self._source)[0] == CANCEL


Answer = Callable[[bytes, Job], None]
"""Answers one request: sends data, returns when all is sent, or early once cancelled."""


def serve(load: Callable[[], Answer]) -> None:
    """Load the engine, say READY, and answer requests until the parent is gone."""
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, signal.SIG_IGN)
    os.nice(NICENESS)
    source, sink = _private_pipes()
    try:
        answer = load()
        write_frame(sink, READY)
        while True:
            kind, request = read_frame(source)
            if kind == CANCEL:  # it crossed the DONE of what it was to cancel
                continue
            try:
                answer(request, Job(source, sink))
            except EngineFault as fault:
                write_frame(sink, FAILED, str(fault).encode())
            else:
                write_frame(sink, DONE)
    except (EOFError, BrokenPipeError):
        pass


def read_frame(source: int) -> tuple[bytes, bytes]:
    """Read one frame, blocking.

    Raises:
        EOFError: the other side is gone.
    """
    kind, size = HEADER.unpack(_read_exactly(source, HEADER.size))
    return kind, _read_exactly(source, size)


def write_frame(sink: int, kind: bytes, payload: bytes = b"") -> None:
    """Write one frame, blocking.

    Raises:
        BrokenPipeError: the other side is gone.
    """
    rest = memoryview(HEADER.pack(kind, len(payload)) + payload)
    while rest:
        rest = rest[os.write(sink, rest) :]


def _read_exactly(source: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(source, size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _private_pipes() -> tuple[int, int]:
    """Take the pipes away from stdin and stdout: what a C library prints must not become frames."""
    source, sink = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return source, sink
