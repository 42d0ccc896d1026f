"""The openai provider against a server that speaks the API: what is sent, what comes of it."""

from __future__ import annotations

import gc
import io
import wave
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from voicecore.audio import FRAME_BYTES, SAMPLE_RATE, SILENCE_BYTE
from voicecore.contracts import Delta, Message, ToolCall
from voicecore.errors import ProviderError
from voicecore.providers import openai
from voicecore.providers.openai import OpenAI
from voicecore.settings import Settings

from .fake_openai import (
    Answer,
    FakeOpenAI,
    answers,
    chunk,
    event,
    events,
    garbage,
    page,
    reply,
    silence,
    speech,
    transcript,
)

UTTERANCE = SILENCE_BYTE * SAMPLE_RATE
ASKED = [Message("user", "Hello?")]


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for what is under way in the kernel's loopback."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def client(fake: FakeOpenAI, key: str = "sk-SECRET") -> AsyncIterator[OpenAI]:
    settings = Settings(_env_file=None, openai_base_url=fake.base_url, openai_api_key=key)
    async with openai.opened(settings) as vendor:
        yield vendor


async def hear(vendor: OpenAI, utterance: bytes = UTTERANCE, language: str = "en-US") -> str:
    async with vendor.stt.listen(language) as call:
        call.feed(SILENCE_BYTE * FRAME_BYTES)
        return (await call.transcript(utterance)).text


async def think(vendor: OpenAI, into: list[Delta] | None = None) -> list[Delta]:
    said = [] if into is None else into
    async with vendor.llm.reply(ASKED, []) as deltas:
        async for delta in deltas:
            said.append(delta)
    return said


async def say(vendor: OpenAI, into: list[bytes] | None = None) -> bytes:
    spoken = [] if into is None else into
    async with vendor.tts.speak("Hello.", "", "en-US") as audio:
        async for piece in audio:
            spoken.append(piece)
    return b"".join(spoken)


async def ask(vendor: OpenAI, stage: str) -> object:
    return await {"stt": hear, "llm": think, "tts": say}[stage](vendor)


async def test_stt_sends_a_wav_file_and_returns_words(clock: MockClock) -> None:
    async with (
        FakeOpenAI(stt=[transcript(" Hello\r\n world.\x1b ")]) as fake,
        client(fake) as vendor,
    ):
        assert await hear(vendor, language="hi-IN") == "Hello  world."
    [request] = fake.requests
    assert request.headers["authorization"] == "Bearer sk-SECRET"
    assert request.path == "/v1/audio/transcriptions"
    parts = request.body.split(b"--" + request.headers["content-type"].partition("=")[2].encode())
    fields = dict(part.strip().partition(b"\r\n\r\n")[::2] for part in parts[1:-1])
    values = {name.split(b'"')[1]: value for name, value in fields.items()}
    assert values[b"model"] == b"gpt-4o-mini-transcribe"
    assert values[b"language"] == b"hi"
    assert values[b"response_format"] == b"json"
    with wave.open(io.BytesIO(values[b"file"])) as recording:
        assert recording.getparams()[:4] == (1, 2, SAMPLE_RATE, SAMPLE_RATE)


async def test_stt_sends_nothing_that_is_too_short(clock: MockClock) -> None:
    async with FakeOpenAI() as fake, client(fake) as vendor:
        assert await hear(vendor, SILENCE_BYTE * 799) == ""
    assert fake.requests == []


async def test_llm_streams_words_and_asks_for_them(clock: MockClock) -> None:
    async with FakeOpenAI(llm=[reply("It is noon.")]) as fake, client(fake) as vendor:
        assert await think(vendor) == ["It", " is", " noon."]
    body = fake.requests[0].json
    assert body["model"] == "gpt-4o-mini"
    assert body["messages"] == [{"role": "user", "content": "Hello?"}]
    assert body["stream"] is True
    assert body["max_tokens"] == 1000


async def test_llm_calls_tools(clock: MockClock) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "end_call", "arguments": "{}"}}
    answer = events([chunk({"content": "Bye."}), chunk({"tool_calls": [call]}), chunk({}, "stop")])
    async with FakeOpenAI(llm=[answer]) as fake, client(fake) as vendor:
        assert await think(vendor) == ["Bye.", ToolCall("c1", "end_call", "{}")]


async def test_tts_streams_mulaw(clock: MockClock) -> None:
    async with FakeOpenAI(tts=[speech(1.5)]) as fake, client(fake) as vendor:
        pieces: list[bytes] = []
        await say(vendor, pieces)
    assert abs(len(b"".join(pieces)) - 1.5 * SAMPLE_RATE) <= 8
    assert max(map(len, pieces)) <= SAMPLE_RATE // 4
    body = fake.requests[0].json
    assert body == {
        "model": "gpt-4o-mini-tts",
        "input": "Hello.",
        "voice": "alloy",
        "response_format": "pcm",
    }


