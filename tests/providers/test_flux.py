"""Deepgram Flux: cumulative turns, hints, and an end by force only where nothing else comes.

The vendor's SDK judges the fake, as in `test_deepgram`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.contracts import LiveTranscription, TurnHint
from voicecore.providers import deepgram
from voicecore.providers.flux import Flux
from voicecore.providers.live import Failed, Finalized, Hint, Word, Words
from voicecore.settings import load

from .fake_deepgram import Behaviour, FakeDeepgram, open_fake, open_fake_on_loopback
from .live_line import CallerLine

URL = "wss://api.deepgram.com/v2/listen"


@asynccontextmanager
async def line_to(
    *behaviours: Behaviour, model: str = "flux-general-en", language: str = "en-US"
) -> AsyncIterator[tuple[CallerLine, LiveTranscription, FakeDeepgram]]:
    settings = load(deepgram_base_url="http://deepgram.test", deepgram_api_key="k", stt_model=model)
    async with open_fake(*behaviours) as fake:
        async with deepgram.opened(settings, fake.connect) as vendor:
            async with vendor.stt.listen(language) as transcription:
                assert isinstance(transcription, LiveTranscription)
                yield CallerLine(transcription), transcription, fake
        assert not fake.open_sessions
        assert not any(session.violations for session in fake.sessions)


def flux() -> Flux:
    return Flux(URL, (), "flux-general-en", "en-US")


def hints(transcription: LiveTranscription) -> list[TurnHint]:
    return list(iter(transcription.hint, None))


async def test_a_conversation(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        for text in ("book a table", "for two please"):
            utterance = await line.turn(text)
            began = trio.current_time()
            assert await line.words(utterance) == text
            assert trio.current_time() - began <= 0.31  # its updates come every quarter second
            await line.pause(1)
            assert hints(transcription) == [TurnHint.EAGER, TurnHint.ENDED]
        session = fake.sessions[0]
        assert session.path.startswith("/v2/listen?")
        assert session.headers["authorization"] == "Token k"
        assert session.query == {
            "model": "flux-general-en",
            "encoding": "mulaw",
            "sample_rate": "8000",
            "eager_eot_threshold": "0.5",
        }
        assert session.texts == []
    assert session.kinds == ["CloseStream"]
    assert len(fake.sessions) == 1


async def test_a_turn_that_was_not_over(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, _):
        first = await line.turn("book a table", pause=0.24)
        start = len(line.audio) - len(first)
        assert await line.words(first) == "book a table"
        assert hints(transcription) == [TurnHint.EAGER]
        await line.say("for two", 0.6)
        assert hints(transcription) == [TurnHint.RESUMED]
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert (await transcription.transcript(whole)).text == "book a table for two"
        await line.pause(1)
        assert hints(transcription) == [TurnHint.EAGER, TurnHint.ENDED]


async def test_a_turn_that_flux_ended_and_the_caller_did_not(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, _):
        first = await line.turn("my number is", pause=1)
        assert hints(transcription)[-1] is TurnHint.ENDED
        assert (await transcription.transcript(first)).text == "my number is"
        start = len(line.audio) - len(first)
        await line.say("five six", 0.6)
        assert transcription.partial.startswith("my number is")
        await line.pause(0.1)
        whole = bytes(line.audio[start:])
        assert (await transcription.transcript(whole)).text == "my number is five six"


async def test_the_end_comes_by_force_where_nothing_else_does(autojump_clock: MockClock) -> None:
    async with line_to(Behaviour(interims=False)) as (line, transcription, fake):
        utterance = await line.turn("is it over")
        began = trio.current_time()
        assert (await transcription.transcript(utterance)).text == "is it over"
        assert trio.current_time() - began == pytest.approx(0.7 + 0.05)
        assert fake.sessions[0].kinds == ["ForceEndTurn"]


async def test_a_cough_has_no_words(autojump_clock: MockClock) -> None:
    async with line_to() as (line, _, fake):
        assert await line.words(await line.turn("")) == ""
        assert await line.words(await line.turn("yes")) == "yes"
        assert fake.sessions[0].texts == []


async def test_silence_is_sent_where_nothing_is_fed(autojump_clock: MockClock) -> None:
    async with line_to() as (line, transcription, fake):
        utterance = await line.turn("hello")
        await trio.sleep(60)
        assert fake.sessions[0].seconds == pytest.approx(62, abs=1.5)
        assert (await transcription.transcript(utterance)).text == "hello"
        assert await line.words(await line.turn("me again")) == "me again"
        assert len(fake.sessions) == 1


@pytest.mark.parametrize("cut_after_s", [0.3, 0.9, 1.3, 1.9, 2.4])
async def test_a_drop_inside_a_turn_costs_no_word(
    cut_after_s: float, autojump_clock: MockClock
) -> None:
    async with line_to(Behaviour(cut_after_s=cut_after_s)) as (line, _, fake):
        utterance = await line.turn("one two three four five six")
        assert await line.words(utterance) == "one two three four five six"
        assert len(fake.sessions) == 2


async def test_a_long_turn_is_heard_again_from_its_first_word(autojump_clock: MockClock) -> None:
    words = " ".join(f"w{n}" for n in range(50))  # 15 s, and no final word before their end
    async with line_to(Behaviour(cut_after_s=14)) as (line, _, fake):
        utterance = await line.turn(words)
        assert await line.words(utterance) == words
        assert len(utterance) / 8000 < fake.sessions[1].seconds < len(utterance) / 8000 + 2


async def test_what_was_silent_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with line_to(Behaviour(cut_after_s=30)) as (line, _, fake):
        await line.pause(32)
        assert await line.words(await line.turn("hello")) == "hello"
        assert fake.sessions[1].audio.count(b"\xff" * 8000) <= 4


@pytest.mark.parametrize(
    "behaviour", [Behaviour(chatty=True), Behaviour(bytewise=True), Behaviour(garbage_after_s=1)]
)
async def test_odd_servers(behaviour: Behaviour, autojump_clock: MockClock) -> None:
    async with line_to(behaviour) as (line, _, _):
        assert await line.words(await line.turn("one two three")) == "one two three"


async def test_the_multilingual_model_is_told_the_language(autojump_clock: MockClock) -> None:
    async with line_to(model="flux-general-multi", language="hi-IN") as (line, _, fake):
        await line.pause(0.1)
        assert fake.sessions[0].query["language_hint"] == "hi"


def turn_info(event: str, **more: Any) -> str:
    message = {
        "type": "TurnInfo",
        "request_id": "r",
        "sequence_id": 7,
        "event": event,
        "turn_index": 0,
        "audio_window_start": 0.0,
        "audio_window_end": 3.0,
        "transcript": "I do",
        "words": [
            {"word": "I", "confidence": 0.9, "start": 0.8, "end": 0.9},
            {"word": "do", "confidence": 0.5},
        ],
        "end_of_turn_confidence": 0.02,
        **more,
    }
    return json.dumps(message)


def test_turn_messages() -> None:
    words = (Word("I", 0.8, 0.9, 0.9), Word("do", 0.9, 3.0, 0.5))
    interim, final = Words(words, 0.0, 3.0, False), Words(words, 0.0, 3.0, True)
    said = {
        "Update": [interim],
        "StartOfTurn": [interim],
        "EagerEndOfTurn": [interim, Hint(TurnHint.EAGER)],
        "TurnResumed": [interim, Hint(TurnHint.RESUMED)],
        "EndOfTurn": [final, Hint(TurnHint.ENDED)],
        "Tomorrow": [interim],
    }
    for event, expected in said.items():
        assert list(flux().receive(turn_info(event))) == expected
    forced = list(flux().receive(turn_info("EndOfTurn", trigger="manual")))
    assert forced == [final, Hint(TurnHint.ENDED), Finalized()]
    untimed = list(flux().receive(turn_info("Update", words=[])))
    assert untimed == [Words((Word("I do", 0.0, 3.0),), 0.0, 3.0, False)]
    silent = list(flux().receive(turn_info("Update", words=[], transcript="")))
    assert silent == [Words((), 0.0, 2.0, True), Words((), 0.0, 3.0, False)]


@pytest.mark.parametrize("kind", ["Connected", "ConfigureSuccess", "Warning", "Tomorrow"])
def test_other_messages_say_nothing(kind: str) -> None:
    assert list(flux().receive(json.dumps({"type": kind, "code": "X"}))) == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"type":"TurnInfo"}',
        turn_info("Update", words=None),
        '{"type":"Error","sequence_id":1,"code":"INTERNAL_SERVER_ERROR","description":"key k"}',
    ],
)
def test_what_nobody_understands_is_a_failure(message: str) -> None:
    (event,) = flux().receive(message)
    assert isinstance(event, Failed)
    assert "key k" not in str(event.error)


@given(st.binary() | st.text())
def test_nothing_raises(message: str | bytes) -> None:
    for event in flux().receive(message):
        assert isinstance(event, Failed)


# The judges


@pytest.fixture(scope="module")
def sdk() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what its own libraries have deprecated
        import deepgram as package
        import deepgram.listen.v2.client
        import deepgram.listen.v2.types
    return package


async def test_the_sdks_models_take_what_the_fake_says(sdk: Any, autojump_clock: MockClock) -> None:
    types = sdk.listen.v2.types
    models = {"Connected": types.ListenV2Connected, "TurnInfo": types.ListenV2TurnInfo}
    async with line_to(Behaviour(latency_s=0)) as (line, transcription, fake):
        await line.turn("one two", pause=0.4)
        await line.say("three", 0.6)
        await transcription.transcript(await line.turn("four"))
        await line.pause(1)
        sent = fake.sessions[0].sent
    events = {message.get("event") for message in sent}
    assert {"Update", "StartOfTurn", "EagerEndOfTurn", "TurnResumed", "EndOfTurn"} < events
    assert [message["sequence_id"] for message in sent] == list(range(len(sent)))
    for message in sent:
        model = models[message["type"]].model_validate(message, strict=True)
        known = set(json.loads(model.model_dump_json(exclude_unset=True)))
        assert known == set(message)
        assert set(model.model_extra or {}) <= {"trigger"}


async def test_we_say_what_the_sdk_says(sdk: Any) -> None:
    events: list[Any] = []

    def talk(port: int) -> None:
        base = f"http://127.0.0.1:{port}"
        where = sdk.DeepgramClientEnvironment(
            base=base, production=f"ws://127.0.0.1:{port}", agent=base, agent_rest=base
        )
        client = sdk.DeepgramClient(api_key="k", environment=where)
        query = {"model": "flux-general-en", "encoding": "mulaw", "sample_rate": "8000"}
        with client.listen.v2.connect(**query, eager_eot_threshold="0.5") as session:
            events.append(session.recv())
            session.send_media(b"\xff" * 2400)
            events.append(session.recv())
            session.send_force_end_turn()
            session.send_close_stream()
            events.extend(session)

    with trio.fail_after(10):
        async with open_fake_on_loopback(Behaviour(latency_s=0)) as (fake, port):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await trio.to_thread.run_sync(talk, port)
            theirs = fake.sessions[0]
            assert [event.type for event in events] == ["Connected", "TurnInfo"]
            settings = load(
                deepgram_base_url=f"http://127.0.0.1:{port}",
                deepgram_api_key="k",
                stt_model="flux-general-en",
            )
            async with deepgram.opened(settings) as vendor:
                async with vendor.stt.listen("en-US") as transcription:
                    assert (await transcription.transcript(b"\xff" * 2400)).text == ""
            ours = fake.sessions[1]
    assert ours.query == theirs.query
    assert ours.headers["authorization"] == theirs.headers["authorization"]
    assert ours.texts == theirs.texts[1:]
    assert json.loads(flux().rules.finalise[0]) == theirs.texts[0]
