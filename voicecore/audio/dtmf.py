"""DTMF: the two tones of a telephone key (ITU-T Q.23), as mu-law.

A key sounds for 100 ms and is followed by 100 ms of silence; Q.24 asks for 40 of each.  ``w`` is
half a second of silence and ``W`` a whole one, as carriers write pauses.
"""

from __future__ import annotations

import math
from functools import cache

from . import SAMPLE_RATE, SILENCE_BYTE, mulaw

_ROWS = (697, 770, 852, 941)
_COLUMNS = (1209, 1336, 1477, 1633)
_KEYS = "123A456B789C*0#D"

KEYS = frozenset(_KEYS)
PAUSES = {"w": 0.5, "W": 1.0}
"""Seconds of silence."""

TONE_S = 0.1
GAP_S = 0.1

AMPLITUDE = 7000
"""Of each of the two tones: together 10 dB below the loudest that a line carries."""


def tones(keys: str) -> bytes:
    """Return the sound of pressing `keys`, one after the other.

    Raises:
        ValueError: one of them is neither a key nor a pause.
    """
    sound = bytearray()
    for key in keys:
        if key in PAUSES:
            sound += SILENCE_BYTE * round(PAUSES[key] * SAMPLE_RATE)
        elif key in KEYS:
            sound += _tone(key) + SILENCE_BYTE * round(GAP_S * SAMPLE_RATE)
        else:
            raise ValueError(f"{key!r} is no key; takes {_KEYS} and w for a pause")
    return bytes(sound)


@cache
def _tone(key: str) -> bytes:
    at = _KEYS.index(key)
    row, column = (math.tau * hz / SAMPLE_RATE for hz in (_ROWS[at // 4], _COLUMNS[at % 4]))
    pcm = bytearray()
    for n in range(round(TONE_S * SAMPLE_RATE)):
        value = round(AMPLITUDE * (math.sin(row * n) + math.sin(column * n)))
        pcm += value.to_bytes(2, "little", signed=True)
    return mulaw.encode(bytes(pcm))
