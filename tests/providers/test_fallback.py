"""Fallback orders: who answers when the first does not, how soon, and what is left behind."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Message, ToolCall, Usage, WarmsUp
from voicecore.errors import ProviderError, ProviderFault
from voicecore.providers.breaker import BreakerState
from voicecore.providers.fallback import FallbackLLM, FallbackTTS
from voicecore.testing import FakeLLM, FakeTTS

from .failing import HELLO, TEXT, Failing, Grouping, Scripted, Stage, state

FAULTS: tuple[ProviderFault, ...] = get_args(ProviderFault)


@pytest.fixture(params=["llm", "tts"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return Stage(request.param)


@pytest.mark.parametrize("kind", [Failing, Grouping])
@pytest.mark.parametrize("where", ["entry", "first"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_who_fails_before_it_gave_anything_is_followed_by_the_next(
    stage: Stage, fault: ProviderFault, where: str, kind: type[Failing], autojump_clock: MockClock
) -> None:
    order = stage.order(kind(stage.fakes[0], fault, where), stage.fakes[1])
    assert await stage.answer(order) == TEXT
    assert trio.current_time() == 0
    assert order.order.failures == {("first", fault): 1}
    stage.assert_closed()


@pytest.mark.parametrize("fault", FAULTS)
async def test_who_fails_after_that_is_followed_by_nobody(
    stage: Stage, fault: ProviderFault, autojump_clock: MockClock
) -> None:
    order = stage.order(Failing(stage.fakes[0], fault, "later"), stage.fakes[1])
    given: list[Any] = []

    async def read() -> None:
        async with stage.ask(order) as items:
            async for item in items:
                given.append(item)  # noqa: PERF401  what came before the failure counts

    with pytest.raises(ProviderError) as failure:
        await read()
    assert failure.value.fault == fault
    assert len(given) == 1
    assert stage.asked == [1, 0]
    assert order.order.failures == {("first", fault): 1}
    stage.assert_closed()


async def test_a_group_after_the_first_item_is_raised_as_it_is(
    stage: Stage, autojump_clock: MockClock
) -> None:
    order = stage.order(Grouping(stage.fakes[0], "cut", "later"), stage.fakes[1])
    with pytest.RaisesGroup(ProviderError):
        await stage.answer(order)
    assert stage.asked == [1, 0]


async def test_what_the_reader_raises_is_not_the_providers_failure(
    stage: Stage, autojump_clock: MockClock
) -> None:
    order = stage.order(*stage.fakes)
    with pytest.raises(ProviderError, match="too long"):
        async with stage.ask(order):
            raise ProviderError("reader", "garbage", "too long")
    assert stage.asked == [1, 0]
    assert not order.order.failures
    stage.assert_closed()


async def test_a_bug_is_not_a_failure(stage: Stage) -> None:
    class Odd:
        def reply(self, *asked: Any) -> Any:
            raise ZeroDivisionError

        speak = reply

    with pytest.raises(ZeroDivisionError):
        await stage.answer(stage.order(Odd(), stage.fakes[1]))


@pytest.mark.parametrize(("name", "seconds"), [("llm", 2.0), ("tts", 1.5)])
async def test_who_hangs_is_given_up_while_the_caller_still_waits(
    name: str, seconds: float, autojump_clock: MockClock
) -> None:
    stage = Stage(name)
    stage.fakes[0]._faults = iter(["hang"])
    order = stage.order(*stage.fakes)
    assert await stage.answer(order) == TEXT
    assert trio.current_time() == seconds
    assert order.order.failures == {("first", "timeout"): 1}
    stage.assert_closed()


@pytest.mark.parametrize(("name", "seconds"), [("llm", 5.2), ("tts", 3.6)])
async def test_the_last_one_has_more_time_and_a_hang_of_its_own_is_a_failure_too(
    name: str, seconds: float, autojump_clock: MockClock
) -> None:
    stage = Stage(name)
    stage.fakes[0]._faults = iter(["hang"])
    order = stage.order(stage.fakes[0])
    with pytest.raises(ProviderError, match="first: timeout: nothing within"):
        await stage.answer(order)
    assert trio.current_time() == seconds
    stage.assert_closed()


async def test_who_has_begun_may_take_its_time(stage: Stage, autojump_clock: MockClock) -> None:
    """The allowance is for the first item only; whoever plays the rest may be slow as well."""
    order = stage.order(*stage.fakes)
    async with stage.ask(order) as items:
        await trio.sleep(60)
        given = []
        async for item in items:
            given.append(item)
            await trio.sleep(60)
    assert stage.words(given) == TEXT
    assert state(order) is BreakerState.CLOSED


async def test_everybody_fails(stage: Stage) -> None:
    order = stage.order(
        Failing(stage.fakes[0], "busy", "entry"), Failing(stage.fakes[1], "connect", "first")
    )
    with pytest.raises(ProviderError) as failure:
        await stage.answer(order)
    assert failure.value.fault == "connect"
    assert order.order.failures == {("first", "busy"): 1, ("second", "connect"): 1}
    stage.assert_closed()


async def test_an_empty_answer_is_none(stage: Stage) -> None:
    order = stage.order(Scripted(*(["", ""] if stage.name == "llm" else [b""])), stage.fakes[1])
    assert await stage.answer(order) == TEXT
    assert order.order.failures == {("first", "garbage"): 1}


async def test_after_a_tool_there_may_be_nothing_to_say() -> None:
    silent, other = FakeLLM(answer=lambda messages: ""), FakeLLM()
    order = FallbackLLM([("a", silent), ("b", other)])
    async with order.reply((*HELLO, Message("tool", "ok", tool_call_id="1")), ()) as deltas:
        assert [delta async for delta in deltas] == []
    assert not other.requests
    assert not order.order.failures


async def test_calls_and_costs_pass_through() -> None:
    """A tool call is an answer; what it cost is none, wherever it stands."""
    call, cost = ToolCall("1", "end_call"), Usage(10, 2)

    order = FallbackLLM([("a", Scripted(cost)), ("b", Scripted("", cost, call, cost))])
    async with order.reply(HELLO, ()) as deltas:
        assert [delta async for delta in deltas] == [cost, call, cost]


async def test_voices_are_each_providers_own() -> None:
    asked: list[str] = []

    class Voiced(FakeTTS):
        def speak(self, text: str, voice: str, language: str) -> Any:
            asked.append(voice)
            return super().speak(text, voice, language)

    def order() -> FallbackTTS:
        failing = [Voiced(faults=["error"]) for _ in range(2)]
        members = [("a", failing[0]), ("b", failing[1]), ("c", Voiced())]
        return FallbackTTS(members, voices=("anna", "otto"))

    for voice in ("", "emma", "emma, max"):
        async with order().speak("hi", voice, "en-US") as audio:
            assert [piece async for piece in audio]
    assert asked == ["anna", "otto", "", "emma", "otto", "", "emma", "max", ""]


# Abilities


async def test_the_one_who_would_be_asked_is_warmed_up(autojump_clock: MockClock) -> None:
    warmed: list[str] = []

    class Warm(FakeLLM):
        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.name = name

        async def warm_up(self, language: str) -> None:
            warmed.append(f"{self.name} {language}")

    order = FallbackLLM([("a", Warm("a", faults=["error"] * 5)), ("b", Warm("b"))])
    assert isinstance(order, WarmsUp)
    await order.warm_up("en-US")
    for _ in range(5):
        async with order.reply(HELLO, ()):
            pass
    await order.warm_up("hi-IN")
    assert warmed == ["a en-US", "b hi-IN"]
    await FallbackTTS([("a", FakeTTS())]).warm_up("en-US")


def test_an_order_needs_somebody() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FallbackLLM([])
