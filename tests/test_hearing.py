"""How long a call waits for the end of a turn: what was said, and what a recogniser concludes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from voicecore.audio import SILENCE_FRAME
from voicecore.call.events import Heard, TurnFinished
from voicecore.call.hearing import Hearing
from voicecore.contracts import Message, TurnHint
from voicecore.dialogue.turns import TurnEnded
from voicecore.testing import FakeLLM, FakeSTT, ScriptedCaller, audible, fake_agent


@dataclass
class LiveSTT(FakeSTT):
    """Hears words as they are said, `lag_frames` late, and concludes what it is told to.

    `script` says after how many silent frames it concludes what.
    """

    script: Mapping[int, TurnHint] = field(default_factory=dict)
    lag_frames: int = 0
    heard: list[list[str]] = field(default_factory=list)
    silence: int = 0

    def feed(self, frame: bytes) -> None:
        self.silence = 0 if audible.is_loud(frame) else self.silence + 1
        self.heard.append(audible.words_in_frame(frame))

    @property
    def partial(self) -> str:
        known = self.heard[: max(0, len(self.heard) - self.lag_frames)]
        return " ".join(word for words in known for word in words)

    async def standing(self, utterance: bytes) -> str:
        await trio.sleep_forever()

    def hint(self) -> TurnHint | None:
        return self.script.get(self.silence) if any(self.heard) else None


FRAME = 0.02
WITHIN_A_FRAME = 1.5 * FRAME
ORDINARY = [
    "hello there",
    "what is the weather in paris",
    "book a table for two",
    "yes",
    "five",
    "one two",
    "where are you from",
    "four one five five five five one two three four",
]


async def gap_after(words: str, stt: FakeSTT, llm_s: float = 0.0, **rules: int) -> float:
    """Say something to an agent; return the silence until the answer, in seconds."""
    caller = ScriptedCaller().pauses(0.3).says(words).listens().hangs_up()
    llm = FakeLLM(llm_s, answer=lambda messages: "Yes.")
    transcript = await caller.call(fake_agent(stt, llm, **rules))
    assert transcript.history[0] == Message("user", words)
    return transcript.gaps[0]


@pytest.mark.parametrize("stt", [FakeSTT, LiveSTT])
@pytest.mark.parametrize("words", ORDINARY)
async def test_an_ordinary_sentence_waits_for_the_short_silence(
    words: str, stt: type[FakeSTT], autojump_clock: MockClock
) -> None:
    assert await gap_after(words, stt()) == pytest.approx(0.3, abs=WITHIN_A_FRAME)


@pytest.mark.parametrize("stt", [FakeSTT, LiveSTT])
@pytest.mark.parametrize("words", ["four one five", "a table and", "john dot smith at"])
async def test_unfinished_words_wait_for_the_long_silence(
    words: str, stt: type[FakeSTT], autojump_clock: MockClock
) -> None:
    assert await gap_after(words, stt()) == pytest.approx(1.2, abs=WITHIN_A_FRAME)


async def test_long_silence_zero_lets_nobody_wait(autojump_clock: MockClock) -> None:
    gap = await gap_after("four one five", FakeSTT(), long_silence_ms=0)
    assert gap == pytest.approx(0.3, abs=WITHIN_A_FRAME)


@pytest.mark.parametrize("stt", [FakeSTT, LiveSTT])
async def test_a_number_in_groups_is_one_turn(
    stt: type[FakeSTT], autojump_clock: MockClock
) -> None:
    caller = ScriptedCaller().says("four one five").pauses(0.8).says("five five five")
    caller = caller.pauses(0.8).says("one two three four").listens().hangs_up()
    transcript = await caller.call(fake_agent(stt()))
    number = "four one five five five five one two three four"
    assert transcript.history[0] == Message("user", number)
    assert transcript.gaps[0] == pytest.approx(0.3, abs=WITHIN_A_FRAME)


async def test_a_breath_without_new_words_leaves_the_patience(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("four one five").pauses(0.2).coughs(0.1).listens().hangs_up()
    transcript = await caller.call(fake_agent(LiveSTT()))
    assert transcript.gaps[0] == pytest.approx(1.2, abs=WITHIN_A_FRAME)


async def test_words_that_are_known_late_do_not_make_an_ordinary_sentence_wait(
    autojump_clock: MockClock,
) -> None:
    """At the pause the recogniser has got no further than "book a"."""
    gap = await gap_after("book a table", LiveSTT(lag_frames=12, seconds=0.2))
    assert gap == pytest.approx(0.3, abs=WITHIN_A_FRAME)


async def test_a_live_recogniser_is_judged_without_speculation_too(
    autojump_clock: MockClock,
) -> None:
    gap = await gap_after("four one five", LiveSTT(), pause_ms=0)
    assert gap == pytest.approx(1.2, abs=WITHIN_A_FRAME)


async def test_an_eager_hint_begins_the_reply_at_once(autojump_clock: MockClock) -> None:
    plain = await gap_after("book a table", LiveSTT(), llm_s=0.5)
    eager = await gap_after("book a table", LiveSTT(script={2: TurnHint.EAGER}), llm_s=0.5)
    assert plain == pytest.approx(0.1 + 0.5, abs=WITHIN_A_FRAME)
    assert eager == pytest.approx(0.04 + 0.5, abs=WITHIN_A_FRAME)


async def test_an_eager_hint_ends_no_turn(autojump_clock: MockClock) -> None:
    gap = await gap_after("book a table", LiveSTT(script={2: TurnHint.EAGER}))
    assert gap == pytest.approx(0.3, abs=WITHIN_A_FRAME)


@pytest.mark.parametrize("frames", [2, 6, 10])
async def test_the_recognisers_end_is_the_end(frames: int, autojump_clock: MockClock) -> None:
    gap = await gap_after("book a table", LiveSTT(script={frames: TurnHint.ENDED}))
    assert gap == pytest.approx(frames * FRAME, abs=WITHIN_A_FRAME)


async def test_the_recognisers_end_is_no_end_of_a_dictation(autojump_clock: MockClock) -> None:
    gap = await gap_after("four one five", LiveSTT(script={6: TurnHint.ENDED}))
    assert gap == pytest.approx(1.2, abs=WITHIN_A_FRAME)


async def test_an_end_that_is_taken_back_waits_for_the_long_silence(
    autojump_clock: MockClock,
) -> None:
    script = {2: TurnHint.EAGER, 8: TurnHint.RESUMED}
    gap = await gap_after("book a table", LiveSTT(script=script))
    assert gap == pytest.approx(1.2, abs=WITHIN_A_FRAME)


@asynccontextmanager
async def ears(
    stt: FakeSTT, language: str = "en-US"
) -> AsyncIterator[tuple[Hearing, trio.MemoryReceiveChannel[Heard | TurnFinished]]]:
    post, events = trio.open_memory_channel[Heard | TurnFinished](8)
    with post, events:
        yield Hearing(fake_agent(stt), stt, post, language), events


def kinds(events: trio.MemoryReceiveChannel[Heard | TurnFinished]) -> list[type]:
    heard = []
    while events.statistics().current_buffer_used:
        heard.append(events.receive_nowait())
    return [type(event.event) for event in heard if isinstance(event, Heard)]


async def test_words_are_noted_in_a_pause_and_at_no_other_time() -> None:
    async with ears(FakeSTT()) as (hearing, events):
        hearing.note_words("and")
        for frame in audible.say("and", 20):
            hearing.hear(frame)
        hearing.note_words("and")
        for _ in range(15):
            hearing.hear(SILENCE_FRAME)
        assert kinds(events)[-1] is TurnEnded
        assert hearing.patient_turns == 0


async def test_patient_turns_are_counted() -> None:
    async with ears(FakeSTT(), "hi-IN") as (hearing, events):
        for count, words in enumerate(["और", "लेकिन"], 1):
            for frame in [*audible.say("x", 20), *[SILENCE_FRAME] * 6]:
                hearing.hear(frame)
            hearing.note_words(words)
            for _ in range(53):
                hearing.hear(SILENCE_FRAME)
            assert TurnEnded not in kinds(events)
            hearing.hear(SILENCE_FRAME)
            assert kinds(events) == [TurnEnded]
            assert hearing.patient_turns == count


@pytest.mark.parametrize(("words", "seconds"), [("book a table", 0.6), ("four one five", 1.2)])
async def test_patience_where_a_carrier_sends_nothing_in_silence(
    words: str, seconds: float, autojump_clock: MockClock
) -> None:
    async with ears(LiveSTT()) as (hearing, events), trio.open_nursery() as nursery:
        send, frames = trio.open_memory_channel[bytes](0)
        nursery.start_soon(hearing.run, frames)
        for frame in audible.say(words, 40):
            await send.send(frame)
            await trio.sleep(FRAME)
        silent_since = trio.current_time() - FRAME
        while True:
            event = await events.receive()
            if isinstance(event, Heard) and isinstance(event.event, TurnEnded):
                break
        assert trio.current_time() - silent_since == pytest.approx(seconds, abs=0.31)
        assert trio.current_time() - silent_since >= seconds - FRAME / 2
        nursery.cancel_scope.cancel()
