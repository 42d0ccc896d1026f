"""The production of one reply: messages → LLM → clauses → TTS → speech.

A reply remembers what it has generated and not yet spoken.  So one that was cut off by nothing (a
cough) can be produced to its end later, from the exact byte at which the caller stopped hearing it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

import trio

from ..contracts import Message
from ..dialogue.sentences import Clause
from ..errors import ProviderError
from .agent import Agent
from .hands import Desk, Hands
from .speech import Speech
from .timeline import TurnTimeline
from .transfer import Transfer
from .voice import Voice
from .writing import Writing

CLAUSES_AHEAD = 2
"""Clauses between LLM and TTS: no more tokens are bought than will soon be heard."""

AGAIN_S = 3.0
"""Until when an LLM that broke off is asked once more, or whoever is next, and no apology said."""


class Reply:
    """One reply in the making.  Survives being cut, so that it can go on."""

    def __init__(self, agent: Agent, speech: Speech, timeline: TurnTimeline, desk: Desk) -> None:
        self.speech = speech
        self.may_speak: trio.Event | None = None
        """What TTS waits for, if it must not be paid before that."""
        self.voice = Voice(agent, speech, timeline)
        self._clauses: deque[Clause] = deque()
        """Written and not wholly spoken; the first may be half spoken."""
        self.hands = Hands(desk, self.voice, self._hush, lambda: bool(self._clauses))
        self.writing = Writing(agent, self.hands, self.voice)
        self._speaking = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Reply {self.speech.name} {self.writing.rounds!r}>"

    @property
    def is_begun(self) -> bool:
        """Whether there is anything to say, or to think about."""
        return bool(self.writing.messages or self._clauses or self.writing.is_complete)

    @property
    def is_written(self) -> bool:
        """Whether the LLM has nothing to add."""
        return self.writing.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether there is no more to it than what was generated."""
        return self.writing.is_complete and not self._clauses

    @property
    def ends_call(self) -> bool:
        """Whether the call is over once this was heard."""
        return self.hands.ends_call

    @property
    def transfer(self) -> Transfer | None:
        """With whom the call goes on once this was heard."""
        return self.hands.transfer

    @property
    def tokens(self) -> int:
        """What the LLM was asked to write so far: as it says, else a token for each delta."""
        usage = self._timeline.usage
        return self.writing.tokens if usage is None else usage.completion

    def heard(self, position: int | None) -> tuple[list[Message], str]:
        """Return what a history says of it: messages, and the last words.

        `position` is how many bytes were heard; None: everything.
        """
        spoken = self.speech.spoken
        return self.writing.rounds.heard(spoken.heard_by_step(position), spoken.heard_by_step())

    def move_to(self, timeline: TurnTimeline) -> None:
        """Another turn takes this reply over, with the words that it has: no stage takes time."""
        now = trio.current_time()
        timeline.usage = self._timeline.usage
        timeline.first_token = timeline.first_clause = now
        timeline.first_audio = now if self.speech.end else None
        self.voice.timeline = timeline

    async def produce(self, messages: Sequence[Message] | None = None) -> None:
        """Make the reply to `messages`; without them, make the rest of what was begun.

        Raises:
            ExceptionGroup[ProviderError]: the LLM or TTS failed; the speech holds what came before.
        """
        if messages is not None:
            self.writing.messages = messages
        began = trio.current_time()
        try:
            await self._produce()
        except* ProviderError:
            if not self._may_begin_again(began):
                raise
            self._begin_again()
            await self._produce()

    async def say(self, text: str) -> None:
        """Make a reply of a ready text.

        Raises:
            ExceptionGroup[ProviderError]: the text was not prepared, and TTS failed.
        """
        self.writing.is_complete = True
        self._clauses.append(Clause(text, True, self.writing.rounds.step))
        await self.produce()

    async def apologise(self, text: str, audio: bytes) -> None:
        """A provider has failed: nothing of what was not spoken yet is wanted any more, nor is the
        call's end, if the model asked for it.  Say this instead; it needs no provider."""
        self._clauses.clear()
        self.hands.reset()
        self.voice.break_off()
        self.voice.ready = {text: audio}
        await self.say(text)

    def _may_begin_again(self, began: float) -> bool:
        """Whether an LLM that broke off may be asked once more: nobody has heard anything yet, and
        no tool was used."""
        is_soon = trio.current_time() - began < AGAIN_S
        is_new = not self.speech.sent and not self.writing.rounds.step
        return is_soon and is_new and self.writing.has_broken_off

    def _begin_again(self) -> None:
        """Forget what was begun."""
        self.writing.begin_again()
        self._clauses.clear()
        self.speech.begin_again()
        self.voice.begin_again()
        self._timeline.begin_again()

    async def _produce(self) -> None:
        send, receive = trio.open_memory_channel[Clause](CLAUSES_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, send, nursery, name="llm")
            nursery.start_soon(self._speak_all, receive, name="tts")

    @property
    def _timeline(self) -> TurnTimeline:
        return self.voice.timeline

    async def _write(self, send: trio.MemorySendChannel[Clause], nursery: trio.Nursery) -> None:
        """Pass on what is left from before a cut, and what the LLM writes."""
        async with send:
            for clause in tuple(self._clauses):
                await send.send(clause)
            await self.writing.run(partial(self._pass_on, send), nursery)

    async def _pass_on(
        self, send: trio.MemorySendChannel[Clause], clauses: Sequence[Clause]
    ) -> None:
        if clauses and self._timeline.first_clause is None:
            self._timeline.first_clause = trio.current_time()
        self._clauses.extend(clauses)
        for clause in clauses:
            await send.send(clause)

    def _hush(self) -> None:
        """Break off what is being said in this round: the caller has begun to type."""
        self.writing.rounds.hush()
        self._clauses.clear()
        self._speaking.cancel()
        self.voice.break_off()
        self.speech.take_back()

    async def _speak_all(self, receive: trio.MemoryReceiveChannel[Clause]) -> None:
        async with receive:
            async for clause in receive:
                if self.may_speak is not None:
                    await self.may_speak.wait()
                if clause not in self._clauses:
                    continue  # it was hushed
                with trio.CancelScope() as self._speaking:
                    await self.voice.speak(clause)
                    self._clauses.popleft()
                if not self._clauses and self.writing.rounds.runs:
                    self.speech.pause()