async def test_a_burst_of_audio_comes_in_slices(clock: MockClock) -> None:
    async with FakeOpenAI(tts=[speech(3).in_chunks_of(1_000_000)]) as fake, client(fake) as vendor:
        pieces: list[bytes] = []
        await say(vendor, pieces)
    assert len(pieces) >= 12


async def test_chunking_changes_nothing(clock: MockClock) -> None:
    async def got(cut: Callable[[Answer], Answer]) -> tuple[str, str, bytes]:
        usual = transcript("hello world"), reply("Hello नमस्ते you."), speech(0.05)
        fake = FakeOpenAI(*([cut(answer)] for answer in usual))
        async with fake, client(fake) as vendor:
            words = "".join(str(word) for word in await think(vendor))
            return await hear(vendor), words, await say(vendor)

    whole = await got(lambda answer: answer.in_chunks_of(1_000_000))
    assert whole[:2] == ("hello world", "Hello नमस्ते you.")
    assert await got(Answer.bytewise) == whole
    assert await got(lambda answer: answer.in_chunks_of(7)) == whole


async def test_the_rate_that_a_server_names_is_taken(clock: MockClock) -> None:
    answer = Answer(content_type="audio/pcm; rate=16000", chunks=(bytes(32000),))
    async with FakeOpenAI(tts=[answer]) as fake, client(fake) as vendor:
        assert abs(len(await say(vendor)) - SAMPLE_RATE) <= 8


async def test_a_finished_answer_keeps_its_connection(clock: MockClock) -> None:
    async with FakeOpenAI() as fake, client(fake) as vendor:
        for stage in ("stt", "llm", "tts", "stt", "llm", "tts"):
            await ask(vendor, stage)
    assert fake.connections == 1


async def test_other_models_are_asked_for_by_settings(clock: MockClock) -> None:
    async with FakeOpenAI() as fake:
        models = {"stt_model": "whisper-1", "llm_model": "llama", "tts_model": "kokoro"}
        settings = Settings(_env_file=None, openai_base_url=fake.base_url, **models)
        async with openai.opened(settings) as vendor:
            for stage in ("stt", "llm", "tts"):
                await ask(vendor, stage)
    assert b"whisper-1" in fake.requests[0].body
    assert [request.json["model"] for request in fake.requests[1:]] == ["llama", "kokoro"]
    assert "authorization" not in fake.requests[0].headers


STAGES = pytest.mark.parametrize("stage", ["stt", "llm", "tts"])


def script(*answers_in_turn: Answer) -> FakeOpenAI:
    return FakeOpenAI(answers_in_turn, answers_in_turn, answers_in_turn)


@STAGES
@pytest.mark.parametrize(
    ("answer", "fault", "requests"),
    [
        (answers(401, "invalid_api_key"), "refused", 1),
        (answers(403), "refused", 1),
        (answers(404, "model_not_found"), "status", 1),
        (answers(400), "status", 1),
        (answers(302), "status", 1),
        (answers(429, "rate_limit_exceeded", retry_after="3600"), "busy", 1),
        (answers(500), "status", 2),
        (answers(503), "status", 2),
        (page(), "garbage", 1),
        (garbage(), "cut", 2),
        (Answer(content_type="", raw=b""), "cut", 2),
        (silence(), "timeout", 1),
        (Answer(headers=(("Content-Encoding", "br"),), chunks=(b"x",)), "garbage", 1),
        (Answer(content_type="application/json", chunks=(b'{"tex',)), "garbage", 1),
    ],
)
async def test_failures(
    stage: str, answer: Answer, fault: str, requests: int, clock: MockClock
) -> None:
    async with script(answer) as fake, client(fake) as vendor:
        began = trio.current_time()
        with pytest.raises(ProviderError) as failure:
            await ask(vendor, stage)
        assert failure.value.fault == fault
        assert "SECRET" not in repr(failure.value)
        assert "\n" not in str(failure.value)
        assert trio.current_time() - began <= (5.01 if fault == "timeout" else 0.5)
        await fake.all_closed()
    assert len(fake.requests) == requests


@STAGES
@pytest.mark.parametrize("first", [answers(500), garbage()], ids=["500", "garbage"])
async def test_one_quick_retry(stage: str, first: Answer, clock: MockClock) -> None:
    usual = {"stt": transcript("hello world"), "llm": reply("Hello."), "tts": speech(0.1)}[stage]
    async with script(first, usual) as fake, client(fake) as vendor:
        assert await ask(vendor, stage)
    assert len(fake.requests) == 2


@STAGES
async def test_nobody_listens(stage: str, clock: MockClock) -> None:
    async with FakeOpenAI() as fake:
        pass
    async with client(fake) as vendor:
        with pytest.raises(ProviderError) as failure:
            await ask(vendor, stage)
        assert failure.value.fault == "connect"


