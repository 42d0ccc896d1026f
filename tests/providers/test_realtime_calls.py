"""Whole calls with a model that hears and speaks: what the caller hears, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.contracts import Message
from voicecore.testing import ScriptedCaller, Transcript, fake_agent

from .fake_realtime import Behaviour, FakeRealtime, FakeSession, open_fake
from .realtime_line import HARMLESS, open_model

FRAME = 0.02
TEN = "one two three four five six seven eight nine ten."


def answer(words: str) -> str:
    """A long answer to the first thing that is said."""
    if words.startswith("count"):
        return TEN
    return f"You said {words}." if words else "Pardon?"


async def calling(
    caller: ScriptedCaller,
    *behaviours: Behaviour,
    lasting: Behaviour | None = None,
    greeting: str = "",
    key: str = "k",
    equip: Callable[[Agent], None] = lambda agent: None,
    **options: Any,
) -> tuple[Transcript, list[FakeSession], Agent]:
    """Make a call to an agent on a fake; return what came of it, and its sessions."""
    usual = lasting or Behaviour(answer=answer)
    async with open_fake(*behaviours, lasting=usual) as fake, open_model(fake, key) as model:
        agent = replace(fake_agent(greeting=greeting, **options), model=model)
        equip(agent)
        await agent.prepare()
        await agent.warm_up()
        transcript = await caller.call(agent)
        check(fake)
    return transcript, fake.sessions, agent


def check(fake: FakeRealtime, allowed: Sequence[str] = ()) -> None:
    """Nothing is open any more, and the server had nothing to complain about."""
    assert not fake.open_sessions
    for session in fake.sessions:
        assert {*session.errors} <= HARMLESS | {*allowed}


async def test_from_greeting_to_goodbye(autojump_clock: MockClock) -> None:
    usual = Behaviour(answer=lambda words: f"You said {words}. Bye. <end_call>")
    caller = ScriptedCaller().listens().says("that is all").listens()
    transcript, (session,), _ = await calling(caller, lasting=usual, greeting="Good day.")
    assert transcript.heard == ["Good", "day.", "You", "said", "that", "is", "all.", "Bye."]
    assert transcript.ended_by == "agent"
    assert transcript.history == (
        Message("assistant", "Good day."),
        Message("user", "that is all"),
        Message("assistant", "You said that is all. Bye."),
    )
    assert session.contexts == [[("assistant", "Good day."), ("user", "that is all")]]


async def test_the_gap_is_that_of_the_silence_where_the_model_is_quick(
    autojump_clock: MockClock,
) -> None:
    quick = Behaviour(latency_s=0.02, think_s=0.1)
    caller = ScriptedCaller().pauses(1).says("hello there").listens().hangs_up()
    transcript, _, _ = await calling(caller, lasting=quick)
    assert transcript.gaps == [pytest.approx(0.3, abs=1.5 * FRAME)]
    slow = Behaviour(latency_s=0.1, think_s=0.4)
    caller = ScriptedCaller().pauses(1).says("hello there").listens().hangs_up()
    transcript, _, _ = await calling(caller, lasting=slow)
    assert transcript.gaps == [pytest.approx(0.1 + 0.5, abs=1.5 * FRAME)]


@pytest.mark.parametrize("pause", [1.2, 1.9, 2.5])
async def test_a_barge_in_is_cut_at_what_was_heard(pause: float, autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("count").pauses(pause).says("wait please").listens().hangs_up()
    transcript, (session,), _ = await calling(caller)
    user, cut, second, last = transcript.history
    assert (user.text, cut.interrupted) == ("count", True)
    assert transcript.heard[-4:] == ["You", "said", "wait", "please."]
    assert (second.text, last.text) == ("wait please", "You said wait please.")
    words = transcript.heard[:-4]
    assert abs(len(cut.text.split()) - len(words)) <= 1  # the text at the cut is an estimate
    assert len(session.of_kind("conversation.item.truncate")) == 1
    said = ("assistant", " ".join(words))
    assert session.contexts[-1] == [("user", "count"), said, ("user", "wait please")]


@pytest.mark.parametrize("speed", [1.5, 4, 100])
async def test_a_cough_lets_the_answer_go_on(speed: float, autojump_clock: MockClock) -> None:
    usual = Behaviour(answer=answer, speed=speed)
    caller = ScriptedCaller().says("count").pauses(2).coughs(0.3).pauses(1).listens()
    caller = caller.says("thank you").listens().hangs_up()
    transcript, (session,), _ = await calling(caller, lasting=usual)
    # Where its making was stopped, its text is an estimate: a word may come twice, none gets lost.
    once = [word for word, _ in groupby(transcript.heard)]
    assert once == [*TEN.split(), "You", "said", "thank", "you."]
    assert speed < 4 or once == transcript.heard
    assert [message.text for message in transcript.history] == [
        "count", TEN, "thank you", "You said thank you."
    ]  # fmt: skip
    count, *said, thanks = session.contexts[-1]
    assert (count, thanks) == (("user", "count"), ("user", "thank you"))
    assert {role for role, _ in said} == {"assistant"}
    assert " ".join(words for _, words in said) == TEN


async def test_a_cough_before_the_answer_has_begun(autojump_clock: MockClock) -> None:
    usual = Behaviour(answer=answer, think_s=1.2)
    caller = ScriptedCaller().says("yes").pauses(0.8).coughs(0.3).listens().hangs_up()
    transcript, (session,), _ = await calling(caller, lasting=usual)
    assert transcript.heard == ["You", "said", "yes."]
    assert session.memory == [("user", "yes"), ("assistant", "You said yes.")]


async def test_a_cough_in_a_silence_is_not_answered(autojump_clock: MockClock) -> None:
    quick = Behaviour(answer=answer, transcript_s=0.1)
    caller = ScriptedCaller().pauses(1).coughs(0.3).pauses(2).says("hello").listens().hangs_up()
    transcript, (session,), _ = await calling(caller, lasting=quick)
    assert transcript.heard == ["You", "said", "hello."]
    assert session.contexts[-1] == [("user", "hello")]
    assert [message.text for message in transcript.history] == ["hello", "You said hello."]


async def test_a_lost_speculation_never_happened(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("book a table").pauses(0.2).says("for two").listens().hangs_up()
    transcript, (session,), _ = await calling(caller)
    whole = "book a table for two"
    assert transcript.heard == f"You said {whole}.".split()
    assert len(session.contexts) > 1
    assert session.contexts[-1] == [("user", whole)]
    assert session.memory == [("user", whole), ("assistant", f"You said {whole}.")]


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(cut_after_s=1.0, answer=answer), Behaviour(garbage_after_s=1.0, answer=answer)],
    ids=["cut", "garbage"],
)
async def test_a_session_cut_in_an_answer(behaviour: Behaviour, autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("count").listens().pauses(1).says("again").listens().hangs_up()
    transcript, sessions, agent = await calling(caller, behaviour, greeting="")
    apology = agent.persona.stock_words.apology
    assert transcript.heard == [*TEN.split()[:3], *apology.split(), "You", "said", "again."]
    assert len(sessions) == 2
    _, said, user, last = transcript.history
    assert said.text == f"one two three {apology}"
    assert sessions[1].contexts == [
        [(message.role, message.text) for message in transcript.history[:-1]]
    ]
    assert (user.text, last.text) == ("again", "You said again.")


async def test_a_refused_key_is_apologised_for_at_once(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().listens().says("hello").listens().hangs_up()
    transcript, _, agent = await calling(caller, greeting="Hi.", key="wrong")
    assert transcript.heard == ["Hi.", *agent.persona.stock_words.apology.split()]
    assert transcript.gaps == [pytest.approx(0.3, abs=0.1)]


async def test_a_model_that_hangs_is_apologised_for(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("hello").listens().says("again").listens().hangs_up()
    transcript, sessions, agent = await calling(
        caller, Behaviour(hangs="answering", answer=answer), filler_s=0.0
    )
    apology = agent.persona.stock_words.apology
    assert transcript.heard == [*apology.split(), "You", "said", "again."]
    assert transcript.gaps[0] < 5
    assert sessions[1].contexts == [[("user", "hello"), ("assistant", apology), ("user", "again")]]


async def test_a_filler_is_not_counted_as_heard_of_the_answer(autojump_clock: MockClock) -> None:
    usual = Behaviour(answer=answer, think_s=1.5, transcript_s=0.1)
    caller = ScriptedCaller().says("count").pauses(3.4).says("stop it").listens().hangs_up()
    transcript, (session,), agent = await calling(caller, lasting=usual, filler_s=0.4)
    filler = agent.persona.stock_words.fillers[0].split()
    assert transcript.heard[: len(filler)] == filler
    heard = [word for word in transcript.heard if word in TEN.split()]
    assert 2 < len(heard) < 9
    assert session.contexts[-1] == [
        ("user", "count"), ("assistant", " ".join(heard)), ("user", "stop it")
    ]  # fmt: skip


async def test_words_that_come_after_the_answer_began(autojump_clock: MockClock) -> None:
    late = Behaviour(answer=answer, transcript_s=1.5)
    caller = ScriptedCaller().says("count").pauses(3).says("thanks").listens().pauses(1).hangs_up()
    transcript, _, _ = await calling(caller, lasting=late)
    assert [message.role for message in transcript.history] == ["user", "assistant"] * 2
    assert transcript.history[0].text == "count"


async def test_cut_before_its_words_are_known_an_answer_stays_in_order(
    autojump_clock: MockClock,
) -> None:
    late = Behaviour(answer=answer, transcript_s=2.2)
    caller = ScriptedCaller().says("count").pauses(1.3).says("thanks").listens().hangs_up()
    transcript, (session,), _ = await calling(caller, lasting=late)
    assert [message.role for message in transcript.history] == ["user", "assistant"] * 2
    assert session.contexts[-1][0] == ("user", "count")
    assert session.contexts[-1][2] == ("user", "thanks")


@pytest.mark.parametrize("part", range(2))
def test_left_at_any_moment_nothing_stays_open(part: int) -> None:
    async def hang_up_after(frames: int) -> None:
        caller = ScriptedCaller().says("count", 0.3)
        for _ in range(frames):
            caller = caller.pauses(FRAME)
        await calling(caller.drops(), greeting="Hi.")

    for frames in range(2 * part, 70, 4):
        trio.run(hang_up_after, frames, clock=MockClock(autojump_threshold=0))
