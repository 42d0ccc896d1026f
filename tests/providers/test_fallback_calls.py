"""Whole calls in virtual time, in which a provider dies: with a fallback behind it, and without."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import pytest
from trio.testing import MockClock

from voicecore.call.phrases import stock_words
from voicecore.contracts import Message
from voicecore.providers.fallback import FallbackLLM, FallbackSTT, FallbackTTS
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, Transcript, fake_agent

APOLOGY = stock_words("en").apology
FAKES = {"stt": FakeSTT, "llm": FakeLLM, "tts": FakeTTS}
ORDERS = {"stt": FallbackSTT, "llm": FallbackLLM, "tts": FallbackTTS}
SAID = ("hello", "a table", "wait")
SOUND_WITHIN_S = {"error": 2.0, "hang": 6.0}
"""From the caller's last voiced frame to something to hear."""


def dies_after(requests: int, fault: str) -> Iterator[str]:
    return chain(repeat("", requests), repeat(fault))


class Cast:
    """Fakes for a call in which one stage's provider dies after its first request."""

    def __init__(self, stage: str, fault: str, fallback: bool) -> None:
        healthy = dict(FAKES)
        del healthy[stage]
        self.dying = FAKES[stage](faults=dies_after(1, fault))
        self.second = FAKES[stage]()
        members = [("first", self.dying), ("second", self.second)][: 1 + fallback]
        self.order = ORDERS[stage](members)
        rest = {other: ORDERS[other]([("only", fake())]) for other, fake in healthy.items()}
        parts: dict[str, Any] = {stage: self.order, **rest}
        self.agent = fake_agent(**parts, pause_ms=0)
        self.fakes = [choice.provider for part in parts.values() for choice in part.order.choices]

    async def talk(self) -> Transcript:
        caller = ScriptedCaller()
        for words in SAID:
            caller = caller.pauses(0.3).says(words).listens()
        transcript = await caller.hangs_up().call(self.agent)
        for fake in self.fakes:
            assert not fake.open_requests
        assert transcript.warnings == []
        assert transcript.ended_by == "caller"
        return transcript


@pytest.mark.parametrize("fault", ["error", "hang"])
@pytest.mark.parametrize("stage", FAKES)
async def test_with_a_fallback_the_caller_hears_an_answer_to_everything(
    stage: str, fault: str, autojump_clock: MockClock
) -> None:
    cast = Cast(stage, fault, fallback=True)
    transcript = await cast.talk()
    assert transcript.history == tuple(
        Message(role, text)  # type: ignore[arg-type]
        for words in SAID
        for role, text in (("user", words), ("assistant", f"You said {words}."))
    )
    assert len(transcript.gaps) == 3
    assert max(transcript.gaps) <= SOUND_WITHIN_S[fault]
    assert len(cast.second.requests) == 2
    assert len(cast.dying.requests) == 3


@pytest.mark.parametrize("fault", ["error", "hang"])
@pytest.mark.parametrize("stage", FAKES)
async def test_without_one_the_caller_hears_an_apology_and_no_silence_without_end(
    stage: str, fault: str, autojump_clock: MockClock
) -> None:
    cast = Cast(stage, fault, fallback=False)
    cast.agent.phrases._audio[APOLOGY] = b"\x10" * 8000  # as it was made at the start
    transcript = await cast.talk()
    assert [entry.text for entry in transcript.history][:2] == [
        "hello", "You said hello.",
    ]  # fmt: skip
    assert APOLOGY in [entry.text for entry in transcript.history]
    assert max(transcript.gaps) <= SOUND_WITHIN_S[fault]


async def test_what_began_to_speak_and_broke_off_is_not_said_twice(
    autojump_clock: MockClock,
) -> None:
    """The reply stalls after its first half: the half is heard, then the apology; no second try."""
    words = "one two three four, five six seven eight."
    first = FakeLLM(faults=["stall"], answer=lambda messages: words)
    second = FakeLLM(answer=lambda messages: words)
    agent = fake_agent(llm=FallbackLLM([("a", first), ("b", second)]), pause_ms=0)  # type: ignore[arg-type]
    transcript = await ScriptedCaller().pauses(0.5).says("count").listens().hangs_up().call(agent)
    assert transcript.heard.count("one") <= 1
    assert not second.requests
    assert not first.open_requests


async def test_a_barge_in_on_a_fallback_closes_its_request(autojump_clock: MockClock) -> None:
    dead, second = FakeTTS(faults=repeat("error")), FakeTTS(speed=1.5)
    llm = FakeLLM(answer=lambda messages: "one two three four five six seven eight nine ten.")
    agent = fake_agent(llm=llm, tts=FallbackTTS([("a", dead), ("b", second)]))  # type: ignore[arg-type]
    caller = ScriptedCaller().says("count").pauses(2.5).says("wait please", 1).drops()
    transcript = await caller.call(agent)
    (cleared,) = transcript.clears
    assert not second.open_requests
    closed = second.requests[0].closed
    assert closed is not None
    assert closed <= cleared + 0.02
