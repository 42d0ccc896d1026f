"""Tools and keys in whole calls with a model that hears and speaks: the rules of the three stages,
and a memory that is told what became of its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cancellations import assert_legal
from test_digits import types
from test_tools import Switchboard, roles, use, with_weather
from trio.testing import MockClock

from voicecore.audio.dtmf import tones
from voicecore.call.agent import Agent
from voicecore.call.call import Call
from voicecore.call.tool_run import INTERRUPTED, RUNNING
from voicecore.call.toolbox import CallInfo
from voicecore.call.transfer import Transfer
from voicecore.contracts import Message, ToolCall
from voicecore.testing import FakeModel, FakeTTS, ScriptedCaller, audible, fake_agent

TEN = "one two three four five six seven eight nine ten."
LOOK: tuple[str | ToolCall, ...] = ("Let me look.", use("weather", city="Paris"))


def answering(*first: str | ToolCall, then: str = "", **options: Any) -> FakeModel:
    """Asks for tools, then says what came of it."""
    conclude = (lambda results: then) if then else " ".join
    return FakeModel(answer=lambda words: first, conclude=conclude, **options)


def agent_of(model: FakeModel, greeting: str = "", **options: Any) -> Agent:
    return replace(fake_agent(greeting=greeting, idle_prompt_s=0, **options), model=model)


def results(model: FakeModel) -> list[tuple[str, object]]:
    """What the model was told of its calls."""
    return [told for told in model.told if told[0] not in ("heard", "said", "forget")]


async def test_a_tool_is_used_and_its_result_answered(autojump_clock: MockClock) -> None:
    model = answering(*LOOK)
    agent = agent_of(model)
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
    assert transcript.history[2].tool_call_id == call.id
    assert model.offered == ("end_call", "press_digits", "collect_digits", "weather")
    assert model.told == [(call.id, "Sunny in Paris.")]
    # A model that has lost its memory by then is told of the call.
    assert roles(model.prompts[-1]) == roles(transcript.history)[:3]


async def test_a_tool_with_the_name_of_one_of_ours_is_offered_once(
    autojump_clock: MockClock,
) -> None:
    model = answering("Hello.")
    agent = agent_of(model)

    @agent.tool
    async def press_digits(keys: str) -> str:
        """Press keys of our own."""
        return keys

    await ScriptedCaller().says("hello there").listens().hangs_up().call(agent)
    assert model.offered == ("end_call", "press_digits", "collect_digits")


async def test_it_is_begun_while_the_words_before_it_are_heard(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(TEN, use("weather", city="Paris")))
    log = with_weather(agent, 1)
    began = trio.current_time()
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(agent)
    assert float(log[0].split()[-1]) - began == pytest.approx(0.6, abs=0.1)
    assert " ".join(transcript.heard) == f"{TEN} Sunny in Paris."
    assert [m.text for m in transcript.history if m.role == "assistant"] == [TEN, "Sunny in Paris."]


async def test_no_tool_runs_before_the_turn_is_certain(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(*LOOK))
    log = with_weather(agent)
    caller = (
        ScriptedCaller().says("what is").pauses(0.2).says("the weather").pauses(0.2)
        .says("in paris").listens().hangs_up()
    )  # fmt: skip
    began = trio.current_time()
    await caller.call(agent)
    assert [entry.split()[0] for entry in log] == ["began", "done"]  # three beginnings, one use
    assert float(log[0].split()[-1]) - began == pytest.approx(2.5, abs=0.1)


@pytest.mark.parametrize(("question_s", "wait"), [(0.9, 0.9), (60, 3.0)])
async def test_a_tool_waits_for_the_callers_words(
    question_s: float, wait: float, autojump_clock: MockClock
) -> None:
    model = answering(use("look"), question_s=question_s)
    agent = agent_of(model)
    seen: list[tuple[float, Sequence[Message]]] = []

    @agent.tool
    async def look(info: CallInfo) -> str:
        seen.append((trio.current_time(), info.messages))
        return "It is there."

    await ScriptedCaller().says("my book", 0.6).pauses(7).hangs_up().call(agent)
    [(at, messages)] = seen
    assert at - model.requests[0].opened == pytest.approx(wait)
    assert messages[-1].role == "user"
    assert messages[-1].text == ("my book" if question_s < 3 else "[not transcribed]")


async def test_a_noise_uses_no_tool(autojump_clock: MockClock) -> None:
    model = answering(use("weather", city="Paris"), question_s=0.5)
    agent = agent_of(model)
    log = with_weather(agent)
    transcript = await ScriptedCaller().pauses(1).coughs(0.3).pauses(4).hangs_up().call(agent)
    assert log == []
    assert transcript.history == ()
    assert model.told == [("forget", "")]


@pytest.mark.parametrize(("on_barge_in", "end"), [("cancel", "cancelled"), ("keep", "done")])
async def test_an_interruption_cancels_a_tool_or_spares_it(
    on_barge_in: str, end: str, autojump_clock: MockClock
) -> None:
    model = FakeModel(answer=lambda words: "As you wish." if "forget" in words else LOOK)
    agent = agent_of(model)
    log = with_weather(agent, 3, on_barge_in)
    caller = (
        ScriptedCaller().says("weather please").pauses(1.8).says("forget it please")
        .pauses(4).hangs_up()
    )  # fmt: skip
    transcript = await caller.call(agent)
    assert log[1:] == [end]
    assert transcript.heard[-3:] == ["As", "you", "wish."]
    [result] = [message for message in transcript.history if message.role == "tool"]
    id_ = result.tool_call_id
    if end == "cancelled":
        assert result.text == INTERRUPTED
        assert results(model) == [(id_, INTERRUPTED)]
    else:
        assert result.text == "Sunny in Paris."
        assert results(model) == [(id_, RUNNING), (id_, "Sunny in Paris.")]
    # Nothing was answered because of it.
    assert len(model.requests) == 2


@pytest.mark.parametrize("on_barge_in", ["cancel", "keep"])
async def test_a_cough_while_a_tool_runs_changes_nothing(
    on_barge_in: str, autojump_clock: MockClock
) -> None:
    model = answering(*LOOK, then="It is sunny.")
    agent = agent_of(model)
    log = with_weather(agent, 3, on_barge_in)
    caller = ScriptedCaller().says("weather please").pauses(1.6).coughs(0.3).pauses(7).hangs_up()
    transcript = await caller.call(agent)
    assert log.count("done") == 1
    assert transcript.heard[-3:] == ["It", "is", "sunny."]
    assert [m.role for m in transcript.history] == ["user", "assistant", "tool", "assistant"]
    assert transcript.history[2].text == "Sunny in Paris."
    assert results(model)[-1][1] == "Sunny in Paris."
    assert len(results(model)) == 2  # what it was when the reply was cut, and what became of it


@pytest.mark.parametrize("pause", [0.6, 0.9, 1.3, 2.0, 2.6, 3.4, 4.2])
async def test_a_cough_at_any_time_loses_no_word(pause: float, autojump_clock: MockClock) -> None:
    then = "It is very sunny there."
    model = answering(TEN, use("weather", city="Paris"), then=then, seconds=0.3)
    agent = agent_of(model)
    log = with_weather(agent, 2, "keep")
    caller = ScriptedCaller().says("weather").pauses(pause).coughs(0.3).pauses(9).hangs_up()
    transcript = await caller.call(agent)
    assert " ".join(transcript.heard) == f"{TEN} {then}"
    assert log[1:] == ["done"]
    assert [m.text for m in transcript.history] == ["weather", TEN, "Sunny in Paris.", then]


async def test_a_barge_in_cuts_every_answer_at_what_was_heard(autojump_clock: MockClock) -> None:
    def answer(words: str) -> str | Sequence[str | ToolCall]:
        return "Yes?" if "wait" in words else [TEN, use("weather", city="Paris")]

    model = FakeModel(answer=answer, conclude=lambda results: "It is very sunny there.")
    agent = agent_of(model)
    with_weather(agent, 0.1)
    caller = ScriptedCaller().says("go").pauses(2).says("wait please").listens().hangs_up()
    transcript = await caller.call(agent)
    _, first, result, _, last = transcript.history
    assert first.interrupted
    assert (result.text, last.text) == ("Sunny in Paris.", "Yes?")
    heard = [ms for what, ms in model.told if what == "heard"]
    assert heard == [pytest.approx(300 * len(first.text.split()), abs=300), 0]


async def test_a_slow_tool_is_bridged(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(use("weather", city="Paris"), then="It is sunny."))
    with_weather(agent, 9.5)
    caller = ScriptedCaller().says("weather please").listens().listens().listens().hangs_up()
    transcript = await caller.call(agent)
    first, second, _ = agent.persona.stock_words.fillers
    assert " ".join(transcript.heard) == f"{first} {second} It is sunny."
    assert roles(transcript.history)[1] == ("assistant", f"{first} {second}")


async def test_words_are_heard_before_a_filler(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(TEN, use("book", table=4), then="Booked."))

    @agent.tool(filler="Booking it now.")
    async def book(table: int) -> None:
        await trio.sleep(5)

    transcript = await ScriptedCaller().says("a table").listens().listens().hangs_up().call(agent)
    assert " ".join(transcript.heard) == f"{TEN} Booking it now. Booked."
    assert transcript.history[1].text == f"{TEN} Booking it now."


async def test_silence_while_a_tool_runs_is_no_underrun(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(*LOOK, then="It is sunny."))
    with_weather(agent, 3)
    calls: list[Call] = []

    async def keep(call: Call) -> None:
        calls.append(call)
        await trio.lowlevel.checkpoint()

    caller = ScriptedCaller().says("weather").listens().listens().listens().hangs_up()
    await caller.call(agent, keep)
    statistics = calls[0].playback
    assert (statistics.underruns, statistics.starved) == (0, 0)


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("weather", {"town": "Paris"}, "It failed: city: Field required; town: Extra"),
        ("bug", {}, "It failed: division by zero"),
        ("hang", {}, "It took longer than 2 s and was stopped."),
        ("nothing_like_it", {}, "There is no tool named 'nothing_like_it'."),
    ],
)
async def test_what_goes_wrong_is_the_models_to_tell(
    name: str, arguments: dict[str, object], result: str, autojump_clock: MockClock
) -> None:
    model = answering("Well.", use(name, **arguments), then="Sorry about that.")
    agent = agent_of(model)
    with_weather(agent)

    @agent.tool
    async def bug() -> float:
        return 1 / 0

    @agent.tool(deadline_s=2)
    async def hang() -> None:
        await trio.sleep_forever()

    transcript = await ScriptedCaller().says("hello").pauses(6).hangs_up().call(agent)
    assert transcript.history[2].text.startswith(result)
    assert model.told == [(f"call-{name}", transcript.history[2].text)]
    assert transcript.heard[-3:] == ["Sorry", "about", "that."]


async def test_two_tools_at_once_and_one_after_the_other(autojump_clock: MockClock) -> None:
    def conclude(results: Sequence[str]) -> str | Sequence[str | ToolCall]:
        return ["Then.", ToolCall("c", "slow", '{"n": 3}')] if len(results) == 2 else "Done."

    first: list[str | ToolCall] = ["First.", use("slow", n=1), ToolCall("b", "slow", '{"n": 2}')]
    model = FakeModel(answer=lambda words: first, conclude=conclude)
    agent = agent_of(model)
    at: list[float] = []

    @agent.tool
    async def slow(n: int) -> int:
        at.append(trio.current_time())
        await trio.sleep(0.5)
        return n

    transcript = await ScriptedCaller().says("go").pauses(6).hangs_up().call(agent)
    assert at == pytest.approx([at[0], at[0], at[0] + 0.5])
    assert roles(transcript.history)[1:] == [
        ("assistant", "First."), ("tool", "1"), ("tool", "2"),
        ("assistant", "Then."), ("tool", "3"), ("assistant", "Done."),
    ]  # fmt: skip


async def test_a_model_that_only_calls_tools_comes_to_an_end(autojump_clock: MockClock) -> None:
    again = [use("weather", city="Paris")]
    model = FakeModel(answer=lambda words: again, conclude=lambda results: again)
    agent = agent_of(model)
    await agent.prepare()
    log = with_weather(agent)
    transcript = await ScriptedCaller().says("go").pauses(9).hangs_up().call(agent)
    assert log.count("done") == 8
    assert " ".join(transcript.heard) == agent.persona.stock_words.apology


async def test_a_failure_behind_a_tool_is_apologised_for(autojump_clock: MockClock) -> None:
    model = answering(*LOOK, faults=["", "error"])
    agent = agent_of(model)
    await agent.prepare()
    with_weather(agent)
    transcript = await ScriptedCaller().says("hello").pauses(9).hangs_up().call(agent)
    apology = agent.persona.stock_words.apology
    assert " ".join(transcript.heard) == f"Let me look. {apology}"
    assert [m.role for m in transcript.history] == ["user", "assistant", "tool", "assistant"]
    assert ("said", apology) in model.told


@pytest.mark.parametrize("words", ["Connecting you.", ""])
async def test_the_last_word_is_heard_before_the_call_is_given_away(
    words: str, autojump_clock: MockClock
) -> None:
    call = use("transfer_call", to="sales")
    model = answering(words, call) if words else answering(call)
    agent = replace(agent_of(model), transfers={"sales": "+15550002222"})
    given: list[Transfer | None] = []

    async def watch(call: Call) -> None:
        await call.wait_ended()
        given.append(call.transfer)

    transcript = await ScriptedCaller().says("sales please").pauses(9).call(agent, watch)
    assert " ".join(transcript.heard) == (words or agent.persona.stock_words.connecting)
    assert transcript.ended_by == "transfer"
    assert given == [Transfer("+15550002222")]


async def test_an_interrupted_farewell_gives_nobody_away(autojump_clock: MockClock) -> None:
    def answer(words: str) -> str | Sequence[str | ToolCall]:
        return "Yes?" if "wait" in words else [TEN, use("transfer_call", to="sales")]

    agent = replace(agent_of(FakeModel(answer=answer)), transfers={"sales": "+15550002222"})
    caller = ScriptedCaller().says("sales").pauses(1.5).says("wait wait").listens().hangs_up()
    transcript = await caller.call(agent)
    assert transcript.ended_by == "caller"
    assert transcript.heard[-1] == "Yes?"


async def test_somebody_is_asked_while_the_caller_stays(autojump_clock: MockClock) -> None:
    ask = use("transfer_call", to="sales", briefing="Ada wants a pizza.")
    agent = replace(
        agent_of(answering("One second.", ask, then="They are being called.")),
        transfers={"sales": "+15550002222"},
    )
    board = Switchboard(can=True)

    async def watch(call: Call) -> None:
        call.operator = board
        await call.wait_ended()

    caller = ScriptedCaller().pauses(0.1).says("sales").pauses(9).hangs_up()
    transcript = await caller.call(agent, watch)
    assert board.asked == [("+15550002222", "Ada wants a pizza.")]
    assert transcript.ended_by == "caller"
    assert transcript.heard[-3:] == ["are", "being", "called."]


async def test_nobody_is_hung_up_on_without_a_word(autojump_clock: MockClock) -> None:
    agent = agent_of(FakeModel(answer=lambda words: "<end_call>"))
    transcript = await ScriptedCaller().says("that is all").pauses(9).call(agent)
    assert " ".join(transcript.heard) == agent.persona.stock_words.goodbye
    assert transcript.ended_by == "agent"
    assert transcript.history[-1].text == agent.persona.stock_words.goodbye


async def test_digits_are_collected(autojump_clock: MockClock) -> None:
    model = answering("Type it.", use("collect_digits", count=4), then="Thank you.")
    agent = agent_of(model)
    caller = types(ScriptedCaller().says("my account").pauses(1.5), "4711").pauses(4).hangs_up()
    transcript = await caller.call(agent)
    assert transcript.history[2].text == "The caller typed 4711."
    assert transcript.heard == ["Type", "it.", "Thank", "you."]


async def test_digits_during_playback_break_it_off(autojump_clock: MockClock) -> None:
    model = answering(TEN, use("collect_digits"), then="Thank you.")
    agent = agent_of(model)
    caller = types(ScriptedCaller().says("my account").pauses(1.9), "4711#").pauses(5).hangs_up()
    transcript = await caller.call(agent)
    *said, _, _ = transcript.heard
    assert 2 < len(said) < 8
    assert transcript.heard[-2:] == ["Thank", "you."]
    _, first, result, last = transcript.history
    assert first.interrupted
    assert TEN.startswith(first.text)
    assert 0 <= len(said) - len(first.text.split()) <= 1  # the text at the cut is an estimate
    assert (result.text, last.text) == ("The caller typed 4711.", "Thank you.")
    assert transcript.clears == []
    # The model's memory ends where the ear's does, once the result has made the call stand.
    (_, typed), (what, milliseconds) = model.told
    assert (typed, what) == ("The caller typed 4711.", "heard")
    assert isinstance(milliseconds, int)
    assert audible.words(b"".join(audible.say(TEN, 150))[: milliseconds * 8]) == said


async def test_the_time_out_counts_from_the_end_of_the_words(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(TEN, use("collect_digits", timeout_s=3), then="Thank you."))
    transcript = await ScriptedCaller().says("go").pauses(12).hangs_up().call(agent)
    at = {word: at for at, word in transcript.words}
    assert transcript.history[2].text == "The caller typed nothing."
    assert at["Thank"] - at["ten."] == pytest.approx(3.3, abs=0.2)


async def test_tones_are_heard_behind_the_words(autojump_clock: MockClock) -> None:
    agent = agent_of(answering("One moment.", use("press_digits", digits="1w2"), then="There."))
    transcript = await ScriptedCaller().says("go").pauses(5).hangs_up().call(agent)
    assert tones("1w2")[:1600] in bytes(transcript.audio)
    assert roles(transcript.history)[1:] == [
        ("assistant", "One moment."), ("tool", "Pressed 1w2."), ("assistant", "There.")
    ]  # fmt: skip


async def test_keys_that_nobody_collects_are_said(autojump_clock: MockClock) -> None:
    model = FakeModel()
    agent = agent_of(model, "Press one for sales.")
    transcript = await types(ScriptedCaller().listens(), "12").pauses(6).hangs_up().call(agent)
    assert roles(transcript.history)[1] == ("user", "(12 typed on the keypad)")
    assert " ".join(transcript.heard).endswith("You said (12 typed on the keypad).")
    assert [request.what for request in model.requests] == ["(12 typed on the keypad)"]


async def test_typed_keys_interrupt_and_may_ask_for_tools(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(*LOOK), TEN)
    log = with_weather(agent)
    transcript = await types(ScriptedCaller().pauses(0.6), "1#").pauses(6).hangs_up().call(agent)
    assert transcript.history[0].interrupted
    assert transcript.history[1].text == "(1 typed on the keypad)"
    assert transcript.clears != []
    assert " ".join(transcript.heard).endswith("Let me look. Sunny in Paris.")
    assert log[1:] == ["done"]


async def test_a_tool_is_stopped_when_the_caller_hangs_up(autojump_clock: MockClock) -> None:
    agent = agent_of(answering(*LOOK))
    log = with_weather(agent, 60)
    await ScriptedCaller().says("weather please").pauses(3).hangs_up().call(agent)
    assert log[1:] == ["cancelled"]


@pytest.mark.parametrize("seconds", [0.0, 0.4])
async def test_a_filler_that_comes_too_late_is_not_said(
    seconds: float, autojump_clock: MockClock
) -> None:
    model = answering(use("weather", city="Paris"), then=TEN, speed=1.5, seconds=seconds)
    agent = replace(fake_agent(tts=FakeTTS(1.5), idle_prompt_s=0), model=model)
    with_weather(agent, 1)
    transcript = await ScriptedCaller().says("weather").pauses(9).hangs_up().call(agent)
    assert " ".join(transcript.heard) == TEN
    assert transcript.history[-1].text == TEN


MOVES = st.one_of(
    st.tuples(st.just("says"), st.sampled_from(["yes", "book a table", "wait please"])),
    st.tuples(st.just("pauses"), st.sampled_from([0.1, 0.2, 0.5, 1.1, 2.3])),
    st.tuples(st.just("coughs"), st.sampled_from([0.12, 0.2, 0.4])),
    st.tuples(st.just("presses"), st.sampled_from("12#")),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=st.lists(MOVES, max_size=9),
    seconds=st.sampled_from([0.0, 0.05, 0.4]),
    question_s=st.sampled_from([0.0, 0.3, 1.2]),
    speed=st.sampled_from([1.3, 4.0, float("inf")]),
)
def test_whatever_the_caller_does_history_and_memory_are_legal(
    moves: list[tuple[str, Any]], seconds: float, question_s: float, speed: float
) -> None:
    names = count()

    def answer(words: str) -> Sequence[str | ToolCall]:
        calls = [ToolCall(f"{next(names)}-{name}", name) for name in ("cancelled", "kept")]
        return ["one two three.", *calls, "four."]

    model = FakeModel(seconds, answer, question_s, speed, conclude=lambda results: "five six.")
    agent = agent_of(model, "Good day.")
    words = replace(agent.persona.stock_words, fillers=())
    agent = replace(agent, persona=replace(agent.persona, words=words))
    running: Counter[str] = Counter()

    @agent.tool
    async def cancelled() -> None:
        with noted(running):
            await trio.sleep(0.4)

    @agent.tool(on_barge_in="keep")
    async def kept() -> None:
        with noted(running):
            await trio.sleep(0.9)

    caller = ScriptedCaller()
    for name, argument in moves:
        caller = getattr(caller, name)(argument)
    transcript = trio.run(
        caller.pauses(4).hangs_up().call, agent, clock=MockClock(autojump_threshold=0)
    )
    assert transcript.warnings == []
    assert not model.open_requests
    assert not +running
    said = ["Good day.", "one two three. four.", "one two three. four. one two three. four."]
    history: Sequence[Message] = transcript.history
    if speed < float("inf"):  # where the making of an answer was stopped, its text is an estimate
        history = [replace(message, text=message.text and "Good day.") for message in history]
    assert_legal(history, [*said, "five six."])
    # What the history says of a tool, the model was told last.
    told = dict(results(model))
    for message in transcript.history:
        if message.role == "tool":
            assert told[message.tool_call_id or ""] == message.text
    assert len(told) == sum(message.role == "tool" for message in transcript.history)


@contextmanager
def noted(running: Counter[str]) -> Iterator[None]:
    running["tools"] += 1
    try:
        yield
    finally:
        running["tools"] -= 1


async def test_a_filler_that_has_begun_is_said_before_the_call_is_given_away(
    autojump_clock: MockClock,
) -> None:
    both = [use("weather", city="Paris"), use("transfer_call", to="sales")]
    agent = replace(
        agent_of(answering("One second.", *both, then="Here you are.")), tts=FakeTTS(speed=1)
    )
    with_weather(agent, 1.5)
    words = replace(agent.persona.stock_words, fillers=(TEN,))
    persona = replace(agent.persona, words=words)
    agent = replace(agent, persona=persona, transfers={"sales": "+15550002222"})
    transcript = await ScriptedCaller().pauses(0.1).says("sales").pauses(9).call(agent)
    assert transcript.ended_by == "transfer"
    assert " ".join(transcript.heard) == f"One second. {TEN} Here you are."
