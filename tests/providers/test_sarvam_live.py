"""Sarvam's live recognition: conversations in Hindi, faults, languages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import LiveTranscription, WarmsUp
from voicecore.errors import ProviderError
from voicecore.providers import sarvam
from voicecore.providers.sarvam_live import Saaras
from voicecore.settings import Settings, load
from voicecore.testing import ScriptedCaller, fake_agent

from .fake_live import LiveFake, Manners, open_live_fake
from .fake_sarvam_live import LANGUAGES, NO_QUOTA, FakeSarvam, error
from .live_line import CallerLine

URL = "wss://api.sarvam.ai/speech-to-text-realtime/ws"
ORDER, WHERE = "मेरा ऑर्डर", "कहाँ है?"
CYCLE = ["speech_end", "speech_start"]


def configured(**flags: Any) -> Settings:
    flags = {"sarvam_api_key": "k", "sarvam_base_url": "http://sarvam.test", **flags}
    return load(stt="sarvam", **flags)


@asynccontextmanager
async def line_to(
    *manners: Manners, language: str = "hi-IN", **flags: Any
) -> AsyncIterator[tuple[CallerLine, LiveTranscription, LiveFake]]:
    async with open_live_fake(FakeSarvam, *manners) as fake:
        async with sarvam.opened(configured(**flags), fake.connect) as vendor:
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


def events(session: Any) -> list[str]:
    return [text["event"] for text in session.texts]


async def test_words_at_the_pause(autojump_clock: MockClock) -> None:
    async with line_to(Manners(latency_s=0.08)) as (line, transcription, fake):
        utterance = await line.turn(f"{ORDER} {WHERE}", pause=0.12)
        assert transcription.partial in f"{ORDER} {WHERE}"
        assert transcription.partial
        began = trio.current_time()
        transcript = await transcription.transcript(utterance)
        assert trio.current_time() - began == pytest.approx(0.08)
        assert transcript.text == transcription.partial == f"{ORDER} {WHERE}"
        await line.pause(1)
        assert await line.words(await line.turn("धन्यवाद")) == "धन्यवाद"
        assert transcription.hint() is None
        session = fake.sessions[0]
        assert urlsplit(session.path).path == "/speech-to-text-realtime/ws"
        assert session.headers["api-subscription-key"] == "k"
        assert session.query == {
            "language_code": "hi-IN",
            "model": "saaras:v3-realtime",
            "stream_type": "fast",
            "endpointing": "manual",
            "encoding": "mulaw",
            "sample_rate": "8000",
            "return_timestamps": "true",
        }
        sent = bytes(session.audio)
        assert bytes(line.audio).startswith(sent)
        assert len(line.audio) - len(sent) < 640
    assert events(session) == ["speech_start", *CYCLE, *CYCLE, "end"]
    assert len(fake.sessions) == 1


async def test_a_partial_text_never_passes_for_the_final_one(autojump_clock: MockClock) -> None:
    async with line_to(Manners(final_after_s=0.8)) as (line, transcription, _):
        utterance = await line.turn("one two three four")
        assert transcription.partial == "one two"
        began = trio.current_time()
        assert await line.words(utterance) == "one two three four"
        assert trio.current_time() - began == pytest.approx(0.85)


async def test_a_lost_speculation_costs_no_word_and_doubles_none(
    autojump_clock: MockClock,
) -> None:
    async with line_to() as (line, transcription, _):
        first = await line.turn(ORDER)
        start = len(line.audio) - len(first)
        assert (await transcription.transcript(first)).text == ORDER
        await line.say(WHERE, 0.6)
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert transcription.partial.startswith(ORDER)
        assert (await transcription.transcript(whole)).text == f"{ORDER} {WHERE}"
        await line.pause(1)
        assert await line.words(await line.turn("ok")) == "ok"


@pytest.mark.parametrize("asked_for_s", [0.01, 0.06, 0.11])
@pytest.mark.parametrize("untimed", [False, True])
async def test_a_speculation_that_is_lost_before_its_words_came(
    asked_for_s: float, untimed: bool, autojump_clock: MockClock
) -> None:
    """The answer to the first question does not pass for that to the second."""
    async with line_to(Manners(latency_s=0.5, untimed=untimed)) as (line, transcription, _):
        first = await line.turn("my number is")
        start = len(line.audio) - len(first)
        with trio.move_on_after(asked_for_s):
            await transcription.transcript(first)
        await line.say("five", 0.3)
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert await line.words(whole) == "my number is five"


@pytest.mark.parametrize(("answers", "seconds"), [(False, 1.2), (True, 0.05)])
@pytest.mark.parametrize("untimed", [False, True])
async def test_a_cough_has_no_words(
    answers: bool, seconds: float, untimed: bool, autojump_clock: MockClock
) -> None:
    async with line_to(Manners(answers_silence=answers, untimed=untimed)) as (line, _, fake):
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
        assert events(fake.sessions[1])[0] == "speech_start"
        await line.pause(1)
        assert await line.words(await line.turn("seven")) == "seven"
        assert len(fake.sessions) == 2


@pytest.mark.parametrize(
    ("manners", "fault", "requests"),
    [
        (Manners(error=NO_QUOTA, close=1003), "busy", 1),
        (Manners(error=error("rate_limit", status_code=429), close=1003), "busy", 1),
        (Manners(close=1003), "refused", 1),
        (Manners(error=error("invalid_model", status_code=400), close=4000), "status", 1),
        (Manners(close=4000), "refused", 1),
        (Manners(error=error("internal", status_code=500), close=1011), "status", 3),
        (Manners(close=1008), "cut", 3),
        (Manners(status=403), "refused", 1),
        (Manners(status=429), "busy", 1),
        (Manners(status=500), "status", 3),
        (Manners(refuses=True), "connect", 3),
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
        fake.behaviours = ()
        assert await line.words(await line.turn("again")) == "again"


async def test_a_refused_key(autojump_clock: MockClock) -> None:
    async with line_to(sarvam_api_key="wrong") as (line, transcription, fake):
        utterance = await line.turn("hello")
        assert fake.attempts == 1
        assert await fault_of(transcription, utterance) == "refused"
        assert fake.attempts == 2


async def test_an_error_that_is_not_fatal_ends_nothing(autojump_clock: MockClock) -> None:
    said = Manners(error=error("invalid_config", is_fatal=False, status_code=400))
    async with line_to(said) as (line, _, fake):
        assert await line.words(await line.turn("hello")) == "hello"
        assert len(fake.sessions) == 1


async def test_a_server_that_never_answers_the_upgrade(autojump_clock: MockClock) -> None:
    async with line_to(*[Manners(hangs="before")] * 9) as (line, transcription, fake):
        assert await fault_of(transcription, await line.turn("hello")) == "timeout"
        fake.behaviours = ()
        # One utterance, for Sarvam: what was said before was not understood yet.
        assert (await line.words(await line.turn("again"))).endswith("again")


@pytest.mark.parametrize(
    "manners",
    [
        Manners(chatty=True),
        Manners(bytewise=True),
        Manners(latency_s=0.8),
        Manners(wait_s=1.0),
        Manners(interims=False),
        Manners(untimed=True),
        Manners(twice=True),
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
        assert events(fake.sessions[0]) == ["speech_start", *["ping"] * 12]
        assert (await transcription.transcript(await line.turn("me again"))).text.endswith("again")
        assert len(fake.sessions) == 1


async def test_a_whole_call_in_hindi(autojump_clock: MockClock) -> None:
    async with open_live_fake(FakeSarvam) as fake:
        async with sarvam.opened(configured(), fake.connect) as vendor:
            assert isinstance(vendor.stt, WarmsUp)
            caller = (
                ScriptedCaller().pauses(0.5).says(ORDER).pauses(0.2).says(WHERE)
                .listens().says("धन्यवाद").listens().hangs_up()
            )  # fmt: skip
            transcript = await caller.call(fake_agent(vendor.stt))  # type: ignore[arg-type]
            said = [message.text for message in transcript.history if message.role == "user"]
            assert said == [f"{ORDER} {WHERE}", "धन्यवाद"]
            assert max(transcript.gaps) <= 0.36
            assert not fake.open_sessions
    assert len(fake.sessions) == 1
    assert events(fake.sessions[0])[-1] == "end"


async def test_calls_that_are_cancelled_leave_no_session(autojump_clock: MockClock) -> None:
    for step in range(12):
        async with open_live_fake(FakeSarvam, Manners(wait_s=0.1, cut_after_s=0.8)) as fake:
            async with sarvam.opened(configured(), fake.connect) as vendor:
                with trio.move_on_after(step * 0.15 + 0.0075):
                    async with vendor.stt.listen("hi-IN") as transcription:
                        line = CallerLine(transcription)
                        await transcription.transcript(await line.turn("one two"))
                await trio.testing.wait_all_tasks_blocked()
                assert not fake.open_sessions, step


@pytest.mark.parametrize(
    ("language", "code"),
    [("hi-IN", "hi-IN"), ("hi", "hi-IN"), ("en-US", "en-IN"), ("od-IN", "or-IN"),
     ("or-IN", "or-IN"), ("kok", "kok-IN")],
)  # fmt: skip
def test_languages_are_india_s(language: str, code: str) -> None:
    query = dict(parse_qsl(urlsplit(Saaras(URL, "k", "", language).endpoint.url).query))
    assert query["language_code"] == code
    assert query["language_code"] in LANGUAGES.split()


def test_the_model_and_the_key() -> None:
    session = Saaras(URL, "", "saaras:v4", "ta-IN")
    assert "model=saaras%3Av4&" in session.endpoint.url
    assert session.endpoint.headers == ()
