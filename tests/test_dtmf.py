"""The tones of keys are the two that they must be, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from voicecore.audio import mulaw
from voicecore.audio.dtmf import GAP_S, KEYS, TONE_S, tones

FREQUENCIES = {
    "1": (697, 1209), "2": (697, 1336), "3": (697, 1477), "A": (697, 1633),
    "4": (770, 1209), "5": (770, 1336), "6": (770, 1477), "B": (770, 1633),
    "7": (852, 1209), "8": (852, 1336), "9": (852, 1477), "C": (852, 1633),
    "*": (941, 1209), "0": (941, 1336), "#": (941, 1477), "D": (941, 1633),
}  # fmt: skip


def test_every_key_is_known() -> None:
    assert set(FREQUENCIES) == KEYS


@pytest.mark.parametrize("key", sorted(FREQUENCIES))
def test_a_key_is_two_tones(key: str) -> None:
    sound = tones(key)
    assert len(sound) == round(8000 * (TONE_S + GAP_S))
    samples = np.frombuffer(mulaw.decode(sound[:800]), dtype="<i2").astype(float)
    power = np.abs(np.fft.rfft(samples * np.hanning(800))) ** 2
    in_tone = sum(
        power[max(0, round(hz / 10) - 3) : round(hz / 10) + 4].sum() for hz in FREQUENCIES[key]
    )
    assert in_tone / power.sum() > 0.99
    assert np.abs(samples).max() < 16000
    assert set(sound[800:]) == {0xFF}


def test_pauses_are_silent_and_other_characters_are_refused() -> None:
    assert tones("w") == b"\xff" * 4000
    assert tones("1W2") == tones("1") + b"\xff" * 8000 + tones("2")
    assert tones("") == b""
    with pytest.raises(ValueError, match="no key"):
        tones("1x")
