"""One call's record, as the event loop sees it: it takes what it is told, and never waits for it.

Rules that hold here:

* Both sides lie on one clock, trio's, from the moment the record began.  The caller's sound covers
  the time before its arrival; the agent's lies where it was heard.
* What waits for the disk is bounded.  Sound that is too much is dropped, and counted.
* What must not be kept is dropped here, before anything else sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from ..audio import SAMPLE_RATE
from ..audio.stereo import LEFT, RIGHT, Side
from .caller_clock import CallerClock, Placed
from .files import Erased, Laid
from .store import Batch, CallFacts, CallPages
from .story import Milestone

PRIVATE = frozenset({"text", "heard", "from", "to"})
"""Fields with what was said and who called, as `call.timeline` tags them."""

CLOSE_S = 5.0
"""How long the end of a call waits for the disk."""

WAITING_BYTES = 1 << 19
WAITING_MILESTONES = 2000
"""What waits for the disk, at most: half a minute of both sides, and more than is ever said in it.
An utterance that begins below the limit is taken whole."""

TOGETHER = SAMPLE_RATE // 1000
"""Sound that begins within a millisecond of the end of the last joins it."""

MOST_STRETCHES = 16
"""Stretches of the agent's sound that can still be taken back: a reply has one, unless it runs
dry."""

TEXT_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Keeps:
    """What is kept of calls."""

    audio: bool = True
    text: bool = True


class CallRecord:
    """A segment of one call: a stream, or a webhook's work.  It is a `call.tape.Tap`."""

    def __init__(self, facts: CallFacts, keeps: Keeps, wake: Callable[[], None]) -> None:
        self.pages = CallPages(facts, with_audio=keeps.audio)
        """The store's, and its thread's alone."""
        self.written = trio.Event()
        """Set once all of it is on disk, or never will be."""
        self.dropped_bytes = 0
        """Sound that was too much for the disk."""
        self.dropped_milestones = 0
        self._keeps = keeps
        self._wake = wake
        self._began = trio.current_time()
        self._clock = CallerClock()
        self._batch = Batch()
        self._waiting = 0
        self._last: dict[Side, Laid] = {}
        """The newest sound of each side, as long as it can grow."""
        self._played: list[tuple[int, int]] = []
        """The newest stretches of the agent's sound, from and to, in samples."""

    def __repr__(self) -> str:
        return f"<CallRecord {self.pages.facts.sid} {self._now():.1f} s>"

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        """Take a milestone (see `call.timeline.Observer`)."""
        if self._batch.over:
            return
        if len(self._batch.milestones) >= WAITING_MILESTONES and event != "call ended":
            self.dropped_milestones += 1
            return
        kept = {
            name: _storable(value)
            for name, value in fields.items()
            if self._keeps.text or name not in PRIVATE
        }
        # By our own clock, so that what was said lies where it sounds.
        self._batch.milestones.append(Milestone(round(self._now(), 3), event, kept))

    def received(self, audio: bytes, at_ms: int | None) -> None:
        """Take the caller's sound, of any length, as it came in (see `call.tape.Tap`)."""
        if self._keeps.audio and audio:
            self._lay_all(self._clock.place(audio, at_ms, self._now()))

    def played(self, audio: bytes, at: float) -> None:
        """Take the agent's sound, and when the caller hears it, on trio's clock."""
        if self._keeps.audio:
            start = round((at - self._began) * SAMPLE_RATE)
            start = self._lay(RIGHT, start, audio)
            self._note_played(start, start + len(audio))

    def taken_back(self, size: int) -> None:
        """Erase the last `size` bytes that were `played`."""
        self._last.pop(RIGHT, None)
        while size > 0 and self._played:
            start, end = self._played.pop()
            cut = max(start, end - size)
            size -= end - cut
            self._batch.sounds.append(Erased(RIGHT, cut, end))
            if cut > start:
                self._played.append((start, cut))

    def heard_utterance(self, audio: bytes, ended_ago: float = 0.0) -> None:
        """Take something that the caller said as a whole, which ended so many seconds ago."""
        if self._keeps.audio:
            end = round((self._now() - ended_ago) * SAMPLE_RATE)
            self._lay(LEFT, end - len(audio), audio)

    def said_utterance(self, audio: bytes) -> None:
        """Take something that the agent says as a whole, which begins now."""
        if self._keeps.audio:
            self._lay(RIGHT, round(self._now() * SAMPLE_RATE), audio)

    async def close(self) -> None:
        """Write everything; return when it is on disk, or after `CLOSE_S`.

        The call is over if it was told so ("call ended").  Else it goes on: another segment of it
        may begin, in whatever process.
        """
        if not self._batch.over:
            self._lay_all(self._clock.settle())
            self._batch.over = True
        self._wake()
        with trio.move_on_after(CLOSE_S, shield=True):
            await self.written.wait()

    def take_batch(self) -> Batch:
        """Give what was told since the last time to the store."""
        now = self._now()
        self._lay_all(self._clock.settle_at(now))
        batch, self._batch = self._batch, Batch(over=self._batch.over)
        batch.until = now
        self._last.clear()
        self._waiting = 0
        return batch

    def _now(self) -> float:
        return trio.current_time() - self._began

    def _lay_all(self, placed: list[Placed]) -> None:
        for at, audio in placed:
            self._lay(LEFT, at, audio)

    def _lay(self, side: Side, at: int, audio: bytes) -> int:
        """Lay sound onto one side, behind what lies there if it nearly touches; return where."""
        if self._waiting >= WAITING_BYTES:
            self.dropped_bytes += len(audio)
            return at
        self._waiting += len(audio)
        last = self._last.get(side)
        if last is not None:
            end = last.at + len(last.audio)
            if abs(at - end) <= TOGETHER:
                last.audio.extend(audio)
                return end
        last = self._last[side] = Laid(side, at, bytearray(audio))
        self._batch.sounds.append(last)
        return at

    def _note_played(self, start: int, end: int) -> None:
        if self._played and self._played[-1][1] == start:
            self._played[-1] = (self._played[-1][0], end)
        else:
            self._played.append((start, end))
            del self._played[:-MOST_STRETCHES]


def _storable(value: object) -> object:
    """Return a value that both JSON and SQLite can hold; a number beyond 64 bits is none."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return storable_text(str(value), TEXT_CHARS)


def storable_text(text: str, most: int) -> str:
    """Return so much of a stranger's text, without what no encoding can hold."""
    return text[:most].encode("utf-8", "replace").decode().replace("\0", "")
