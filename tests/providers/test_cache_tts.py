"""The TTS with a cache around it: what is streamed, what is kept, and what it costs."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, assert_checkpoints

from voicecore.errors import ProviderError
from voicecore.providers.cache import (
    ENTRY_BYTES,
    SLICE_BYTES,
    CachedTTS,
    CacheStatistics,
    SpeechCache,
)
from voicecore.testing import FakeTTS

MB = 1 << 20
HELLO = "Hello there, how are you?"


def cached(tts: Any, limit_bytes: int = MB) -> CachedTTS:
    return CachedTTS(tts, SpeechCache(limit_bytes), "acme", "m1")


async def spoken(tts: Any, text: str = HELLO, voice: str = "", language: str = "en-US") -> bytes:
    audio = b""
    async with tts.speak(text, voice, language) as pieces:
        async for piece in pieces:
            audio += piece
    return audio


@dataclass
class PiecesTTS:
    """Gives these pieces, then fails as it is told."""

    pieces: Sequence[bytes]
    fails: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    warmed: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterable[bytes]]:
        self.asked.append((text, voice, language))
        self._fail("on entry")
        async with aclosing(self._stream()) as stream:
            yield stream
        self._fail("on leaving")

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        for number, piece in enumerate(self.pieces):
            if number:
                self._fail("half-way")
            yield piece
        self._fail("at the end")

    def _fail(self, when: str) -> None:
        if self.fails == when:
            raise ProviderError("acme", "cut", when)

    async def warm_up(self, language: str) -> None:
        self.warmed.append(language)


async def test_the_second_time_is_free(autojump_clock: MockClock) -> None:
    inner = FakeTTS(0.7, speed=4)
    tts = cached(inner)
    first = await spoken(tts)
    began = trio.current_time()
    assert await spoken(tts, f"  {HELLO}\n") == first
    assert trio.current_time() == began
    assert len(inner.requests) == 1
    assert tts.cache.statistics() == CacheStatistics(
        hits=1, misses=1, bytes=len(first) + ENTRY_BYTES, entries=1, saved_s=pytest.approx(0.7)
    )


@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_a_hit_is_the_same_bytes_in_slices(pieces: list[bytes]) -> None:
    async def twice() -> None:
        tts = cached(PiecesTTS(pieces))
        assert await spoken(tts) == b"".join(pieces)
        async with tts.speak(HELLO, "", "en-US") as stream:
            slices = [piece async for piece in stream]
        assert b"".join(slices) == b"".join(pieces)
        if slices and b"".join(pieces):
            assert tts.cache.statistics().hits == 1
            assert max(map(len, slices)) <= SLICE_BYTES <= 0.5 * 8000

    trio.run(twice)


async def test_others_run_between_the_slices_of_a_hit() -> None:
    tts = cached(PiecesTTS([bytes(5 * SLICE_BYTES)]))
    await spoken(tts)
    async with tts.speak(HELLO, "", "en-US") as stream:
        slices = aiter(stream)
        for _ in range(5):
            with assert_checkpoints():
                assert len(await anext(slices)) == SLICE_BYTES


async def test_voices_and_languages_have_their_own() -> None:
    inner = PiecesTTS([b"x" * 160])
    tts = cached(inner)
    asked = [(HELLO, "ann", "en-US"), (HELLO, "bob", "en-US"), (HELLO, "ann", "en-IN")]
    for _ in range(2):
        for text, voice, language in asked:
            await spoken(tts, text, voice, language)
    assert inner.asked == asked
    other = CachedTTS(inner, tts.cache, "acme", "m2")
    await spoken(other, *asked[0])
    assert len(inner.asked) == 4


@pytest.mark.parametrize("fails", ["on entry", "half-way", "at the end", "on leaving"])
async def test_what_failed_is_not_kept(fails: str) -> None:
    inner = PiecesTTS([b"x" * 160, b"y" * 160], fails)
    tts = cached(inner)
    for _ in range(2):
        with pytest.raises(ProviderError, match=fails):
            await spoken(tts)
    assert len(inner.asked) == 2
    assert len(tts.cache) == 0


async def test_what_was_left_early_is_not_kept() -> None:
    inner = PiecesTTS([b"x" * 160, b"y" * 160])
    tts = cached(inner)
    for pieces in range(3):
        async with tts.speak(HELLO, "", "en-US") as stream:
            taken = aiter(stream)
            for _ in range(pieces):
                await anext(taken)
        assert len(tts.cache) == 0
    assert len(inner.asked) == 3
    await spoken(tts)
    assert len(tts.cache) == 1


async def test_what_its_listener_broke_off_is_not_kept() -> None:
    tts = cached(PiecesTTS([b"x" * 160]))

    async def break_off() -> None:
        async with tts.speak(HELLO, "", "en-US") as stream:
            assert [piece async for piece in stream] == [b"x" * 160]
            raise KeyError

    with pytest.raises(KeyError):
        await break_off()
    assert len(tts.cache) == 0


async def test_cancelled_at_any_moment_nothing_is_kept_and_nothing_left_open(
    autojump_clock: MockClock,
) -> None:
    inner = FakeTTS(0.1, speed=1)
    tts = cached(inner)
    length = 0.1 + (15 * 5 - 5) * 0.02
    for step in range(round((length + 0.1) / 0.01)):
        with trio.move_on_after(0.005 + step * 0.01) as scope:
            await spoken(tts)
        assert not inner.open_requests
        assert len(tts.cache) == (0 if scope.cancelled_caught else 1)
        if not scope.cancelled_caught:
            break
    assert 0.005 + step * 0.01 == pytest.approx(length, abs=0.011)
    with trio.CancelScope() as gone:
        gone.cancel()
        await spoken(tts)
    assert gone.cancelled_caught


async def test_two_who_ask_at_once_both_stream_and_one_is_kept(autojump_clock: MockClock) -> None:
    inner = FakeTTS(0.5, speed=2)
    tts = cached(inner)
    heard: list[bytes] = []

    async def ask() -> None:
        heard.append(await spoken(tts))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    together = trio.current_time() - began
    assert len(inner.requests) == 2
    assert len({(request.opened, request.closed) for request in inner.requests}) == 1
    assert together == inner.requests[0].closed
    assert len(tts.cache) == 1
    heard.append(await spoken(tts))
    assert len(inner.requests) == 2
    assert heard[0] == heard[1] == heard[2]


async def test_too_long_is_streamed_whole_and_not_kept() -> None:
    inner = PiecesTTS([b"x" * 1000] * 20)
    tts = cached(inner, 80_000)
    assert await spoken(tts) == await spoken(tts) == b"x" * 20_000
    assert len(inner.asked) == 2
    assert len(tts.cache) == 0


async def test_of_a_stream_that_is_too_long_little_is_held() -> None:
    tts = cached(PiecesTTS([bytes(100_000)] * 100))
    gc.collect()
    tracemalloc.start()
    async with tts.speak(HELLO, "", "en-US") as stream:
        taken = [len(piece) async for piece in stream]
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(taken) == 10_000_000
    assert peak < MB


async def test_a_limit_of_zero_is_no_cache() -> None:
    inner = PiecesTTS([b"x" * 1000])
    tts = cached(inner, 0)
    assert await spoken(tts) == await spoken(tts) == b"x" * 1000
    assert len(inner.asked) == 2
    assert tts.cache.statistics() == CacheStatistics()


async def test_warming_up_is_passed_on_to_who_can() -> None:
    inner = PiecesTTS([])
    await cached(inner).warm_up("en-US")
    await cached(FakeTTS()).warm_up("en-US")
    assert inner.warmed == ["en-US"]
