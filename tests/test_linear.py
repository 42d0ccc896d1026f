"""Between mu-law and a carrier's linear PCM: what is in, what is out, and what is not heard."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import mulaw
from voicecore.wire.linear import LinearPcm, RateFilter


def tone(hz: float, rate: int, seconds: float = 0.5) -> bytes:
    at = np.arange(int(rate * seconds)) / rate
    return bytes(np.rint(8000 * np.sin(2 * np.pi * hz * at)).astype("<i2"))


def level_db(pcm: bytes) -> float:
    """Of a tone, against the one that `tone` makes; the filter's first samples apart."""
    samples = np.frombuffer(pcm, dtype="<i2")[400:].astype(float)
    return float(20 * np.log10(np.sqrt(2 * (samples**2).mean()) / 8000 + 1e-9))


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("hz", [300, 1000, 3400])
def test_speech_passes_both_ways(steps: int, hz: int) -> None:
    assert abs(level_db(RateFilter(steps).lower(tone(hz, 8000 * steps)))) < 0.2
    raised = RateFilter(steps).raise_rate(tone(hz, 8000))
    assert abs(level_db(raised)) < 0.2
    settled = np.frombuffer(raised, "<i2")[400:]
    spectrum = np.abs(np.fft.rfft(settled * np.hanning(len(settled))))
    above = np.fft.rfftfreq(len(settled), 1 / (8000 * steps)) > 4000
    assert spectrum[above].max() < spectrum.max() / 300  # its mirror: 50 dB below


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("hz", [4600, 6000, 7500])
def test_what_a_telephone_cannot_say_is_not_folded_into_speech(steps: int, hz: int) -> None:
    assert level_db(RateFilter(steps).lower(tone(hz, 8000 * steps))) < -50


@given(st.lists(st.integers(0, 700), max_size=8), st.sampled_from([8000, 16000, 24000]))
def test_the_cut_does_not_matter(cuts: list[int], rate: int) -> None:
    pcm = tone(440, rate, 0.02)
    bounds = [0, *sorted(min(cut, len(pcm)) for cut in cuts), len(pcm)]
    line = LinearPcm(rate)
    pieces = [line.to_mulaw(pcm[a:b]) for a, b in pairwise(bounds)]
    assert b"".join(pieces) == LinearPcm(rate).to_mulaw(pcm)
    assert len(b"".join(pieces)) == 160


@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_voice_survives_the_way_there_and_back(rate: int) -> None:
    line, audio = LinearPcm(rate), mulaw.encode(tone(700, 8000))
    back = line.to_mulaw(line.from_mulaw(audio))
    assert len(back) == len(audio)
    # Two filters of 2 ms each: 32 samples later, within mu-law's own steps.
    sent = np.frombuffer(mulaw.decode(audio), "<i2").astype(int)[:-32]
    came = np.frombuffer(mulaw.decode(back), "<i2").astype(int)[32:]
    assert np.abs(came - sent)[100:].max() <= 512  # two steps at this loudness


@pytest.mark.parametrize("rate", [0, 7999, 11025, -8000])
def test_odd_rates_are_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        LinearPcm(rate)
