from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import mulaw, wav
from voicecore.audio.wav import Wav

AUDIO = Path(__file__).parent / "audio"


def chunk(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return (
        kind
        + struct.pack("<I", len(body) if size is None else size)
        + body
        + b"\0" * (len(body) % 2)
    )


def form(tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
    align = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)


def riff(*chunks: bytes, size: int = 0) -> bytes:
    return b"RIFF" + struct.pack("<I", size) + b"WAVE" + b"".join(chunks)


@pytest.mark.parametrize(
    ("name", "seconds"), [("hello_world", 1.03), ("weather_question", 1.87), ("jfk", 11.0)]
)
def test_reads_the_recordings(name: str, seconds: float) -> None:
    path = AUDIO / f"{name}.wav"
    recording = wav.read(path)
    assert (recording.rate, recording.channels) == (8000, 1)
    assert recording.seconds == pytest.approx(seconds, abs=0.01)
    assert wav.read(str(path)) == wav.read(path.read_bytes()) == recording
    with wave.open(str(path)) as judge:
        assert judge.readframes(judge.getnframes()) == recording.pcm


@given(rate=st.integers(1, 96000), channels=st.integers(1, 4), frames=st.binary(max_size=200))
def test_what_is_written_is_read(rate: int, channels: int, frames: bytes) -> None:
    pcm = frames[: len(frames) - len(frames) % (2 * channels)]
    recording = Wav(rate, channels, pcm)
    content = wav.to_bytes(recording)
    assert wav.read(content) == recording
    with wave.open(io.BytesIO(content)) as judge:
        assert judge.getparams()[:4] == (channels, 2, rate, len(pcm) // (2 * channels))


def test_write_makes_a_file(tmp_path: Path) -> None:
    recording = Wav(16000, 2, b"\1\2\3\4" * 16000)
    wav.write(tmp_path / "a.wav", recording)
    assert wav.read(tmp_path / "a.wav") == recording
    assert repr(recording) == "<Wav 1.00 s, 16000 Hz, 2 channels>"


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_header_knows_no_size(size: int) -> None:
    content = riff(chunk(b"fmt ", form()), chunk(b"data", b"\1\2\3\4", size), size=0xFFFFFFFF)
    assert wav.read(content) == Wav(8000, 1, b"\1\2\3\4")


def test_a_torn_last_sample_is_left_out() -> None:
    content = riff(chunk(b"fmt ", form(channels=2)), b"data" + struct.pack("<I", 99) + b"abcdef")
    assert wav.read(content) == Wav(8000, 2, b"abcd")


def test_other_chunks_are_passed_over() -> None:
    content = riff(
        chunk(b"LIST", b"odd"),
        chunk(b"fmt ", form()),
        chunk(b"fact", b"1234"),
        chunk(b"data", b"ab"),
    )
    assert wav.read(content) == Wav(8000, 1, b"ab")


@pytest.mark.parametrize("extra", [b"", b"\0\0"])
def test_mulaw(extra: bytes) -> None:
    content = riff(chunk(b"fmt ", form(tag=7, bits=8) + extra), chunk(b"data", bytes(range(256))))
    assert wav.read(content) == Wav(8000, 1, mulaw.decode(bytes(range(256))))
    assert wav.read_telephone(content) == bytes(range(256)).replace(b"\x7f", b"\xff")


def test_the_extensible_format_names_its_own_further_on() -> None:
    extension = struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    content = riff(chunk(b"fmt ", form(tag=0xFFFE) + extension), chunk(b"data", b"ab"))
    assert wav.read(content) == Wav(8000, 1, b"ab")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a WAV file"),
        (b"ID3\x04" + bytes(60), "not a WAV file"),
        (riff(), "no audio"),
        (riff(chunk(b"fmt ", form())), "no audio"),
        (riff(chunk(b"data", b"ab")), "before their format"),
        (riff(chunk(b"fmt ", form()[:10]), chunk(b"data", b"ab")), "torn"),
        (riff(chunk(b"fmt ", form(bits=24)), chunk(b"data", b"abc")), "format 1 with 24 bits"),
        (riff(chunk(b"fmt ", form(tag=3, bits=32)), chunk(b"data", b"abcd")), "format 3"),
        (riff(chunk(b"fmt ", form(channels=0)), chunk(b"data", b"ab")), "0 channels"),
        (riff(chunk(b"fmt ", form(rate=0)), chunk(b"data", b"ab")), "0 Hz"),
    ],
)
def test_what_it_cannot_read_it_names(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        wav.read(path)
    assert str(path) in str(caught.value)
    assert "takes a WAV file of 16-bit PCM or 8-bit mu-law" in str(caught.value)
    with pytest.raises(ValueError, match="WAV data"):
        wav.read(content)


@given(st.binary(max_size=120))
def test_garbage_is_a_value_error_or_a_recording(tail: bytes) -> None:
    try:
        recording = wav.read(riff(chunk(b"fmt ", form()), tail))
    except ValueError:
        return
    assert recording.rate == 8000


def test_a_missing_file_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        wav.read(tmp_path / "none.wav")


def test_a_studio_recording_becomes_telephone_audio() -> None:
    time = np.arange(48000) / 48000
    left = 8000 * np.sin(2 * np.pi * 500 * time)
    stereo = np.rint(np.stack([left, np.zeros(48000)], axis=1)).astype("<i2").tobytes()
    heard = np.frombuffer(
        mulaw.decode(wav.read_telephone(wav.to_bytes(Wav(48000, 2, stereo)))), "<i2"
    )
    assert len(heard) == 8000
    assert np.abs(heard[400:7600]).max() == pytest.approx(4000, rel=0.03)
    crossings = np.count_nonzero(np.diff(np.sign(heard[400:7600].astype(int)) >= 0))
    assert crossings == pytest.approx(900, abs=2)


def test_no_audio_at_all_is_fine() -> None:
    assert wav.read_telephone(wav.to_bytes(Wav(24000, 2, b""))) == b""
