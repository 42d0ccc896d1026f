"""What webhooks of one call must find again, whichever worker they reach: history, audio, orders.

A value is bytes under a kind and a key, for so many seconds.  One process keeps them in memory;
workers share a directory that their supervisor made and removes.  Both are bounded, in bytes and in
number: what is closest to its end goes first.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Protocol

import trio

STORE_BYTES = 256 * 1024 * 1024
"""All values together: an hour of spoken answers, or the histories of ten thousand calls."""

VALUE_BYTES = 8 * 1024 * 1024
"""One value; eight minutes of 16-bit sound."""

MOST_VALUES = 100_000
"""What a small value takes beside its bytes is some hundred more, or a block of a disk."""

SWEEP_EVERY = 64
"""Writes of one worker between two looks at what is over in the directory."""

_HEAD = struct.Struct("<d")
"""When the value is over, on the workers' common clock."""

Clock = Callable[[], float]
"""Seconds, the same to all workers."""


class Store(Protocol):
    """Values by kind and key, each for some seconds."""

    async def put(self, kind: str, key: str, value: bytes, lifetime_s: float) -> None:
        """Keep a value; one that was there is replaced.

        Raises:
            ValueError: it is larger than `VALUE_BYTES`.
        """

    async def get(self, kind: str, key: str) -> bytes | None:
        """Return a value; None if there is none, or no longer."""

    async def pop(self, kind: str, key: str) -> bytes | None:
        """Return a value and forget it.  Of several who ask at once, one gets it."""


def store_for(directory: str, clock: Clock) -> Store:
    """Return the store of a worker's shared directory; in memory, if there is none."""
    return DirectoryStore(Path(directory), clock) if directory else MemoryStore(clock)


class MemoryStore:
    """The store of a process that is alone."""

    def __init__(self, clock: Clock, most_bytes: int = STORE_BYTES) -> None:
        self._clock = clock
        self._most = most_bytes
        self._size = 0
        self._values: dict[str, tuple[float, bytes]] = {}
        self._ends: list[tuple[float, str]] = []
        """A heap of when which value is over; also of values that were replaced or taken since."""

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._values)} values, {self._size} bytes>"

    async def put(self, kind: str, key: str, value: bytes, lifetime_s: float) -> None:
        """Keep a value (see `Store.put`)."""
        _check(value)
        name, until = _name(kind, key), self._clock() + lifetime_s
        self._take(name)
        self._values[name] = (until, value)
        self._size += len(value)
        heappush(self._ends, (until, name))
        self._sweep()

    async def get(self, kind: str, key: str) -> bytes | None:
        """Return a value (see `Store.get`)."""
        until, value = self._values.get(_name(kind, key), (0.0, b""))
        return value if until > self._clock() else None

    async def pop(self, kind: str, key: str) -> bytes | None:
        """Return a value and forget it (see `Store.pop`)."""
        value = await self.get(kind, key)
        self._take(_name(kind, key))
        return value

    def _take(self, name: str) -> None:
        _, value = self._values.pop(name, (0.0, b""))
        self._size -= len(value)

    def _sweep(self) -> None:
        """Forget what is over, and beyond the limits what is next."""
        now = self._clock()
        while self._ends and (self._ends[0][0] <= now or self._is_too_much):
            until, name = heappop(self._ends)
            if name in self._values and self._values[name][0] == until:
                self._take(name)
        if len(self._ends) > 2 * len(self._values) + SWEEP_EVERY:
            self._ends = [(until, name) for name, (until, _) in self._values.items()]
            heapify(self._ends)

    @property
    def _is_too_much(self) -> bool:
        return self._size > self._most or len(self._values) > MOST_VALUES


class DirectoryStore:
    """The store that workers share: a file a value, written elsewhere and moved into place."""

    def __init__(self, directory: Path, clock: Clock, most_bytes: int = STORE_BYTES) -> None:
        self._directory = directory
        self._clock = clock
        self._most = most_bytes
        self._writes = 0

    def __repr__(self) -> str:
        return f"<DirectoryStore {self._directory}>"

    async def put(self, kind: str, key: str, value: bytes, lifetime_s: float) -> None:
        """Keep a value (see `Store.put`)."""
        _check(value)
        content = _HEAD.pack(self._clock() + lifetime_s) + value
        await trio.to_thread.run_sync(self._write, self._path(kind, key), content)
        self._writes += 1
        if self._writes % SWEEP_EVERY == 0:
            await trio.to_thread.run_sync(self._sweep)

    async def get(self, kind: str, key: str) -> bytes | None:
        """Return a value (see `Store.get`)."""
        return self._alive(await trio.to_thread.run_sync(_read, self._path(kind, key)))

    async def pop(self, kind: str, key: str) -> bytes | None:
        """Return a value and forget it (see `Store.pop`)."""
        path = self._path(kind, key)
        taken = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        return self._alive(await trio.to_thread.run_sync(partial(_take, path, taken)))

    def _alive(self, content: bytes) -> bytes | None:
        if len(content) < _HEAD.size or _HEAD.unpack_from(content)[0] <= self._clock():
            return None
        return content[_HEAD.size :]

    def _path(self, kind: str, key: str) -> Path:
        return self._directory / f"{_name(kind, key)}.value"

    def _write(self, path: Path, content: bytes) -> None:
        written = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            written.replace(path)
        except OSError:
            with suppress(OSError):
                written.unlink()  # nobody would: a disk that is full stays full of it
            raise

    def _sweep(self) -> None:
        """Delete what is over, and beyond the limit what is next."""
        found = []
        for path in self._directory.glob("*.value"):
            head = _read(path, _HEAD.size)
            if len(head) == _HEAD.size:
                found.append((_HEAD.unpack(head)[0], _size(path), path))
        left, size, now = len(found), sum(each[1] for each in found), self._clock()
        for until, bytes_, path in sorted(found):
            if until > now and size <= self._most and left <= MOST_VALUES:
                return
            path.unlink(missing_ok=True)
            left, size = left - 1, size - bytes_


def _name(kind: str, key: str) -> str:
    """Return a value's name, by digest: a carrier's names may hold anything, and be of any size."""
    return blake2b(f"{kind}\0{key}".encode("utf-8", "replace"), digest_size=16).hexdigest()


def _check(value: bytes) -> None:
    if len(value) > VALUE_BYTES:
        raise ValueError(f"a value of {len(value)} bytes; at most {VALUE_BYTES} are kept")


def _read(path: Path, most: int = VALUE_BYTES + _HEAD.size) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""


def _take(path: Path, taken: Path) -> bytes:
    try:
        path.rename(taken)
    except FileNotFoundError:
        return b""
    content = _read(taken)
    taken.unlink(missing_ok=True)
    return content


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
