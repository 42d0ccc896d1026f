"""STT, LLM, TTS and VAD that take as long and fail as they are told, and keep a log.

Every request that a fake serves is in its `requests`, with the times at which it was opened and
closed: a test can ask whether one outlived its turn.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import trio

from ..audio import FRAME_MS
from ..call.agent import Agent, CallLimits, Persona
from ..contracts import Delta, Message, Tool, ToolCall, Transcript, Voicing
from ..dialogue.turns import TurnRules
from ..errors import ProviderError
from . import audible

Fault = Literal["", "error", "hang", "stall"]
"""What goes wrong with one request: it fails at once, never begins, or stops half-way."""


@dataclass(slots=True)
class Request:
    """One request to a fake provider."""

    what: str
    opened: float
    closed: float | None = None


@dataclass
class _Fake:
    """What all fakes share: a log, a delay, and the faults of the next requests in order."""

    seconds: float = 0.0
    faults: Iterable[Fault] = ()
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._faults = iter(self.faults)

    @property
    def open_requests(self) -> list[Request]:
        """Requests that nobody has closed."""
        return [request for request in self.requests if request.closed is None]

    @asynccontextmanager
    async def _request(self, what: str) -> AsyncIterator[Fault]:
        request = Request(what, trio.current_time())
        self.requests.append(request)
        try:
            fault: Fault = next(self._faults, "")
            await trio.sleep(self.seconds)
            if fault == "error":
                raise ProviderError(type(self).__name__, "status", "500")
            if fault == "hang":
                await trio.sleep_forever()
            yield fault
        finally:
            request.closed = trio.current_time()


@dataclass
class FakeSTT(_Fake):
    """Understands the words that are in the audio (`testing.audible`)."""

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[FakeSTT]:
        """Open a call's recognition."""
        yield self

    def feed(self, frame: bytes) -> None:
        """Take a frame; batch recognition waits for the utterance."""

    async def transcript(self, utterance: bytes) -> Transcript:
        """Return the utterance's words after `seconds`."""
        async with self._request(f"{len(utterance)} bytes"):
            return Transcript(" ".join(audible.words(utterance)))


def repeat(messages: Sequence[Message]) -> str:
    """The fake LLM's answer, unless it is given another: it says what it heard."""
    return f"You said {messages[-1].text}."


@dataclass
class FakeLLM(_Fake):
    """Answers with `answer(messages)`, word by word, `token_seconds` apart.

    An answer that ends in ``<end_call>`` asks for that tool.  Other tools are asked for with an
    answer that is a sequence: texts, and `ToolCall`s.
    """

    answer: Callable[[Sequence[Message]], str | Sequence[Delta]] = repeat
    token_seconds: float = 0.0
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    offered: list[tuple[str, ...]] = field(default_factory=list)
    """The names of the tools that came with each prompt."""

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterator[Delta]]:
        """Stream the answer."""
        self.prompts.append(tuple(messages))
        self.offered.append(tuple(tool.name for tool in tools))
        async with self._request(messages[-1].text) as fault:
            async with aclosing(self._stream(self.answer(messages), fault)) as stream:
                yield stream

    async def _stream(
        self, answer: str | Sequence[Delta], fault: Fault
    ) -> AsyncGenerator[Delta, None]:
        deltas = list(_deltas(answer))
        for number, delta in enumerate(deltas):
            if fault == "stall" and number >= len(deltas) // 2:
                await trio.sleep_forever()
            if number:
                await trio.sleep(self.token_seconds)
            yield delta


def _deltas(answer: str | Sequence[Delta]) -> Iterator[Delta]:
    for part in [answer] if isinstance(answer, str) else answer:
        if not isinstance(part, str):
            yield part
            continue
        for number, token in enumerate(part.split(" ")):
            if token == "<end_call>":  # noqa: S105  a tool, not a secret
                yield ToolCall("call-1", "end_call")
            else:
                yield token if number == 0 else f" {token}"


@dataclass
class FakeTTS(_Fake):
    """Speaks words into audio (`testing.audible`), `word_frames` each, `speed` x real time."""

    word_frames: int = 15
    chunk_frames: int = 5
    speed: float = float("inf")

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the audio."""
        async with self._request(text) as fault:
            async with aclosing(self._stream(text, fault)) as stream:
                yield stream

    async def _stream(self, text: str, fault: Fault) -> AsyncGenerator[bytes, None]:
        frames = audible.say(text, self.word_frames * len(text.split()))
        for start in range(0, len(frames), self.chunk_frames):
            if fault == "stall" and start >= len(frames) // 2:
                await trio.sleep_forever()
            if start:
                await trio.sleep(self.chunk_frames * FRAME_MS / 1000 / self.speed)
            yield b"".join(frames[start : start + self.chunk_frames])


class LoudnessVAD:
    """Everything that is not silence is voice."""

    def hear(self, frame: bytes) -> Voicing:
        """Judge a frame."""
        return Voicing.VOICED if audible.is_loud(frame) else Voicing.SILENT


def fake_agent(
    stt: FakeSTT | None = None,
    llm: FakeLLM | None = None,
    tts: FakeTTS | None = None,
    greeting: str = "",
    **limits: Any,
) -> Agent:
    """An agent on fakes.  `limits` are those of `CallLimits`, or of `TurnRules` by name."""
    rules = {name: limits.pop(name) for name in tuple(limits) if hasattr(TurnRules(), name)}
    return Agent(
        stt=stt or FakeSTT(),
        llm=llm or FakeLLM(),
        tts=tts or FakeTTS(),
        persona=Persona(prompt="Be brief.", greeting=greeting),
        rules=replace(TurnRules(), **rules),
        limits=replace(CallLimits(), **limits),
        vad=LoudnessVAD,
    )
