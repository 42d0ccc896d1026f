"""OpenAI's own SDK judges: it knows all that we say, all that the fake says, and talks to both."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import openai as sdk
import pytest
import trio
from openai.types.realtime import RealtimeClientEventParam, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter
from trio.testing import MockClock

from voicecore.call.tools import END_CALL
from voicecore.contracts import Message, Tool, ToolCall, Usage
from voicecore.errors import ProviderError
from voicecore.providers import openai_realtime as ours
from voicecore.providers import realtime_wire as wire
from voicecore.settings import load
from voicecore.testing import audible

from .fake_realtime import Behaviour, FakeSession, open_fake_on_loopback
from .judges import known_part
from .realtime_line import Heard, ask, take, talking, utterance

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SERVER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def assert_known(event: dict[str, Any]) -> None:
    """Everything in a message of the fake's is of the SDK's types, and nothing else is in it."""
    assert not list(unknown(SERVER.validate_python(event))), event


def unknown(value: Any) -> Iterable[str]:
    """The fields that the SDK's types do not have."""
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for inner in dict(value).values():
            yield from unknown(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from unknown(inner)


def assert_legal(session: FakeSession) -> None:
    """All that was said in a session, by either side, is what the SDK says that it can be."""
    for event in session.received:
        assert known_part(RealtimeClientEventParam, event) == event
    for event in session.sent:
        assert_known(event)


async def test_the_sdk_knows_all_that_is_said_in_a_conversation(autojump_clock: MockClock) -> None:
    lasting = Behaviour(answer=lambda words: "Well. <end_call>" if "bye" in words else words)
    async with talking(lasting=lasting) as (dialogue, fake):
        history = [Message("user", "hello"), Message("assistant", "Hi.", interrupted=True)]
        await ask(dialogue, "one two three", history)
        dialogue.said("Are you still there?")
        for text in ("four five six", "seven eight nine"):
            async with dialogue.answer(utterance(text)) as answer:
                await take(answer, 0.4)
            answer.heard(300)
        async with dialogue.answer(b"") as answer:
            await take(answer)
        async with dialogue.answer(utterance("lost")) as answer:
            await take(answer, 0.1)
        answer.forget()
        await ask(dialogue, "bye")
        await trio.sleep(1)
        (session,) = fake.sessions
    assert {*session.kinds} == {
        "session.update",
        "conversation.item.create",
        "conversation.item.delete",
        "conversation.item.truncate",
        "input_audio_buffer.commit",
        "response.create",
        "response.cancel",
    }
    assert wire.KINDS - {event["type"] for event in session.sent} <= {
        "error",
        "conversation.item.input_audio_transcription.failed",
    }
    assert_legal(session)


async def test_the_sdk_knows_all_that_is_said_of_tools_and_keys(
    autojump_clock: MockClock,
) -> None:
    call = ToolCall("before", "weather", '{"city":"Rome"}')
    history = [
        Message("user", "hello"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "Rain.", tool_call_id="before"),
    ]
    behaviour = Behaviour(answer=lambda words: 'Let me look. <weather {"city":"Paris"}><end_call>')
    async with talking(behaviour) as (dialogue, fake):
        async with dialogue.answer(utterance("weather"), history) as answer:
            heard = await take(answer)
        assert [call.id for call in heard.calls] == ["call_1", "call_2"]
        dialogue.tool_done("call_1", "Sunny.")
        async with dialogue.answer(None) as rest:
            assert (await take(rest)).text == "It says Sunny.."
        answer.heard(300)
        rest.heard(0)
        dialogue.tool_done("call_1", "Sunny again.")
        async with dialogue.answer("(1 typed on the keypad)") as answer:
            await take(answer, 0.1)
        answer.forget()
        await trio.sleep(1)
        (session,) = fake.sessions
    assert [role for role, _ in session.memory] == [
        "user", "system", "user", "assistant", "tool", "output", "system"
    ]  # fmt: skip
    assert_legal(session)
    given = [event["item"]["type"] for event in session.of_kind("conversation.item.create")]
    assert given.count("function_call_output") == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(transcript_fails=True),
        Behaviour(errors={"response.create": "invalid_value"}),
        Behaviour(errors={"input_audio_buffer.commit": "input_audio_buffer_commit_empty"}),
        Behaviour(status_of={1: "failed"}),
        Behaviour(status_of={1: "incomplete"}),
        Behaviour(status_of={1: "cancelled"}),
        Behaviour(expires_s=0.3),
    ],
)
async def test_the_sdk_knows_how_it_goes_wrong(
    behaviour: Behaviour, autojump_clock: MockClock
) -> None:
    async with talking(behaviour) as (dialogue, fake):
        try:
            await ask(dialogue, "hello")
        except ProviderError:
            pass
        await trio.sleep(1)
        assert_legal(fake.sessions[0])


