from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import FRAME_BYTES, SILENCE_FRAME
from voicecore.audio.framing import Framer


@given(st.lists(st.binary(max_size=500), max_size=12))
def test_nothing_is_lost_or_added_but_the_padding(chunks: list[bytes]) -> None:
    framer, frames = Framer(), []
    for chunk in chunks:
        frames += framer.feed(chunk)
        assert 0 <= framer.pending < FRAME_BYTES
    audio = b"".join(chunks)
    assert FRAME_BYTES * len(frames) + framer.pending == len(audio)
    tail = framer.flush()
    assert (tail is None) == (len(audio) % FRAME_BYTES == 0)
    frames += [] if tail is None else [tail]
    assert all(len(frame) == FRAME_BYTES for frame in frames)
    joined = b"".join(frames)
    assert joined[: len(audio)] == audio
    assert joined[len(audio) :] == SILENCE_FRAME[: len(joined) - len(audio)]


def test_a_whole_frame_passes_at_once() -> None:
    framer = Framer()
    assert framer.feed(b"a" * 160) == [b"a" * 160]
    assert framer.pending == 0
    assert framer.flush() is None


def test_the_remainder_goes_first() -> None:
    framer = Framer()
    assert framer.feed(b"a" * 100) == []
    assert framer.pending == 100
    assert framer.feed(b"b" * 230) == [b"a" * 100 + b"b" * 60, b"b" * 160]
    assert framer.feed(b"c") == []
    assert repr(framer) == "<Framer 11 bytes pending>"
    assert framer.flush() == b"b" * 10 + b"c" + b"\xff" * 149


def test_flush_begins_anew() -> None:
    framer = Framer()
    framer.feed(b"a")
    assert framer.flush() is not None
    assert framer.flush() is None
    assert framer.feed(b"b" * 160) == [b"b" * 160]
