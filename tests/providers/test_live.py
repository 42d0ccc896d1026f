"""The engine of live recognition, over real WebSocket bytes in memory and in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import LiveTranscription
from voicecore.errors import ProviderError
from voicecore.providers.deepgram import dialect_of
from voicecore.providers.live import LiveSTT, open_live_stt
from voicecore.settings import Settings, load
from voicecore.testing import ScriptedCaller, fake_agent

from .fake_deepgram import Behaviour, FakeDeepgram, open_fake
from .live_line import CallerLine

REFUSES = Behaviour(refuses=True)


@cache
def configured(key: str) -> Settings:
    return load(deepgram_base_url="http://deepgram.test", deepgram_api_key=key)


@asynccontextmanager
async def open_nova(fake: FakeDeepgram, key: str = "k") -> AsyncIterator[LiveSTT]:
    async with open_live_stt("deepgram", dialect_of(configured(key)), fake.connect) as stt:
        yield stt


@asynccontextmanager
async def line_to(
    *behaviours: Behaviour,
) -> AsyncIterator[tuple[CallerLine, LiveTranscription, FakeDeepgram]]:
    """A call on a fake nova."""
    async with open_fake(*behaviours) as fake:
        async with open_nova(fake) as stt, stt.listen("en-US") as transcription:
            assert isinstance(transcription, LiveTranscription)
            yield CallerLine(transcription), transcription, fake
        assert not fake.open_sessions
        assert not any(session.violations for session in fake.sessions)


async def fails(transcription: LiveTranscription, utterance: bytes) -> tuple[str, float]:
    """Ask for words that cannot be had; return the fault, and how long that took."""
    began = trio.current_time()
    with pytest.raises(ProviderError) as caught:
        await transcription.transcript(utterance)
    assert "\n" not in str(caught.value)
    return caught.value.fault, trio.current_time() - began


async def test_a_transcript_stands_at_the_pause_within_a_round_trip(
    autojump_clock: MockClock,
) -> None:
    async with line_to(Behaviour(latency_s=0.08)) as (line, transcription, fake):
        utterance = await line.turn("book a table")
        assert transcription.partial == "book a"
        began = trio.current_time()
        transcript = await transcription.transcript(utterance)
        assert transcript.text == "book a table"
        assert transcript.confidence == pytest.approx(0.9)
        assert trio.current_time() - began == pytest.approx(0.08)
        assert transcription.partial == "book a table"
        assert transcription.hint() is None
        assert len(fake.sessions) == 1
    assert fake.sessions[0].kinds == ["Finalize", "CloseStream"]
    assert bytes(fake.sessions[0].audio) == bytes(line.audio)


async def test_what_is_final_already_is_not_asked_for(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        utterance = await line.turn("good day", pause=0.5)
        await transcription.transcript(utterance)
        assert (await transcription.transcript(utterance)).text == "good day"
        assert fake.sessions[0].kinds.count("Finalize") <= 1


async def test_a_lost_speculation_costs_no_word_and_doubles_none(
    autojump_clock: MockClock,
) -> None:
    async with line_to() as (line, transcription, _):
        first = await line.turn("book a table")
        assert (await transcription.transcript(first)).text == "book a table"
        start = len(line.audio) - len(first)
        await line.say("for two", 0.5)
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert transcription.partial.startswith("book a table")
        assert (await transcription.transcript(whole)).text == "book a table for two"
        await line.pause(1)
        assert (await transcription.transcript(await line.turn("yes"))).text == "yes"


@pytest.mark.parametrize("step", range(25))
async def test_cancelled_at_any_moment_and_asked_again(
    step: int, autojump_clock: MockClock
) -> None:
    async with line_to(Behaviour(cut_after_s=1.4)) as (line, transcription, _):
        first = await line.turn("book a table")
        start = len(line.audio) - len(first)
        with trio.move_on_after(step * 0.0125 + 0.001):
            await transcription.transcript(first)
        await line.say("for two", 0.5)
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert (await transcription.transcript(whole)).text == "book a table for two"


async def test_turns_cut_before_their_words_were_known_are_one_utterance(
    autojump_clock: MockClock,
) -> None:
    async with line_to() as (line, transcription, _):
        first = await line.turn("not that")
        with trio.move_on_after(0.01) as scope:
            await transcription.transcript(first)
        assert scope.cancelled_caught
        await line.pause(4)  # the agent begins to speak
        second = await line.turn("the other one")
        transcript = await transcription.transcript(first + second)
        assert transcript.text == "not that the other one"
        assert (await transcription.transcript(await line.turn("good"))).text == "good"


async def test_the_same_words_in_the_same_bytes_are_said_twice(autojump_clock: MockClock) -> None:
    async with line_to() as (line, _, _):
        for _ in range(3):
            utterance = await line.turn("yes")
            assert await line.words(utterance) == "yes"
            await line.pause(2)


async def test_late_finals_do_not_leak_into_the_next_turn(autojump_clock: MockClock) -> None:
    behaviour = Behaviour(deaf=True, latency_s=0.4)  # interim words are returned, finals come late
    async with line_to(behaviour) as (line, _, _):
        utterance = await line.turn("the first thing")
        assert await line.words(utterance) == "the first thing"
        utterance = await line.turn("the second")
        assert await line.words(utterance) == "the second"


async def test_an_interim_that_reaches_the_end_stands_after_a_moment(
    autojump_clock: MockClock,
) -> None:
    async with line_to(Behaviour(deaf=True, endpoints=False)) as (line, _, _):
        utterance = await line.turn("what are your hours", pause=0.2)
        began = trio.current_time()
        assert await line.words(utterance) == "what are your hours"
        assert trio.current_time() - began == pytest.approx(0.3)


async def test_finalize_need_not_be_answered_with_its_flag(autojump_clock: MockClock) -> None:
    async with line_to(Behaviour(finals=False)) as (line, transcription, _):
        began_text = await transcription.transcript(await line.turn("any flag will do"))
        assert began_text.text == "any flag will do"


async def test_a_cough_has_no_words(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, _):
        began = trio.current_time()
        assert await line.words(await line.turn("")) == ""
        assert trio.current_time() - began < 1
        assert (await transcription.transcript(b"")).text == ""


@pytest.mark.parametrize("cut_after_s", [0.1, 0.5, 0.9, 1.2, 1.6, 2.0])
@pytest.mark.parametrize("how", ["cut_after_s", "closes_after_s", "garbage_after_s"])
async def test_a_drop_inside_an_utterance_costs_no_word(
    how: str, cut_after_s: float, autojump_clock: MockClock
) -> None:
    behaviour = replace(Behaviour(), **{how: cut_after_s})
    async with line_to(behaviour) as (line, _, fake):
        utterance = await line.turn("one two three four five six")
        assert await line.words(utterance) == "one two three four five six"
        assert len(fake.sessions) == 2
        await line.pause(1)
        assert await line.words(await line.turn("seven")) == "seven"
        assert len(fake.sessions) == 2


async def test_an_outage_longer_than_what_is_kept_costs_no_word(
    autojump_clock: MockClock,
) -> None:
    words = " ".join(f"w{n}" for n in range(50))  # 15 s
    async with line_to(Behaviour(cut_after_s=1), *[REFUSES] * 6) as (line, transcription, _):
        utterance = await line.turn(words)
        assert await line.words(utterance) == words
        assert transcription.dropped > 0  # type: ignore[attr-defined]
        await line.pause(1)
        assert await line.words(await line.turn("well")) == "well"


async def test_a_long_utterance_that_a_dead_session_swallowed_costs_no_word(
    autojump_clock: MockClock,
) -> None:
    words = " ".join(f"w{n}" for n in range(50))  # 15 s, of which ten are kept
    async with line_to(Behaviour(hangs="after")) as (line, _, fake):
        assert await line.words(await line.turn(words)) == words
        assert len(fake.sessions) == 2
        await line.pause(1)
        assert await line.words(await line.turn("well")) == "well"


async def test_without_a_connection_it_fails_soon_and_the_next_turn_tries_again(
    autojump_clock: MockClock,
) -> None:
    async with line_to(*[REFUSES] * 9) as (line, transcription, fake):
        utterance = await line.turn("is anybody there")
        fault, seconds = await fails(transcription, utterance)
        assert (fault, seconds < 1) == ("connect", True)
        attempts = fake.attempts
        await line.pause(20)
        assert fake.attempts <= attempts + 5
        fake.behaviours = ()
        assert (await transcription.transcript(await line.turn("hello"))).text == "hello"


@pytest.mark.parametrize(
    ("status", "fault", "requests"),
    [
        (400, "status", 1),
        (401, "refused", 1),
        (402, "refused", 1),
        (403, "refused", 1),
        (429, "busy", 1),
        (500, "status", 3),
        (503, "status", 3),
    ],
)
async def test_an_upgrade_that_is_answered_with_an_error(
    status: int, fault: str, requests: int, autojump_clock: MockClock
) -> None:
    headers = ((b"Retry-After", b"3600"),)
    body = b'{"err_code":"SOME_CODE","err_msg":"your key k is bad","request_id":"r"}'
    behaviour = Behaviour(status=status, headers=headers, body=body)
    async with line_to(*[behaviour] * 40) as (line, transcription, fake):
        utterance = await line.turn("hello")
        await line.pause(30)
        before = fake.attempts
        began = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            await transcription.transcript(utterance)
        assert str(caught.value) == f"deepgram: {fault}: HTTP {status} SOME_CODE"
        assert trio.current_time() - began < 2
        assert fake.attempts - before == requests


async def test_a_server_that_never_answers_the_upgrade(autojump_clock: MockClock) -> None:
    async with line_to(*[Behaviour(hangs="before")] * 9) as (line, transcription, fake):
        fault, seconds = await fails(transcription, await line.turn("hello"))
        assert fault == "timeout"
        assert seconds == pytest.approx(5)
        fake.behaviours = ()
        assert (await transcription.transcript(await line.turn("again"))).text == "again"


async def test_a_session_that_falls_silent_is_replaced_while_its_words_are_waited_for(
    autojump_clock: MockClock,
) -> None:
    async with line_to(Behaviour(hangs="after")) as (line, _, fake):
        began = trio.current_time()
        utterance = await line.turn("hello my friend")
        assert await line.words(utterance) == "hello my friend"
        assert trio.current_time() - began < 5
        assert len(fake.sessions) == 2


async def test_silent_sessions_end_in_a_timeout(autojump_clock: MockClock) -> None:
    async with line_to(*[Behaviour(hangs="after")] * 9) as (line, transcription, _):
        fault, seconds = await fails(transcription, await line.turn("hello"))
        assert fault == "timeout"
        assert seconds == pytest.approx(5)


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(chatty=True),
        Behaviour(bytewise=True),
        Behaviour(latency_s=1),
        Behaviour(wait_s=1.5),
        Behaviour(interims=False),
    ],
)
async def test_odd_but_legal_servers(behaviour: Behaviour, autojump_clock: MockClock) -> None:
    async with line_to(behaviour) as (line, _, fake):
        for text in ("one two three", "four five"):
            utterance = await line.turn(text)
            assert await line.words(utterance) == text
        assert len(fake.sessions) == 1


async def test_a_session_that_is_fed_nothing_is_kept_alive(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        await line.turn("hello")
        await trio.sleep(61)  # the carrier sends nothing in silence
        assert fake.sessions[0].kinds == ["KeepAlive"] * 20
        assert (await transcription.transcript(await line.turn("me again"))).text == "me again"
        assert len(fake.sessions) == 1


async def test_who_is_never_fed_hears_the_utterance_itself(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake), line_to() as (_, fallback, other):
        await trio.sleep(30)
        assert not other.sessions
        for text in ("one", "two three", "four"):
            utterance = await line.turn(text)
            assert (await fallback.transcript(utterance)).text == text
        with trio.move_on_after(0.01):
            await fallback.transcript(utterance)
        assert (await fallback.transcript(utterance)).text == "four"
        assert len(other.sessions) == 1
        assert len(fake.sessions) == 1
        assert transcription.partial.startswith("one two three")


async def test_no_words_reach_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with line_to(Behaviour(cut_after_s=0.8)) as (line, transcription, _):
        await transcription.transcript(await line.turn("secret words"))
    assert "secret" not in caplog.text
    assert [r.getMessage() for r in caplog.records if r.name.startswith("voicecore")] == [
        "live session lost: deepgram: cut: the connection broke"
    ]


async def test_a_whole_call(autojump_clock: MockClock) -> None:
    async with open_fake() as fake, open_nova(fake) as stt:
        caller = (
            ScriptedCaller().pauses(0.5).says("book a table").pauses(0.2).says("for two")
            .listens().says("thank you").listens().hangs_up()
        )  # fmt: skip
        transcript = await caller.call(fake_agent(stt))  # type: ignore[arg-type]
        said = [message.text for message in transcript.history if message.role == "user"]
        assert said == ["book a table for two", "thank you"]
        assert max(transcript.gaps) <= 0.36  # the silence that ends a turn: the rest was ready
        assert len(fake.sessions) == 1
        assert not fake.open_sessions
        assert fake.sessions[0].kinds[-1] == "CloseStream"


async def test_calls_that_are_cancelled_at_any_moment_leave_no_session(
    autojump_clock: MockClock,
) -> None:
    for step in range(30):
        async with (
            open_fake(Behaviour(wait_s=0.1, cut_after_s=0.8)) as fake,
            open_nova(fake) as stt,
        ):
            with trio.move_on_after(step * 0.06 + 0.0075):
                async with stt.listen("en-US") as transcription:
                    line = CallerLine(transcription)
                    await transcription.transcript(await line.turn("one two"))
            await trio.testing.wait_all_tasks_blocked()
            assert not fake.open_sessions, step


@pytest.mark.parametrize("late_s", [1.0, 2.3, 5.5])
async def test_words_that_are_asked_for_late_are_found(
    late_s: float, autojump_clock: MockClock
) -> None:
    """Another recogniser may have been asked before, and have hung."""
    async with line_to() as (line, _, _):
        for words in ("book a table", "for two please"):
            utterance = await line.turn(words)
            await line.pause(late_s)
            assert await line.words(utterance) == words
