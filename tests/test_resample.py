from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import mulaw
from voicecore.audio.resample import MulawEncoder, Resampler

RATES = (8000, 11025, 16000, 22050, 24000, 44100, 48000)


def tone(rate: int, hertz: float, seconds: float = 0.5, peak: float = 12000) -> bytes:
    time = np.arange(int(rate * seconds)) / rate
    return np.rint(peak * np.sin(2 * math.pi * hertz * time)).astype("<i2").tobytes()


def samples(pcm: bytes) -> npt.NDArray[np.float64]:
    return np.frombuffer(pcm, dtype="<i2").astype(np.float64)


def in_pieces(encoder: MulawEncoder | Resampler, pcm: bytes, cuts: list[int]) -> bytes:
    bounds = [0, *sorted(cut % (len(pcm) + 1) for cut in cuts), len(pcm)]
    out = b"".join(encoder.feed(pcm[a:b]) for a, b in itertools.pairwise(bounds))
    return out + encoder.flush()


@given(rate=st.sampled_from(RATES), cuts=st.lists(st.integers(0, 1 << 20), max_size=30))
def test_chunking_never_changes_the_result(rate: int, cuts: list[int]) -> None:
    noise = np.random.default_rng(7).normal(0, 9000, rate // 5)
    pcm = np.clip(noise, -32768, 32767).astype("<i2").tobytes()
    assert in_pieces(MulawEncoder(rate), pcm, cuts) == in_pieces(MulawEncoder(rate), pcm, [])
    assert in_pieces(Resampler(rate, 8000), pcm, cuts) == in_pieces(Resampler(rate, 8000), pcm, [])


@pytest.mark.parametrize("rate", RATES)
def test_length_and_pitch_and_level_stay(rate: int) -> None:
    result = samples(in_pieces(Resampler(rate, 8000), tone(rate, 1000), [1001, 5555]))
    assert len(result) == pytest.approx(4000, abs=1)
    expected = samples(tone(8000, 1000))
    inner = slice(400, 3500)
    assert np.abs(result[inner] - expected[inner]).max() < 30


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_what_a_telephone_cannot_carry_does_not_fold_back(rate: int) -> None:
    resampler = Resampler(rate, 8000)
    result = samples(resampler.feed(tone(rate, 5000)) + resampler.flush())
    assert np.abs(result[400:3500]).max() < 12


@pytest.mark.parametrize("rate", RATES)
def test_silence_stays_silence(rate: int) -> None:
    encoder = MulawEncoder(rate)
    assert set(encoder.feed(bytes(rate)) + encoder.flush()) == {0xFF}


def test_full_scale_clips_and_does_not_wrap() -> None:
    square = np.where(np.arange(24000) // 40 % 2, 32767, -32768).astype("<i2").tobytes()
    resampler = Resampler(24000, 8000)
    result = samples(resampler.feed(square) + resampler.flush())
    middles = np.arange(600, 7000) * 3 % 40
    steady = result[600:7000][(middles > 16) & (middles < 24)]
    assert np.abs(steady).min() > 30000


def test_at_8000_samples_pass_at_once_and_half_ones_wait() -> None:
    pcm = tone(8000, 440)
    encoder = MulawEncoder(8000)
    assert encoder.feed(pcm[:321]) == mulaw.encode(pcm[:320])
    assert encoder.feed(pcm[321:640]) == mulaw.encode(pcm[320:640])
    assert encoder.flush() == b""


def test_half_a_sample_at_the_end_is_lost() -> None:
    encoder = MulawEncoder(8000)
    assert encoder.feed(b"\x00\x00\x7f") == b"\xff"
    assert encoder.flush() == b""
    assert encoder.feed(b"\x00\x00") == b"\xff"


def test_a_flushed_encoder_is_as_new() -> None:
    encoder, pcm = MulawEncoder(24000), tone(24000, 300)
    first = encoder.feed(pcm) + encoder.flush()
    assert encoder.flush() == b""
    assert encoder.feed(pcm) + encoder.flush() == first


def test_upwards_too() -> None:
    resampler = Resampler(8000, 16000)
    assert len(resampler.feed(tone(8000, 300)) + resampler.flush()) == 16000


@pytest.mark.parametrize("rates", [(0, 8000), (8000, -1)])
def test_a_rate_is_positive(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="rates are positive"):
        Resampler(*rates)


def test_reprs() -> None:
    assert repr(Resampler(24000, 8000)) == "<Resampler 24000 to 8000 Hz>"
    assert repr(MulawEncoder(24000)) == "<MulawEncoder from 24000 Hz>"
