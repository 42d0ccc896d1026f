"""AssemblyAI's live recognition: conversations, faults, languages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trio
from trio.testing import MockClock

from voicecore.audio import SILENCE_FRAME
from voicecore.contracts import LiveTranscription, TurnHint, WarmsUp
from voicecore.errors import ProviderError, SettingsError
from voicecore.providers import assemblyai
from voicecore.settings import Settings, load
from voicecore.testing import ScriptedCaller, audible, fake_agent

from .fake_assemblyai import TOO_MANY, FakeAssemblyAI, error
from .fake_live import LiveFake, Manners, open_live_fake
from .live_line import CallerLine

URL = "wss://streaming.assemblyai.com/v3/ws"
REFUSES = Manners(refuses=True)


def configured(**flags: Any) -> Settings:
    flags = {"assemblyai_api_key": "k", "assemblyai_base_url": "http://aai.test", **flags}
    return load(stt="assemblyai", **flags)


def dialect(model: str = "", language: str = "en-US") -> assemblyai.UniversalStreaming:
    return assemblyai.UniversalStreaming(URL, "k", model, language)


@asynccontextmanager
async def line_to(
    *manners: Manners, language: str = "en-US", **flags: Any
) -> AsyncIterator[tuple[CallerLine, LiveTranscription, LiveFake]]:
    async with open_live_fake(FakeAssemblyAI, *manners) as fake:
        async with assemblyai.opened(configured(**flags), fake.connect) as vendor:
            async with vendor.stt.listen(language) as transcription:
                assert isinstance(transcription, LiveTranscription)
                yield CallerLine(transcription), transcription, fake
        assert not fake.open_sessions
        assert not any(session.violations for session in fake.sessions)


async def fault_of(transcription: LiveTranscription, utterance: bytes) -> str:
    with pytest.raises(ProviderError) as caught:
        await transcription.transcript(utterance)
    assert "key" not in str(caught.value)
    return caught.value.fault


async def test_words_at_the_pause(autojump_clock: MockClock) -> None:
    async with line_to(Manners(latency_s=0.08)) as (line, transcription, fake):
        utterance = await line.turn("book a table")
        assert transcription.partial.startswith("book a")
        began = trio.current_time()
        transcript = await transcription.transcript(utterance)
        assert trio.current_time() - began == pytest.approx(0.08)
        assert transcript.text == transcription.partial == "book a table"
        assert transcript.confidence == pytest.approx(0.9)
        await line.pause(1)
        assert await line.words(await line.turn("for two please")) == "for two please"
        assert transcription.hint() is None
        session = fake.sessions[0]
        assert urlsplit(session.path).path == "/v3/ws"
        assert session.headers["authorization"] == "k"
        assert session.query == {
            "sample_rate": "8000",
            "encoding": "pcm_mulaw",
            "speech_model": "universal-streaming-english",
            "min_turn_silence": "2000",
            "max_turn_silence": "2000",
        }
    assert session.kinds == ["ForceEndpoint", "ForceEndpoint", "Terminate"]
    assert len(fake.sessions) == 1


async def test_no_message_is_too_short_or_too_long(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        for pause in (0.1, 0.12, 0.14):  # of which one leaves 20 ms, one 40 ms over
            assert (await transcription.transcript(await line.turn("yes", pause))).text == "yes"
        for _ in range(200):
            transcription.feed(SILENCE_FRAME)
        await trio.sleep(5)
        assert min(fake.sessions[0].messages) == 480
        assert len(line.audio) - len(fake.sessions[0].audio) + 200 * 160 < 480


async def test_a_lost_speculation_costs_no_word_and_doubles_none(
    autojump_clock: MockClock,
) -> None:
    async with line_to() as (line, transcription, _):
        first = await line.turn("book a table")
        start = len(line.audio) - len(first)
        assert (await transcription.transcript(first)).text == "book a table"
        await line.say("for two", 0.5)
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert transcription.partial.startswith("book a table")
        assert (await transcription.transcript(whole)).text == "book a table for two"
        await line.pause(1)
        assert await line.words(await line.turn("yes")) == "yes"


@pytest.mark.parametrize("asked_for_s", [0.01, 0.06, 0.11])
async def test_a_speculation_that_is_lost_before_its_words_came(
    asked_for_s: float, autojump_clock: MockClock
) -> None:
    """The answer to the first question does not pass for that to the second."""
    async with line_to(Manners(latency_s=0.5)) as (line, transcription, _):
        first = await line.turn("my number is")
        start = len(line.audio) - len(first)
        with trio.move_on_after(asked_for_s):
            await transcription.transcript(first)
        await line.say("five", 0.2)
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert await line.words(whole) == "my number is five"


async def test_an_utterance_that_is_complete_is_a_hint_once(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, _):
        utterance = await line.turn("that is all", pause=0.4)
        assert list(iter(transcription.hint, None)) == [TurnHint.EAGER]
        await transcription.transcript(utterance)
        await line.pause(0.5)
        assert transcription.hint() is None  # what we have ended, nobody else has


async def test_a_turn_that_nobody_asks_for_ends_by_itself(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        utterance = await line.turn("hello there", pause=3)
        assert fake.sessions[0].kinds == []
        assert fake.sessions[0].sent[-1]["end_of_turn"]
        assert list(iter(transcription.hint, None)) == [TurnHint.EAGER]
        began = trio.current_time()
        assert await line.words(utterance) == "hello there"
        assert trio.current_time() - began <= 1.01  # to an end of what has ended nothing is said


async def test_a_second_end_of_the_same_turn_changes_nothing(autojump_clock: MockClock) -> None:
    async with line_to(Manners(twice=True)) as (line, _, _):
        for text in ("one two", "three", "four"):
            assert await line.words(await line.turn(text)) == text


@pytest.mark.parametrize(("answers", "seconds"), [(False, 1.0), (True, 0.05)])
async def test_a_cough_has_no_words(
    answers: bool, seconds: float, autojump_clock: MockClock
) -> None:
    async with line_to(Manners(answers_silence=answers)) as (line, _, fake):
        for text in ("", "yes", "", "", "no"):
            utterance = await line.turn(text)
            began = trio.current_time()
            assert await line.words(utterance) == text
            assert trio.current_time() - began == pytest.approx(0.05 if text else seconds)
            await line.pause(1)
        assert len(fake.sessions) == 1


@pytest.mark.parametrize("cut_after_s", [0.9, 1.4, 2.4])
@pytest.mark.parametrize("how", ["cut_after_s", "closes_after_s", "garbage_after_s"])
async def test_a_drop_inside_an_utterance_costs_no_word(
    how: str, cut_after_s: float, autojump_clock: MockClock
) -> None:
    async with line_to(Manners(**{how: cut_after_s})) as (line, _, fake):
        utterance = await line.turn("one two three four five six")
        assert await line.words(utterance) == "one two three four five six"
        assert len(fake.sessions) == 2
        await line.pause(1)
        assert await line.words(await line.turn("seven")) == "seven"
        assert len(fake.sessions) == 2


@pytest.mark.parametrize(
    ("manners", "fault", "requests"),
    [
        (Manners(error=TOO_MANY, close=1008), "busy", 1),
        (Manners(close=3009), "busy", 1),
        (Manners(error={"error": "Not Authorized"}, close=4001), "refused", 1),
        (Manners(error=error(3006, "User Input Validation Error"), close=3006), "status", 1),
        (Manners(error=error(3005, "Session Cancelled"), close=3005), "status", 3),
        (Manners(close=3005), "cut", 3),
        (Manners(status=401), "refused", 1),
        (Manners(status=429), "busy", 1),
        (Manners(status=500), "status", 3),
        (REFUSES, "connect", 3),
    ],
)
async def test_sessions_that_are_not_to_be_had(
    manners: Manners, fault: str, requests: int, autojump_clock: MockClock
) -> None:
    async with line_to(*[manners] * 40) as (line, transcription, fake):
        utterance = await line.turn("hello")
        await line.pause(30)
        before, began = fake.attempts, trio.current_time()
        assert await fault_of(transcription, utterance) == fault
        assert trio.current_time() - began < 2
        assert fake.attempts - before == requests


async def test_a_refused_key(autojump_clock: MockClock) -> None:
    async with line_to(assemblyai_api_key="wrong") as (line, transcription, fake):
        utterance = await line.turn("hello")
        assert fake.attempts == 1
        assert await fault_of(transcription, utterance) == "refused"
        assert fake.attempts == 2


async def test_a_server_that_never_answers_the_upgrade(autojump_clock: MockClock) -> None:
    async with line_to(*[Manners(hangs="before")] * 9) as (line, transcription, fake):
        assert await fault_of(transcription, await line.turn("hello")) == "timeout"
        fake.behaviours = ()
        assert await line.words(await line.turn("again")) == "again"


@pytest.mark.parametrize("manners", [Manners(status=401), REFUSES])
async def test_a_session_that_begins_late_does_not_stay_behind(
    manners: Manners, autojump_clock: MockClock
) -> None:
    """Audio goes out hardly faster than it comes: what is late stays late for a long time."""
    async with line_to(*[manners] * 40) as (line, transcription, fake):
        utterance = await line.turn("hello")
        await line.pause(30)
        await fault_of(transcription, utterance)
        fake.behaviours = ()
        utterance = await line.turn("again")
        began = trio.current_time()
        assert await line.words(utterance) == "again"
        assert trio.current_time() - began < 3


@pytest.mark.parametrize(
    "manners",
    [
        Manners(chatty=True),
        Manners(bytewise=True),
        Manners(latency_s=0.8),
        Manners(wait_s=1.0),
        Manners(interims=False),
        Manners(untimed=True),
    ],
)
async def test_odd_but_legal_servers(manners: Manners, autojump_clock: MockClock) -> None:
    async with line_to(manners) as (line, _, fake):
        for text in ("one two three", "four five"):
            assert await line.words(await line.turn(text)) == text
            await line.pause(1)
        assert len(fake.sessions) == 1


async def test_a_session_that_is_fed_nothing_is_kept_alive(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        await line.turn("hello")
        await trio.sleep(61)
        assert fake.sessions[0].kinds == ["KeepAlive"] * 12
        assert (await transcription.transcript(await line.turn("me again"))).text == "me again"


async def test_a_whole_call(autojump_clock: MockClock) -> None:
    async with open_live_fake(FakeAssemblyAI) as fake:
        async with assemblyai.opened(configured(), fake.connect) as vendor:
            assert isinstance(vendor.stt, WarmsUp)
            await vendor.stt.warm_up("en-US")
            caller = (
                ScriptedCaller().pauses(0.5).says("book a table").pauses(0.2).says("for two")
                .listens().says("thank you").listens().hangs_up()
            )  # fmt: skip
            transcript = await caller.call(fake_agent(vendor.stt))  # type: ignore[arg-type]
            said = [message.text for message in transcript.history if message.role == "user"]
            assert said == ["book a table for two", "thank you"]
            assert max(transcript.gaps) <= 0.36
            assert not fake.open_sessions
    assert len(fake.sessions) == 1
    assert fake.sessions[0].kinds[-1] == "Terminate"
    assert not fake.sessions[0].violations


async def test_calls_that_are_cancelled_leave_no_session(autojump_clock: MockClock) -> None:
    for step in range(12):
        async with open_live_fake(FakeAssemblyAI, Manners(wait_s=0.1, cut_after_s=0.8)) as fake:
            async with assemblyai.opened(configured(), fake.connect) as vendor:
                with trio.move_on_after(step * 0.15 + 0.0075):
                    async with vendor.stt.listen("en-US") as transcription:
                        line = CallerLine(transcription)
                        await transcription.transcript(await line.turn("one two"))
                await trio.testing.wait_all_tasks_blocked()
                assert not fake.open_sessions, step


@pytest.mark.parametrize(
    ("language", "model", "query"),
    [
        ("en-US", "", {"speech_model": "universal-streaming-english"}),
        ("en", "", {"speech_model": "universal-streaming-english"}),
        ("pt-BR", "", {"speech_model": "universal-streaming-multilingual"}),
        ("de", "", {"speech_model": "universal-streaming-multilingual"}),
        ("hi-IN", "", {"speech_model": "universal-3-5-pro", "language_codes": '["hi"]'}),
        ("ta-IN", "", {"speech_model": "universal-3-5-pro"}),
        ("hi-IN", "whisper-rt", {"speech_model": "whisper-rt"}),
        ("es", "universal-3-6", {"speech_model": "universal-3-6", "language_codes": '["es"]'}),
    ],
)
def test_each_language_gets_a_model_that_knows_it(
    language: str, model: str, query: dict[str, str]
) -> None:
    url = dialect(model, language).endpoint.url
    asked = dict(parse_qsl(urlsplit(url).query))
    assert {name: asked[name] for name in asked if name in ("speech_model", "language_codes")} == (
        query
    )


async def test_hindi(autojump_clock: MockClock) -> None:
    async with line_to(language="hi-IN") as (line, _, fake):
        text = "मेरा ऑर्डर कहाँ है?"
        assert await line.words(await line.turn(text)) == text
        assert fake.sessions[0].query["language_codes"] == '["hi"]'


async def test_the_address_and_the_key_come_from_the_settings() -> None:
    flags = {"assemblyai_base_url": "https://streaming.eu.assemblyai.com/x"}
    async with assemblyai.opened(configured(**flags)) as vendor:
        assert isinstance(vendor.stt, WarmsUp)
    assert dict(assemblyai.UniversalStreaming(URL, "", "", "en").endpoint.headers).keys() == {
        "AssemblyAI-Version"
    }
    with pytest.raises(SettingsError) as caught:
        async with assemblyai.opened(configured(assemblyai_api_key="sk-1\u2028x")):
            pass
    assert "sk-1" not in str(caught.value)


async def test_a_recording_is_sent_no_faster_than_allowed_and_waited_for(
    autojump_clock: MockClock,
) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    async with line_to(Manners(latency_s=0.08)) as (_, transcription, fake):
        began = trio.current_time()
        utterance = b"".join(audible.say(words, 60 * 15))
        assert (await transcription.transcript(utterance)).text == words
        assert 18 / 1.25 - 1 < trio.current_time() - began < 18
        assert len(fake.sessions) == 1
