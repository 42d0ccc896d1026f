"""What a model that speaks has said, on its way into the speech.

It comes many times faster than it is heard; the speech takes it at the pace of the caller's ear.
"""

from __future__ import annotations

from collections import deque

import trio

from ..audio import SAMPLE_RATE
from ..errors import ProviderError
from .recollection import Part
from .voice import Voice

AHEAD_BYTES = 180 * SAMPLE_RATE
"""Of sound that has come and is not in the speech yet: more than any answer."""


class Inflow:
    """One reply's."""

    def __init__(self, voice: Voice) -> None:
        self.is_closed = False
        """Whether no more will come."""
        self.pieces = 0
        """How many pieces of text have come."""
        self.has_audio = False
        """Whether any sound has."""
        self._voice = voice
        self._speech = voice.speech
        self._waiting: deque[tuple[Part, str | bytes | None]] = deque()
        """The first may be in the speech in part; None is the end of an answer."""
        self._waiting_bytes = 0
        self._pouring = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Inflow {self._waiting_bytes} bytes waiting, is_closed={self.is_closed}>"

    @property
    def is_empty(self) -> bool:
        """Whether the speech holds all that has come."""
        return not self._waiting

    def add(self, sound: str | bytes | None, part: Part) -> None:
        """Take words, or mu-law that speaks them, of an answer; or None: that was all of it.

        Raises:
            ProviderError: more is waiting than anybody will hear.
        """
        if self._waiting_bytes > AHEAD_BYTES:
            raise ProviderError("llm", "garbage", "an answer without end")
        if isinstance(sound, bytes):
            self.has_audio = True
            self._waiting_bytes += len(sound)
        elif sound is not None:
            self.pieces += 1
        self._waiting.append((part, sound))
        self._changed.unpark_all()

    def close(self) -> None:
        """No more will come."""
        self.is_closed = True
        self._changed.unpark_all()

    def clear(self) -> None:
        """Throw away what waits; what is being put into the speech is broken off."""
        self._waiting = deque()
        self._waiting_bytes = 0
        self._pouring.cancel()
        self._changed.unpark_all()

    async def drained(self) -> None:
        """Wait until the speech holds all that has come."""
        while self._waiting:
            await self._changed.park()

    async def run(self) -> None:
        """Put into the speech what comes, until that is all; then the speech is finished."""
        while self._waiting or not self.is_closed:
            if not self._waiting:
                await self._changed.park()
                continue
            with trio.CancelScope() as self._pouring:
                async with self._voice.floor:
                    await self._pour(self._waiting)
            self._changed.unpark_all()
        async with self._voice.floor:  # a filler that has begun is said to its end
            self._speech.finish()

    async def _pour(self, waiting: deque[tuple[Part, str | bytes | None]]) -> None:
        while waiting:
            part, sound = waiting[0]
            if isinstance(sound, bytes):
                await self._put(sound, part, waiting)
            elif sound is not None:
                self._speech.spoken.grow(sound, self._speech.end, part.step)
            else:
                self._speech.spoken.complete()
                if len(waiting) == 1 and not self.is_closed:
                    self._speech.pause()
            waiting.popleft()

    async def _put(
        self, audio: bytes, part: Part, waiting: deque[tuple[Part, str | bytes | None]]
    ) -> None:
        timeline, before = self._voice.timeline, self._speech.end
        if timeline.first_audio is None:
            timeline.first_audio = trio.current_time()
        part.reach(before, before + len(audio))
        try:
            await self._speech.put(audio)
        except trio.Cancelled:
            put = self._speech.end - before
            waiting[0] = (part, audio[put:])
            part.end = self._speech.end
            raise
        finally:
            if waiting is self._waiting:
                self._waiting_bytes -= self._speech.end - before
