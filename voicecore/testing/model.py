"""A speech-to-speech model that hears the words in audio, and answers in sound."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..audio import FRAME_MS
from ..contracts import Message, Question, Sound, Tool, ToolCall
from ..errors import ProviderError
from . import audible
from .providers import Request

WORD_FRAMES = 15
CHUNK_FRAMES = 5


@dataclass
class FakeModel:
    """Answers with `answer(words)` after `seconds`, `speed` x real time.

    What it was told is in `told`: what the agent said itself, how much of each answer was heard
    (milliseconds), and what became of its tool calls.  `question_s` is how long it takes to write
    down the caller's words.  An answer that ends in ``<end_call>`` asks for that tool.  Other tools
    are asked for with an answer that is a sequence: texts, and `ToolCall`s; what is said then is
    `conclude(results)`, of the results that were told since the answer before.
    """

    seconds: float = 0.0
    answer: Callable[[str], str | Sequence[str | ToolCall]] = "You said {}.".format
    question_s: float = 0.0
    speed: float = float("inf")
    faults: Sequence[str] = ()
    conclude: Callable[[Sequence[str]], str | Sequence[str | ToolCall]] = " ".join
    told: list[tuple[str, object]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    prompts: list[tuple[Message, ...]] = field(default_factory=list)
    """The conversation so far, as each request told it."""
    offered: tuple[str, ...] = ()
    """The names of the tools that it may ask for."""

    @asynccontextmanager
    async def converse(
        self, prompt: str, tools: Sequence[Tool], voice: str, language: str
    ) -> AsyncIterator[FakeDialogue]:
        """Open a call's conversation."""
        self.offered = tuple(tool.name for tool in tools)
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
        self._results: list[str] = []

    def feed(self, frame: bytes) -> None:
        """Take a frame; the words are read out of the utterance."""

    def said(self, text: str) -> None:
        """Note what the agent said."""
        self._model.told.append(("said", text))

    def tool_done(self, call_id: str, result: str) -> None:
        """Note what became of a tool call."""
        self._model.told.append((call_id, result))
        self._results.append(result)

    @asynccontextmanager
    async def answer(
        self, question: Question, messages: Sequence[Message] = ()
    ) -> AsyncIterator[FakeAnswer]:
        """Answer; or go on with the last answer that was not forgotten."""
        model = self._model
        words, parts = self._respond(question, messages)
        number = len(model.requests)
        fault = model.faults[number] if number < len(model.faults) else ""
        request = Request(words, trio.current_time())
        model.requests.append(request)
        model.prompts.append(tuple(messages))
        answer = FakeAnswer(model, words, parts, fault)
        self._answers.append(answer)
        try:
            yield answer
        finally:
            request.closed = answer.left_at = trio.current_time()

    def _respond(
        self, question: Question, messages: Sequence[Message]
    ) -> tuple[str, list[str | ToolCall]]:
        """Return what is asked, in words, and what there is to say."""
        results, self._results = self._results, []
        if question is None:
            known = [message.text for message in messages if message.role == "tool"]
            return "", _parts(self._model.conclude(results or known[-1:]))
        if not question:
            remembered = [answer for answer in self._answers if not answer.is_forgotten]
            return "", remembered[-1].unsaid
        words = question if isinstance(question, str) else " ".join(audible.words(question))
        return words, _parts(self._model.answer(words))


class FakeAnswer:
    """One answer to `words`."""

    def __init__(
        self, model: FakeModel, words: str, parts: Sequence[str | ToolCall], fault: str
    ) -> None:
        self.is_forgotten = False
        self.left_at = math.inf
        self._model = model
        self._words = words
        self._fault = fault
        self._asked_at = trio.current_time()
        self._parts = parts
        self._sounds = list(self._timed())
        self._taken = 0

    def _timed(self) -> Iterator[tuple[float, Sound]]:
        """When which piece comes."""
        at, space = self._asked_at + self._model.seconds, ""
        for part in self._parts:
            if isinstance(part, ToolCall):
                yield at, part
                continue
            yield at, space + part
            space = " "
            frames = audible.say(part, WORD_FRAMES * len(part.split()))
            for start in range(0, len(frames), CHUNK_FRAMES):
                yield at, b"".join(frames[start : start + CHUNK_FRAMES])
                at += CHUNK_FRAMES * FRAME_MS / 1000 / self._model.speed

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
    def unsaid(self) -> list[str | ToolCall]:
        """What was not made before it was left."""
        made = [sound for _, sound in self._sounds[: self._made]]
        audio = b"".join(sound for sound in made if isinstance(sound, bytes))
        skip = len(audible.words(audio))
        unsaid: list[str | ToolCall] = []
        for part in self._parts:
            if isinstance(part, ToolCall):
                unsaid += [] if part in made else [part]
            else:
                words = part.split()
                skip, left = max(0, skip - len(words)), words[skip:]
                unsaid += [" ".join(left)] if left else []
        return unsaid

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


def _parts(answer: str | Sequence[str | ToolCall]) -> list[str | ToolCall]:
    """What an answer is made of."""
    if not isinstance(answer, str):
        return list(answer)
    ends_call, text = answer.endswith("<end_call>"), answer.removesuffix("<end_call>").strip()
    calls: list[str | ToolCall] = [ToolCall("call-1", "end_call")] if ends_call else []
    return [text, *calls] if text else calls
