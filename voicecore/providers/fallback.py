"""Fallback orders: STT, LLM or TTS by the first provider of an order that answers.

What holds for all of them is said in `order`.  Recognition is one for the whole call: the first of
the order listens from the call's start.  When its transcript fails, the next one's `listen` is
entered, in the call's nursery and not in the turn's, and it transcribes the same utterance: a batch
recogniser gets it whole, a live one replays what it was not fed.  From then on it is fed as well,
until one before it answers again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import trio

from ..audio import SAMPLE_RATE
from ..contracts import (
    LLM,
    STT,
    TTS,
    Delta,
    LiveTranscription,
    Message,
    Tool,
    Transcript,
    Transcription,
    TurnHint,
)
from ..errors import ProviderError
from .guard import Guard, failure_in
from .order import Choice, Order, worst_of

_logger = logging.getLogger("voicecore.providers")

STT_FIRST_S, LLM_FIRST_S, TTS_FIRST_S = 2.0, 2.0, 1.5
"""For the first of an answer, while somebody is behind.  Well above what a healthy vendor needs on
a bad day (about a second), and two of them fit into what a call waits for: 5.5 s for words, 4 s for
audio (call/reply.py, call/voice.py)."""

STT_FIRST_S_PER_S = 0.05
"""More for each second of the utterance: batch recognisers take longer for longer speech."""

BEGIN_S = 1.0
"""For a recogniser to begin to listen, which must not wait for the network: the greeting waits."""

LLM_LAST_S, TTS_LAST_S = 5.2, 3.6
"""For the last of an order: a provider's own deadlines (5 and 3 s) are shorter and say more, the
call's (5.5 and 4 s) would count as a cancellation.  This one counts as the failure that it is."""


class FallbackLLM:
    """LLM by the first of an order that answers."""

    def __init__(self, members: Sequence[tuple[str, LLM]]) -> None:
        self.order = Order("llm", members, LLM_FIRST_S, LLM_LAST_S)

    def __repr__(self) -> str:
        return f"<FallbackLLM {self.order!r}>"

    def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AbstractAsyncContextManager[AsyncIterable[Delta]]:
        """Stream the reply to `messages`."""
        # After a tool's result there may be nothing left to say.
        may_be_empty = bool(messages) and messages[-1].role == "tool"

        def ask(choice: Choice[LLM]) -> AbstractAsyncContextManager[AsyncIterable[Delta]]:
            return choice.guard.stream(
                lambda: choice.provider.reply(messages, tools), may_be_empty=may_be_empty
            )

        return self.order.stream(ask)

    async def warm_up(self, language: str) -> None:
        """Connect who would be asked first."""
        await self.order.warm_up(language)


class FallbackTTS:
    """TTS by the first of an order that speaks, each with a voice of its own.

    `voices` go with `members`; who has none there speaks with the vendor's default.  `cached` puts
    a cache before the member of a place: what is in it needs no provider, and no breaker's leave.
    """

    def __init__(
        self,
        members: Sequence[tuple[str, TTS]],
        voices: Sequence[str] = (),
        cached: Callable[[int, TTS], TTS] = lambda place, tts: tts,
    ) -> None:
        self.order = Order("tts", members, TTS_FIRST_S, TTS_LAST_S)
        guarded = [_GuardedTTS(choice.provider, choice.guard) for choice in self.order.choices]
        self._speakers = {
            choice: cached(place, guarded[place]) for place, choice in enumerate(self.order.choices)
        }
        self._voices = tuple(voices)

    def __repr__(self) -> str:
        return f"<FallbackTTS {self.order!r}>"

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Stream `text`.  `voice` is the first provider's; separated by commas, one for each.

        Another vendor knows no voice of that name: those that are not told theirs use their own.
        """
        told = [name.strip() for name in voice.split(",")]
        voices = {
            choice: _item(told, place) or _item(self._voices, place)
            for place, choice in enumerate(self.order.choices)
        }
        return self.order.stream(
            lambda choice: self._speakers[choice].speak(text, voices[choice], language)
        )

    async def warm_up(self, language: str) -> None:
        """Connect who would be asked first."""
        await self.order.warm_up(language)


def _item(items: Sequence[str], place: int) -> str:
    return items[place] if place < len(items) else ""


@dataclass(frozen=True, slots=True)
class _GuardedTTS:
    """A TTS behind its guard."""

    tts: TTS
    guard: Guard

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        return self.guard.stream(
            lambda: self.tts.speak(text, voice, language), may_be_empty=not text.strip()
        )


class FallbackSTT:
    """STT by the first of an order that understands."""

    def __init__(self, members: Sequence[tuple[str, STT]]) -> None:
        self.order = Order("stt", members, STT_FIRST_S)

    def __repr__(self) -> str:
        return f"<FallbackSTT {self.order!r}>"

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[FallbackTranscription]:
        """Open one call's recognition; live, if who listens from its start is."""
        failure: ProviderError | None = None
        async with trio.open_nursery() as nursery:
            sessions = _Sessions(self.order, language, nursery)
            try:
                is_live = await sessions.begin()
                yield (LiveFallbackTranscription if is_live else FallbackTranscription)(sessions)
            except ProviderError as error:  # which the nursery would wrap
                failure = error
            finally:
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def warm_up(self, language: str) -> None:
        """Connect who would be asked first."""
        await self.order.warm_up(language)


