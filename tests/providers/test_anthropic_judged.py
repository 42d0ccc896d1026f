"""Anthropic's own SDK judges: it understands the fake, the fake understands it, and it knows us."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from pydantic import TypeAdapter

from voicecore.contracts import Message, Tool, ToolCall, Usage
from voicecore.providers.anthropic_messages import Reply, request_body

from .fake_anthropic import (
    MODEL,
    FakeAnthropic,
    answers,
    empty,
    events,
    failure,
    reply,
    start,
    stop,
    text,
    tool_use,
)
from .fake_openai import Answer
from .judges import imported, known_part

if TYPE_CHECKING:
    import anthropic

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ROUND: Answer = events(
    start(read=300, written=40, fresh=5),
    *text(0, "One moment."),
    *tool_use(1, "toolu_1", "weather", "", '{"city": "Pu', 'ne"}'),
    *tool_use(2, "toolu_2", "end_call"),
    *stop("tool_use", tokens=61),
)


@pytest.fixture(scope="module", autouse=True)
def sdk() -> None:
    imported("anthropic")


def asked(client: anthropic.Anthropic, messages: list[Any], **more: Any) -> anthropic.types.Message:
    """Stream a message to its end, as the SDK's users do."""
    with client.messages.stream(model=MODEL, max_tokens=100, messages=messages, **more) as stream:
        return stream.get_final_message()


async def ask(fake: FakeAnthropic, messages: list[Any], **more: Any) -> anthropic.types.Message:
    """The SDK has its own threads' clock and event loop: it is asked in a thread of its own."""
    import anthropic

    web = anthropic.DefaultHttpxClient(verify=False)  # the certificates would only take time
    with anthropic.Anthropic(
        api_key="k", base_url=fake.base_url, max_retries=0, timeout=5, http_client=web
    ) as client:
        return await trio.to_thread.run_sync(partial(asked, client, messages, **more))


HELLO = [{"role": "user", "content": "Hello?"}]


async def test_the_sdk_reads_the_fake_as_we_do() -> None:
    async with FakeAnthropic(llm=[ROUND]) as fake:
        message = await ask(fake, HELLO)
    said, weather, end_call = message.content
    assert (said.type, weather.type, end_call.type) == ("text", "tool_use", "tool_use")
    ours = Reply()
    deltas = [
        delta for chunk in ROUND.chunks for delta in ours.feed(chunk.split(b"data: ")[1].decode())
    ]
    assert "".join(one for one in deltas if isinstance(one, str)) == said.text
    assert deltas[-2:] == [
        ToolCall(weather.id, weather.name, '{"city": "Pune"}'),
        ToolCall(end_call.id, end_call.name, "{}"),
    ]
    assert (weather.input, end_call.input) == ({"city": "Pune"}, {})
    used = message.usage
    cached, written = used.cache_read_input_tokens or 0, used.cache_creation_input_tokens or 0
    assert ours.usage == Usage(used.input_tokens + cached + written, used.output_tokens, cached)


@pytest.mark.parametrize("reason", ["end_turn", "refusal"])
async def test_the_sdk_reads_an_empty_reply(reason: str) -> None:
    async with FakeAnthropic(llm=[empty(reason)]) as fake:
        message = await ask(fake, HELLO)
    assert (message.content, message.stop_reason) == ([], reason)


@pytest.mark.parametrize("answer", [ROUND, reply("Hello, you."), empty("refusal")])
def test_every_event_of_the_fake_is_of_the_sdks_types(answer: Answer) -> None:
    from anthropic.types import RawMessageStreamEvent

    judge: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for chunk in answer.chunks:
        name, _, data = chunk.decode().strip().partition("\ndata: ")
        if name != "event: ping":  # which the SDK drops before it looks
            assert judge.validate_json(data).type == name.removeprefix("event: ")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answers(400), "BadRequestError"),
        (answers(401), "AuthenticationError"),
        (answers(403), "PermissionDeniedError"),
        (answers(404), "NotFoundError"),
        (answers(413), "RequestTooLargeError"),
        (answers(429, retry_after="3600"), "RateLimitError"),
        (answers(500), "InternalServerError"),
        (answers(529), "OverloadedError"),
        (events(start(), *text(0, "Well,"), failure("overloaded_error")), "APIStatusError"),
    ],
)
async def test_the_sdk_knows_the_fakes_errors(answer: Answer, error: str) -> None:
    import anthropic

    async with FakeAnthropic(llm=[answer]) as fake:
        with pytest.raises(getattr(anthropic, error)) as found:
            await ask(fake, HELLO)
    assert isinstance(found.value, anthropic.APIStatusError)
    assert found.value.type == json.loads(answer.chunks[-1].split(b"data: ")[-1])["error"]["type"]


async def test_the_fake_accepts_what_the_sdk_sends() -> None:
    from anthropic import BadRequestError

    tools = [{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}]
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Pune"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "31 C"}
    messages = [
        *HELLO,
        {"role": "assistant", "content": [{"type": "text", "text": "One moment."}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
    ]
    async with FakeAnthropic() as fake:
        await ask(fake, messages, system="Be brief.", tools=tools)
        assert fake.refused == []
        with pytest.raises(BadRequestError):
            await ask(fake, messages[:2], tools=tools)
        assert len(fake.refused) == 1


@pytest.mark.parametrize("model", [MODEL, "claude-sonnet-5-5", "claude-haiku-4-5"])
@pytest.mark.parametrize("with_tools", [True, False])
def test_the_sdk_knows_everything_that_we_send(model: str, with_tools: bool) -> None:
    from anthropic.types.message_create_params import MessageCreateParamsStreaming

    history = [
        Message("system", "Be brief."),
        Message("assistant", "Hello!"),
        Message("user", "Weather in Pune?"),
        Message("assistant", "Let me", interrupted=True),
        Message("assistant", "", tool_calls=(ToolCall("a", "weather", '{"city":"Pune"}'),)),
        Message("tool", "", tool_call_id="a"),
        Message("system", "You were cut off."),
    ]
    tools = [Tool("weather", "Tells it.", SCHEMA), Tool("end_call", "Ends the call.")]
    body = request_body(model, history, tools if with_tools else [])
    assert known_part(MessageCreateParamsStreaming, body) == body
