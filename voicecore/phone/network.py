"""The network between the phone and the server: random delay with the order kept, and stalls.

Pure: it says when a message that goes in now comes out.  TCP keeps order, so a message never
overtakes the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing passes from `at` (seconds since the stream began) for `seconds`."""

    at: float
    seconds: float


class Network:
    """One direction of one call."""

    def __init__(self, jitter_s: float, stalls: Sequence[Stall], chance: Random) -> None:
        self._jitter_s = jitter_s
        self._stalls = sorted(stalls, key=lambda stall: stall.at)
        self._chance = chance
        self._last = 0.0

    def __repr__(self) -> str:
        return f"<Network jitter {self._jitter_s * 1000:.0f} ms, {len(self._stalls)} stalls>"

    def arrival(self, now: float) -> float:
        """Say when a message sent at `now` arrives; both in seconds since the stream began."""
        at = now + self._chance.uniform(0.0, self._jitter_s)
        for stall in self._stalls:
            if stall.at <= at < stall.at + stall.seconds:
                at = stall.at + stall.seconds
        self._last = max(self._last, at)
        return self._last
