"""The caller's end of a call: 20 ms of voice out and 20 ms of sound in, on absolute deadlines.

Whoever is at the other end, a media stream or the carrier's own announcements, is a function that
takes what was said and returns what is heard.  Everybody who listens in hears both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import trio

from .buffer import Played
from .loudness import QUIET_FRAME
from .network import Stall
from .script import Voice
from .turns import TICK_S, TurnRecorder

Exchange = Callable[[bytes, bool, str], tuple[Played, int]]
"""160 bytes said, whether there is speech in them, the keys pressed -> what is heard, and how many
marks are still pending."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key pressed `at` seconds into the stream, or into what the carrier plays."""

    digit: str
    at: float


@dataclass(frozen=True, slots=True)
class Callee:
    """Who takes a call that goes out."""

    ring_s: float = 1.0
    status: str = "answered"
    """answered, busy, no-answer or failed."""
    answered_by: str = "human"
    """What machine detection hears: human, machine_start, machine_end_beep, fax …"""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a call is put through."""

    max_s: float = 300.0
    keys: Sequence[Key] = ()
    jitter_s: float = 0.0
    stalls: Sequence[Stall] = ()
    chance: Random = field(default_factory=lambda: Random(0))
    dial_status: str = "completed"
    """What comes of a <Dial>: completed, busy, no-answer or failed."""
    callee: Callee = field(default_factory=Callee)


class Ear(Protocol):
    """Somebody who listens in: a recording, a loudspeaker."""

    def write(self, said: bytes, heard: bytes) -> None:
        """Take 20 ms of both sides, 160 bytes of mu-law each."""


class Handset:
    """One caller's voice and ear.  `log` and `late_s` can be read all the time."""

    def __init__(self, voice: Voice, conditions: Conditions, ears: Sequence[Ear] = ()) -> None:
        self.log = TurnRecorder()
        self.late_s = 0.0
        """The phone's own worst lateness: above 20 ms its numbers are not to be trusted."""
        self._voice = voice
        self._max_s = conditions.max_s
        self._keys = sorted(conditions.keys, key=lambda key: key.at)
        self._ears = ears
        self._ticks = 0
        self._sounding = QUIET_FRAME

    def __repr__(self) -> str:
        return f"<Handset {self.log}>"

    async def pace(self, exchange: Exchange, began: float | None = None) -> str:
        """Let time pass until the caller hangs up; return why.

        When it was cancelled it can be called again: the caller's time goes on where it stood.
        `began`, on trio's clock, is when the call did, if that was earlier.
        """
        epoch = trio.current_time() - self._ticks * TICK_S
        over = (epoch if began is None else began) + self._max_s
        while True:
            due = epoch + (self._ticks + 1) * TICK_S
            await trio.sleep_until(due)
            now = trio.current_time()
            self.late_s = max(self.late_s, now - due)
            said = self._voice.frame(self.log)
            if said is None:
                return "hung up"
            if now >= over:
                return f"hung up: {self._max_s:g} s over"
            self._ticks += 1
            self._tick(*said, self._pressed(now - epoch), exchange)

    def _tick(self, frame: bytes, voiced: bool, keys: str, exchange: Exchange) -> None:
        played, pending_marks = exchange(frame, voiced, keys)
        self.log.tick(voiced, played, pending_marks)
        for ear in self._ears:
            # The frame said now was spoken while the frame before this one sounded.
            ear.write(frame, self._sounding)
        self._sounding = played.audio

    def _pressed(self, now: float) -> str:
        pressed = ""
        while self._keys and self._keys[0].at <= now:
            pressed += self._keys.pop(0).digit
        return pressed