def test_the_sdk_knows_a_session_as_we_want_it() -> None:
    tools = [END_CALL, Tool("weather", "Tells it.", SCHEMA)]
    for language in ("en-US", "yue-HK"):
        opening = wire.session("gpt-realtime-1.5", "Be brief.", tools, "marin", language)
        event = sdk_json(opening)
        assert known_part(RealtimeClientEventParam, event) == event
    for message in (wire.clear(), wire.cancel(), wire.cancel("resp_1")):
        event = sdk_json(message)
        assert known_part(RealtimeClientEventParam, event) == event


def sdk_json(message: str) -> dict[str, Any]:
    event: dict[str, Any] = TypeAdapter(dict[str, Any]).validate_json(message)
    return event


def converse(base_url: str, key: str) -> Heard:
    """Ask for one answer with the SDK, as its users do."""
    heard = Heard()
    with (
        sdk.OpenAI(api_key=key, base_url=base_url, max_retries=0, timeout=5) as client,
        client.realtime.connect(model="gpt-realtime-1.5") as connection,
    ):
        connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {"format": {"type": "audio/pcmu"}, "turn_detection": None},
                    "output": {"format": {"type": "audio/pcmu"}},
                },
            }
        )
        audio = base64.b64encode(utterance("good day")).decode()
        connection.input_audio_buffer.append(audio=audio)
        connection.input_audio_buffer.commit()
        connection.response.create()
        for event in connection:
            if event.type == "response.output_audio.delta":
                heard.audio += base64.b64decode(event.delta)
            elif event.type == "response.output_audio_transcript.done":
                heard.text = event.transcript
            elif event.type == "response.done":
                used = event.response.usage
                assert used is not None
                assert used.input_token_details is not None
                heard.usage = Usage(
                    used.input_tokens or 0,
                    used.output_tokens or 0,
                    used.input_token_details.cached_tokens or 0,
                )
                break
    heard.words = audible.words(heard.audio)
    return heard


@pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")  # the SDK's own
async def test_the_sdk_hears_from_the_fake_what_we_hear() -> None:
    quick = Behaviour(latency_s=0, think_s=0, transcript_s=0, speed=float("inf"))
    async with open_fake_on_loopback(quick, quick) as (fake, port):
        base_url = f"http://127.0.0.1:{port}/v1"
        theirs = await trio.to_thread.run_sync(converse, base_url, "k")
        settings = load(openai_base_url=base_url, openai_api_key="k")
        async with (
            ours.opened(settings) as vendor,
            vendor.llm.converse("", (), "", "en-US") as dialogue,
        ):
            assert await ask(dialogue, "good day") == theirs
    assert theirs.words == ["You", "said", "good", "day."]
    sdk_session, our_session = fake.sessions
    assert our_session.path == sdk_session.path
    assert our_session.headers["authorization"] == sdk_session.headers["authorization"]
    assert our_session.kinds == sdk_session.kinds
    assert our_session.contexts == sdk_session.contexts
