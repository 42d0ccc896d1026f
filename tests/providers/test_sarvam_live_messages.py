"""Sarvam's recognition message by message, and as the vendor's own SDK judges it.

The SDK's client talks with the fake as our dialect does, and its models take what the fake says.
"""

from __future__ import annotations

import base64
import json
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.errors import ProviderError
from voicecore.providers import sarvam
from voicecore.providers.live import Event, Failed, Finalized, Word, Words
from voicecore.providers.sarvam_live import Saaras
from voicecore.providers.websocket import Refusal

from .fake_live import Manners, open_on_loopback
from .fake_sarvam_live import BAD_KEY, LANGUAGES, NO_QUOTA, FakeSarvam, error
from .test_sarvam_live import URL, configured, line_to


def dialect(language: str = "hi-IN", audio_s: float = 0) -> Saaras:
    session = Saaras(URL, "k", "", language)
    if audio_s:
        session.audio(bytes(round(audio_s * 8000)))
    return session


def hear(session: Saaras, kind: str, index: int, text: str, *times: float) -> list[Event]:
    said: dict[str, Any] = {"event": f"transcript.{kind}", "utterance_idx": index, "text": text}
    said.update(zip(("start_s", "end_s"), times, strict=False))
    return list(session.receive(json.dumps(said)))


def test_transcripts() -> None:
    session = dialect(audio_s=2)
    assert hear(session, "partial", 0, "मेरा") == [Words((Word("मेरा", 2, 2),), 0, 0, False)]
    assert hear(session, "final", 0, " मेरा ऑर्डर ", 0.4, 1.9) == [
        Words((Word("मेरा ऑर्डर", 0.4, 1.9),), 0.4, 1.9, True),
        Finalized(),
    ]
    assert hear(session, "final", 0, "मेरा ऑर्डर", 0.4, 1.9) == []
    assert hear(session, "partial", 0, "late") == []
    assert hear(session, "partial", 1, " ") == [Words((), 1.9, 1.9, False)]
    session.audio(bytes(16000))
    assert hear(session, "final", 1, "") == [Words((), 2.0, 3.5, True), Finalized()]
    session.audio(bytes(8000))
    assert hear(session, "final", 2, "ok") == [Words((Word("ok", 4.5, 4.5),), 4.5, 4.5, True),
                                               Finalized()]  # fmt: skip


def test_utterances_overlap() -> None:
    session = dialect(audio_s=2)
    hear(session, "partial", 0, "one")
    session.audio(bytes(4000))
    both = Words((Word("one two", 2, 2.5),), 0, 0, False)
    assert hear(session, "partial", 1, "two") == [both]
    first = Words((Word("one", 0, 1.0),), 0, 1.0, True)
    left = Words((Word("two", 2.5, 2.5),), 1.0, 1.0, False)
    assert hear(session, "final", 0, "one", 0.0, 1.0) == [first, left, Finalized()]
    third = Words((Word("three", 1.5, 1.9),), 1.5, 1.9, True)
    assert hear(session, "final", 2, "three", 1.5, 1.9) == [third, Finalized()]
    second = Words((Word("two", 1.0, 1.5),), 1.0, 1.5, True)
    assert hear(session, "final", 1, "two", 1.0, 1.5) == [second, Finalized()]
    assert hear(session, "partial", 3, "x")[0] == Words((Word("x", 2.5, 2.5),), 1.9, 1.9, False)


@pytest.mark.parametrize(
    "kind", ["session.begin", "session.end", "vad.speech_start", "pong", "config.updated", "x", ""]
)
def test_other_messages_say_nothing(kind: str) -> None:
    assert list(dialect().receive(json.dumps({"event": kind, "text": None}))) == []


@pytest.mark.parametrize(
    ("said", "fault", "kind"),
    [
        (BAD_KEY, "refused", Refusal),
        (error("invalid_api_key_error"), "refused", Refusal),
        (error("x", status_code=402), "refused", Refusal),
        (NO_QUOTA, "busy", Refusal),
        (error("x", status_code=429), "busy", Refusal),
        (error("unsupported", status_code=400), "status", Refusal),
        (error("x", status_code=503), "status", ProviderError),
        ({"event": "error"}, "status", ProviderError),
    ],
)
def test_errors(said: dict[str, Any], fault: str, kind: type[ProviderError]) -> None:
    (event,) = dialect().receive(json.dumps(said))
    assert isinstance(event, Failed)
    assert type(event.error) is kind
    assert str(event.error) in (
        f"sarvam: {fault}: error {said.get('status_code')}",
        f"sarvam: {fault}: an error message",
    )


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "null", b"\xff\xfe", '{"event":5}', '{"event":"transcript.final"}',
     '{"event":"transcript.final","utterance_idx":0,"text":null}',
     '{"event":"transcript.final","utterance_idx":0,"text":"","end_s":1e999}', "[" * 100_000],
)  # fmt: skip
def test_what_nobody_understands_is_a_failure(message: str | bytes) -> None:
    (event,) = dialect().receive(message)
    assert isinstance(event, Failed)
    assert event.error.fault == "garbage"


