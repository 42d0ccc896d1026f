"""The sounds that a carrier makes itself: its voice (a hum), the beep.  Keys: `audio.dtmf`.

All are mu-law, 8 kHz, whole frames of 20 ms.  There is no speech synthesis here: what a <Say> would
say is hummed for as long as it would take, so that time lines and gaps are right.
"""

from __future__ import annotations

from functools import cache
from math import pi, sin

from ..audio import mulaw
from .buffer import FRAME_BYTES, SILENCE

RATE = 8000
SAY_CHARS_PER_S = 15
"""How fast an unhurried voice speaks: 150 words a minute of six characters each."""

HUM_HZ, HUM_LEVEL = 200, 2000
"""Four whole periods in a frame, so that frames join without a click."""

BEEP_HZ, BEEP_LEVEL, BEEP_S = 1000, 8000, 0.4


def silence(seconds: float) -> bytes:
    """Return silence, in whole frames."""
    return SILENCE * (FRAME_BYTES * round(seconds * 50))


def spoken(text: str) -> bytes:
    """Return a hum of the length that `text` takes to say."""
    return tone(FRAME_BYTES / RATE, HUM_LEVEL, HUM_HZ) * round(50 * len(text) / SAY_CHARS_PER_S)


def beep() -> bytes:
    """Return what is heard before a recording."""
    return tone(BEEP_S, BEEP_LEVEL, BEEP_HZ)


@cache
def tone(seconds: float, level: int, hz: int) -> bytes:
    """Return a sine of this level (of 32768)."""
    samples = (round(level * sin(2 * pi * hz * n / RATE)) for n in range(round(seconds * RATE)))
    return mulaw.encode(b"".join(value.to_bytes(2, "little", signed=True) for value in samples))
