"""Whole calls as a script and a transcript, in virtual time, over the real wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Message
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, fake_agent

TEN = "one two three four five six seven eight nine ten."
FRAME = 0.02


def answers(**by_text: str) -> Callable[[Sequence[Message]], str]:
    return lambda messages: by_text.get(messages[-1].text.split()[0], TEN)


def user(text: str) -> Message:
    return Message("user", text)


def agent(text: str, interrupted: bool = False) -> Message:
    return Message("assistant", text, interrupted)


async def test_greets_listens_and_answers(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().listens().says("hello there").listens().hangs_up()
    transcript = await caller.call(fake_agent(greeting="Good day."))
    assert transcript.heard == ["Good", "day.", "You", "said", "hello", "there."]
    assert transcript.history == (
        agent("Good day."),
        user("hello there"),
        agent("You said hello there."),
    )
    assert transcript.ended_by == "caller"
    assert transcript.warnings == []


@pytest.mark.parametrize(
    ("stt", "llm", "tts"),
    [
        (0, 0, 0),
        (0.05, 0.1, 0.05),
        (0.3, 0.6, 0.5),
        (0.3, 0, 0),
        (0, 0.6, 0),
        (0, 0, 0.5),
        (2, 2, 2),
    ],
)
async def test_the_gap_is_the_silence_or_the_stages_not_their_sum(
    stt: float, llm: float, tts: float, autojump_clock: MockClock
) -> None:
    caller = ScriptedCaller().pauses(0.3).says("hello there").listens().hangs_up()
    model = FakeLLM(llm, answer=lambda messages: "Yes.")
    transcript = await caller.call(fake_agent(FakeSTT(stt), model, FakeTTS(tts)))
    expected = max(0.3, 0.1 + stt + llm + tts)
    assert transcript.gaps[0] == pytest.approx(expected, abs=1.5 * FRAME)


async def test_without_speculation_the_stages_wait_for_the_silence(
    autojump_clock: MockClock,
) -> None:
    caller = ScriptedCaller().says("hello there").listens().hangs_up()
    slow = fake_agent(FakeSTT(0.3), FakeLLM(0.6), FakeTTS(0.5), pause_ms=0)
    transcript = await caller.call(slow)
    assert transcript.gaps[0] == pytest.approx(1.7, abs=1.5 * FRAME)


async def test_the_first_clause_is_spoken_before_the_rest_is_thought(
    autojump_clock: MockClock,
) -> None:
    slow = FakeLLM(token_seconds=0.1, answer=lambda m: "Of course I can, " + "and more " * 20)
    caller = ScriptedCaller().says("hello").listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=slow))
    assert transcript.gaps[0] < 0.3 + 5 * 0.1


async def test_a_greeting_that_was_prepared_is_on_the_wire_at_once(
    autojump_clock: MockClock,
) -> None:
    host = fake_agent(tts=FakeTTS(1.0), greeting="Good day.")
    await host.prepare()
    transcript = await ScriptedCaller().listens().hangs_up().call(host)
    first_word_at = transcript.words[0][0]
    assert first_word_at <= 15 * FRAME + 0.05


async def test_nothing_of_the_reply_is_lost_or_doubled(autojump_clock: MockClock) -> None:
    tts = FakeTTS()
    caller = ScriptedCaller().says("count").listens().hangs_up()
    transcript = await caller.call(fake_agent(tts=tts, llm=FakeLLM(answer=lambda m: TEN)))
    spoken = bytes(transcript.audio).strip(b"\xff")
    from voicecore.testing.audible import say

    assert spoken == b"".join(say(TEN, 15 * 10))


async def test_barge_in_keeps_only_what_was_heard(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("count").pauses(2).says("wait please").listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=FakeLLM(answer=answers(wait="Of course."))))
    *_, cut, second, last = transcript.history
    assert cut.interrupted
    assert transcript.heard == [*cut.text.split(), "Of", "course."]
    assert TEN.startswith(cut.text)
    assert (second, last) == (user("wait please"), agent("Of course."))
    began = transcript.spoke[1][0]
    assert transcript.clears == [pytest.approx(began + 0.16, abs=2.5 * FRAME)]


async def test_nothing_stale_is_heard_after_the_clear(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("count").pauses(1.5).says("wait please").pauses(0.2).drops()
    transcript = await caller.call(fake_agent(llm=FakeLLM(answer=lambda m: TEN)))
    (cleared,) = transcript.clears
    after = bytes(transcript.audio)[int(cleared * 8000) + 320 :]
    assert after.strip(b"\xff") == b""


async def test_barge_in_closes_every_request(autojump_clock: MockClock) -> None:
    llm = FakeLLM(token_seconds=0.2, answer=lambda m: TEN + " " + TEN)
    tts = FakeTTS(speed=1.5)
    caller = ScriptedCaller().says("count").pauses(2.5).says("wait please", 1).drops()
    transcript = await caller.call(fake_agent(llm=llm, tts=tts))
    (cleared,) = transcript.clears
    assert not llm.open_requests
    assert not tts.open_requests
    first = [*llm.requests, *tts.requests][0]
    assert first.closed is not None
    assert first.closed <= cleared + 0.02


async def test_a_cough_lets_the_reply_go_on_from_where_it_was_cut(
    autojump_clock: MockClock,
) -> None:
    caller = ScriptedCaller().says("count").pauses(2).coughs().listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=FakeLLM(answer=lambda m: TEN)))
    assert len(transcript.clears) == 1
    assert transcript.heard == TEN.split()
    assert transcript.history == (user("count"), agent(TEN))


@pytest.mark.parametrize("at", [0.35, 0.6, 1.0, 1.7, 2.4])
async def test_a_cough_at_any_time_with_a_streaming_llm_and_tts(
    at: float, autojump_clock: MockClock
) -> None:
    """The LLM goes on where it stopped: here a fake that is asked for the rest and gives it."""

    def ten(messages: Sequence[Message]) -> str:
        said = messages[-2].text if messages[-1].role == "system" else ""
        return TEN.removeprefix(said).strip() if said else TEN

    host = fake_agent(llm=FakeLLM(token_seconds=0.15, answer=ten), tts=FakeTTS(0.1, speed=2))
    caller = ScriptedCaller().says("count").pauses(at).coughs(0.2).listens().hangs_up()
    transcript = await caller.call(host)
    assert transcript.heard == TEN.split()
    assert transcript.history[-1] == agent(TEN)


async def test_a_short_sound_only_holds_the_reply(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("count").pauses(2).coughs(0.12).listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=FakeLLM(answer=lambda m: TEN)))
    assert transcript.clears == []
    assert transcript.heard == TEN.split()
    assert transcript.history == (user("count"), agent(TEN))


async def test_a_click_changes_nothing(autojump_clock: MockClock) -> None:
    quiet = ScriptedCaller().says("count").pauses(2.5).hangs_up()
    clicks = ScriptedCaller().says("count").pauses(1).coughs(0.06).pauses(1.44).hangs_up()
    one, other = await quiet.call(fake_agent()), await clicks.call(fake_agent())
    assert one.audio == other.audio


async def test_barge_in_zero_lets_the_agent_finish(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("count").pauses(1.5).says("wait please").listens().hangs_up()
    stubborn = fake_agent(llm=FakeLLM(answer=lambda m: TEN), barge_in_ms=0)
    transcript = await caller.call(stubborn)
    assert transcript.clears == []
    assert transcript.history == (user("count"), agent(TEN))


async def test_speech_that_resumes_loses_the_speculation_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(0.2)
    caller = ScriptedCaller().says("book a").pauses(0.2).says("table").listens().hangs_up()
    transcript = await caller.call(fake_agent(FakeSTT(0.05), llm))
    assert transcript.heard == ["You", "said", "book", "a", "table."]
    assert transcript.history == (user("book a table"), agent("You said book a table."))
    assert [r.what for r in llm.requests] == ["book a", "book a table"]
    assert not llm.open_requests


async def test_at_most_three_speculations_a_turn(autojump_clock: MockClock) -> None:
    llm = FakeLLM()
    caller = ScriptedCaller()
    for word in ["one", "two", "three", "four", "five", "six"]:
        caller = caller.says(word).pauses(0.2)
    transcript = await caller.listens().hangs_up().call(fake_agent(llm=llm))
    assert len(llm.requests) == 3 + 1
    assert transcript.history[0] == user("one two three four five six")


async def test_words_before_and_after_an_unheard_reply_are_one_message(
    autojump_clock: MockClock,
) -> None:
    """The caller goes on while the agent is still thinking."""
    host = fake_agent(llm=FakeLLM(1.0))
    caller = ScriptedCaller().says("book a table").pauses(0.6).says("for two").listens().hangs_up()
    transcript = await caller.call(host)
    assert transcript.history[0] == user("book a table for two")
    assert transcript.heard == ["You", "said", "book", "a", "table", "for", "two."]


async def test_words_whose_transcript_was_still_open_are_not_lost(
    autojump_clock: MockClock,
) -> None:
    host = fake_agent(FakeSTT(1.0))
    caller = ScriptedCaller().says("book a table").pauses(0.6).says("for two").listens().hangs_up()
    transcript = await caller.call(host)
    assert transcript.history[0] == user("book a table for two")


async def test_noise_without_words_gets_no_answer(autojump_clock: MockClock) -> None:
    llm = FakeLLM()
    caller = ScriptedCaller().coughs(0.5).pauses(2).hangs_up()
    transcript = await caller.call(fake_agent(llm=llm))
    assert llm.requests == []
    assert transcript.heard == []
    assert transcript.history == ()


def test_one_trace_whatever_the_scheduler_does() -> None:
    """trio shuffles runnable tasks: a call must not depend on their order."""
    llm = FakeLLM(0.1, token_seconds=0.03, answer=answers(wait="Of course.", book="Booked."))
    host = fake_agent(FakeSTT(0.05), llm, FakeTTS(0.08, speed=3))
    caller = (
        ScriptedCaller()
        .says("book a")
        .pauses(0.2)
        .says("table")
        .listens()
        .says("count")
        .pauses(1.5)
        .says("wait please")
        .listens()
        .hangs_up()
    )
    traces = set()
    for _ in range(12):
        transcript = trio.run(caller.call, host, clock=MockClock(autojump_threshold=0))
        assert len(transcript.clears) == 1
        traces.add((tuple(transcript.words), transcript.history, tuple(transcript.clears)))
    assert len(traces) == 1
