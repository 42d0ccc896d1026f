"""The breaker in its place: who is asked, who waits, and what a cancelled turn leaves behind."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from voicecore.errors import ProviderError
from voicecore.providers.breaker import BreakerState

from .failing import TEXT, Failing, Stage, state


@pytest.fixture(params=["llm", "tts"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


async def test_after_five_failures_nobody_waits_for_it_any_more(
    stage: Stage, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    first = stage.fakes[0]
    first._faults = iter(["hang"] * 6)
    order = stage.order(*stage.fakes)
    for _ in range(5):
        assert state(order) is BreakerState.CLOSED
        assert await stage.answer(order) == TEXT
    assert state(order) is BreakerState.OPEN
    began = trio.current_time()
    for _ in range(20):
        assert await stage.answer(order) == TEXT
    assert trio.current_time() == began
    assert stage.asked == [5, 25]
    [trip] = [line for line in caplog.messages if "left alone" in line]
    assert f"{stage.name} by first" in trip


async def test_one_call_probes_and_the_others_do_not_wait(
    stage: Stage, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = stage.fakes
    broken = Failing(first, "connect", "first")
    order = stage.order(broken, second)
    for _ in range(5):
        await stage.answer(order)
    await trio.sleep(10)
    broken.is_down, first.seconds = False, 0.5
    waited: list[float] = []

    async def call() -> None:
        began = trio.current_time()
        assert await stage.answer(order) == TEXT
        waited.append(trio.current_time() - began)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call)
    assert waited == [0] * 7 + [0.5]
    assert stage.asked == [6, 12]
    assert state(order) is BreakerState.CLOSED
    assert f"{stage.name} by first works again" in caplog.messages
    await stage.answer(order)
    assert stage.asked == [7, 12]


async def test_a_probe_that_fails_costs_one_call_its_time(
    stage: Stage, autojump_clock: MockClock
) -> None:
    first, second = stage.fakes
    order = stage.order(Failing(first, "connect", "first"), second)
    for _ in range(5):
        await stage.answer(order)
    for probes in range(1, 4):
        await trio.sleep(10)
        assert await stage.answer(order) == TEXT
        assert await stage.answer(order) == TEXT
        assert stage.asked[0] == 5 + probes
        assert state(order) is BreakerState.OPEN


async def test_alone_it_is_left_alone_too_and_the_turn_fails_at_once(
    stage: Stage, autojump_clock: MockClock
) -> None:
    broken = Failing(stage.fakes[0], "refused", "first")
    order = stage.order(broken)
    for _ in range(5):
        with pytest.raises(ProviderError, match="as told"):
            await stage.answer(order)
    await trio.sleep(4)
    with pytest.raises(ProviderError, match="not asked after 5 failures; tried again in 6 s") as it:
        await stage.answer(order)
    assert it.value.fault == "refused"
    assert stage.asked == [5, 0]
    assert order.order.failures == {("first", "refused"): 5}
    broken.is_down = False
    await trio.sleep(6)
    assert await stage.answer(order) == TEXT


async def test_a_whole_answer_between_failures_forgives(
    stage: Stage, autojump_clock: MockClock
) -> None:
    broken = Failing(stage.fakes[0], "busy", "first")
    order = stage.order(broken, stage.fakes[1])
    for _ in range(5):
        for _ in range(4):
            broken.is_down = True
            assert await stage.answer(order) == TEXT
        broken.is_down = False
        assert await stage.answer(order) == TEXT
    assert state(order) is BreakerState.CLOSED
    assert order.order.failures.total() == 20


async def test_an_answer_that_comes_as_its_time_is_over_is_too_late(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """The event loop stalls: the item is there, but the next await would be cancelled."""

    class Stalling(Failing):
        def _fail(self, where: str) -> None:
            if where == "first":
                autojump_clock.jump(3)

    order = stage.order(Stalling(stage.fakes[0], "busy", "first"), stage.fakes[1])
    assert await stage.answer(order) == TEXT
    assert order.order.failures == {("first", "timeout"): 1}
    stage.assert_closed()


async def test_breakers_are_each_providers_own(stage: Stage) -> None:
    order = stage.order(Failing(stage.fakes[0], "busy", "entry"), stage.fakes[1])
    for _ in range(5):
        await stage.answer(order)
    assert (state(order, 0), state(order, 1)) == (BreakerState.OPEN, BreakerState.CLOSED)


async def test_half_answers_open_it_too(stage: Stage, autojump_clock: MockClock) -> None:
    order = stage.order(Failing(stage.fakes[0], "cut", "later"), stage.fakes[1])
    for _ in range(5):
        with pytest.raises(ProviderError):
            await stage.answer(order)
        await trio.sleep(1)
    assert await stage.answer(order) == TEXT
    assert stage.asked == [5, 1]


async def test_who_has_just_broken_off_is_asked_last(
    stage: Stage, autojump_clock: MockClock
) -> None:
    """Whoever asks again does so because of that."""
    order = stage.order(Failing(stage.fakes[0], "cut", "later"), stage.fakes[1])
    with pytest.raises(ProviderError):
        await stage.answer(order)
    assert await stage.answer(order) == TEXT
    assert stage.asked == [1, 1]


@pytest.mark.parametrize("is_probe", [False, True])
async def test_cancelled_anywhere_nothing_is_open_and_nothing_counted(
    stage: Stage, is_probe: bool, autojump_clock: MockClock
) -> None:
    """The first takes 0.3 s to fail, the second 0.3 s to answer, the reader 0.1 s an item."""
    first, second = stage.fakes
    broken = Failing(first, "status", "first")
    counted = set()
    for step in range(16):
        order = stage.order(broken, second)
        first.seconds = second.seconds = 0
        if is_probe:
            for _ in range(5):
                await stage.answer(order)
            await trio.sleep(10)
        first.seconds = second.seconds = 0.3
        before = order.order.failures.total()
        with trio.move_on_after(step * 0.05 + 0.02):
            async with stage.ask(order) as items:
                async for _ in items:
                    await trio.sleep(0.1)
        stage.assert_closed()
        assert state(order) is not BreakerState.HALF_OPEN
        failed = order.order.failures.total() - before
        counted.add(failed)
        assert failed == (step * 0.05 + 0.02 > 0.3)
    assert counted == {0, 1}


async def test_a_cancelled_probe_leaves_its_place_to_the_next_call(
    stage: Stage, autojump_clock: MockClock
) -> None:
    first, second = stage.fakes
    broken = Failing(first, "status", "first")
    order = stage.order(broken, second)
    for _ in range(5):
        await stage.answer(order)
    await trio.sleep(10)
    broken.is_down, first.seconds = False, 1.0
    with trio.move_on_after(0.5):
        await stage.answer(order)
    assert state(order) is BreakerState.OPEN
    assert await stage.answer(order) == TEXT
    assert stage.asked == [7, 5]
    assert state(order) is BreakerState.CLOSED


async def test_who_leaves_early_closes_the_request(stage: Stage, autojump_clock: MockClock) -> None:
    order = stage.order(*stage.fakes)
    async with stage.ask(order) as items:
        async for _ in items:
            break
    stage.assert_closed()
    assert not order.order.failures