@STAGES
@pytest.mark.parametrize(("how", "fault"), [("hang", "timeout"), ("cut", "cut")])
async def test_streams_that_stop(stage: str, how: str, fault: str, clock: MockClock) -> None:
    usual = {"stt": transcript("hello world").in_chunks_of(9), "llm": reply("Hello you."),
             "tts": speech(0.5)}[stage]  # fmt: skip
    answer = usual.hangs_after(2) if how == "hang" else usual.cut_after(2)
    async with script(answer) as fake, client(fake) as vendor:
        began = trio.current_time()
        with pytest.raises(ProviderError) as failure:
            await ask(vendor, stage)
        assert failure.value.fault == fault
        assert trio.current_time() - began < 5.2
        await fake.all_closed()
    assert len(fake.requests) == 1


async def test_what_came_before_a_failure_is_had(clock: MockClock) -> None:
    async with script(reply("One two three.").cut_after(3)) as fake, client(fake) as vendor:
        words: list[Delta] = []
        with pytest.raises(ProviderError, match="openai: cut"):
            await think(vendor, words)
        assert words == ["One", " two"]
    async with script(speech(1).cut_after(5)) as fake, client(fake) as vendor:
        pieces: list[bytes] = []
        with pytest.raises(ProviderError, match="openai: cut"):
            await say(vendor, pieces)
        assert len(b"".join(pieces)) > 0.3 * SAMPLE_RATE


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        ((), "cut"),
        ((event({"error": {"message": "sk-SECRET"}}),), "status"),
        ((event("{broken"),), "garbage"),
        ((b"data: " + b"x" * 70_000,), "garbage"),
        ((b"data: \xff\n\n",), "garbage"),
    ],
)
async def test_replies_that_go_wrong(
    ending: tuple[bytes, ...], fault: str, clock: MockClock
) -> None:
    answer = events([chunk({"content": "Well,"}), *ending], done=False)
    async with script(answer) as fake, client(fake) as vendor:
        words: list[Delta] = []
        with pytest.raises(ProviderError) as failure:
            await think(vendor, words)
        assert failure.value.fault == fault
        assert "SECRET" not in str(failure.value)
        assert words == ["Well,"]


async def test_answers_are_bounded(clock: MockClock) -> None:
    long = transcript("x" * 70_000)
    async with script(long) as fake, client(fake) as vendor:
        with pytest.raises(ProviderError, match="openai: garbage: more than 65536 bytes"):
            await hear(vendor)
    endless = events([chunk({"content": "blah " * 100})] * 200)
    async with script(endless) as fake, client(fake) as vendor:
        assert len("".join(str(word) for word in await think(vendor))) == 4000


async def test_no_audio_is_no_speech(clock: MockClock) -> None:
    async with script(Answer(content_type="audio/pcm")) as fake, client(fake) as vendor:
        with pytest.raises(ProviderError, match="openai: garbage: no audio"):
            await say(vendor)


async def test_slow_drops_end_at_the_total(clock: MockClock) -> None:
    drops = speech(3).slow(pause_s=2.5)
    async with script(drops) as fake, client(fake) as vendor:
        began = trio.current_time()
        with pytest.raises(ProviderError, match="openai: timeout"):
            await say(vendor)
        assert 29 <= trio.current_time() - began <= 33
        await fake.all_closed()


async def test_a_slow_reader_is_not_the_servers_fault(clock: MockClock) -> None:
    async with script(speech(1)) as fake, client(fake) as vendor:
        heard = b""
        async with vendor.tts.speak("Hello.", "", "en-US") as audio:
            async for piece in audio:
                heard += piece
                await trio.sleep(10)
        assert abs(len(heard) - SAMPLE_RATE) <= 8


@STAGES
@pytest.mark.parametrize("after_ms", range(0, 700, 100))
async def test_cancelled_anywhere_the_request_is_closed(
    stage: str, after_ms: int, clock: MockClock
) -> None:
    """The answers take 0.75 s: 0.2 to the head, and then chunk by chunk."""
    chunked = {"stt": transcript("hello world").in_chunks_of(5), "llm": reply("a b c d e f g h i"),
               "tts": speech(1)}[stage].slow(0.2, 0.11)  # fmt: skip
    async with script(chunked) as fake, client(fake) as vendor:
        with trio.move_on_after(after_ms / 1000) as scope:
            await ask(vendor, stage)
        assert scope.cancelled_caught
        await fake.all_closed(0.25)
        assert [request.left for request in fake.requests] == [True] * len(fake.requests)


@pytest.mark.parametrize("stage", ["llm", "tts"])
@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_a_stream_that_is_left_is_closed(stage: str, kept: int, clock: MockClock) -> None:
    """Leaving between two reads closes the request, and leaves no generator to the collector."""
    slow = {"llm": reply("a b c d e f"), "tts": speech(2)}[stage].slow(0, 0.1)
    async with script(slow) as fake, client(fake) as vendor:
        stream: AbstractAsyncContextManager[AsyncIterable[object]] = (
            vendor.llm.reply(ASKED, [])
            if stage == "llm"
            else vendor.tts.speak("Hello.", "", "en-US")
        )
        async with stream as pieces:
            for _ in range(kept):
                await anext(aiter(pieces))
        await fake.all_closed(0.25)
        assert fake.requests[0].left
        assert await ask(vendor, stage)
    gc.collect()
