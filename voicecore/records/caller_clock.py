"""Where the caller's sound lies in the recording.  Pure: time is an argument.

Sound arrives late and in bursts; the carrier's timestamps, or else the count of what came, say how
it lies together.  One number joins that to our clock: the anchor, the least delay that was seen.
Sound covers the time *before* its arrival, and nothing lies in the future.

Rules that hold here:

* The first half second is held until the anchor has settled: a call often begins with a burst.
* Timestamps are a stranger's.  One that is not believable is the last that is listened to.
* Without timestamps a hole is made only where nothing came for longer than networks stall; what
  comes behind it may be a burst that was stalled, so the anchor settles again.
* Two clocks never run alike: the anchor follows, a little at a time.
"""

from __future__ import annotations

import math

from ..audio import SAMPLE_RATE

SETTLE_S = 0.5
HELD_BYTES = 16 * SAMPLE_RATE
"""What is held meanwhile, at most; a stranger may send more than he can have said."""

GAP_S = 0.6
"""Longer than networks stall: `call.hearing` draws the line there, too."""

JITTER = SAMPLE_RATE // 100
"""10 ms, in samples: timestamps are rounded, and half a frame apart is together."""

BACKWARDS = SAMPLE_RATE // 5
"""How far a timestamp may lie in what was heard already; beyond it is another clock's."""

AHEAD_S = 2.0
"""How much longer than on our clock all may have lasted: what came first was late itself."""

WATCH_S = 8.0
"""How long the least delay is watched before the anchor follows it."""

STEP = SAMPLE_RATE // 100
"""How far it follows at once: enough for a clock that is a thousandth slow."""

LOST = SAMPLE_RATE * 6 // 10
"""A delay that never falls below this is none: the carrier left silence out of its count."""

Placed = tuple[int, bytes]
"""A position in samples since the recording began, which may be negative, and mu-law."""


class CallerClock:
    """One stream's.  Times are seconds since the recording began."""

    def __init__(self) -> None:
        self._end = 0
        """Where the media ends so far, in samples on the carrier's clock."""
        self._zero_ms: float | None = None
        """The timestamp of the media's sample 0."""
        self._trusts = True
        self._anchor = math.inf
        """Our clock, in samples, at the media's sample 0."""
        self._held: list[Placed] = []
        self._held_bytes = 0
        self._began = self._held_since = self._arrived = -math.inf
        self._least_delay, self._watched_since = math.inf, -math.inf

    def __repr__(self) -> str:
        return f"<CallerClock anchor={self._anchor} end={self._end} held={len(self._held)}>"

    def place(self, audio: bytes, at_ms: int | None, now: float) -> list[Placed]:
        """Take what came at `now`; return what has found its place."""
        waited = now - self._arrived
        placed: list[Placed] = []
        is_first = math.isinf(self._anchor)
        if is_first:
            self._began = now
        start = self._end + self._hole(at_ms, now - self._began)
        if is_first or (waited > GAP_S and self._zero_ms is None):
            placed = self.settle()
            self._anchor = self._least_delay = math.inf
            self._held_since = self._watched_since = now
            self._held_bytes = 0
        self._end = start + len(audio)
        self._arrived = now
        self._follow(now)
        if now < self._held_since + SETTLE_S and self._held_bytes < HELD_BYTES:
            self._held.append((start, audio))
            self._held_bytes += len(audio)
            return placed
        placed += self.settle()
        placed.append((round(self._anchor) + start, audio))
        return placed

    def settle(self) -> list[Placed]:
        """Return what is held; nothing earlier will come to tell where it belongs."""
        held, self._held = self._held, []
        return [(round(self._anchor) + start, audio) for start, audio in held]

    def settle_at(self, now: float) -> list[Placed]:
        """Return what was held for long enough at `now`."""
        return [] if now < self._held_since + SETTLE_S else self.settle()

    def _hole(self, at_ms: int | None, lasted: float) -> int:
        """Return how many samples are missing before a timestamp, as far as it is believable."""
        if at_ms is None or not self._trusts:
            return 0
        if self._zero_ms is None:
            self._zero_ms = at_ms - self._end * 1000 / SAMPLE_RATE
            return 0
        hole = round((at_ms - self._zero_ms) * SAMPLE_RATE / 1000) - self._end
        if abs(hole) <= JITTER:
            return 0
        if -BACKWARDS <= hole < 0:
            self._zero_ms += hole * 1000 / SAMPLE_RATE  # the count is right, the stamps are slow
            return 0
        if hole < 0 or self._end + hole > (lasted + AHEAD_S) * SAMPLE_RATE:
            self._trusts, self._zero_ms = False, None
            return 0
        return hole

    def _follow(self, now: float) -> None:
        """Keep the anchor at the least delay: at once where it is less, slowly where it is more."""
        delay = now * SAMPLE_RATE - self._end
        self._anchor = min(self._anchor, delay)
        self._least_delay = min(self._least_delay, delay)
        if now >= self._watched_since + WATCH_S:
            late = self._least_delay - self._anchor
            if late > 0:
                self._anchor += late if late > LOST else min(late, STEP)
            self._least_delay, self._watched_since = math.inf, now
