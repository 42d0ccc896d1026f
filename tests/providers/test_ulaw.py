"""Mu-law from the network: what is passed on, what is taken off, what is refused."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.providers.ulaw import HEADER_BYTES, MulawStream, NotMulaw

from .fake_tts import voice

AUDIO = voice(0.1)
NEUTRAL = [
    "",
    "audio/mulaw",
    "audio/x-mulaw",
    "audio/basic",
    "audio/pcm",
    "application/octet-stream",
    "binary/octet-stream",
]


def wav(
    audio: bytes = AUDIO,
    layout: tuple[int, int, int, int] = (7, 1, 8000, 8),
    size: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """A WAV file; the layout is format tag, channels, rate, bits."""
    tag, channels, rate, bits = layout
    form = struct.pack("<HHIIHHH", tag, channels, rate, rate * channels, channels, bits, 0)
    return (
        b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + extra
        + b"fmt " + struct.pack("<I", len(form)) + form
        + b"data" + struct.pack("<I", len(audio) if size is None else size) + audio
    )  # fmt: skip


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def passed(
    data: bytes,
    content_type: str = "audio/mulaw",
    size: int = 1 << 20,
    into: list[bytes] | None = None,
) -> bytes:
    """Return what comes of `data` in pieces of `size`; `into` keeps what came if it fails."""
    stream = MulawStream(content_type)
    pieces = [] if into is None else into
    for at in range(0, len(data), size):
        pieces.append(stream.feed(data[at : at + size]))
    return b"".join(pieces) + stream.end()


@pytest.mark.parametrize("content_type", NEUTRAL)
def test_mulaw_passes_untouched(content_type: str) -> None:
    for size in (1, 7, 160, 1 << 20):
        assert passed(AUDIO, content_type, size) == AUDIO, size


@given(st.binary(max_size=40), st.integers(1, 20))
def test_whatever_is_judged_audio_comes_out_whole(data: bytes, size: int) -> None:
    try:
        assert passed(data, size=size) == data
    except NotMulaw:
        assert data[:4] in (b"RIFF", b"OggS", b"fLaC", b"\x1a\x45\xdf\xa3") or data[:1] in b"{[<I"


@given(st.binary(min_size=12, max_size=60), st.integers(1, 60))
def test_the_cut_makes_no_difference(data: bytes, size: int) -> None:
    def outcome(cut: int) -> bytes | str:
        try:
            return passed(data, size=cut)
        except NotMulaw as error:
            return str(error)

    assert outcome(size) == outcome(1 << 20)


def test_nothing_waits_for_more_than_the_first_bytes() -> None:
    stream = MulawStream("")
    assert stream.feed(AUDIO[:11]) == b""
    assert stream.feed(AUDIO[11:12]) == AUDIO[:12]
    assert stream.feed(AUDIO[12:13]) == AUDIO[12:13]


@pytest.mark.parametrize("quiet", [b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"\xff\xff\xff\xff"])
def test_quiet_samples_are_no_mpeg(quiet: bytes) -> None:
    assert passed(quiet + AUDIO, "audio/mulaw") == quiet + AUDIO


@pytest.mark.parametrize("content_type", ["audio/mpeg", "audio/aac"])
def test_a_careless_name_does_not_silence_mulaw(content_type: str) -> None:
    loud = b"\x80" + AUDIO
    assert passed(loud, content_type) == loud


@pytest.mark.parametrize("size", [1, 13, 1 << 20])
@pytest.mark.parametrize("claimed", [None, 0, 0xFFFFFFFF])
def test_a_header_is_taken_off(claimed: int | None, size: int) -> None:
    odd = chunk(b"LIST", b"INFOx")
    assert passed(wav(size=claimed, extra=odd), "audio/wav", size) == AUDIO
    assert passed(wav(size=claimed), "", size) == AUDIO


@pytest.mark.parametrize("size", [1, 13, 1 << 20])
def test_what_stands_behind_the_audio_is_no_audio(size: int) -> None:
    assert passed(wav() + chunk(b"LIST", b"INFOclick"), "audio/wav", size) == AUDIO


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'{"error": "quota"}', "text"),
        (b'{\n  "detail": []}', "text"),
        (b"<!DOCTYPE html><html>", "text"),
        (b"<html><body>", "text"),
        (b'<?xml version="1.0"?>', "text"),
        (b"ID3\x04" + AUDIO, "compressed"),
        (b"OggS\0" + AUDIO, "compressed"),
        (b"fLaC\0" + AUDIO, "compressed"),
        (b"\x1a\x45\xdf\xa3" + AUDIO, "compressed"),
        (b"\0\0\0\x20ftypM4A " + AUDIO, "compressed"),
        (wav(layout=(1, 1, 8000, 16)), "another kind"),
        (wav(layout=(6, 1, 8000, 8)), "another kind"),
        (wav(layout=(7, 1, 16000, 8)), "another kind"),
        (wav(layout=(7, 2, 8000, 8)), "another kind"),
        (wav().replace(b"fmt ", b"junk"), "without a format"),
        (wav()[:30], "without audio"),
        (b"RIFF", "without audio"),
        (wav(extra=chunk(b"JUNK", bytes(HEADER_BYTES))), "endless header"),
    ],
)
def test_what_is_no_mulaw_is_refused(data: bytes, what: str) -> None:
    for size in (1, 1 << 20):
        heard: list[bytes] = []
        with pytest.raises(NotMulaw, match=what):
            passed(data, size=size, into=heard)
        assert b"".join(heard) == b""


@pytest.mark.parametrize(
    "head", [b"\xff\xfb\x90\x64", b"\xff\xf3\x40\xc0", b"\xff\xf1\x50\x80", b"ID3\x03"]
)
def test_named_compressed_and_begun_like_it_is_refused(head: bytes) -> None:
    with pytest.raises(NotMulaw, match="compressed"):
        passed(head + AUDIO, "audio/mpeg")


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "text/plain", "application/json", "application/problem+json", "video/mp4",
     "audio/l16", "sk-SECRET 1/x"],
)  # fmt: skip
def test_what_names_itself_something_else_is_refused(content_type: str) -> None:
    with pytest.raises(NotMulaw) as refusal:
        MulawStream(content_type)
    assert "SECRET" not in str(refusal.value)


def test_a_server_whose_voices_speak_mulaw_needs_no_numpy() -> None:
    code = (
        "import sys, voicecore.providers.elevenlabs, voicecore.providers.sarvam, "
        "voicecore.providers.cartesia, voicecore.providers.aura; sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
