"""The sounds that a carrier makes itself: its voice (a hum), the beep, the tones of keys.

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
KEY_S = 0.1
"""A key's tone, and the silence after it."""

WAIT_S = {"w": 0.5, "W": 1.0}
_ROWS = {"1": 697, "2": 697, "3": 697, "4": 770, "5": 770, "6": 770, "7": 852, "8": 852, "9": 852,
         "*": 941, "0": 941, "#": 941}  # fmt: skip
_COLUMNS = {"1": 1209, "4": 1209, "7": 1209, "*": 1209, "2": 1336, "5": 1336, "8": 1336, "0": 1336,
            "3": 1477, "6": 1477, "9": 1477, "#": 1477}  # fmt: skip


def silence(seconds: float) -> bytes:
    """Return silence, in whole frames."""
    return SILENCE * (FRAME_BYTES * round(seconds * 50))


def spoken(text: str) -> bytes:
    """Return a hum of the length that `text` takes to say."""
    return tone(FRAME_BYTES / RATE, HUM_LEVEL, HUM_HZ) * round(50 * len(text) / SAY_CHARS_PER_S)


def beep() -> bytes:
    """Return what is heard before a recording."""
    return tone(BEEP_S, BEEP_LEVEL, BEEP_HZ)


def keys(digits: str) -> bytes:
    """Return the tones of keys (ITU-T Q.23); ``w`` is half a second of silence, ``W`` a second."""
    parts = (
        silence(WAIT_S[digit])
        if digit in WAIT_S
        else tone(KEY_S, 4000, _ROWS[digit], _COLUMNS[digit]) + silence(KEY_S)
        for digit in digits
    )
    return b"".join(parts)


@cache
def tone(seconds: float, level: int, *frequencies: int) -> bytes:
    """Return sines on top of each other, each of this level (of 32768)."""
    samples = (
        round(level * sum(sin(2 * pi * hz * n / RATE) for hz in frequencies))
        for n in range(round(seconds * RATE))
    )
    return mulaw.encode(b"".join(value.to_bytes(2, "little", signed=True) for value in samples))
