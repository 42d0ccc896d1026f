"""OpenAI's own SDK judges: it understands the fake, the fake understands it, and it knows us."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import trio

from voicecore.audio import SAMPLE_RATE, SILENCE_BYTE
from voicecore.contracts import Message, Tool, ToolCall, Usage
from voicecore.providers import openai
from voicecore.providers.chat import COMPATIBLE, OFFICIAL, Dialect, Reply, request_body
from voicecore.settings import Settings

from .fake_openai import Answer, FakeOpenAI, answers, chunk, cost, events, reply, speech, transcript
from .judges import imported, known_part

if TYPE_CHECKING:
    import openai as sdk

T = TypeVar("T")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module", autouse=True)
def types() -> None:
    imported("openai")


def piece(index: int, arguments: str, **first: object) -> bytes:
    """A fragment of a tool call."""
    function = {"arguments": arguments, **({"name": first.pop("name")} if first else {})}
    return chunk({"tool_calls": [{"index": index, **first, "function": function}]})


ROUND = events(
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "One moment."}),
        piece(0, "", id="call_1", type="function", name="weather"),
        piece(0, '{"city": "Pu'),
        piece(0, 'ne"}'),
        piece(1, "{}", id="call_2", type="function", name="end_call"),
        chunk({}, "tool_calls"),
        chunk(None, usage=cost(345, 61, cached=300)),
    ]
)


async def ask(fake: FakeOpenAI, question: Callable[[sdk.OpenAI], T]) -> T:
    """The SDK has its own threads' clock and event loop: it is asked in a thread of its own."""
    import openai as sdk

    web = sdk.DefaultHttpxClient(verify=False)  # the certificates would only take time
    with sdk.OpenAI(
        api_key="k", base_url=fake.base_url, max_retries=0, timeout=5, http_client=web
    ) as client:
        return await trio.to_thread.run_sync(question, client)


HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]


def chat(client: sdk.OpenAI) -> Any:
    """Stream a completion to its end, as the SDK's users do."""
    usage: Any = {"include_usage": True}
    with client.chat.completions.stream(
        model="gpt-4o-mini", messages=HELLO, stream_options=usage
    ) as stream:
        stream.until_done()
        return stream.get_final_completion()


async def test_the_sdk_reads_the_fakes_chat_as_we_do() -> None:
    async with FakeOpenAI(llm=[ROUND]) as fake:
        completion = await ask(fake, chat)
    ours = Reply()
    deltas = [delta for one in ROUND.chunks for delta in ours.feed(one.decode()[6:].strip())]
    said = completion.choices[0].message
    assert deltas == [
        said.content,
        *(ToolCall(one.id, one.function.name, one.function.arguments) for one in said.tool_calls),
    ]
    assert len(said.tool_calls) == 2
    used = completion.usage
    cached = used.prompt_tokens_details.cached_tokens
    assert ours.usage == Usage(used.prompt_tokens, used.completion_tokens, cached)
    assert fake.requests[0].json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("answer", [ROUND, reply("Hello, you.", usage=cost(20, 5))])
def test_every_chunk_of_the_fake_is_of_the_sdks_type(answer: Answer) -> None:
    from openai.types.chat import ChatCompletionChunk

    *chunks, done = [one.decode().removeprefix("data: ").strip() for one in answer.chunks]
    assert done == "[DONE]"
    for one in chunks:
        assert ChatCompletionChunk.model_validate_json(one).model_extra == {}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answers(400), "BadRequestError"),
        (answers(401, "invalid_api_key"), "AuthenticationError"),
        (answers(404, "model_not_found"), "NotFoundError"),
        (answers(429, "rate_limit_exceeded", retry_after="3600"), "RateLimitError"),
        (answers(500), "InternalServerError"),
    ],
)
async def test_the_sdk_knows_the_fakes_errors(answer: Answer, error: str) -> None:
    import openai as sdk

    async with FakeOpenAI(llm=[answer]) as fake:
        with pytest.raises(getattr(sdk, error)) as found:
            await ask(fake, chat)
    assert found.value.code == json.loads(answer.chunks[0])["error"]["code"]


@pytest.mark.parametrize("dialect", [OFFICIAL, COMPATIBLE])
def test_the_sdk_knows_everything_that_we_ask_a_model(dialect: Dialect) -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

    history = [
        Message("system", "Be brief."),
        Message("assistant", "Hello!"),
        Message("user", "Weather in Pune?"),
        Message("assistant", "Let me", interrupted=True),
        Message("assistant", "", tool_calls=(ToolCall("a", "weather", '{"city":"Pune"}'),)),
        Message("tool", "31 C", tool_call_id="a"),
        Message("system", "You were cut off."),
    ]
    body = request_body("m", history, [Tool("weather", "Tells it.", SCHEMA)], dialect)
    assert known_part(CompletionCreateParamsStreaming, body) == body


def parts(body: bytes) -> dict[str, tuple[str, bytes]]:
    """The fields of a form: name -> rest of the header, value."""
    boundary = body.split(b"\r\n", 1)[0]
    found = {}
    for part in body.split(boundary)[1:-1]:
        head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="(\w+)"', head)
        assert name is not None
        found[name[1].decode()] = (head.replace(name[0], b"").decode().lower(), value)
    return found


async def test_stt_asks_as_the_sdk_asks() -> None:
    async with FakeOpenAI(stt=[transcript("Hello world.")]) as fake:
        settings = Settings(_env_file=None, openai_base_url=fake.base_url, openai_api_key="k")
        async with openai.opened(settings) as vendor, vendor.stt.listen("en-US") as call:
            ours = (await call.transcript(SILENCE_BYTE * SAMPLE_RATE)).text
        recording = parts(fake.requests[0].body)["file"][1]

        def transcribe(client: sdk.OpenAI) -> str:
            return client.audio.transcriptions.create(
                model="gpt-4o-mini-transcribe", response_format="json", language="en",
                file=("utterance.wav", recording, "audio/wav"),
            ).text  # fmt: skip

        assert await ask(fake, transcribe) == ours == "Hello world."
    mine, theirs = fake.requests
    assert parts(mine.body) == parts(theirs.body)
    assert mine.path == theirs.path
    assert mine.headers["authorization"] == theirs.headers["authorization"]


async def test_tts_asks_as_the_sdk_asks() -> None:
    async with FakeOpenAI(tts=[speech(0.2)]) as fake:
        settings = Settings(_env_file=None, openai_base_url=fake.base_url, openai_api_key="k")
        async with (
            openai.opened(settings) as vendor,
            vendor.tts.speak("Hello.", "", "en-US") as audio,
        ):
            heard = b"".join([piece async for piece in audio])

        def speak(client: sdk.OpenAI) -> bytes:
            with client.audio.speech.with_streaming_response.create(
                model="gpt-4o-mini-tts", input="Hello.", voice="alloy", response_format="pcm"
            ) as response:
                return response.read()

        assert await ask(fake, speak) == b"".join(speech(0.2).chunks)
    assert abs(len(heard) - 0.2 * SAMPLE_RATE) <= 8
    from openai.types.audio.speech_create_params import SpeechCreateParams

    mine, theirs = fake.requests
    assert mine.json == theirs.json == known_part(SpeechCreateParams, mine.json)
    assert mine.path == theirs.path
