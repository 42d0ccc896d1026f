"""What webhooks find again: for how long, how much of it, and which of two workers gets it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from voicecore.server import store as store_module
from voicecore.server.store import (
    SWEEP_EVERY,
    VALUE_BYTES,
    DirectoryStore,
    MemoryStore,
    Store,
    store_for,
)

Make = Callable[..., Store]


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "directory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def store(clock: Clock, most_bytes: int = 1 << 20) -> Store:
        if request.param == "memory":
            return MemoryStore(clock, most_bytes)
        return DirectoryStore(tmp_path, clock, most_bytes)

    return store


async def test_a_value_lives_as_long_as_it_was_given(make: Make) -> None:
    store = make(clock := Clock())
    await store.put("call", "CA1", b"one", 10)
    await store.put("call", "CA1", b"two", 10)
    await store.put("audio", "CA1", b"three", 20)
    assert await store.get("call", "CA1") == b"two"
    clock.now += 10
    assert await store.get("call", "CA1") is None
    assert await store.pop("audio", "CA1") == b"three"
    assert await store.get("audio", "CA1") is None
    assert await store.pop("audio", "CA1") is None


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "v3:T02/é\0", "\udcff"])
async def test_any_key_is_a_key(make: Make, key: str) -> None:
    store = make(Clock())
    await store.put("call", key, b"", 10)
    assert await store.get("call", key) == b""
    assert await store.get("call", key + "x") is None


async def test_what_ends_first_goes_first_when_there_is_too_much(make: Make) -> None:
    store = make(Clock(), 10_000)
    for number in range(SWEEP_EVERY):
        await store.put("audio", str(number), bytes(1000), 100 + number)
    kept = [n for n in range(SWEEP_EVERY) if await store.get("audio", str(n)) is not None]
    assert 5 <= len(kept) <= 10
    assert kept == list(range(SWEEP_EVERY))[-len(kept) :]


async def test_what_is_over_does_not_pile_up(make: Make, tmp_path: Path) -> None:
    store = make(clock := Clock())
    for number in range(4 * SWEEP_EVERY):
        await store.put("call", str(number), b"x", 1)
        clock.now += 1
    held = getattr(store, "_values", None)
    assert len(held if held is not None else os.listdir(tmp_path)) <= SWEEP_EVERY


async def test_too_large_a_value_is_refused(make: Make) -> None:
    store = make(Clock())
    with pytest.raises(ValueError, match="at most"):
        await store.put("audio", "a", bytes(VALUE_BYTES + 1), 10)


async def test_workers_share_a_directory_and_one_of_them_takes(tmp_path: Path) -> None:
    clock = Clock()
    one, other = store_for(str(tmp_path), clock), store_for(str(tmp_path), clock)
    await one.put("order", "x", b"dial", 10)
    assert await other.get("order", "x") == b"dial"
    got: list[bytes | None] = []

    async def take(store: Store) -> None:
        got.append(await store.pop("order", "x"))

    async with trio.open_nursery() as nursery:
        for store in (one, other, one, other):
            nursery.start_soon(take, store)
    assert got.count(b"dial") == 1
    assert got.count(None) == 3
    assert os.listdir(tmp_path) == []


async def test_a_torn_file_is_no_value(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, Clock())
    await store.put("call", "CA1", b"whole", 10)
    [name] = os.listdir(tmp_path)
    os.truncate(tmp_path / name, 5)
    assert await store.get("call", "CA1") is None
    assert isinstance(store_for("", Clock()), MemoryStore)


async def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, Clock())
    await store.put("call", "CA1", b"one", 10)
    (name,) = os.listdir(tmp_path)
    os.unlink(tmp_path / name)
    os.mkdir(tmp_path / name)  # stands in the way, as a full disk would
    for _ in range(3):
        with pytest.raises(OSError, match="directory"):
            await store.put("call", "CA1", b"two", 10)
    assert os.listdir(tmp_path) == [name]


async def test_small_values_are_bounded_by_their_number(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MOST_VALUES", 10)
    store = make(Clock())
    for number in range(2 * SWEEP_EVERY):
        await store.put("call", str(number), b"", 100 + number)
    kept = [n for n in range(2 * SWEEP_EVERY) if await store.get("call", str(n)) is not None]
    assert kept == list(range(2 * SWEEP_EVERY))[-10:]


async def test_a_strangers_name_of_a_call_is_not_kept_in_memory() -> None:
    store = MemoryStore(Clock())
    await store.put("call", "x" * 60_000, b"one", 10)
    assert all(len(str(name)) < 100 for name in store._values)
    assert await store.get("call", "x" * 60_000) == b"one"


async def test_a_value_that_is_replaced_again_and_again_takes_its_room_once() -> None:
    store = MemoryStore(clock := Clock(), 1000)
    for _ in range(10 * SWEEP_EVERY):
        await store.put("call", "CA1", bytes(100), 3600)
        clock.now += 1
    await store.put("call", "CA2", bytes(900), 3600)
    assert await store.get("call", "CA1") == bytes(100)
    assert len(store._ends) <= 2 * SWEEP_EVERY
