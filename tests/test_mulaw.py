"""Mu-law against the standard's own segments, and against ``audioop`` where Python has it."""

from __future__ import annotations

import itertools
import struct
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import SILENCE_BYTE, mulaw

EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = struct.pack("<65536h", *range(-32768, 32768))

# ITU-T G.711, tables 2a and 2b: where each segment begins and how wide its sixteen steps are, in
# units of the 14-bit linear code.  The first step of the first segment is half as wide.
SEGMENTS = ((0, 2), (31, 4), (95, 8), (223, 16), (479, 32), (991, 64), (2015, 128), (4063, 256))


def decision_values() -> list[int]:
    """The lower bound of each of the 128 steps of a sign."""
    values = [0, *range(1, 31, 2)]
    for begin, width in SEGMENTS[1:]:
        values += [begin + step * width for step in range(16)]
    return values


def output_values() -> list[int]:
    """The value of each of the 128 steps: its middle, and 0 for the first."""
    bounds = [*decision_values(), 8159]
    return [0] + [(low + high) // 2 for low, high in itertools.pairwise(bounds[1:])]


def code_by_the_standard(sample: int) -> int:
    linear = sample >> 2
    step = max(at for at, low in enumerate(decision_values()) if low <= abs(linear))
    return (0x7F if linear < 0 else 0xFF) - step


def test_the_standard_has_128_steps_a_sign() -> None:
    assert len(decision_values()) == len(output_values()) == 128
    assert output_values()[-1] == 8031


def test_every_code_decodes_to_the_standards_value() -> None:
    values = output_values()
    expected = [4 * -values[127 - code] for code in range(128)]
    expected += [4 * values[255 - code] for code in range(128, 256)]
    assert list(struct.unpack("<256h", mulaw.decode(EVERY_CODE))) == expected


def test_every_sample_has_the_standards_code() -> None:
    by_linear = {linear: code_by_the_standard(4 * linear) for linear in range(-8192, 8192)}
    expected = bytes(by_linear[sample >> 2] for sample in range(-32768, 32768))
    assert mulaw.encode(EVERY_SAMPLE) == expected


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="audioop left the standard library")
def test_equals_audioop() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop
    assert mulaw.decode(EVERY_CODE) == audioop.ulaw2lin(EVERY_CODE, 2)
    assert mulaw.encode(EVERY_SAMPLE) == audioop.lin2ulaw(EVERY_SAMPLE, 2)


def test_a_code_survives_decoding_and_encoding() -> None:
    again = mulaw.encode(mulaw.decode(EVERY_CODE))
    # 0x7F is minus zero: the one value with two codes.
    assert again == EVERY_CODE.replace(b"\x7f", b"\xff")


def test_silence() -> None:
    assert mulaw.encode(bytes(320)) == SILENCE_BYTE * 160
    assert mulaw.decode(SILENCE_BYTE * 160) == bytes(320)


@pytest.mark.parametrize("length", [1, 319])
def test_half_a_sample_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"not {length}"):
        mulaw.encode(bytes(length))


@given(st.binary(max_size=700))
def test_sizes(audio: bytes) -> None:
    pcm = mulaw.decode(audio)
    assert len(pcm) == 2 * len(audio)
    assert len(mulaw.encode(pcm)) == len(audio)
