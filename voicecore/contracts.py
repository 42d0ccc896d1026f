"""What the parts of a call promise each other: STT, LLM, TTS, VAD, Line, and the values between.

Rules that hold here:

* Contracts are Protocols, not bases: a provider imports nothing to be one.
* Streams come out of context managers (PEP 789), so that a cancelled turn closes its provider's
  request and nothing of it lives on.
* Audio is 8 kHz mu-law, one byte a sample, everywhere inside; a *frame* is 160 bytes, 20 ms.
* A provider reports failure as `ProviderError` and only as that.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .audio.voicing import Voicing as Voicing
from .dialogue.history import Message as Message
from .dialogue.history import ToolCall as ToolCall
from .dialogue.turns import TurnHint as TurnHint


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the caller said.  Empty text: nothing that STT takes for words."""

    text: str
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the LLM sees it; `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, object] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """What a reply cost, in tokens.  `cached` of `prompt` were read from the vendor's cache."""

    prompt: int
    completion: int
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return what two replies cost together."""
        return Usage(
            self.prompt + other.prompt,
            self.completion + other.completion,
            self.cached + other.cached,
        )


Delta = str | ToolCall | Usage
"""A piece of an LLM's reply: text as it streams, one complete tool call, or, last, its cost."""


class VAD(Protocol):
    """Hears where there is voice.  One a call; frames in order; well under 50 microseconds each."""

    def hear(self, frame: bytes) -> Voicing:
        """Judge the next 160 bytes of mu-law."""


@runtime_checkable
class Transcription(Protocol):
    """One call's speech recognition."""

    def feed(self, frame: bytes) -> None:
        """Take the next frame of the line, speech or not.  Never blocks; memory is bounded."""

    async def transcript(self, utterance: bytes) -> Transcript:
        """Return the words of `utterance`: mu-law, with pre-roll, at most a minute of it.

        It is what the caller has said since the last transcript that was used: one turn, or several
        if the ones before were cut short before their words were known.  Live recognisers finalise
        what they were fed since then; batch recognisers send `utterance`.  May be called again with
        more of the same, and may be cancelled at any await.

        Raises:
            ProviderError: no transcript can be had.
        """


@runtime_checkable
class LiveTranscription(Transcription, Protocol):
    """A recogniser that understands while the caller speaks.  An ability: not all have it."""

    @property
    def partial(self) -> str:
        """The words of the present utterance as far as they are known; may still be revised."""

    async def standing(self, utterance: bytes) -> str:
        """Wait until words of `utterance` are known up to its end, and return them.

        They may still be revised.  Asks nobody, and may wait for ever.
        """

    def hint(self) -> TurnHint | None:
        """Return what the recogniser has newly concluded about the turn, each conclusion once."""


class STT(Protocol):
    """Speech to text."""

    def listen(self, language: str) -> AbstractAsyncContextManager[Transcription]:
        """Open one call's recognition; `language` is BCP-47, such as ``en-US``.

        Entering must not wait for the network: the greeting waits for it.  Connect in the
        background, and raise from `Transcription.transcript` if that failed.
        """


class LLM(Protocol):
    """Text to text: what the agent says next."""

    def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AbstractAsyncContextManager[AsyncIterable[Delta]]:
        """Stream the reply to `messages`.  Leaving the context closes the request.

        Raises:
            ProviderError: on entry or while iterating.
        """


class TTS(Protocol):
    """Text to speech."""

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Stream `text` as mu-law in pieces of any size.  ``voice=""`` is the provider's default.

        Raises:
            ProviderError: on entry or while iterating.
        """


Sound = bytes | Delta
"""A piece of a spoken answer: mu-law, or the words that are spoken, a tool call, its cost."""


class SpokenAnswer(Protocol):
    """One answer of a model that speaks.  Iterate to hear it."""

    def __aiter__(self) -> AsyncIterator[Sound]:
        """Give what has come, as it comes; words stand before the audio that speaks them.

        Raises:
            ProviderError: the answer failed, or broke off.
        """

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been made."""

    async def question(self) -> str:
        """Return the words that were answered, empty if there were none; waits until known.

        Raises:
            ProviderError: they never will be.
        """

    def rest(self) -> list[Sound]:
        """Return what had come and was not taken: the answer may go on after all."""

    def heard(self, milliseconds: int) -> None:
        """Note that the caller heard only so much of it, and will hear no more."""

    def forget(self) -> None:
        """Note that it never happened, and neither did the question."""


@runtime_checkable
class Dialogue(Protocol):
    """One call's conversation with a model that hears and speaks."""

    def feed(self, frame: bytes) -> None:
        """Take the next frame of the line, speech or not.  Never blocks; memory is bounded."""

    def answer(
        self, utterance: bytes, messages: Sequence[Message] = ()
    ) -> AbstractAsyncContextManager[SpokenAnswer]:
        """Ask for an answer to `utterance`: speech that was fed, with pre-roll.

        If it is empty, nothing was said, and the answer before, of which `heard` was told, shall go
        on.  `messages` is the conversation so far as it was heard, for a model that has lost its
        memory of it.  Leaving the context stops the model.

        Raises:
            ProviderError: on entry.
        """

    def said(self, text: str) -> None:
        """Note what the agent has said without the model: a greeting, an apology."""


class SpeechToSpeech(Protocol):
    """A model that hears and speaks, with no text in between."""

    def converse(
        self, prompt: str, tools: Sequence[Tool], voice: str, language: str
    ) -> AbstractAsyncContextManager[Dialogue]:
        """Open one call's conversation.  Entering must not wait for the network."""


@runtime_checkable
class WarmsUp(Protocol):
    """A provider that can connect before it is needed.  An ability: not all have it."""

    async def warm_up(self, language: str) -> None:
        """Make ready for a call in `language` that will begin in a moment: connect, open a session.

        Takes a few seconds at most; never raises for a vendor's failure.  What is not used within
        seconds closes by itself.
        """


class Line(Protocol):
    """A carrier's WebSocket as a call sees it: messages, whole or not at all.

    They are text; of carriers that send sound as it is, bytes are binary messages.
    """

    async def receive(self) -> str | bytes:
        """Return the next message.

        Raises:
            LineClosed: the carrier is gone.
        """

    async def send(self, *messages: str | bytes) -> None:
        """Send messages: each whole, even if the caller of `send` is cancelled meanwhile.

        Raises:
            LineClosed: the carrier is gone, or has taken nothing for too long.
        """

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close with a WebSocket code.  Takes a few seconds at most, and never raises."""
