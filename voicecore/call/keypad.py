"""The keys that the caller presses: for a tool that collects them, else for the conversation.

A key belongs to whoever collects keys at the time.  What nobody collects waits a moment for the
next key, and is then taken for something that the caller says.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

KEYS_WAITING = 64
"""Keys that nobody has taken; more than anybody types ahead.  The oldest are forgotten."""

PAUSE_S = 2.0
"""After the last key, until what was typed is taken to be all; `ENTER` ends it at once."""

ENTER = "#"


def as_words(keys: str) -> str:
    """Return what a model reads when the caller has typed keys that nobody collects."""
    return f"({keys} typed on the keypad)"


class Keypad:
    """One call's keys."""

    def __init__(self) -> None:
        self.barge_in_key = ""
        self.barge_in: Callable[[], bool] = lambda: False
        """What that key does; false: there is nothing to interrupt, so that it is a key."""
        self._keys: deque[str] = deque(maxlen=KEYS_WAITING)
        self._collectors = 0
        self._last_at = -math.inf
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Keypad {len(self._keys)} keys, {self._collectors} collectors>"

    @property
    def is_collected(self) -> bool:
        """Whether somebody collects keys."""
        return self._collectors > 0

    def press(self, key: str) -> None:
        """The caller presses a key: one of ``0123456789*#``."""
        if key == self.barge_in_key and not self._collectors and self.barge_in():
            return
        self._keys.append(key)
        self._last_at = trio.current_time()
        self._changed.unpark_all()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """All keys are for whoever calls `next_key` in here; also those that wait."""
        self._collectors += 1
        try:
            yield
        finally:
            self._collectors -= 1
            self._changed.unpark_all()

    async def next_key(self, timeout_s: float) -> str | None:
        """Return the next key; None: there was none for so long."""
        with trio.move_on_after(timeout_s):
            while not self._keys:
                await self._changed.park()
            return self._keys.popleft()
        return None

    async def typed(self) -> str:
        """Wait for keys that nobody collects, and for their end; return them without `ENTER`."""
        while True:
            due = self._last_at + PAUSE_S if self._keys and not self._collectors else math.inf
            if trio.current_time() >= due or (due < math.inf and self._keys[-1] == ENTER):
                keys = "".join(self._keys)
                self._keys.clear()
                if typed := keys.rstrip(ENTER):
                    return typed
                continue
            with trio.move_on_at(due):
                await self._changed.park()