@dataclass(frozen=True, slots=True, eq=False)
class _Session:
    """One provider's recognition of the call; cancelling its scope closes it."""

    transcription: Transcription
    live: LiveTranscription | None
    scope: trio.CancelScope


class _Sessions:
    """The recognitions of one call that are open, each held by a task that outlives turns."""

    def __init__(self, order: Order[STT], language: str, nursery: trio.Nursery) -> None:
        self.order = order
        self.live: LiveTranscription | None = None
        """The recogniser that answers at present, if that is live."""
        self._language = language
        self._nursery = nursery
        self._open: dict[Choice[STT], _Session] = {}

    async def begin(self) -> bool:
        """Let it listen who would be asked first now; return whether that is live.

        If it cannot, that is counted, and whoever is asked for words starts then.
        """
        if (choice := self.order.first) is not None:
            try:
                with choice.guard.attempt(), trio.move_on_after(BEGIN_S):
                    self.live = (await self.of(choice)).live
            except (ProviderError, BaseExceptionGroup) as error:
                if failure_in(error) is None:
                    raise
        return self.live is not None

    def feed(self, frame: bytes) -> None:
        """Let all hear the next frame."""
        for session in self._open.values():
            session.transcription.feed(frame)

    async def of(self, choice: Choice[STT]) -> _Session:
        """Return a provider's recognition of this call; open it, if it is not."""
        session = self._open.get(choice)
        if session is None:
            session = await self._nursery.start(self._hold, choice, name=f"stt {choice.name}")
        return session

    def settle_on(self, choice: Choice[STT]) -> None:
        """One has answered: close those behind it, and those who are to be left alone.

        Who is before it goes on listening, with its own ways to find back; it is asked next.
        """
        self.live = self._open[choice].live if choice in self._open else None
        places = {choice: place for place, choice in enumerate(self.order.choices)}
        for other in tuple(self._open):
            if places[other] > places[choice] or not other.guard.is_closed:
                self._open.pop(other).scope.cancel()

    async def _hold(self, choice: Choice[STT], *, task_status: trio.TaskStatus[_Session]) -> None:
        session = None
        try:
            with trio.CancelScope() as scope:
                async with choice.provider.listen(self._language) as transcription:
                    live = transcription if isinstance(transcription, LiveTranscription) else None
                    self._open[choice] = session = _Session(transcription, live, scope)
                    task_status.started(session)
                    await trio.sleep_forever()
        except (ProviderError, BaseExceptionGroup) as error:
            failure = failure_in(error)
            if session is None or failure is None:
                raise
            choice.guard.count(failure)
            _logger.warning("stt by %s stopped listening: %s", choice.name, failure)
        finally:
            if session is not None and self._open.get(choice) is session:
                del self._open[choice]
                self.live = None if self.live is session.live else self.live


class FallbackTranscription:
    """One call's recognition."""

    def __init__(self, sessions: _Sessions) -> None:
        self._sessions = sessions

    def feed(self, frame: bytes) -> None:
        """Take the next frame of the line."""
        self._sessions.feed(frame)

    async def transcript(self, utterance: bytes) -> Transcript:
        """Return the words of `utterance`.

        Raises:
            ProviderError: nobody has understood.
        """
        failures: list[ProviderError] = []
        order = self._sessions.order
        for choice in order.choices:
            try:
                transcript = await self._transcript_by(choice, utterance)
            except (ProviderError, BaseExceptionGroup) as error:
                failure = failure_in(error)
                if failure is None:
                    raise
                failures.append(failure)
            else:
                order.note_answer(choice, failures)
                self._sessions.settle_on(choice)
                return transcript
        raise worst_of(failures)

    async def _transcript_by(self, choice: Choice[STT], utterance: bytes) -> Transcript:
        guard = choice.guard
        first_s = guard.first_s + STT_FIRST_S_PER_S * len(utterance) / SAMPLE_RATE
        with guard.attempt() as attempt:
            with trio.move_on_after(first_s):
                session = await self._sessions.of(choice)
                transcript = await session.transcription.transcript(utterance)
                guard.give(attempt)
                attempt.succeed()
                return transcript
            raise guard.late(first_s)


class LiveFallbackTranscription(FallbackTranscription):
    """One call's recognition that begins with a live recogniser."""

    @property
    def partial(self) -> str:
        """The words of the present utterance, as far as who answers at present knows them."""
        live = self._sessions.live
        return "" if live is None else live.partial

    async def standing(self, utterance: bytes) -> str:
        """Wait until who answers at present knows words of `utterance` up to its end."""
        live = self._sessions.live
        if live is None:
            await trio.sleep_forever()
        return await live.standing(utterance)

    def hint(self) -> TurnHint | None:
        """Return what who answers at present has newly concluded."""
        live = self._sessions.live
        return None if live is None else live.hint()
