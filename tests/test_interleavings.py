"""What happens when two things happen at once.  Each of these once went wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.call import open_call
from voicecore.call.phrases import STOCK_WORDS
from voicecore.contracts import Delta, Message, Tool, ToolCall
from voicecore.errors import ProviderError
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, Transcript, fake_agent

TEN = "one two three four five six seven eight nine ten."


def said(transcript: Transcript) -> list[tuple[str, str, bool]]:
    return [(m.role[0], m.text, m.interrupted) for m in transcript.history]


class StreamingLLM:
    """An LLM whose streams are written by the test."""

    def __init__(self, *pieces: Delta | float | ProviderError, closing: float = 0.0) -> None:
        self.pieces = pieces
        self.closing = closing
        self.prompts: list[tuple[Message, ...]] = []

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterator[Delta]]:
        self.prompts.append(tuple(messages))
        stream = self._stream()
        try:
            yield stream
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.closing)
                await stream.aclose()

    async def _stream(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        for piece in self.pieces:
            if isinstance(piece, float):
                await trio.sleep(piece)
            elif isinstance(piece, ProviderError):
                raise piece
            else:
                yield piece


class StoppingLine:
    """A line on which `stop` arrives at the very moment at which a frame is due."""

    def __init__(self, stop_at: float) -> None:
        self._carrier = CarrierStream(CallIdentity("CA1", "MZ1"))
        self._messages = self._carrier.open()
        self._stop_at = stop_at
        self.sent_at: list[float] = []

    async def receive(self) -> str:
        if self._messages:
            await trio.lowlevel.checkpoint()
            return self._messages.pop(0)
        await trio.sleep_until(self._stop_at)
        return self._carrier.stop()

    async def send(self, *texts: str) -> None:
        await trio.lowlevel.checkpoint()
        self.sent_at.append(trio.current_time())

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()


def test_a_hang_up_on_the_beat_of_a_frame_is_only_a_hang_up() -> None:
    async def call(stop_at: float) -> StoppingLine:
        line = StoppingLine(stop_at)
        async with open_call(line) as call:
            await call.converse(fake_agent(greeting=TEN))
        assert call.ended_by == "caller"
        return line

    def run(stop_at: float) -> StoppingLine:
        return trio.run(call, stop_at, clock=MockClock(autojump_threshold=0))

    due = run(2.5).sent_at
    for beat in due[3:23]:
        run(beat)


@pytest.mark.parametrize("began", [2.9, 2.95, 3.0, 3.05, 3.1])
async def test_a_long_story_over_the_end_of_a_reply_is_listened_to(
    began: float, autojump_clock: MockClock
) -> None:
    short = FakeLLM(answer=lambda m: "I see.")
    host = fake_agent(llm=short, greeting=TEN, idle_prompt_s=3)
    caller = ScriptedCaller().pauses(began).says("my long story " * 6, 4.5).listens().hangs_up()
    transcript = await caller.call(host)
    assert "Are" not in transcript.heard
    assert transcript.history[-2].role == "user"
    assert transcript.history[-2].text.split() == ("my long story " * 6).split()


async def test_a_barge_in_that_is_answered_by_hanging_up(autojump_clock: MockClock) -> None:
    llm = FakeLLM(answer=lambda m: "<end_call>" if "bye" in m[-1].text else TEN)
    caller = ScriptedCaller().says("count").pauses(2).says("bye now please").pauses(9).hangs_up()
    transcript = await caller.call(fake_agent(llm=llm))
    assert transcript.ended_by == "agent"
    # Nobody is hung up on without a word, though the model had none.
    goodbye = STOCK_WORDS["en"].goodbye
    assert said(transcript)[-2:] == [("u", "bye now please", False), ("a", goodbye, False)]


@pytest.mark.parametrize("answer", ["", " ", "...", "\n"])
async def test_an_empty_reply_is_a_failed_turn(answer: str, autojump_clock: MockClock) -> None:
    llm = FakeLLM(answer=lambda m: answer if "bye" in m[-1].text else TEN)
    host = fake_agent(llm=llm, idle_prompt_s=0)
    await host.prepare()
    caller = ScriptedCaller().says("count").pauses(2).says("bye now please").listens().hangs_up()
    transcript = await caller.call(host)
    assert transcript.history[-1].text == host.persona.stock_words.apology


async def test_two_coughs_lose_no_reply(autojump_clock: MockClock) -> None:
    host = fake_agent(FakeSTT(0.6), FakeLLM(answer=lambda m: TEN), idle_prompt_s=0)
    caller = (
        ScriptedCaller().says("count").pauses(3).coughs(0.3).pauses(0.6).coughs(0.3)
        .pauses(6).hangs_up()
    )  # fmt: skip
    transcript = await caller.call(host)
    assert transcript.heard == TEN.split()
    assert said(transcript) == [("u", "count", False), ("a", TEN, False)]


async def test_a_cough_in_a_reply_that_goes_on_after_a_cough(autojump_clock: MockClock) -> None:
    host = fake_agent(llm=FakeLLM(answer=lambda m: TEN), idle_prompt_s=0)
    caller = (
        ScriptedCaller().says("count").pauses(1.5).coughs(0.3).pauses(1).coughs(0.3)
        .pauses(6).hangs_up()
    )  # fmt: skip
    transcript = await caller.call(host)
    assert transcript.heard == TEN.split()


async def test_a_caller_who_is_never_understood_does_not_fill_the_memory(
    autojump_clock: MockClock,
) -> None:
    stt = FakeSTT(1.0)
    host = fake_agent(stt, FakeLLM(answer=lambda m: "ok."), idle_prompt_s=0)
    await ScriptedCaller().says("and " * 62, 62).pauses(2).hangs_up().call(host)
    assert max(int(request.what.split()[0]) for request in stt.requests) == 60 * 8000


async def test_words_whose_audio_never_came_were_not_heard(autojump_clock: MockClock) -> None:
    llm = FakeLLM(answer=lambda m: "One two. Three four five.")
    host = fake_agent(llm=llm, tts=FakeTTS(faults=["", "error"]))
    transcript = await ScriptedCaller().says("hello").listens().hangs_up().call(host)
    assert transcript.history[-1].text == f"One two. {host.persona.stock_words.apology}"


@pytest.mark.parametrize("seconds", [0.3, 0.6])
async def test_tts_fails_while_the_llm_is_far_ahead(
    seconds: float, autojump_clock: MockClock
) -> None:
    long = " ".join(["This is quite a long sentence that takes a while to say."] * 12)
    tts = FakeTTS(seconds, faults=["", "error"])
    host = fake_agent(llm=FakeLLM(answer=lambda m: long), tts=tts, idle_prompt_s=0)
    await host.prepare()
    tts.__init__(seconds, faults=["", "error"])  # type: ignore[misc]
    transcript = await ScriptedCaller().says("hello").listens().pauses(4).hangs_up().call(host)
    assert transcript.history[-1].text.endswith(host.persona.stock_words.apology)


async def test_failures_count_though_the_caller_talks_over_the_apologies(
    autojump_clock: MockClock,
) -> None:
    host = fake_agent(llm=FakeLLM(faults=["error"] * 99), idle_prompt_s=0)
    await host.prepare()
    caller = ScriptedCaller()
    for _ in range(4):
        caller = caller.says("hello you there").pauses(1.2)
    transcript = await caller.listens().pauses(9).call(host)
    assert transcript.ended_by == "agent"
    assert " ".join(transcript.heard).endswith(host.persona.stock_words.give_up)


async def test_idle_prompts_between_do_not_hide_failures(autojump_clock: MockClock) -> None:
    host = fake_agent(llm=FakeLLM(faults=["error"] * 99), idle_prompt_s=3, idle_prompts=9)
    await host.prepare()
    caller = ScriptedCaller()
    for _ in range(4):
        caller = caller.says("hello you there").listens().listens()
    transcript = await caller.call(host)
    assert transcript.ended_by == "agent"
    assert " ".join(transcript.heard).endswith(host.persona.stock_words.give_up)


async def test_a_reply_that_breaks_after_its_goodbye_does_not_hang_up(
    autojump_clock: MockClock,
) -> None:
    """Could you say that again? is no farewell."""
    cut = ProviderError("llm", "cut", "no end")
    llm = StreamingLLM("Goodbye to you.\n", ToolCall("1", "end_call"), 0.1, cut)
    caller = ScriptedCaller().says("bye").listens().pauses(2).hangs_up()
    transcript = await caller.call(fake_agent(llm=llm, idle_prompt_s=0))  # type: ignore[arg-type]
    assert transcript.ended_by == "caller"


async def test_a_provider_that_closes_slowly_does_not_reorder_the_history(
    autojump_clock: MockClock,
) -> None:
    llm = StreamingLLM("one two three four five six\n", "seven eight\n", 4.0, closing=1.0)
    caller = ScriptedCaller().says("count").pauses(1.2).says("wait please").listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=llm, idle_prompt_s=0))  # type: ignore[arg-type]
    assert [role for role, _, _ in said(transcript)] == ["u", "a", "u", "a"]
    second = [(m.role, m.text) for m in llm.prompts[1][1:]]
    assert second == [("user", "count"), ("assistant", "one two three"), ("user", "wait please")]


async def test_the_end_of_a_reply_is_not_waited_for_when_all_was_heard(
    autojump_clock: MockClock,
) -> None:
    llm = StreamingLLM("goodbye then\n", 1.2, ToolCall("1", "end_call"))
    transcript = await ScriptedCaller().says("bye").pauses(30).call(fake_agent(llm=llm))  # type: ignore[arg-type]
    assert transcript.ended_by == "agent"
    assert transcript.seconds < 0.3 + 0.1 + 1.2 + 0.2


async def test_an_apology_that_was_cut_by_a_cough_goes_on(autojump_clock: MockClock) -> None:
    host = fake_agent(llm=FakeLLM(faults=["error"]), idle_prompt_s=0)
    await host.prepare()
    caller = ScriptedCaller().says("hello there").pauses(1.0).coughs(0.3).pauses(6).hangs_up()
    transcript = await caller.call(host)
    assert " ".join(transcript.heard) == host.persona.stock_words.apology


async def test_the_farewell_at_the_maximum_length_is_not_argued_with(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(answer=lambda m: " ".join([TEN] * 9))
    host = fake_agent(max_call_s=10, idle_prompt_s=0, llm=llm)
    transcript = await ScriptedCaller().pauses(10.5).says("oh ok bye").pauses(40).call(host)
    assert " ".join(transcript.heard) == host.persona.stock_words.goodbye
    assert transcript.ended_by == "length"
    assert transcript.seconds < 13
