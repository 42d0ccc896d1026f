"""Deepgram's nova: what we say, what we understand, and whether the fake speaks as the vendor does.

The judges are the vendor's own SDK: its models must take every message of the fake, its client must
be able to talk to the fake, and what it puts on the wire is what we put there.
"""

from __future__ import annotations

import json
import warnings
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.contracts import LiveTranscription, WarmsUp
from voicecore.errors import SettingsError
from voicecore.providers import deepgram
from voicecore.providers.live import Failed, Finalized, Word, Words
from voicecore.settings import Settings, load

from .fake_deepgram import Behaviour, FakeDeepgram, open_fake, open_fake_on_loopback
from .live_line import CallerLine

URL = "wss://api.deepgram.com/v1/listen"


def configured(**flags: Any) -> Settings:
    flags = {"deepgram_api_key": "k", "deepgram_base_url": "http://deepgram.test", **flags}
    return load(stt="deepgram", **flags)


def nova(model: str = "nova-3", language: str = "en-US") -> deepgram.Nova:
    return deepgram.Nova(URL, "k", model, language)


async def converse(fake: FakeDeepgram, **flags: Any) -> str:
    """Say something in a call, with a pause in it; return what was understood."""
    async with deepgram.opened(configured(**flags), fake.connect) as vendor:
        assert isinstance(vendor.stt, WarmsUp)
        async with vendor.stt.listen("en-US") as transcription:
            assert isinstance(transcription, LiveTranscription)
            line = CallerLine(transcription)
            utterance = await line.turn("what are your hours", pause=0.5)
            await trio.sleep(4)
            text = (await transcription.transcript(utterance)).text
            await line.pause(4)
            return f"{text} / {(await transcription.transcript(await line.turn('ok'))).text}"


async def test_a_conversation(autojump_clock: MockClock) -> None:
    async with open_fake() as fake:
        assert await converse(fake) == "what are your hours / ok"
        session = fake.sessions[0]
        assert session.headers["authorization"] == "Token k"
        assert urlsplit(session.path).path == "/v1/listen"
        assert session.query == {
            "model": "nova-3",
            "language": "en-US",
            "encoding": "mulaw",
            "sample_rate": "8000",
            "channels": "1",
            "interim_results": "true",
            "punctuate": "true",
            "smart_format": "false",
            "endpointing": "300",
        }
        assert session.violations == []
        assert max(session.messages) <= 2000


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("en-US", "en-US"),
        ("en-IN", "en-IN"),
        ("en", "en"),
        ("hi-IN", "hi"),
        ("hi", "hi"),
        ("de-DE", "de"),
        ("pt-BR", "pt-BR"),
        ("zh-TW", "zh-TW"),
    ],
)
def test_languages_are_called_by_the_names_that_the_models_know(tag: str, name: str) -> None:
    assert parse_qs(urlsplit(nova(language=tag).endpoint.url).query)["language"] == [name]


async def test_the_address_and_the_key_come_from_the_settings() -> None:
    make = deepgram.dialect_of(configured(deepgram_base_url="https://dg.example:8443/x"))
    assert make("en").endpoint.url.startswith("wss://dg.example:8443/x/v1/listen?model=nova-3&")
    make = deepgram.dialect_of(configured(deepgram_api_key="", stt_model="nova-2-phonecall"))
    assert make("en").endpoint.headers == ()
    assert "model=nova-2-phonecall&" in make("en").endpoint.url
    with pytest.raises(SettingsError) as caught:
        deepgram.dialect_of(configured(deepgram_api_key="sk-1\u2028x"))
    assert "sk-1" not in str(caught.value)


def test_a_results_message() -> None:
    words = [
        {"word": "hi", "start": 1.25, "end": 1.5, "confidence": 0.99, "punctuated_word": "Hi,"},
        {"word": "there", "start": 1.5, "end": 2.0, "confidence": 0.5},
    ]
    best = {"transcript": "Hi, there", "confidence": 0.98, "words": words}
    message = {
        "type": "Results",
        "channel_index": [0, 1],
        "start": 1.2,
        "duration": 1,
        "is_final": True,
        "speech_final": True,
        "from_finalize": True,
        "channel": {"alternatives": [best, {"transcript": "bye", "confidence": 0.1, "words": []}]},
        "metadata": {"request_id": "r"},
        "new": {"field": None},
    }
    assert list(nova().receive(json.dumps(message))) == [
        Words((Word("Hi,", 1.25, 1.5, 0.99), Word("there", 1.5, 2.0, 0.5)), 1.2, 2.2, True),
        Finalized(),
    ]
    message["channel"] = {"alternatives": []}
    message["from_finalize"] = message["is_final"] = None
    assert list(nova().receive(json.dumps(message))) == [Words((), 1.2, 2.2, False)]
    message["channel"] = {"alternatives": [{"transcript": "untimed"}]}
    (said,) = nova().receive(json.dumps(message))
    assert said == Words((Word("untimed", 1.2, 2.2),), 1.2, 2.2, False)