@settings(max_examples=30)
@given(st.binary() | st.text())
def test_nothing_raises(message: str | bytes) -> None:
    for event in dialect().receive(message):
        assert isinstance(event, Failed)


# The judge


@pytest.fixture(scope="module")
def sdk() -> Any:
    import sarvamai
    import sarvamai.speech_to_text_realtime_streaming.types as types

    return sarvamai, types


async def test_the_sdks_models_take_what_the_fake_says(sdk: Any, autojump_clock: MockClock) -> None:
    package, _ = sdk
    models = {
        "session.begin": package.RealtimeSessionBegin,
        "transcript.partial": package.RealtimeTranscriptPartial,
        "transcript.final": package.RealtimeTranscriptFinal,
        "pong": package.RealtimePong,
        "session.end": package.RealtimeSessionEnd,
        "error": package.RealtimeError,
    }
    async with line_to(Manners(latency_s=0)) as (line, transcription, fake):
        await transcription.transcript(await line.turn("one two three"))
        await trio.sleep(6)
    sent = [*fake.sessions[0].sent, BAD_KEY, NO_QUOTA]
    assert {message["event"] for message in sent} == set(models)
    for message in sent:
        model = models[message["event"]].model_validate(message)
        assert not model.model_extra
        assert json.loads(model.model_dump_json(exclude_unset=True)) == message


@pytest.mark.filterwarnings("ignore:websockets.:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:remove second argument:DeprecationWarning")
async def test_we_say_what_the_sdk_says(sdk: Any) -> None:
    """The SDK's own client talks with the fake over a real socket, as our dialect does."""
    package, _ = sdk
    said: list[Any] = []

    def talk(port: int) -> None:
        from sarvamai.environment import SarvamAIEnvironment

        base = f"http://127.0.0.1:{port}"
        where = SarvamAIEnvironment(base=base, creative=base, production=f"ws://127.0.0.1:{port}")
        client = package.SarvamAI(api_subscription_key="k", environment=where)
        audio = base64.b64encode(WORD).decode()
        with client.speech_to_text_realtime_streaming.connect(
            language_code="hi-IN",
            model="saaras:v3-realtime",
            stream_type="fast",
            endpointing="manual",
            encoding="mulaw",
            sample_rate="8000",
            return_timestamps="true",
        ) as session:
            said.append(session.recv())
            session.send_realtime_speech_start(package.RealtimeSpeechStart())
            session.send_realtime_audio_input(package.RealtimeAudioInput(audio=audio))
            session.send_realtime_speech_end(package.RealtimeSpeechEnd())
            said.append(session.recv())
            session.send_realtime_speech_start(package.RealtimeSpeechStart())
            session.send_realtime_ping(package.RealtimePing())
            session.send_realtime_end(package.RealtimeEnd())
            said.extend(session)

    with trio.fail_after(10):
        async with open_on_loopback(FakeSarvam, Manners(latency_s=0)) as (fake, port):
            await trio.to_thread.run_sync(talk, port)
            theirs = fake.sessions[0]
            assert [message.event for message in said] == [
                "session.begin",
                "transcript.final",
                "pong",
                "session.end",
            ]
            assert said[1].text == "हाँ"
            base = f"http://127.0.0.1:{port}"
            async with sarvam.opened(configured(sarvam_base_url=base)) as vendor:
                async with vendor.stt.listen("hi-IN") as transcription:
                    assert (await transcription.transcript(WORD)).text == "हाँ"
            ours = fake.sessions[1]
    assert ours.query == theirs.query
    assert urlsplit(ours.path).path == urlsplit(theirs.path).path
    assert ours.headers["api-subscription-key"] == theirs.headers["api-subscription-key"]
    assert not ours.violations
    assert not theirs.violations
    keep_alive = json.loads(Saaras.rules.keep_alive)
    assert ours.texts == [text for text in theirs.texts if text != keep_alive]
    assert keep_alive in theirs.texts
    message = json.loads(dialect().audio(WORD))
    assert message == json.loads(
        package.RealtimeAudioInput(audio=base64.b64encode(WORD).decode()).model_dump_json()
    )


WORD = b"\x10" * 480 + (b"\x01\x09" + "हाँ".encode()).ljust(160, b"\x10") + b"\xff" * 800


def test_the_sdk_knows_our_model_and_the_languages(sdk: Any) -> None:
    _, types = sdk
    models, _ = get_args(types.SpeechToTextRealtimeStreamingModel)
    assert {"saaras:v3-realtime", "saaras:v4"} == set(get_args(models))
    languages, _ = get_args(types.SpeechToTextRealtimeStreamingLanguageCode)
    assert set(LANGUAGES.split()) == set(get_args(languages))
