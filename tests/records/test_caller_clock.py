"""Where the caller's sound lies, whatever network and carrier make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.records.caller_clock import CallerClock

RATE = 8000
FRAME_S = 0.02
CLOSE = 0.02

Frame = tuple[float, int | None]
"""When a frame came, and what the carrier says of it."""


def placed(frames: Iterable[Frame], size: int = 160) -> list[tuple[float, bytes]]:
    """Run the clock over frames; each is marked, and found again where it lies."""
    clock = CallerClock()
    found: list[tuple[int, bytes]] = []
    now = 0.0
    for number, (now, at_ms) in enumerate(frames):
        mark = number.to_bytes(4) * (size // 4)
        found += clock.place(mark, at_ms, now)
    found += clock.settle()
    return [(at / RATE, audio) for at, audio in found]


def errors(frames: list[Frame], truth: list[float], size: int = 160) -> list[float]:
    """How far each frame begins from where it did in truth."""
    found = placed(frames, size)
    assert [audio[:4] for _, audio in found] == [n.to_bytes(4) for n in range(len(frames))]
    return [at - true for (at, _), true in zip(found, truth, strict=True)]


def line(seconds: float, *, skew: float = 0.0, first_ms: int | None = 155) -> list[Frame]:
    """Frames on a perfect network; the carrier's clock is `skew` fast."""
    count = round(seconds / FRAME_S)
    stamps = (None if first_ms is None else first_ms + n * 20 for n in range(count))
    return [((n + 1) * FRAME_S / (1 + skew), stamp) for n, stamp in enumerate(stamps)]


def truth(frames: list[Frame]) -> list[float]:
    return [at - FRAME_S for at, _ in frames]


def stalled(frames: list[Frame], stalls: Iterable[tuple[float, float]]) -> list[Frame]:
    """Nothing passes from a stall's beginning to its end; then all of it does at once."""
    late = frames
    for begins, lasts in stalls:
        late = [
            (begins + lasts if begins <= at < begins + lasts else at, stamp) for at, stamp in late
        ]
    return late


@pytest.mark.parametrize("first_ms", [155, None, 1705312200000])
def test_a_quiet_network(first_ms: int | None) -> None:
    frames = line(60, first_ms=first_ms)
    assert max(map(abs, errors(frames, truth(frames)))) < 0.001


@pytest.mark.parametrize("first_ms", [155, None])
@pytest.mark.parametrize("stall", [(0.0, 0.4), (3.0, 0.1), (3.0, 0.5), (3.0, 2.5), (9.9, 5.0)])
def test_a_burst_behind_a_stall_fills_the_hole_and_shifts_nothing(
    stall: tuple[float, float], first_ms: int | None
) -> None:
    frames = line(30, first_ms=first_ms)
    assert max(map(abs, errors(stalled(frames, [stall]), truth(frames)))) < CLOSE


@given(
    st.lists(st.tuples(st.floats(0.6, 55), st.floats(0.02, 3)), max_size=4),
    st.booleans(),
)
def test_any_stalls_shift_nothing(stalls: list[tuple[float, float]], stamped: bool) -> None:
    frames = line(60, first_ms=0 if stamped else None)
    late = stalled(frames, stalls)
    found = errors(late, truth(frames))
    if stamped:
        assert max(map(abs, found)) < CLOSE
    assert abs(found[-1]) < CLOSE


@pytest.mark.parametrize("skew", [-1e-3, -2e-4, -5e-5, 5e-5, 2e-4, 1e-3])
@pytest.mark.parametrize("first_ms", [155, None])
def test_clocks_that_do_not_run_alike_stay_together(skew: float, first_ms: int | None) -> None:
    frames = line(600, skew=skew, first_ms=first_ms)
    assert max(map(abs, errors(frames, truth(frames)))) < CLOSE


def test_timestamps_that_are_rounded_leave_no_holes() -> None:
    frames = [(at, 155 + n * 20 + (-3, 4, 0, -1)[n % 4]) for n, (at, _) in enumerate(line(20))]
    found = placed(frames)
    assert {round((b - a) * RATE) for (a, _), (b, _) in pairwise(found)} == {160}


def test_what_the_carrier_lost_is_a_hole() -> None:
    frames = [frame for n, frame in enumerate(line(20)) if not 300 <= n < 317]
    assert max(map(abs, errors(frames, truth(frames)))) < 0.001


@pytest.mark.parametrize("first_ms", [155, None])
def test_silence_that_is_not_sent_is_a_hole(first_ms: int | None) -> None:
    frames = [frame for n, frame in enumerate(line(30, first_ms=first_ms)) if n % 500 < 250]
    assert max(map(abs, errors(frames, truth(frames)))) < CLOSE


def test_a_carrier_that_counts_no_silence_is_followed_in_the_end() -> None:
    """Its timestamps go on as if nothing had been left out."""
    sent = [at for n, (at, _) in enumerate(line(60)) if not 250 <= n < 500]
    frames = [(at, n * 20) for n, at in enumerate(sent)]
    found = errors(frames, [at - FRAME_S for at in sent])
    assert abs(found[-1]) < CLOSE


def test_big_messages_end_when_they_come() -> None:
    frames = [((n + 1) * 0.1, n * 100) for n in range(100)]
    assert max(map(abs, errors(frames, [n * 0.1 for n in range(100)], size=800))) < 0.001


HOSTILE: dict[str, Callable[[int], int | None]] = {
    "huge": lambda n: 10**14 + n * 10**12,
    "huge once": lambda n: 10**14 if n == 100 else n * 20,
    "zero": lambda n: 0,
    "backwards": lambda n: 100_000 - n * 20,
    "ten times too fast": lambda n: n * 200,
    "ten times too slow": lambda n: n * 2,
    "random": lambda n: hash((n, "x")) % 10**6,
    "now and then": lambda n: n * 20 if n % 3 else None,
    "a jump of a day": lambda n: n * 20 + (86_400_000 if n > 200 else 0),
    "samples": lambda n: n * 160,
}


@pytest.mark.parametrize("stamps", HOSTILE.values(), ids=HOSTILE)
def test_timestamps_that_lie_cost_nothing(stamps: Callable[[int], int | None]) -> None:
    frames = [(at, stamps(n)) for n, (at, _) in enumerate(line(30))]
    found = errors(frames, truth(frames))
    assert max(found) < CLOSE  # nothing lies in the future
    assert abs(found[-1]) < CLOSE
    assert min(found) > -3


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.none() | st.integers(0, 10**15), st.integers(1, 900)),
        max_size=80,
    )
)
def test_nothing_is_lost_and_nothing_lies_in_the_future(
    messages: list[tuple[float, int | None, int]],
) -> None:
    clock, now, sizes, found = CallerClock(), 0.0, [], []
    for waited, at_ms, size in messages:
        now += waited
        for at, audio in clock.place(b"\x10" * size, at_ms, now):
            assert at + len(audio) <= round(now * RATE) + 1
            found.append(len(audio))
        sizes.append(size)
    found += [len(audio) for _, audio in clock.settle()]
    assert found == sizes