@pytest.mark.parametrize("kind", ["SpeechStarted", "UtteranceEnd", "Metadata", "Tomorrow", ""])
def test_other_messages_say_nothing(kind: str) -> None:
    assert list(nova().receive(json.dumps({"type": kind, "channel": None}))) == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe",
        '{"type": 5}',
        '{"type": "Results"}',
        '{"type":"Results","start":"0","duration":1,"channel":{"alternatives":[]}}',
        '{"type":"Results","start":1e999,"duration":1,"channel":{"alternatives":[]}}',
        '{"type":"Results","start":NaN,"duration":1,"channel":{"alternatives":[]}}',
        "[" * 100_000,
        '{"type":"Error","variant":"SchemaError","description":"key k","message":"key k"}',
    ],
)
def test_what_nobody_understands_is_a_failure(message: str | bytes) -> None:
    (event,) = nova().receive(message)
    assert isinstance(event, Failed)
    assert event.error.fault in ("garbage", "status")
    assert "key k" not in str(event.error)


@given(st.binary() | st.text())
def test_nothing_raises(message: str | bytes) -> None:
    for event in nova().receive(message):
        assert isinstance(event, Failed)


# The judges


@pytest.fixture(scope="module")
def sdk() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what its own libraries have deprecated
        import deepgram as package
        from deepgram.listen.v1 import socket_client, types

        package.judges = socket_client, types
    return package


async def test_the_sdks_models_take_what_the_fake_says(sdk: Any, autojump_clock: MockClock) -> None:
    _, types = sdk.judges
    models = {"Results": types.ListenV1Results, "Metadata": types.ListenV1Metadata}
    async with open_fake(Behaviour(latency_s=0)) as fake:
        await converse(fake)
        sent = fake.sessions[0].sent
    assert {message["type"] for message in sent} == set(models)
    assert {True, False} == {m["is_final"] for m in sent if m["type"] == "Results"}
    for message in sent:
        model = models[message["type"]].model_validate(message, strict=True)
        assert not model.model_extra
        assert set(json.loads(model.model_dump_json(exclude_unset=True))) == set(message)


async def test_we_say_what_the_sdk_says(sdk: Any) -> None:
    """The SDK's own client talks with the fake over a real socket, as our dialect does."""
    events: list[Any] = []

    def talk(port: int) -> None:
        base = f"http://127.0.0.1:{port}"
        where = sdk.DeepgramClientEnvironment(
            base=base, production=f"ws://127.0.0.1:{port}", agent=base, agent_rest=base
        )
        client = sdk.DeepgramClient(api_key="k", environment=where)
        query = {"model": "nova-3", "language": "en-US", **deepgram.LISTENING}
        with client.listen.v1.connect(**query) as session:
            session.send_media(b"\xff" * 1600)
            session.send_keep_alive()
            session.send_finalize()
            events.append(session.recv())
            session.send_close_stream()
            events.extend(session)

    with trio.fail_after(10):
        async with open_fake_on_loopback(Behaviour(latency_s=0)) as (fake, port):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                await trio.to_thread.run_sync(talk, port)
            theirs = fake.sessions[0]
            assert [event.type for event in events] == ["Results", "Results", "Metadata"]
            assert events[0].from_finalize is True
            assert theirs.violations == []

            settings = configured(deepgram_base_url=f"http://127.0.0.1:{port}")
            async with deepgram.opened(settings) as vendor:
                async with vendor.stt.listen("en-US") as transcription:
                    transcript = await transcription.transcript(b"\xff" * 1600)
                    assert transcript.text == ""
            ours = fake.sessions[1]
    assert ours.query == theirs.query
    assert urlsplit(ours.path).path == urlsplit(theirs.path).path
    assert ours.headers["authorization"] == theirs.headers["authorization"]
    rules = nova().rules
    assert [json.loads(rules.keep_alive), *map(json.loads, rules.finalise)] == theirs.texts[:2]
    assert ours.texts == theirs.texts[1:]
