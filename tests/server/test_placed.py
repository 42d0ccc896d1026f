"""How many calls an hour, over all workers, and one call a key: the ledger's part of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.server.ledger import HOUR_S, MOST_PER_HOUR, Ledger, ledger_bytes
from voicecore.server.port.limits import LEDGER_RECORDS


@given(
    st.lists(st.floats(0, 2000, allow_nan=False), max_size=60),
    st.integers(1, 5),
)
def test_no_hour_has_more_than_its_calls_and_none_is_refused_too_early(
    steps: list[float], most: int
) -> None:
    ledger, now, placed = Ledger(), 1e9, list[float]()
    for step in steps:
        now += step
        within = [at for at in placed if at + HOUR_S > now]
        wait = ledger.place_call("", now, most)
        if len(within) < most:
            assert wait == 0
            placed.append(now)
        else:
            assert wait == pytest.approx(within[-most] + HOUR_S - now)
    ledger.close()


def test_the_ring_goes_round() -> None:
    ledger = Ledger()
    for number in range(MOST_PER_HOUR + 5):
        assert ledger.place_call("", 1e9 + number * 3600, MOST_PER_HOUR) == 0
    now = 1e9 + number * 3600
    assert ledger.place_call("", now + 1, 2) == 0
    assert ledger.place_call("", now + 2, 2) == pytest.approx(3598)


def test_a_key_is_good_once_and_again_when_it_was_not_used_after_all() -> None:
    ledger = Ledger()
    assert ledger.place_call("k", 1e9, 2) == 0
    assert ledger.was_placed("k")
    assert ledger.place_call("k", 1e9, 2) is None
    assert ledger.place_call("l", 1e9, 2) == 0
    assert ledger.place_call("m", 1e9, 2) == HOUR_S
    assert ledger.place_call("k", 1e9, 2) is None  # full, and yet its first answer is wanted
    ledger.forget_placed("k")
    assert not ledger.was_placed("k")
    assert ledger.place_call("k", 1e9, 3) == 0
    assert ledger.calls == 0


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    path.write_bytes(bytes(ledger_bytes(2)))
    return path


@pytest.fixture
def shared(memory: Path) -> Iterator[int]:
    with memory.open("r+b") as file:
        yield file.fileno()


def test_workers_share_the_hour_and_the_keys(shared: int) -> None:
    one, two = Ledger(0, 2, shared), Ledger(1, 2, shared)
    assert one.place_call("k", 1e9, 2) == 0
    assert two.place_call("k", 1e9, 2) is None
    assert two.place_call("", 1e9 + 1, 2) == 0
    assert one.place_call("", 1e9 + 2, 2) == HOUR_S - 2
    two.forget_placed("k")  # not its own
    assert one.was_placed("k")
    for number in range(LEDGER_RECORDS):
        two.note_ending(f"CA{number}", "agent")
    assert (one.was_placed("k"), one.calls) == (True, 0)


def place_many(memory: Path, worker: int) -> int:
    with memory.open("r+b") as file:
        ledger = Ledger(worker, 2, file.fileno())
        mine = sum(ledger.place_call("", 1e9 + n, 100) == 0 for n in range(500))
        return mine + 1000 * (ledger.place_call("one", 1e9, MOST_PER_HOUR) == 0)


def test_two_processes_place_no_more_than_there_may_be(memory: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(place_many, [memory, memory], [0, 1]))
    assert sum(done) == 100 + 1000
