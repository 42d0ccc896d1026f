"""AssemblyAI message by message, and as the vendor's own SDK judges it.

The SDK's client talks with the fake as our dialect does, and its models take what the fake says.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.contracts import TurnHint
from voicecore.errors import ProviderError
from voicecore.providers import assemblyai
from voicecore.providers.live import Failed, Finalized, Hint, Word, Words
from voicecore.providers.websocket import Refusal

from .fake_assemblyai import TOO_MANY, FakeAssemblyAI, error
from .fake_live import Manners, open_on_loopback
from .test_assemblyai import configured, dialect, line_to


def turn(text: str, *times: int, order: int = 0, ended: bool = False, **more: Any) -> str:
    words = [
        {"text": word, "start": start, "end": end, "confidence": 0.5, "word_is_final": True}
        for word, start, end in zip(text.split(), times[::2], times[1::2], strict=False)
    ]
    return json.dumps(
        {
            "type": "Turn",
            "turn_order": order,
            "turn_is_formatted": False,
            "end_of_turn": ended,
            "transcript": text,
            "end_of_turn_confidence": 0.99,
            "words": words,
            "utterance": "",
            **more,
        }
    )


def test_turns() -> None:
    session = dialect()
    hi, you = Word("hi", 0.5, 0.7, 0.5), Word("you", 0.75, 1.25, 0.5)
    assert list(session.receive(turn("hi", 500, 700))) == [Words((hi,), 0, 0.7, False)]
    said = json.loads(turn("hi you", 500, 700, 750, 1250, utterance="Hi you."))
    said["words"][1]["word_is_final"] = False
    said = json.dumps(said)
    interim = Words((hi, you), 0, 0.7, False)  # which is known to the end of what is final
    assert list(session.receive(said)) == [interim, Hint(TurnHint.EAGER)]
    assert list(session.receive(said)) == [interim]
    ended = list(session.receive(turn("hi you", 500, 700, 750, 1250, ended=True, utterance="x")))
    assert ended == [Words((hi, you), 0, 1.25, True), Finalized()]
    assert list(session.receive(turn("Hi, you.", 500, 700, 750, 1250, ended=True))) == []
    # A turn's first word is told to begin before the turn did.
    later = list(session.receive(turn("ok", 900, 3000, order=1, ended=True)))
    assert later == [Words((Word("ok", 1.25, 3.0, 0.5),), 1.25, 3.0, True), Finalized()]


def test_turns_without_times_or_numbers() -> None:
    session = dialect()
    session.audio(bytes(16000))
    said = Word("hi you", 0.0, 2.0)
    assert list(session.receive(turn("hi you"))) == [Words((said,), 0, 0, False)]
    ended = turn("hi you", ended=True, order=None)
    assert list(session.receive(ended)) == [Words((said,), 0, 1.5, True), Finalized()]
    session.audio(bytes(16000))
    silent = turn("", ended=True, order=None)
    assert list(session.receive(silent)) == [Words((), 1.5, 3.5, True), Finalized()]


@pytest.mark.parametrize(
    "kind", ["Begin", "SpeechStarted", "Heartbeat", "Warning", "Termination", "Silence", "New", ""]
)
def test_other_messages_say_nothing(kind: str) -> None:
    assert list(dialect().receive(json.dumps({"type": kind, "words": None, "error": None}))) == []


@pytest.mark.parametrize(
    ("said", "fault", "kind"),
    [
        (error(1008, "Unauthorized Connection: Invalid API key k"), "refused", Refusal),
        (TOO_MANY, "busy", Refusal),
        (error(3009, "Unauthorized Connection"), "busy", Refusal),
        ({"error": "Unauthorized Connection: Missing Authorization header"}, "refused", Refusal),
        ({"error": "something"}, "status", ProviderError),
        ({"type": "Error", "error_code": "odd", "error": ["odd"]}, "status", ProviderError),
        (error(3006, "Invalid 'speech_model'"), "status", Refusal),
        (error(3007, "Audio Transmission Rate Exceeded"), "status", ProviderError),
        (error(3008, "Session Expired"), "status", ProviderError),
    ],
)
def test_errors(said: dict[str, Any], fault: str, kind: type[ProviderError]) -> None:
    (event,) = dialect().receive(json.dumps(said))
    assert isinstance(event, Failed)
    assert type(event.error) is kind
    assert event.error.fault == fault
    assert str(event.error) in (
        f"assemblyai: {fault}: error {said.get('error_code')}",
        f"assemblyai: {fault}: an error message",
    )


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "null", b"\xff\xfe", '{"type":5}', '{"type":"Turn","words":null}',
     turn("hi").replace('"hi"', "1e999"), "[" * 100_000],
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
    from assemblyai.streaming import v3

    return v3


async def test_the_sdks_models_take_what_the_fake_says(sdk: Any, autojump_clock: MockClock) -> None:
    async with line_to(Manners(latency_s=0)) as (line, transcription, fake):
        await transcription.transcript(await line.turn("one two"))
        await line.turn("three", pause=3)
    sent = [*fake.sessions[0].sent, TOO_MANY]
    assert {message["type"] for message in sent} == {"Begin", "Turn", "Termination", "Error"}
    assert {message.get("end_of_turn") for message in sent} == {True, False, None}
    for message in sent:
        parsed = sdk.StreamingClient._parse_message(message)
        unknown = set(message) - set(parsed.model_dump())
        assert unknown <= {"utterance"}  # which the documentation has
        for word in message.get("words", ()):
            assert sdk.Word.model_validate(word, strict=True)


@pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")
async def test_we_say_what_the_sdk_says(sdk: Any) -> None:
    """The SDK's own client talks with the fake over a real socket, as our dialect does."""
    turns: list[Any] = []

    def talk(port: int) -> None:
        options = sdk.StreamingClientOptions(api_key="k", api_host=f"ws://127.0.0.1:{port}")
        client = sdk.StreamingClient(options)
        client.on(sdk.StreamingEvents.Turn, lambda _, said: turns.append(said))
        query = {"sample_rate": 8000, "encoding": "pcm_mulaw", "speech_model": assemblyai.PRO}
        client.connect(
            sdk.StreamingParameters(
                **query, language_codes=["hi"], min_turn_silence=2000, max_turn_silence=2000
            )
        )
        client.stream(WORD)
        client.keep_alive()
        client.force_endpoint()
        client.disconnect(terminate=True)

    with trio.fail_after(10):
        async with open_on_loopback(FakeAssemblyAI, Manners(latency_s=0)) as (fake, port):
            await trio.to_thread.run_sync(talk, port)
            theirs = fake.sessions[0]
            assert [said.transcript for said in turns if said.end_of_turn] == ["hello"]
            base = f"http://127.0.0.1:{port}"
            async with assemblyai.opened(configured(assemblyai_base_url=base)) as vendor:
                async with vendor.stt.listen("hi-IN") as transcription:
                    assert (await transcription.transcript(WORD)).text == "hello"
            ours = fake.sessions[1]
    assert ours.query == theirs.query
    assert urlsplit(ours.path).path == urlsplit(theirs.path).path == "/v3/ws"
    for header in ("authorization", "assemblyai-version"):
        assert ours.headers[header] == theirs.headers[header]
    assert not ours.violations
    assert not theirs.violations
    rules = dialect().rules
    assert [json.loads(rules.keep_alive), *map(json.loads, rules.finalise)] == theirs.texts[:2]
    assert ours.texts == theirs.texts[1:]


WORD = b"\x10" * 480 + b"\x01\x05hello" + b"\x10" * 153 + b"\xff" * 800


def test_the_sdk_knows_our_models_and_the_codes_it_closes_with(sdk: Any) -> None:
    from assemblyai.streaming.v3.models import RealTimeErrorCodes, SpeechModel

    known = {model.value for model in SpeechModel}
    assert {*assemblyai.MODELS.values(), assemblyai.PRO} <= known
    codes = {*assemblyai.REFUSED, *assemblyai.BUSY, *assemblyai.INVALID}
    assert codes - set(RealTimeErrorCodes) == {1008}
