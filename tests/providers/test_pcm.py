"""Speech in other forms than bare PCM: WAV files are read, what is compressed is refused."""

from __future__ import annotations

import struct

import pytest
import trio
from trio.testing import MockClock

from voicecore.errors import ProviderError

from .fake_openai import Answer, FakeOpenAI
from .test_openai import client, say


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for what is under way in the kernel's loopback."""
    return MockClock(autojump_threshold=0.02)


def wav(
    rate: int = 16000,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    sizes: tuple[int, int] | None = None,
    samples: int | None = None,
) -> bytes:
    """A tone (of a second) as a WAV file, with chunks that nobody needs around it."""
    period = b"".join(struct.pack("<h", level) * channels * 20 for level in (-9000, 9000))
    sample = period * ((samples or rate) // 40)
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * 2, channels * 2, bits)
    odd = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    riff, data = sizes or (4 + 24 + 14 + 8 + len(sample) + 14, len(sample))
    return (
        b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + layout
        + odd + b"data" + struct.pack("<I", data) + sample + (b"" if sizes else odd)
    )  # fmt: skip


async def spoken(content_type: str, body: bytes, size: int = 4801) -> bytes:
    answer = Answer(content_type=content_type, chunks=(body,)).in_chunks_of(size)
    async with FakeOpenAI(tts=[answer]) as fake, client(fake) as vendor:
        return await say(vendor)


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/x-wav", "audio/pcm", ""])
async def test_a_wav_file_is_played_without_its_header_at_its_own_rate(
    content_type: str, clock: MockClock
) -> None:
    plain = wav()[-14 - 32000 : -14]
    expected = await spoken("audio/pcm; rate=16000", plain)
    assert await spoken(content_type, wav()) == expected
    for sizes in ((0xFFFFFFFF, 0xFFFFFFFF), (0, 0)):
        assert await spoken(content_type, wav(sizes=sizes)) == expected


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_a_wav_file_may_be_cut_anywhere(size: int, clock: MockClock) -> None:
    short = wav(rate=4000, channels=2, samples=400)
    assert await spoken("audio/wav", short, size) == await spoken("audio/wav", short, 10**6)


async def test_two_channels_become_one(clock: MockClock) -> None:
    assert await spoken("audio/wav", wav(channels=2)) == await spoken("audio/wav", wav())


async def test_the_first_audio_of_a_wav_file_is_not_waited_for(clock: MockClock) -> None:
    answer = Answer(content_type="audio/wav", chunks=(wav(24000),)).in_chunks_of(4800)
    async with FakeOpenAI(tts=[answer.hangs_after(3)]) as fake, client(fake) as vendor:
        async with vendor.tts.speak("Hello.", "", "en-US") as audio:
            began = trio.current_time()
            assert await anext(aiter(audio))
            assert trio.current_time() - began < 0.1


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("audio/mpeg", bytes(9600)),
        ("audio/ogg", bytes(9600)),
        ("audio/pcm", b"ID3\x04" + bytes(9600)),
        ("audio/pcm", b"\xff\xfb\x90\x64" + bytes(9600)),
        ("", b"\xff\xf1\x50\x80" + bytes(9600)),
        ("application/octet-stream", b"OggS" + bytes(9600)),
        ("audio/wav", b"fLaC" + bytes(9600)),
        ("audio/wav", b"RIFF" + bytes(9600)),
        ("audio/wav", wav(bits=24)),
        ("audio/wav", wav(tag=7)),
        ("audio/wav", wav(channels=3)),
        ("audio/wav", wav()[:40]),
        ("audio/wav", wav().replace(b"LIST\x05\0\0\0", b"LIST\xff\xff\xff\x7f")),
        ("audio/wav", wav().replace(b"fmt ", b"junk")),
    ],
)
async def test_what_is_not_pcm_is_garbage_and_never_played(
    content_type: str, body: bytes, clock: MockClock
) -> None:
    answer = Answer(content_type=content_type, chunks=(body,)).in_chunks_of(5)
    async with FakeOpenAI(tts=[answer]) as fake, client(fake) as vendor:
        pieces: list[bytes] = []
        with pytest.raises(ProviderError, match="openai: garbage"):
            await say(vendor, pieces)
        assert b"".join(pieces) == b""


@pytest.mark.parametrize("head", [b"\xff\xff\x20\x00", b"\xff\xff\xff\xff", b"\xff", b"\0\0\1"])
async def test_quiet_samples_are_no_mpeg(head: bytes, clock: MockClock) -> None:
    body = head if len(head) < 4 else head + bytes(4800)
    await spoken("audio/pcm", body)
