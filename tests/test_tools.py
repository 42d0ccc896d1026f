"""Tools in whole calls: when they run, what the caller hears meanwhile, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.call.call import Call
from voicecore.call.tool_run import INTERRUPTED, RUNNING
from voicecore.call.toolbox import CallInfo
from voicecore.call.tools import ASKED, NOT_ASKED
from voicecore.call.transfer import Transfer
from voicecore.contracts import Delta, Message, ToolCall
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, fake_agent

SALES = "+15550002222"
TEN = "one two three four five six seven eight nine ten."


def use(name: str, **arguments: object) -> ToolCall:
    return ToolCall(f"call-{name}", name, json.dumps(arguments))


def answering(*first: Delta, then: str = "It is sunny.") -> FakeLLM:
    """Asks for tools once, then says what came of it."""

    def answer(messages: Sequence[Message]) -> str | Sequence[Delta]:
        last = messages[-1]
        if last.role == "tool":
            return then if then != "result" else last.text
        return first

    return FakeLLM(answer=answer)


def with_weather(agent: Agent, seconds: float = 0, on_barge_in: str = "cancel") -> list[str]:
    """Give `agent` a tool that takes so long; return what happens to it."""
    log: list[str] = []

    @agent.tool(on_barge_in=on_barge_in)  # type: ignore[call-overload, untyped-decorator]
    async def weather(info: CallInfo, city: str) -> str:
        """Tell the weather."""
        log.append(f"began {city} {trio.current_time():.1f}")
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            log.append("cancelled")
            raise
        log.append("done")
        return f"Sunny in {city}."

    return log


def roles(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]


async def test_a_tool_is_used_and_its_result_answered(autojump_clock: MockClock) -> None:
    llm = answering("Let me look.", use("weather", city="Paris"), then="result")
    agent = fake_agent(llm=llm)
    log = with_weather(agent)
    transcript = await ScriptedCaller().says("hello there").listens().hangs_up().call(agent)
    assert len(log) == 2
    assert " ".join(transcript.heard) == "Let me look. Sunny in Paris."
    assert roles(transcript.history) == [
        ("user", "hello there"),
        ("assistant", "Let me look."),
        ("tool", "Sunny in Paris."),
        ("assistant", "Sunny in Paris."),
    ]
    [call] = transcript.history[1].tool_calls
    assert call.name == "weather"
    assert transcript.history[2].tool_call_id == call.id
    assert llm.offered[0] == ("end_call", "press_digits", "collect_digits", "weather")
    # The second question to the model has the call and its result.
    assert roles(llm.prompts[-1])[1:] == roles(transcript.history)[:3]


async def test_no_tool_runs_before_the_turn_is_certain(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=answering("Sure.", use("weather", city="Paris")))
    log = with_weather(agent)
    caller = (
        ScriptedCaller().says("what is").pauses(0.2).says("the weather").pauses(0.2)
        .says("in paris").listens().hangs_up()
    )  # fmt: skip
    began = trio.current_time()
    await caller.call(agent)
    assert [entry.split()[0] for entry in log] == ["began", "done"]  # three speculations, one use
    # Words of 0.3 s, pauses of 0.2 s: the caller ends at 2.2 s, the turn 0.3 s later.
    assert float(log[0].split()[-1]) - began == pytest.approx(2.5, abs=0.1)


async def test_a_guess_that_was_wrong_used_no_tool(autojump_clock: MockClock) -> None:
    agent = fake_agent(FakeSTT(0.5), answering("Sure.", use("weather", city="Paris")))
    log = with_weather(agent)
    caller = ScriptedCaller().says("what").pauses(0.25).says("weather").pauses(0.1).hangs_up()
    await caller.call(agent)
    assert log == []


@pytest.mark.parametrize(("on_barge_in", "end"), [("cancel", "cancelled"), ("keep", "done")])
async def test_an_interruption_cancels_a_tool_or_spares_it(
    on_barge_in: str, end: str, autojump_clock: MockClock
) -> None:
    def answer(messages: Sequence[Message]) -> str | Sequence[Delta]:
        if "forget" in messages[-1].text:
            return "As you wish."
        return ["Let me look.", use("weather", city="Paris")]

    llm = FakeLLM(answer=answer)
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    log = with_weather(agent, 3, on_barge_in)
    caller = (
        ScriptedCaller().says("weather please").pauses(1.8).says("forget it please")
        .pauses(4).hangs_up()
    )  # fmt: skip
    transcript = await caller.call(agent)
    assert log[-1] == end
    assert log[1:] == [end]
    assert transcript.heard[-3:] == ["As", "you", "wish."]
    [result] = [message for message in transcript.history if message.role == "tool"]
    assert result.text == (INTERRUPTED if end == "cancelled" else "Sunny in Paris.")
    at_the_time = [message for message in llm.prompts[-1] if message.role == "tool"][-1]
    assert at_the_time.text == (INTERRUPTED if end == "cancelled" else RUNNING)


async def test_a_cough_while_a_tool_runs_changes_nothing(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=answering("Let me look.", use("weather", city="Paris")))
    log = with_weather(agent, 3, "keep")
    caller = ScriptedCaller().says("weather please").pauses(1.6).coughs(0.3).pauses(6).hangs_up()
    transcript = await caller.call(agent)
    assert log[1:] == ["done"]
    assert transcript.heard[-3:] == ["It", "is", "sunny."]
    assert [m.role for m in transcript.history] == ["user", "assistant", "tool", "assistant"]


async def test_a_slow_tool_is_bridged(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=answering(use("weather", city="Paris")), idle_prompt_s=3)
    with_weather(agent, 9.5)
    caller = ScriptedCaller().says("weather please").listens().listens().listens().hangs_up()
    transcript = await caller.call(agent)
    said = " ".join(transcript.heard)
    first, second, _ = agent.persona.stock_words.fillers
    assert said == f"{first} {second} It is sunny."
    waited = next(at for at, word in transcript.words if word == first.split()[0]) - 0.6
    assert 0.8 < waited < 1.5
    assert roles(transcript.history)[1] == ("assistant", f"{first} {second}")


async def test_a_tool_has_fillers_of_its_own_and_words_are_heard_first(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent(llm=answering(TEN, use("book", table=4), then="Booked."))

    @agent.tool(filler="Booking it now.")
    async def book(table: int) -> None:
        """Book a table."""
        await trio.sleep(5)

    transcript = await ScriptedCaller().says("a table").listens().listens().hangs_up().call(agent)
    assert " ".join(transcript.heard) == f"{TEN} Booking it now. Booked."
    assert transcript.history[2].text == "done"


async def test_silence_while_a_tool_runs_is_no_underrun(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=answering("Let me look.", use("weather", city="Paris")))
    with_weather(agent, 3)
    calls: list[Call] = []

    async def keep(call: Call) -> None:
        calls.append(call)
        await trio.lowlevel.checkpoint()

    caller = ScriptedCaller().says("weather").listens().listens().listens().hangs_up()
    await caller.call(agent, keep)
    statistics = calls[0].playback
    assert (statistics.underruns, statistics.starved) == (0, 0)


async def test_two_tools_at_once_and_one_after_the_other(autojump_clock: MockClock) -> None:
    def answer(messages: Sequence[Message]) -> str | Sequence[Delta]:
        results = [message.text for message in messages if message.role == "tool"]
        if not results:
            return ["First.", use("slow", n=1), ToolCall("b", "slow", '{"n": 2}')]
        return ["Then.", ToolCall("c", "slow", '{"n": 3}')] if len(results) == 2 else "Done."

    agent = fake_agent(llm=FakeLLM(answer=answer))
    at: list[float] = []

    @agent.tool
    async def slow(n: int) -> int:
        at.append(trio.current_time())
        await trio.sleep(0.5)
        return n

    transcript = await ScriptedCaller().says("go").pauses(6).hangs_up().call(agent)
    assert at[0] == at[1]
    assert at[2] == pytest.approx(at[0] + 0.5)
    assert roles(transcript.history)[1:] == [
        ("assistant", "First."), ("tool", "1"), ("tool", "2"),
        ("assistant", "Then."), ("tool", "3"), ("assistant", "Done."),
    ]  # fmt: skip


async def test_a_model_that_only_calls_tools_comes_to_an_end(autojump_clock: MockClock) -> None:
    llm = FakeLLM(answer=lambda m: ["Again.", use("weather", city="Paris")])
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    log = with_weather(agent)
    await ScriptedCaller().says("go").pauses(9).hangs_up().call(agent)
    assert log.count("done") == 8
    assert llm.offered[-1] == ()


async def test_the_last_word_is_heard_before_the_call_is_given_away(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent(llm=answering("Connecting you.", use("transfer_call", to="sales")))
    agent = replaced(agent, sales="+15550002222")
    given: list[Transfer | None] = []

    async def watch(call: Call) -> None:
        await call.wait_ended()
        given.append(call.transfer)

    transcript = await ScriptedCaller().says("sales please").pauses(9).call(agent, watch)
    assert transcript.heard == ["Connecting", "you."]
    assert transcript.ended_by == "transfer"
    assert given == [Transfer("+15550002222")]


async def test_nobody_is_given_away_without_a_word(autojump_clock: MockClock) -> None:
    agent = replaced(fake_agent(llm=answering(use("transfer_call", to="sales"))), sales="+15550002")
    transcript = await ScriptedCaller().says("sales please").pauses(9).call(agent)
    assert " ".join(transcript.heard) == agent.persona.stock_words.connecting
    assert transcript.ended_by == "transfer"


async def test_a_transfer_to_nobody_is_told_to_the_model(autojump_clock: MockClock) -> None:
    llm = answering("Well.", use("transfer_call", to="nobody"), then="I cannot do that.")
    agent = replaced(fake_agent(llm=llm), sales="+15550002222")
    transcript = await ScriptedCaller().says("nobody").listens().hangs_up().call(agent)
    assert transcript.heard[-4:] == ["I", "cannot", "do", "that."]
    assert "'sales'" in transcript.history[2].text


async def test_an_interrupted_farewell_gives_nobody_away(autojump_clock: MockClock) -> None:
    def answer(messages: Sequence[Message]) -> str | Sequence[Delta]:
        return "Yes?" if "wait" in messages[-1].text else [TEN, use("transfer_call", to="sales")]

    agent = replaced(fake_agent(llm=FakeLLM(answer=answer)), sales="+15550002222")
    caller = ScriptedCaller().says("sales").pauses(1.5).says("wait wait").listens().hangs_up()
    transcript = await caller.call(agent)
    assert transcript.ended_by == "caller"
    assert transcript.heard[-1] == "Yes?"


def replaced(agent: Agent, **transfers: str) -> Agent:
    from dataclasses import replace

    return replace(agent, transfers=transfers)


class Switchboard:
    """Is asked to call somebody, and does, or cannot now."""

    def __init__(self, can: bool) -> None:
        self.asked: list[tuple[str, str]] = []
        self._can = can

    def ask(self, call_sid: str, number: str, briefing: str) -> bool:
        self.asked.append((number, briefing))
        return self._can


@pytest.mark.parametrize(("can", "told"), [(True, ASKED), (False, NOT_ASKED)])
async def test_somebody_is_asked_while_the_caller_stays(
    can: bool, told: str, autojump_clock: MockClock
) -> None:
    ask = use("transfer_call", to="sales", briefing="Ada wants a pizza.")
    agent = replaced(fake_agent(llm=answering("One second.", ask, then="result")), sales=SALES)
    board = Switchboard(can)

    async def watch(call: Call) -> None:
        call.operator = board
        await trio.lowlevel.checkpoint()

    caller = ScriptedCaller().pauses(0.1).says("sales").listens().hangs_up()
    transcript = await caller.call(agent, watch)
    assert board.asked == [(SALES, "Ada wants a pizza.")]
    assert transcript.ended_by == "caller"
    assert transcript.history[2].text == told
    assert transcript.heard[:2] == ["One", "second."]


async def test_failing_three_times_gives_the_caller_to_a_human(autojump_clock: MockClock) -> None:
    agent = replaced(fake_agent(llm=FakeLLM(faults=["error"] * 9)), human="+15550009999")
    await agent.prepare()
    caller = (
        ScriptedCaller().says("one").listens().says("two").listens().says("three").listens()
        .pauses(9)
    )  # fmt: skip
    transcript = await caller.call(agent)
    assert transcript.ended_by == "transfer"
    assert agent.persona.stock_words.connecting.split()[-1] == transcript.heard[-1]


async def test_a_tool_is_stopped_when_the_caller_hangs_up(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=answering("Let me look.", use("weather", city="Paris")))
    log = with_weather(agent, 60)
    await ScriptedCaller().says("weather please").pauses(3).hangs_up().call(agent)
    assert log[1:] == ["cancelled"]


@pytest.mark.parametrize(("seconds", "end"), [(3.0, "done"), (60.0, "cancelled")])
async def test_a_tool_that_is_spared_has_a_moment_longer_than_its_call(
    seconds: float, end: str, autojump_clock: MockClock
) -> None:
    agent = fake_agent(llm=answering("Let me look.", use("weather", city="Paris")))
    log = with_weather(agent, seconds, "keep")
    began = trio.current_time()
    caller = ScriptedCaller().says("weather please").pauses(2.5).hangs_up()
    transcript = await caller.call(agent)
    assert log[1:] == [end]
    assert transcript.ended_by == "caller"
    assert trio.current_time() - began < 5.5


async def test_a_slow_tts_and_a_tool_share_one_voice(autojump_clock: MockClock) -> None:
    llm = answering("Let me look into the book.", use("weather", city="Paris"))
    agent = fake_agent(FakeSTT(0.1), llm, FakeTTS(0.7, speed=1.5))
    with_weather(agent, 2)
    caller = ScriptedCaller().says("weather").pauses(8).hangs_up()
    transcript = await caller.call(agent)
    heard = " ".join(transcript.heard)
    assert heard.startswith("Let me look into the book.")
    assert heard.endswith("It is sunny.")
    assert transcript.warnings == []
