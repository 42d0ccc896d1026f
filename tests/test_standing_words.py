"""Replies begun with a live recogniser's words before they are final."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Message, TurnHint
from voicecore.dialogue.history import same_words
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, audible, fake_agent

FRAME = 0.02


@dataclass
class LiveSTT(FakeSTT):
    """Knows the words at the pause, or what it takes for them; is sure after `seconds`."""

    takes_for: dict[str, str] = field(default_factory=dict)
    stands_after: float = 0.0

    @property
    def partial(self) -> str:
        return ""

    async def standing(self, utterance: bytes) -> str:
        await trio.sleep(self.stands_after)
        words = " ".join(audible.words(utterance))
        return self.takes_for.get(words, words)

    def hint(self) -> TurnHint | None:
        return None


async def test_the_reply_does_not_wait_until_the_words_are_final(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(0.25)
    host = fake_agent(LiveSTT(0.2), llm, FakeTTS(0.1))
    transcript = await ScriptedCaller().says("hello there").listens().hangs_up().call(host)
    assert transcript.heard == ["You", "said", "hello", "there."]
    assert transcript.gaps == [pytest.approx(0.1 + 0.25 + 0.1, abs=1.5 * FRAME)]
    assert len(llm.requests) == 1


@pytest.mark.parametrize("stands_after", [0.1, 0.19, 0.2, 0.3])
async def test_words_that_stand_late_are_used_if_they_are_sooner(
    stands_after: float, autojump_clock: MockClock
) -> None:
    llm = FakeLLM(0.25)
    host = fake_agent(LiveSTT(0.2, stands_after=stands_after), llm, FakeTTS(0.1))
    transcript = await ScriptedCaller().says("hello there").listens().hangs_up().call(host)
    known = min(stands_after, 0.2)
    assert transcript.gaps == [pytest.approx(0.1 + known + 0.25 + 0.1, abs=1.5 * FRAME)]
    assert len(llm.requests) == 1


async def test_nothing_is_played_before_the_words_are_final(autojump_clock: MockClock) -> None:
    host = fake_agent(LiveSTT(0.6))
    transcript = await ScriptedCaller().says("hello there").listens().hangs_up().call(host)
    assert transcript.gaps == [pytest.approx(0.1 + 0.6, abs=1.5 * FRAME)]


@pytest.mark.parametrize("llm_s", [0.0, 0.05, 0.4])
async def test_a_reply_to_other_words_never_was(llm_s: float, autojump_clock: MockClock) -> None:
    llm, tts = FakeLLM(llm_s), FakeTTS(0.05)
    stt = LiveSTT(0.15, takes_for={"book a table": "look a table"})
    caller = ScriptedCaller().says("book a table").listens().hangs_up()
    transcript = await caller.call(fake_agent(stt, llm, tts))
    assert transcript.heard == ["You", "said", "book", "a", "table."]
    assert transcript.history == (
        Message("user", "book a table"),
        Message("assistant", "You said book a table."),
    )
    assert len(llm.requests) == 2
    assert transcript.gaps == [pytest.approx(max(0.3, 0.25 + llm_s + 0.05), abs=1.5 * FRAME)]
    assert not llm.open_requests
    assert not tts.open_requests


async def test_case_and_punctuation_are_not_other_words(autojump_clock: MockClock) -> None:
    llm = FakeLLM()
    stt = LiveSTT(0.15, takes_for={"Book a table.": "book a table"})
    caller = ScriptedCaller().says("Book a table.").listens().hangs_up()
    transcript = await caller.call(fake_agent(stt, llm))
    assert len(llm.requests) == 1
    assert transcript.history[0] == Message("user", "Book a table.")


async def test_words_that_turn_out_to_be_none_get_no_reply(autojump_clock: MockClock) -> None:
    llm = FakeLLM(0.1)
    stt = LiveSTT(0.15, takes_for={"": "uh"})
    transcript = await ScriptedCaller().coughs(0.4).pauses(2).hangs_up().call(fake_agent(stt, llm))
    assert transcript.heard == []
    assert transcript.history == ()
    assert not llm.open_requests


async def test_without_speculation_nothing_is_guessed(autojump_clock: MockClock) -> None:
    llm = FakeLLM()
    stt = LiveSTT(0.15, takes_for={"book a table": "look a table"})
    caller = ScriptedCaller().says("book a table").listens().hangs_up()
    await caller.call(fake_agent(stt, llm, pause_ms=0))
    assert len(llm.requests) == 1


async def test_a_recogniser_that_fails_after_all_is_apologised_for(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(0.3)
    host = fake_agent(LiveSTT(0.15, faults=["error"]), llm)
    await host.prepare()
    transcript = await ScriptedCaller().says("hello there").listens().hangs_up().call(host)
    assert " ".join(transcript.heard) == host.persona.stock_words.apology
    assert not llm.open_requests


def test_left_at_any_moment_nothing_stays_open() -> None:
    async def call(frames: int) -> list[object]:
        stt = LiveSTT(0.15, takes_for={"book a table": "look a table"})
        llm, tts = FakeLLM(0.1, token_seconds=0.05), FakeTTS(0.1, speed=2)
        caller = ScriptedCaller().says("book a table", 0.3).pauses(FRAME * frames).drops()
        await caller.call(fake_agent(stt, llm, tts))
        return [*stt.open_requests, *llm.open_requests, *tts.open_requests]

    for frames in range(4, 50):
        assert trio.run(call, frames, clock=MockClock(autojump_threshold=0)) == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What time is it?", "what time is it", True),
        ("मेरा नाम क्या है?", "मेरा नाम क्या है", True),
        ("की", "का", False),
        ("two", "to", False),
        ("", "...", True),
        ("e-mail", "e mail", True),
    ],
)
def test_what_counts_as_the_same_words(one: str, other: str, same: bool) -> None:
    assert same_words(one, other) is same
