"""Whole calls with a model that hears and speaks: the same nursery, player and history."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.contracts import Message
from voicecore.testing import FakeModel, ScriptedCaller, audible, fake_agent

FRAME = 0.02
TEN = "one two three four five six seven eight nine ten."


def agent_of(model: FakeModel, greeting: str = "", **options: Any) -> Agent:
    return replace(fake_agent(greeting=greeting, **options), model=model)


def long_answers(words: str) -> str:
    return "Of course." if words.startswith("wait") else TEN


async def test_a_call_from_greeting_to_goodbye(autojump_clock: MockClock) -> None:
    model = FakeModel(answer=lambda words: "Goodbye then. <end_call>")
    caller = ScriptedCaller().listens().says("that is all").listens()
    transcript = await caller.call(agent_of(model, "Good day."))
    assert transcript.heard == ["Good", "day.", "Goodbye", "then."]
    assert transcript.history == (
        Message("assistant", "Good day."),
        Message("user", "that is all"),
        Message("assistant", "Goodbye then."),
    )
    assert transcript.ended_by == "agent"
    assert model.told == [("said", "Good day.")]


@pytest.mark.parametrize(("seconds", "gap"), [(0.0, 0.3), (0.15, 0.3), (0.5, 0.6)])
async def test_the_answer_is_begun_at_the_pause(
    seconds: float, gap: float, autojump_clock: MockClock
) -> None:
    caller = ScriptedCaller().pauses(1).says("hello there").listens().hangs_up()
    transcript = await caller.call(agent_of(FakeModel(seconds, question_s=1.0)))
    assert transcript.gaps == [pytest.approx(gap, abs=1.5 * FRAME)]
    assert transcript.history[0] == Message("user", "hello there")


async def test_a_barge_in_tells_the_model_how_much_was_heard(autojump_clock: MockClock) -> None:
    model = FakeModel(answer=long_answers)
    caller = ScriptedCaller().says("count").pauses(2).says("wait please").listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    *_, cut, second, last = transcript.history
    assert cut.interrupted
    assert transcript.heard == [*cut.text.split(), "Of", "course."]
    assert (second.text, last.text) == ("wait please", "Of course.")
    ((what, milliseconds),) = model.told
    assert what == "heard"
    assert isinstance(milliseconds, int)
    assert milliseconds // 300 == len(cut.text.split())
    assert not model.open_requests


async def test_a_cough_lets_the_answer_go_on_from_where_it_was_cut(
    autojump_clock: MockClock,
) -> None:
    model = FakeModel(answer=long_answers, question_s=0.3)
    caller = ScriptedCaller().says("count").pauses(2).coughs(0.3).listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    assert transcript.heard == TEN.split()
    assert transcript.history[-1] == Message("assistant", TEN)


async def test_a_lost_speculation_never_happened(autojump_clock: MockClock) -> None:
    model = FakeModel()
    caller = ScriptedCaller().says("book a table").pauses(0.16).says("for two").listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    assert transcript.heard == ["You", "said", "book", "a", "table", "for", "two."]
    assert model.told == [("forget", "book a table")]
    assert [message.text for message in transcript.history if message.role == "user"] == [
        "book a table for two"
    ]


@pytest.mark.parametrize("fault", ["error", "hang", "stall"])
async def test_a_failure_ends_in_an_apology_and_the_next_turn_works(
    fault: str, autojump_clock: MockClock
) -> None:
    model = FakeModel(faults=[fault])
    host = agent_of(model)
    await host.prepare()
    caller = ScriptedCaller().says("hello").listens().pauses(7).says("again").listens().hangs_up()
    transcript = await caller.call(host)
    apology = host.persona.stock_words.apology
    assert apology in " ".join(transcript.heard)
    assert transcript.heard[-3:] == ["You", "said", "again."]
    assert ("said", apology) in model.told


async def test_words_that_never_become_known_do_not_hold_up_the_answer(
    autojump_clock: MockClock,
) -> None:
    caller = ScriptedCaller().says("hello").listens().hangs_up()
    transcript = await caller.call(agent_of(FakeModel(question_s=60)))
    assert transcript.gaps == [pytest.approx(0.3, abs=1.5 * FRAME)]
    assert [message.role for message in transcript.history] == ["user", "assistant"]


async def test_a_filler_comes_before_a_late_answer(autojump_clock: MockClock) -> None:
    host = agent_of(FakeModel(2.0), filler_s=0.6)
    await host.prepare()
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(host)
    filler = host.persona.stock_words.fillers[0]
    assert " ".join(transcript.heard) == f"{filler} You said hello."


@pytest.mark.parametrize("part", range(2))
def test_left_at_any_moment_nothing_stays_open(part: int) -> None:
    async def call(frames: int) -> FakeModel:
        model = FakeModel(0.05, answer=long_answers, question_s=0.2)
        caller = ScriptedCaller().says("count", 0.3)
        for _ in range(frames):
            caller = caller.pauses(FRAME)
        await caller.drops().call(agent_of(model, "Hi."))
        return model

    for frames in range(part, 60, 2):
        assert not trio.run(call, frames, clock=MockClock(autojump_threshold=0)).open_requests


async def test_an_answer_that_was_cut_in_the_making_is_made_to_its_end(
    autojump_clock: MockClock,
) -> None:
    model = FakeModel(answer=long_answers, question_s=0.2, speed=1.2)
    caller = ScriptedCaller().says("count").pauses(1.6).coughs(0.3).listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    once = [word for word, _ in groupby(transcript.heard)]  # the cut's text is an estimate
    assert once == TEN.split()
    assert len(model.requests) == 3
    assert model.prompts[-1][0] == Message("user", "count")
    assert transcript.history[-1].text == TEN
    assert not transcript.history[-1].interrupted
    (_, first), (forget, noise), (_, rest) = model.told
    assert isinstance(first, int)
    assert (forget, noise) == ("forget", "")
    assert isinstance(rest, str)
    assert rest in TEN


async def test_what_was_heard_after_a_cough_is_told(autojump_clock: MockClock) -> None:
    model = FakeModel(answer=long_answers, question_s=0.2)
    caller = ScriptedCaller().says("count").pauses(1.6).coughs(0.3).pauses(1.5)
    transcript = await caller.says("wait please").listens().hangs_up().call(agent_of(model))
    (_, cut), _, (said, more) = model.told
    assert isinstance(cut, int)
    before = TEN.split()[: cut // 300]
    assert said == "said"
    assert [*before, *str(more).split()] == transcript.history[1].text.split()
    assert transcript.history[1].interrupted


async def test_a_noise_in_a_silence_is_not_answered(autojump_clock: MockClock) -> None:
    model = FakeModel(0.3, answer=lambda words: f"You said {words}." if words else "Pardon?")
    caller = ScriptedCaller().pauses(1).coughs(0.3).pauses(2).says("hello").listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    assert transcript.heard == ["You", "said", "hello."]
    assert model.told == [("forget", "")]
    assert not model.open_requests


async def test_a_noise_that_is_known_too_late_is_answered(autojump_clock: MockClock) -> None:
    model = FakeModel(answer=lambda words: "Pardon? Say that again.", question_s=0.8)
    caller = ScriptedCaller().pauses(1).coughs(0.3).listens().pauses(1).hangs_up()
    transcript = await caller.call(agent_of(model))
    assert transcript.heard == ["Pardon?", "Say", "that", "again."]
    assert transcript.history == (Message("assistant", "Pardon? Say that again."),)
    assert not model.told


async def test_a_filler_is_no_part_of_the_answer(autojump_clock: MockClock) -> None:
    model = FakeModel(1.5, answer=long_answers)
    host = agent_of(model, filler_s=0.3)
    await host.prepare()
    caller = ScriptedCaller().says("count").pauses(3.2).says("wait please").listens().hangs_up()
    transcript = await caller.call(host)
    (_, milliseconds), *_ = model.told
    counted = [word for word in transcript.heard if word in TEN.split()]
    assert isinstance(milliseconds, int)
    assert audible.words(b"".join(audible.say(TEN, 150))[: milliseconds * 8]) == counted


@pytest.mark.parametrize("question_s", [2.5, 60])
async def test_cut_while_its_words_are_not_known_a_question_is_not_asked_twice(
    question_s: float, autojump_clock: MockClock
) -> None:
    model = FakeModel(answer=long_answers, question_s=question_s)
    caller = ScriptedCaller().says("count").pauses(1.4).says("wait please").pauses(5).hangs_up()
    transcript = await caller.call(agent_of(model))
    assert [request.what for request in model.requests] == ["count", "wait please"]
    assert [message.role for message in transcript.history] == ["user", "assistant"] * 2
    assert transcript.history[0].text == "[not transcribed]"


async def test_cut_before_anything_was_heard_a_question_is_asked_again(
    autojump_clock: MockClock,
) -> None:
    model = FakeModel(1.0, question_s=1.0)
    caller = ScriptedCaller().says("book a table").pauses(0.6).says("for two").listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    assert transcript.heard == ["You", "said", "book", "a", "table", "for", "two."]
    assert transcript.history[0] == Message("user", "book a table for two")
    assert ("forget", "book a table") in model.told


async def test_a_noise_that_is_known_before_the_answer_is_not_answered(
    autojump_clock: MockClock,
) -> None:
    model = FakeModel(1.5, answer=lambda words: f"You said {words}.", question_s=0.6)
    caller = ScriptedCaller().pauses(1).coughs(0.3).pauses(3).says("hello").listens().hangs_up()
    transcript = await caller.call(agent_of(model))
    assert transcript.heard == ["You", "said", "hello."]
    assert ("forget", "") in model.told
    caller = ScriptedCaller().pauses(1).coughs(0.3).pauses(14).hangs_up()
    host = agent_of(model)
    transcript = await caller.call(host)  # nothing is being answered: the silence is one
    assert " ".join(transcript.heard) == host.persona.stock_words.still_there


async def test_two_coughs_are_one(autojump_clock: MockClock) -> None:
    model = FakeModel(answer=long_answers, question_s=1.0)
    caller = ScriptedCaller().says("count").pauses(1.6).coughs(0.3).pauses(0.8).coughs(0.3)
    transcript = await caller.listens().hangs_up().call(agent_of(model))
    assert transcript.heard == TEN.split()
    assert transcript.history[-1] == Message("assistant", TEN)


@pytest.mark.parametrize("pause", [0.5, 1.5, 2.4])
async def test_a_cough_lets_a_greeting_go_on(pause: float, autojump_clock: MockClock) -> None:
    model = FakeModel()
    caller = ScriptedCaller().pauses(pause).coughs(0.3).pauses(0.7).listens().hangs_up()
    transcript = await caller.call(agent_of(model, TEN))
    assert transcript.heard == TEN.split()
    assert transcript.history == (Message("assistant", TEN),)
    said = [text for what, text in model.told if what == "said"]
    assert " ".join(map(str, said)) == TEN
