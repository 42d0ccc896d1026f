"""What the workers of one port know together: calls up, how calls ended, tokens used, calls placed.

Twilio's next request about a call may reach any worker.  The ledger is a piece of shared memory
with one section for each worker, which alone writes it; all read all.  A section is a ring: the
oldest records are forgotten first, so it never grows.  Behind the sections lies when calls were
placed, another ring, which all write, one at a time.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

from .port.limits import LEDGER_RECORDS

_KEY_BYTES = 16
_VALUE_BYTES = 16
_RECORD_BYTES = _KEY_BYTES + _VALUE_BYTES
_SECTION_BYTES = _RECORD_BYTES * (1 + LEDGER_RECORDS)

HOUR_S = 3600.0
MOST_PER_HOUR = 10_000
"""As many as VOICECORE_OUTBOUND_PER_HOUR can allow."""

_STAMP = struct.Struct("<d")
_NEXT = struct.Struct("<Q")
_HOUR_BYTES = _NEXT.size + _STAMP.size * MOST_PER_HOUR


def ledger_bytes(workers: int) -> int:
    """Return how large the shared memory for so many workers is."""
    return _SECTION_BYTES * workers + _HOUR_BYTES


class Ledger:
    """One worker's view.  Without a file descriptor the memory is this process's own."""

    def __init__(self, worker: int = 0, workers: int = 1, fd: int = -1) -> None:
        self._memory = mmap.mmap(fd, ledger_bytes(workers))
        self._fd = fd
        self._start = worker * _SECTION_BYTES
        self._sections = workers * _SECTION_BYTES
        self._next = 0
        self._calls = 0
        self._write_calls()

    @property
    def calls(self) -> int:
        """Calls that are up, in all workers."""
        heads = range(0, self._sections, _SECTION_BYTES)
        return sum(int.from_bytes(self._memory[at : at + 4]) for at in heads)

    def call_began(self) -> None:
        """Count one more call of this worker."""
        self._calls += 1
        self._write_calls()

    def call_over(self) -> None:
        """Count one call of this worker less."""
        self._calls -= 1
        self._write_calls()

    def first_use(self, token: str) -> bool:
        """Note a token; return whether no worker has seen it before."""
        key = _digest(f"token {token}")
        with self._alone():
            if self._find(key) >= 0:
                return False
            self._write(key, b"")
        return True

    def place_call(self, key: str, now: float, most: int) -> float | None:
        """Reserve one of the `most` calls that may be placed in an hour.

        Returns 0, or for how many seconds there is none; None if a call was placed under `key`
        before.  An empty key is nobody's.
        """
        record = _digest(f"placed {key}")
        with self._alone():
            if key and self._find(record) >= 0:
                return None
            (placed,) = _NEXT.unpack_from(self._memory, self._sections)
            if placed >= most:
                # So many calls ago: if that is within the hour, so are all that came after.
                free_at = self._placed_at(placed - most) + HOUR_S
                if free_at > now:
                    return free_at - now
            at = self._sections + _NEXT.size + _STAMP.size * (placed % MOST_PER_HOUR)
            _STAMP.pack_into(self._memory, at, now)
            _NEXT.pack_into(self._memory, self._sections, placed + 1)
            if key:
                self._write(record, b"")
        return 0.0

    def was_placed(self, key: str) -> bool:
        """Return whether a call was placed under `key`, or is being."""
        return self._find(_digest(f"placed {key}")) >= 0

    def forget_placed(self, key: str) -> None:
        """Let `key` be used again: this worker's call under it was not placed after all."""
        at = self._find(_digest(f"placed {key}"))
        if self._start <= at < self._start + _SECTION_BYTES:
            self._memory[at : at + _RECORD_BYTES] = bytes(_RECORD_BYTES)

    def note_ending(self, call_sid: str, ended_by: str) -> None:
        """Remember who ended a call; the latest counts."""
        key, value = _digest(f"ending {call_sid}"), ended_by.encode()[:_VALUE_BYTES]
        at = self._find(key)
        if self._start <= at < self._start + _SECTION_BYTES:
            self._memory[at : at + _RECORD_BYTES] = key + value.ljust(_VALUE_BYTES, b"\0")
        else:
            self._write(key, value)

    def ending(self, call_sid: str) -> str:
        """Return who ended a call, empty if no worker remembers."""
        at = self._find(_digest(f"ending {call_sid}"))
        if at < 0:
            return ""
        value = self._memory[at + _KEY_BYTES : at + _RECORD_BYTES]
        return value.rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other workers out, for microseconds; the kernel frees a dead worker's lock.

        A record lock, which belongs to a process: workers inherit one open file, and `flock`, which
        belongs to the file, would let them all in.
        """
        if self._fd < 0:
            yield
            return
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _write_calls(self) -> None:
        self._memory[self._start : self._start + 4] = self._calls.to_bytes(4)

    def _write(self, key: bytes, value: bytes) -> None:
        at = self._start + _RECORD_BYTES * (1 + self._next)
        self._next = (self._next + 1) % LEDGER_RECORDS
        self._memory[at : at + _RECORD_BYTES] = key + value.ljust(_VALUE_BYTES, b"\0")

    def _find(self, key: bytes) -> int:
        # Backwards: what is asked for is mostly recent.  A few microseconds a call.
        return self._memory.rfind(key, 0, self._sections)

    def _placed_at(self, number: int) -> float:
        at = self._sections + _NEXT.size + _STAMP.size * (number % MOST_PER_HOUR)
        stamp: float = _STAMP.unpack_from(self._memory, at)[0]
        return stamp


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=_KEY_BYTES).digest()
