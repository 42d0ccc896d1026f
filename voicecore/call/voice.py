"""A reply's voice: clauses in, audio into the speech, one at a time.

A clause that was cut off half-way goes on later from the exact byte.  Fillers share the floor with
the clauses: whoever has it speaks to the end.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import trio

from ..dialogue.sentences import Clause
from ..errors import ProviderError
from .agent import Agent
from .speech import Speech
from .timeline import TurnTimeline

FIRST_AUDIO_S = 4.0
"""How long TTS may take for its first audio: a provider's own deadline is shorter and says more;
this one also holds for those that have none."""

IDLE_S = 5.0
"""How long it may pause once it has begun."""


class Voice:
    """Speaks the clauses of one reply."""

    def __init__(self, agent: Agent, speech: Speech, timeline: TurnTimeline) -> None:
        self.speech = speech
        self.timeline = timeline
        self.ready: dict[str, bytes] = {}
        """Audio of texts that need no provider."""
        self._agent = agent
        self.floor = trio.Lock()
        """Whoever has it puts audio into the speech."""
        self._begun_at: int | None = None
        """Where the clause that is being spoken begins in the speech, if it has begun."""
        self._clauses = 0
        self.step = 0
        """How often the model was asked before what is being said."""

    def __repr__(self) -> str:
        return f"<Voice of {self.speech!r}>"

    def break_off(self) -> None:
        """The clause that was being spoken will not go on: of its text, what has audio counts."""
        self._begun_at = None
        self.speech.spoken.abandon()

    def begin_again(self) -> None:
        """Nothing was said."""
        self._begun_at, self._clauses = None, 0

    async def speak(self, clause: Clause, is_late: Callable[[], bool] = lambda: False) -> None:
        """Stream one clause into the speech, without the bytes of it that are there already.

        If `is_late` once it could begin, it is not said.

        Raises:
            ProviderError: TTS failed.
        """
        asked_at = trio.current_time()
        with trio.CancelScope(deadline=asked_at + FIRST_AUDIO_S) as patience:
            async with self._audio_of(clause.text) as audio:
                pieces = aiter(audio)
                piece = await _first_of(pieces)
                patience.deadline = math.inf
                async with self.floor:
                    if is_late():
                        return
                    self._begin(clause, trio.current_time() - asked_at)
                    await self._stream(piece, pieces, patience)
        if patience.cancelled_caught:
            raise ProviderError("tts", "timeout", "no audio in time")
        self._begun_at = None
        self.speech.spoken.complete()
        if clause.ends_sentence:
            self.speech.end_sentence()

    async def fill(self, text: str, audio: bytes) -> None:
        """Say a filler, if nothing has been said yet."""
        if self.speech.end or self.floor.locked():
            return
        async with self.floor:
            self.timeline.milestone("filler", text=text)
            self.speech.spoken.begin(text, self.speech.end)
            try:
                await self.speech.put(audio)
            except trio.Cancelled:
                self.speech.spoken.abandon()
                raise
            self.speech.spoken.complete()
            self.speech.end_sentence()

    async def bridge(self, text: str, is_over: Callable[[], bool]) -> None:
        """Say a sentence while a tool runs, behind whatever is being said; not if that `is_over`.

        Raises:
            ProviderError: TTS failed.
        """
        clauses = self._clauses
        try:
            await self.speak(Clause(text, True, self.step), is_over)
        finally:
            if self._clauses > clauses:
                self.break_off()
                self.speech.pause()

    async def sound(self, audio: bytes) -> None:
        """Let a sound be heard that is no speech, behind whatever is being said."""
        async with self.floor:
            start = self.speech.end
            try:
                await self.speech.put(audio)
            finally:
                self.speech.spoken.skip(start, self.speech.end)

    def _begin(self, clause: Clause, seconds: float) -> None:
        if self._begun_at is None:
            self._begun_at = self.speech.end
            self.speech.spoken.begin(clause.text, self.speech.end, clause.step)
            self.step = clause.step
        # Not of what bridges a tool before the reply has a clause: that took no stage's time.
        if self.timeline.first_audio is None and self.timeline.first_clause is not None:
            self.timeline.first_audio = trio.current_time()
        self._clauses += 1
        self.timeline.milestone(
            "audio chunk", n=self._clauses, text=clause.text, tts=round(seconds, 3)
        )

    async def _stream(
        self, piece: bytes, rest: AsyncIterator[bytes], patience: trio.CancelScope
    ) -> None:
        """Put a clause's audio into the speech; only waiting for TTS counts against `patience`."""
        assert self._begun_at is not None
        skip = self.speech.end - self._begun_at
        while True:
            skip, piece = max(0, skip - len(piece)), piece[skip:]
            await self.speech.put(piece)
            patience.deadline = trio.current_time() + IDLE_S
            try:
                piece = await anext(rest)
            except StopAsyncIteration:
                return
            patience.deadline = math.inf

    @asynccontextmanager
    async def _audio_of(self, text: str) -> AsyncIterator[AsyncIterable[bytes]]:
        """The audio of `text`: prepared, or from TTS."""
        ready = self.ready.get(text) or self._agent.phrases.audio(text)
        if ready is not None:
            async with aclosing(_once(ready)) as stream:
                yield stream
            return
        persona = self._agent.persona
        async with self._agent.tts.speak(text, persona.voice, persona.language) as audio:
            yield audio


async def _once(audio: bytes) -> AsyncGenerator[bytes, None]:
    yield audio


async def _first_of(pieces: AsyncIterator[bytes]) -> bytes:
    async for piece in pieces:
        if piece:
            return piece
    raise ProviderError("tts", "garbage", "no audio")
