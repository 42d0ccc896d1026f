"""The speech cache's keys and its memory: what is the same, what is kept, and what goes."""

from __future__ import annotations

import gc
import tracemalloc
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import assert_checkpoints

from voicecore.providers.cache import ENTRY_BYTES, SpeechCache, SpeechKey

MB = 1 << 20
HELLO = "Hello there, how are you?"


def key(text: str = HELLO, **fields: str) -> SpeechKey:
    given = {"provider": "acme", "model": "m1", "voice": "ann", "language": "en-US", "text": text}
    return SpeechKey(**{**given, **fields})


# The key


@pytest.mark.parametrize(
    "same",
    ["Hello  there,\thow are\nyou? ", " Hello there, how\u00a0are you?", "\r\n" + HELLO + "\u2003"],
)
def test_white_space_does_not_count(same: str) -> None:
    assert key(same) == key()
    assert key(same).digest == key().digest


def test_composed_and_decomposed_letters_are_one() -> None:
    composed, decomposed = "Café à la crème", unicodedata.normalize("NFD", "Café à la crème")
    assert composed != decomposed
    assert key(composed) == key(decomposed)


@pytest.mark.parametrize(
    "other",
    [HELLO.lower(), HELLO[:-1], HELLO[:-1] + "!", HELLO + "?", "Hello, there, how are you?"],
)
def test_case_and_punctuation_count(other: str) -> None:
    assert key(other).digest != key().digest


@pytest.mark.parametrize("name", ["provider", "model", "voice", "language", "text"])
def test_every_field_counts(name: str) -> None:
    assert replace(key(), **{name: "other"}).digest != key().digest
    assert replace(key(), **{name: ""}).digest != key().digest


FIELDS = st.lists(st.text("ab \0", max_size=2), min_size=5, max_size=5)


@given(FIELDS, FIELDS)
def test_one_key_one_digest(one: list[str], other: list[str]) -> None:
    first, second = SpeechKey(*one), SpeechKey(*other)
    assert (first == second) == (first.digest == second.digest)
    assert len(first.digest) == 32


def test_no_letters_move_between_fields() -> None:
    assert key(voice="ab", language="c").digest != key(voice="a", language="bc").digest


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert key(key(text).text) == key(text)


def test_half_a_surrogate_pair_is_a_key_too() -> None:
    assert key("\ud83d").digest != key("\ude00").digest


# Memory


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "get", "get"]),
        st.integers(0, 15),
        st.sampled_from([0, 1, 200, 237, 238, 239, 613, 614, 2000]),
    ),
    max_size=80,
)


class Model:
    """What the cache should do, as lists: the oldest used first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used: list[int] = []
        self.audio: dict[int, bytes] = {}

    def size(self, entries: Sequence[int]) -> int:
        return sum(len(self.audio[entry]) + ENTRY_BYTES for entry in entries)

    def put(self, entry: int, audio: bytes) -> None:
        if not audio or len(audio) + ENTRY_BYTES > self.limit // 8:
            return
        if entry in self.used:
            return
        self.audio[entry] = audio
        self.used.append(entry)
        while self.size(self.used) > self.limit:
            self.used.pop(0)

    def get(self, entry: int) -> bytes | None:
        if entry in self.used:
            self.used.remove(entry)
            self.used.append(entry)
        return self.audio[entry] if entry in self.used else None


@given(st.sampled_from([6000, 9000]), STEPS)
def test_it_does_what_the_model_does(limit: int, steps: list[Step]) -> None:
    async def follow() -> None:
        cache, model = SpeechCache(limit), Model(limit)
        hits = misses = 0
        for what, entry, size in steps:
            if what == "put":
                cache.put(key(str(entry)), bytes([entry]) * size, 0.25)
                model.put(entry, bytes([entry]) * size)
            else:
                audio = await cache.get(key(str(entry)))
                assert audio == model.get(entry)
                hits, misses = hits + (audio is not None), misses + (audio is None)
            kept = model.used
            statistics = cache.statistics()
            assert statistics.bytes == model.size(kept) <= limit
            assert statistics.entries == len(kept)
            assert (statistics.hits, statistics.misses) == (hits, misses)
            assert statistics.saved_s == 0.25 * hits

    trio.run(follow)


async def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = SpeechCache(10 * (400 + ENTRY_BYTES))
    for number in range(10):
        cache.put(key(str(number)), bytes(400), 0.1)
    for number in (0, 2):
        assert await cache.get(key(str(number)))
    for number in range(10, 15):
        cache.put(key(str(number)), bytes(400), 0.1)
    kept = {number for number in range(15) if await cache.get(key(str(number)))}
    assert kept == {0, 2, *range(7, 15)}
    assert cache.statistics().evictions == 5


async def test_what_it_holds_is_what_it_says() -> None:
    cache = SpeechCache(2 * MB)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(5000):
        cache.put(key(str(number)), bytes(800 + number % 800), 0.1)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2 * MB
    assert cache.statistics().bytes > 1.9 * MB
    assert cache.statistics().evictions == 5000 - len(cache)


async def test_an_eighth_of_the_limit_and_a_minute_are_too_much() -> None:
    small, large = SpeechCache(80_000), SpeechCache(64 * MB)
    assert small.max_audio_bytes == 10_000 - ENTRY_BYTES
    assert large.max_audio_bytes == 60 * 8000
    for cache in (small, large):
        cache.put(key("most"), bytes(cache.max_audio_bytes), 0.1)
        cache.put(key("more"), bytes(cache.max_audio_bytes + 1), 0.1)
        cache.put(key("none"), b"", 0.1)
        assert await cache.get(key("most")) is not None
        assert await cache.get(key("more")) is None
        assert await cache.get(key("none")) is None


async def test_it_always_lets_others_run() -> None:
    cache = SpeechCache(MB)
    cache.put(key(), bytes(800), 0.1)
    with assert_checkpoints():
        await cache.get(key())
    with assert_checkpoints():
        await cache.get(key("unknown"))
