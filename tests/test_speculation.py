"""Replies begun before the turn is certain: what they cost, and what is not paid twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.call.phrases import STOCK_WORDS
from voicecore.contracts import Delta, Message, Tool
from voicecore.errors import ProviderError
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, fake_agent

FRAME = 0.02
FILLERS = STOCK_WORDS["en"].fillers


def interrupted_by_a_tap() -> ScriptedCaller:
    """A sentence, a pause in which a speculation begins, a tap, and silence."""
    return (
        ScriptedCaller().says("book a table").pauses(0.16).coughs(0.06).listens().hangs_up()
    )  # fmt: skip


async def test_a_reply_that_was_written_is_not_bought_again(autojump_clock: MockClock) -> None:
    llm, tts = FakeLLM(), FakeTTS(0.02)
    transcript = await interrupted_by_a_tap().call(fake_agent(llm=llm, tts=tts))
    assert transcript.heard == ["You", "said", "book", "a", "table."]
    assert len(llm.requests) == 1
    assert transcript.gaps == [pytest.approx(0.3, abs=1.5 * FRAME)]


async def test_a_reply_that_was_not_written_to_its_end_is_made_anew(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(token_seconds=0.1)
    transcript = await interrupted_by_a_tap().call(fake_agent(llm=llm))
    assert transcript.heard == ["You", "said", "book", "a", "table."]
    assert len(llm.requests) == 2


async def test_more_words_make_another_reply(autojump_clock: MockClock) -> None:
    llm = FakeLLM()
    caller = ScriptedCaller().says("book a table").pauses(0.16).says("for two").listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=llm))
    assert transcript.heard == ["You", "said", "book", "a", "table", "for", "two."]
    assert len(llm.requests) == 2


@pytest.mark.parametrize(("full", "requests"), [(True, 2), (False, 1)])
async def test_speech_may_wait_until_the_turn_is_certain(
    full: bool, requests: int, autojump_clock: MockClock
) -> None:
    """Without buying speech: the LLM's part is hidden by the silence, the voice's is not."""
    tts = FakeTTS(0.1)
    host = fake_agent(llm=FakeLLM(0.1), tts=tts, speculates_speech=full)
    caller = ScriptedCaller().says("book a table").pauses(0.26).says("for two").listens().hangs_up()
    transcript = await caller.call(host)
    assert len(tts.requests) == requests
    # After a lost speculation the next one waits a little longer: 160 ms.
    gap = 0.16 + 0.1 + 0.1 if full else 0.3 + 0.1
    assert transcript.gaps == [pytest.approx(gap, abs=1.5 * FRAME)]


async def slow_agent(filler_s: float, stt: float = 0.0, **options: float) -> Agent:
    host = fake_agent(FakeSTT(stt), FakeLLM(2.0), FakeTTS(0.2), filler_s=filler_s, **options)
    await host.prepare()
    return host


async def test_a_filler_is_said_if_the_reply_is_late(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("hello").listens().listens().hangs_up()
    transcript = await caller.call(await slow_agent(0.6))
    assert " ".join(transcript.heard) == f"{FILLERS[0]} You said hello."
    assert transcript.gaps[0] == pytest.approx(0.3 + 0.6, abs=1.5 * FRAME)
    assert transcript.history[-1].text == f"{FILLERS[0]} You said hello."


async def test_no_filler_is_said_if_the_reply_is_in_time(autojump_clock: MockClock) -> None:
    host = await slow_agent(2.5)
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(host)
    assert " ".join(transcript.heard) == "You said hello."


async def test_a_noise_is_not_answered_with_a_filler(autojump_clock: MockClock) -> None:
    host = await slow_agent(0.6, stt=1.0)
    transcript = await ScriptedCaller().coughs(0.4).pauses(4).hangs_up().call(host)
    assert transcript.heard == []


async def test_a_filler_that_is_interrupted_is_remembered_as_heard(
    autojump_clock: MockClock,
) -> None:
    host = await slow_agent(0.6)
    caller = ScriptedCaller().says("hello").pauses(1.3).says("never mind").pauses(0.5).drops()
    transcript = await caller.call(host)
    spoken = [message for message in transcript.history if message.role == "assistant"]
    assert spoken[0].interrupted
    assert FILLERS[0].startswith(spoken[0].text)


async def test_an_apology_waits_for_the_filler_to_end(autojump_clock: MockClock) -> None:
    host = await slow_agent(0.6)
    failing = replace(host, llm=FakeLLM(1.0, faults=["error"]))
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(failing)
    apology = host.persona.stock_words.apology
    assert " ".join(transcript.heard) == f"{FILLERS[0]} {apology}"


class Warm(FakeTTS):
    """A TTS that connects beforehand."""

    async def warm_up(self, language: str) -> None:
        async with self._request(f"warm {language}"):
            await trio.sleep(60)


async def test_providers_are_warmed_up_for_a_bounded_time(autojump_clock: MockClock) -> None:
    tts = Warm()
    await fake_agent(tts=tts).warm_up()
    (request,) = tts.requests
    assert request.what == "warm en-US"
    assert trio.current_time() <= 5
    assert not tts.open_requests


async def test_connections_are_warm_when_the_reply_is_asked_for(autojump_clock: MockClock) -> None:
    """An idle connection is closed by the vendor after a while: speech is a reason to open one."""
    tts = Warm()
    await ScriptedCaller().says("hello").pauses(2).hangs_up().call(fake_agent(tts=tts))
    warm, *spoken = tts.requests
    assert warm.what == "warm en-US"
    assert spoken
    assert warm.opened < spoken[0].opened
    assert not tts.open_requests


class BreaksOff(FakeLLM):
    """Breaks off in the middle of its first answers, `breaks` times, after a word or a clause."""

    said = "Well, I "
    breaks = 1

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterator[Delta]]:
        async with super().reply(messages, tools) as stream:
            if len(self.requests) <= self.breaks:
                stream = self._broken()
            yield stream

    async def _broken(self) -> AsyncGenerator[Delta, None]:
        yield self.said
        await trio.sleep(0.05)
        raise ProviderError("llm", "cut", "the stream ended")


@pytest.mark.parametrize("said", ["Well", "Well, I "])
async def test_a_reply_that_broke_off_before_it_was_heard_is_asked_for_again(
    said: str, autojump_clock: MockClock
) -> None:
    llm, tts = BreaksOff(), FakeTTS()
    llm.said = said
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(
        fake_agent(llm=llm, tts=tts)
    )  # fmt: skip
    assert transcript.heard == ["You", "said", "hello."]
    assert len(llm.requests) == 2
    assert not tts.open_requests


async def test_it_is_asked_for_once_more_and_no_oftener(autojump_clock: MockClock) -> None:
    llm = BreaksOff()
    llm.breaks = 2
    host = fake_agent(llm=llm)
    await host.prepare()
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(host)
    assert " ".join(transcript.heard).endswith(host.persona.stock_words.apology)
    assert len(llm.requests) == 2


async def test_a_reply_that_broke_off_while_it_was_heard_is_not(autojump_clock: MockClock) -> None:
    llm = BreaksOff(token_seconds=0.05)
    host = fake_agent(llm=llm, pause_ms=0)
    await host.prepare()
    llm.said = "Well, I think so, "
    transcript = await ScriptedCaller().says("hello").listens().listens().hangs_up().call(host)
    assert host.persona.stock_words.apology in " ".join(transcript.heard)
    assert len(llm.requests) == 1


async def test_markup_and_control_characters_are_not_spoken(autojump_clock: MockClock) -> None:
    tts = FakeTTS()
    llm = FakeLLM(answer=lambda m: "**First**, `x`\x00\x1b and second.")
    await ScriptedCaller().says("hello").listens().hangs_up().call(fake_agent(llm=llm, tts=tts))
    spoken = " ".join(request.what for request in tts.requests)
    assert spoken.split() == ["First,", "x", "and", "second."]


async def test_dots_are_no_words(autojump_clock: MockClock) -> None:
    llm = FakeLLM()
    await ScriptedCaller().says("...").pauses(3).hangs_up().call(fake_agent(llm=llm))
    assert not llm.requests
