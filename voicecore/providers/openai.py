"""STT, LLM and TTS by OpenAI, or by any server that speaks its API.

Groq, vLLM, Ollama, llama.cpp, speaches, Kokoro-FastAPI and others are such servers:
``OPENAI_BASE_URL`` names one, its path up to ``/v1``.  All three stages share one pool of
connections.

Source: the API reference of /v1/audio/transcriptions, /v1/chat/completions, /v1/audio/speech.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import trio

from ..audio import SAMPLE_RATE
from ..audio.resample import MulawEncoder
from ..audio.wav import telephone_bytes
from ..contracts import Delta, Message, Tool, Transcript
from ..errors import ProviderError
from ..settings import Settings
from .access import base_url_of, key_of
from .chat import COMPATIBLE, OFFICIAL, Dialect, Reply, request_body
from .deltas import Deltas
from .http import Api, Body, Deadlines, bearer, open_client
from .pcm import TYPES, NotPcm, PcmStream

NAME = "openai"

STT_DEADLINES = Deadlines(first_byte=5, idle=3, total=15)
LLM_DEADLINES = Deadlines(first_byte=5, idle=5, total=30)
TTS_DEADLINES = Deadlines(first_byte=3, idle=3, total=30)

SHORTEST_BYTES = SAMPLE_RATE // 10
"""The API refuses audio of less than 0.1 s."""

MAX_TRANSCRIPT_BYTES = 65536
MAX_TRANSCRIPT_CHARACTERS = 4000

SPEECH_RATE = 24000
"""Of ``response_format: pcm``: 16-bit, little-endian, mono.  8 kHz or mu-law cannot be had."""

SLICE_S = 0.1
"""Audio that is resampled between two checkpoints: 30 microseconds of work."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class _Heard(msgspec.Struct):
    text: str


class OpenAITranscription:
    """One call's recognition: each utterance is a request of its own."""

    def __init__(self, api: Api, model: str, language: str) -> None:
        self._api = api
        self._fields = {"model": model, "response_format": "json"}
        code = language.partition("-")[0].lower()
        if len(code) == 2:  # ISO-639-1 is all that the API knows
            self._fields["language"] = code

    def feed(self, frame: bytes) -> None:
        """Do nothing: the utterance is sent when it is there."""

    async def transcript(self, utterance: bytes) -> Transcript:
        """Send `utterance` as a WAV file and return its words."""
        if len(utterance) < SHORTEST_BYTES:
            return Transcript("")
        recording = telephone_bytes(utterance)
        files = {"file": ("utterance.wav", recording, "audio/wav")}
        path = "audio/transcriptions"
        async with self._api.post(path, STT_DEADLINES, data=self._fields, files=files) as body:
            answer = await body.read(MAX_TRANSCRIPT_BYTES)
        try:
            text = msgspec.json.decode(answer, type=_Heard).text
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise ProviderError(NAME, "garbage", "not a transcript") from None
        return Transcript(_CONTROLS.sub(" ", text).strip()[:MAX_TRANSCRIPT_CHARACTERS])


class OpenAISTT:
    """Transcribes whole utterances."""

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[OpenAITranscription]:
        """Open one call's recognition."""
        yield OpenAITranscription(self._api, self._model, language)

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()


class OpenAILLM:
    """Streams chat completions."""

    def __init__(self, api: Api, model: str, dialect: Dialect) -> None:
        self._api = api
        self._model = model
        self._dialect = dialect

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterable[Delta]]:
        """Stream the reply to `messages`."""
        content = msgspec.json.encode(request_body(self._model, messages, tools, self._dialect))
        headers = {"Content-Type": "application/json"}
        async with self._api.post(
            "chat/completions", LLM_DEADLINES, content=content, headers=headers
        ) as body:
            if body.content_type not in ("text/event-stream", ""):
                raise ProviderError(NAME, "garbage", "not an event stream")
            yield Deltas(NAME, body, Reply())

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()


class _Speech:
    """PCM as it comes, bare or in a WAV file, as mu-law in slices."""

    def __init__(self, body: Body) -> None:
        self._body = body
        named = re.search(r"\brate=(\d{4,6})\b", body.parameters)
        self._pcm = PcmStream(int(named[1]) if named else SPEECH_RATE)
        self._encoder: MulawEncoder | None = None
        self._pending = memoryview(b"")
        self._heard = False
        self._ended = False

    def __aiter__(self) -> _Speech:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            audio = await self._next_slice()
            if audio:
                return audio
        raise StopAsyncIteration

    async def _next_slice(self) -> bytes:
        if not self._pending:
            self._pending = memoryview(await self._read())
        else:
            await trio.lowlevel.checkpoint()
        if self._encoder is None and (self._pending or self._ended):
            self._encoder = MulawEncoder(self._pcm.rate)
        size = int(SLICE_S * self._pcm.rate) * 2
        pcm, self._pending = bytes(self._pending[:size]), self._pending[size:]
        if self._encoder is None:
            return b""
        return self._encoder.feed(pcm) + (self._encoder.flush() if self._ended else b"")

    async def _read(self) -> bytes:
        try:
            try:
                pcm = self._pcm.feed(await anext(self._body))
            except StopAsyncIteration:
                pcm, self._ended = self._pcm.end(), True
        except NotPcm as error:
            raise ProviderError(NAME, "garbage", str(error)) from None
        self._heard = self._heard or bool(pcm)
        if self._ended and not self._heard:
            raise ProviderError(NAME, "garbage", "no audio")
        return pcm


class OpenAITTS:
    """Streams speech, a request a text."""

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterable[bytes]]:
        """Stream `text`; its language is heard from its words."""
        content = {
            "model": self._model,
            "input": text,
            "voice": voice or "alloy",
            "response_format": "pcm",
        }
        async with self._api.post("audio/speech", TTS_DEADLINES, json=content) as body:
            if body.content_type not in TYPES:
                raise ProviderError(NAME, "garbage", "not PCM")
            yield _Speech(body)

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()


@dataclass(frozen=True, slots=True)
class OpenAI:
    """What this vendor offers."""

    stt: OpenAISTT
    llm: OpenAILLM
    tts: OpenAITTS


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[OpenAI]:
    """Open the pool of connections; none is made before the first request.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    key, url = key_of(settings, "openai"), base_url_of(settings, "openai")
    official = re.fullmatch(r"(.+\.)?api\.openai\.com", url.host) is not None
    async with open_client(str(url), bearer(key)) as client:
        api = Api(NAME, client)
        yield OpenAI(
            OpenAISTT(api, settings.stt_model or "gpt-4o-mini-transcribe"),
            OpenAILLM(
                api, settings.llm_model or "gpt-4o-mini", OFFICIAL if official else COMPATIBLE
            ),
            OpenAITTS(api, settings.tts_model or "gpt-4o-mini-tts"),
        )
