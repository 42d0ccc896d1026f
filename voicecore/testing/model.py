"""A speech-to-speech model that hears the words in audio, and answers in sound."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..audio import FRAME_MS
from ..contracts import Message, Sound, Tool, ToolCall
from ..errors import ProviderError
from . import audible
from .providers import Request

WORD_FRAMES = 15
CHUNK_FRAMES = 5


@dataclass
class FakeModel:
    """Answers with `answer(words)` after `seconds`, `speed` x real time.

    What it was told is in `told`: what the agent said itself, and how much of each answer was heard
    (milliseconds).  `question_s` is how long it takes to write down the caller's words.  An answer
    that ends in ``<end_call>`` asks for that tool.
    """

    seconds: float = 0.0
    answer: Callable[[str], str] = "You said {}.".format
    question_s: float = 0.0
    speed: float = float("inf")
    faults: Sequence[str] = ()
    told: list[tuple[str, object]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    """The conversation so far, as each request told it."""

    @asynccontextmanager
    async def converse(
        self, prompt: str, tools: Sequence[Tool], voice: str, language: str
    ) -> AsyncIterator[FakeDialogue]:
        """Open a call's conversation."""
        yield FakeDialogue(self)

    @property
    def open_requests(self) -> list[Request]:
        """Answers that nobody has left."""
        return [request for request in self.requests if request.closed is None]


class FakeDialogue:
    """One call's conversation."""

    def __init__(self, model: FakeModel) -> None:
        self._model = model
        self._answers: list[FakeAnswer] = []

    def feed(self, frame: bytes) -> None:
        """Take a frame; the words are read out of the utterance."""

    def said(self, text: str) -> None:
        """Note what the agent said."""
        self._model.told.append(("said", text))

    @asynccontextmanager
    async def answer(
        self, utterance: bytes, messages: Sequence[Message] = ()
    ) -> AsyncIterator[FakeAnswer]:
        """Answer; or go on with the last answer that was not forgotten."""
        model, words = self._model, " ".join(audible.words(utterance))
        remembered = [answer for answer in self._answers if not answer.is_forgotten]
        text = model.answer(words) if utterance else remembered[-1].unsaid
        number = len(model.requests)
        fault = model.faults[number] if number < len(model.faults) else ""
        request = Request(words, trio.current_time())
        model.requests.append(request)
        model.prompts.append(tuple(messages))
        answer = FakeAnswer(model, words, text, fault)
        self._answers.append(answer)
        try:
            yield answer
        finally:
            request.closed = answer.left_at = trio.current_time()


class FakeAnswer:
    """One answer to `words`."""

    def __init__(self, model: FakeModel, words: str, text: str, fault: str) -> None:
        self.is_forgotten = False
        self.left_at = math.inf
        self._model = model
        self._words = words
        self._fault = fault
        self._asked_at = trio.current_time()
        end_call, self._text = text.endswith("<end_call>"), text.removesuffix("<end_call>").strip()
        self._sounds = list(self._timed(end_call))
        self._taken = 0

    def _timed(self, end_call: bool) -> Iterator[tuple[float, Sound]]:
        """When which piece comes."""
        at = self._asked_at + self._model.seconds
        if self._text:
            yield at, self._text
        frames = audible.say(self._text, WORD_FRAMES * len(self._text.split()))
        for start in range(0, len(frames), CHUNK_FRAMES):
            yield at, b"".join(frames[start : start + CHUNK_FRAMES])
            at += CHUNK_FRAMES * FRAME_MS / 1000 / self._model.speed
        if end_call:
            yield at, ToolCall("call-1", "end_call")

    def __aiter__(self) -> FakeAnswer:
        return self

    async def __anext__(self) -> Sound:
        await trio.sleep_until(self._asked_at + self._model.seconds)
        if self._fault == "error":
            raise ProviderError("FakeModel", "status", "500")
        if self._fault == "hang" or (self._fault == "stall" and self._taken > 1):
            await trio.sleep_forever()
        if self._taken == len(self._sounds):
            raise StopAsyncIteration
        at, sound = self._sounds[self._taken]
        await trio.sleep_until(at)
        self._taken += 1
        return sound

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been made."""
        return not self._fault and self._made == len(self._sounds)

    @property
    def unsaid(self) -> str:
        """The words that were not made before it was left."""
        audio = (sound for _, sound in self._sounds[: self._made] if isinstance(sound, bytes))
        return " ".join(self._text.split()[len(audible.words(b"".join(audio))) :])

    @property
    def _made(self) -> int:
        until = min(trio.current_time(), self.left_at)
        return sum(at <= until for at, _ in self._sounds)

    async def question(self) -> str:
        """Return what was asked."""
        await trio.sleep_until(self._asked_at + self._model.question_s)
        return self._words

    def rest(self) -> list[Sound]:
        """Return what was not taken."""
        return [sound for _, sound in self._sounds[self._taken : self._made]]

    def heard(self, milliseconds: int) -> None:
        """Note how much was heard."""
        self._model.told.append(("heard", milliseconds))

    def forget(self) -> None:
        """Note that it never was."""
        self.is_forgotten = True
        self._model.told.append(("forget", self._words))
