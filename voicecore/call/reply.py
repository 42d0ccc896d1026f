"""The production of one reply: messages → LLM → clauses → TTS → speech.

A reply remembers what it has generated and not yet spoken.  So one that was cut off by nothing (a
cough) can be produced to its end later, from the exact byte at which the caller stopped hearing it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import trio

from ..contracts import Delta, Message, ToolCall, Usage
from ..dialogue.sentences import Clause, Splitter
from ..errors import ProviderError
from .agent import Agent
from .speech import Speech
from .timeline import TurnTimeline
from .tools import END_CALL
from .voice import Voice

CLAUSES_AHEAD = 2
"""Clauses between LLM and TTS: no more tokens are bought than will soon be heard."""

FIRST_S = 5.5
"""How long an LLM or a recogniser may take for its first word: a provider's own deadline is shorter
and says more; this one also holds for those that have none."""

IDLE_S = 5.0
"""How long a stream may pause once it has begun."""

AGAIN_S = 3.0
"""Until when an LLM that broke off is asked once more, or whoever is next, and no apology said."""

MAX_REPLY_CHARACTERS = 4000
"""Five minutes of speech: an LLM that goes on longer is broken."""

GO_ON = Message(
    "system",
    "You were cut off by a noise on the line. Go on exactly after your last word; repeat nothing.",
)


class Reply:
    """One reply in the making.  Survives being cut, so that it can go on."""

    def __init__(self, agent: Agent, speech: Speech, timeline: TurnTimeline) -> None:
        self.speech = speech
        self.ends_call = False
        self.may_speak: trio.Event | None = None
        """What TTS waits for, if it must not be paid before that."""
        self.voice = Voice(agent, speech, timeline)
        self._agent = agent
        self._messages: Sequence[Message] = ()
        self._generated = ""
        self._splitter = Splitter()
        self._is_complete = False
        self._clauses: deque[Clause] = deque()
        """Generated and not wholly spoken; the first may be half spoken."""
        self._has_broken_off = False
        self._tokens = 0

    def __repr__(self) -> str:
        return f"<Reply {self.speech.name} {self._generated!r:.60}>"

    @property
    def is_begun(self) -> bool:
        """Whether there is anything to say, or to think about."""
        return bool(self._messages or self._clauses or self._is_complete)

    @property
    def is_written(self) -> bool:
        """Whether the LLM has nothing to add."""
        return self._is_complete

    @property
    def is_complete(self) -> bool:
        """Whether there is no more to it than what was generated."""
        return self._is_complete and not self._clauses

    @property
    def tokens(self) -> int:
        """What the LLM was asked to write so far: as it says, else a token for each delta."""
        usage = self._timeline.usage
        return self._tokens if usage is None else usage.completion

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
            self._messages = messages
        began = trio.current_time()
        try:
            await self._produce()
        except* ProviderError:
            if not self._may_begin_again(began):
                raise
            self._begin_again()
            await self._produce()

    def _may_begin_again(self, began: float) -> bool:
        """Whether an LLM that broke off may be asked once more: nobody has heard anything yet."""
        is_soon = trio.current_time() - began < AGAIN_S
        return is_soon and self._has_broken_off and not self.speech.sent

    def _begin_again(self) -> None:
        """Forget what was begun."""
        self._has_broken_off = self.ends_call = False
        self._generated, self._splitter = "", Splitter()
        self._clauses.clear()
        self.speech.begin_again()
        self.voice.begin_again()
        self._timeline.begin_again()

    async def _produce(self) -> None:
        send, receive = trio.open_memory_channel[Clause](CLAUSES_AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._think, send, name="llm")
            nursery.start_soon(self._speak_all, receive, name="tts")

    async def say(self, text: str) -> None:
        """Make a reply of a ready text.

        Raises:
            ExceptionGroup[ProviderError]: the text was not prepared, and TTS failed.
        """
        self._is_complete = True
        self._clauses.append(Clause(text, True))
        await self.produce()

    async def apologise(self, text: str, audio: bytes) -> None:
        """A provider has failed: nothing of what was not spoken yet is wanted any more, nor is the
        call's end, if the model asked for it.  Say this instead; it needs no provider."""
        self._clauses.clear()
        self.ends_call = False
        self.voice.break_off()
        self.voice.ready = {text: audio}
        await self.say(text)

    @property
    def _timeline(self) -> TurnTimeline:
        return self.voice.timeline

    async def _think(self, send: trio.MemorySendChannel[Clause]) -> None:
        """Stream the LLM's words into clauses; first what is left from before a cut."""
        async with send:
            for clause in tuple(self._clauses):
                await send.send(clause)
            if self._is_complete:
                return
            if self._generated:
                await self._pass_on(self._take(" "), send)
            try:
                await self._listen_to_llm(send)
            except ProviderError:
                self._has_broken_off = bool(self._generated)
                raise
            await self._pass_on(self._splitter.flush(), send)
            if self._timeline.first_clause is None:
                if not self.ends_call:
                    raise ProviderError("llm", "garbage", "no words")
                # Models often call the tool and say nothing: nobody is hung up on without a word.
                goodbye = self._agent.persona.stock_words.goodbye
                await self._pass_on([Clause(goodbye, True)], send)
            self._is_complete = True

    async def _listen_to_llm(self, send: trio.MemorySendChannel[Clause]) -> None:
        with trio.CancelScope(deadline=trio.current_time() + FIRST_S) as patience:
            async with self._agent.llm.reply(self._prompt(), (END_CALL,)) as deltas:
                async for delta in deltas:
                    patience.deadline = math.inf
                    await self._pass_on(self._take(delta), send)
                    patience.deadline = trio.current_time() + IDLE_S
        if patience.cancelled_caught:
            raise ProviderError("llm", "timeout", "no word in time")

    def _prompt(self) -> tuple[Message, ...]:
        system = Message("system", self._agent.persona.prompt)
        if not self._generated.strip():
            return (system, *self._messages)
        said = Message("assistant", self._generated.rstrip(), interrupted=True)
        return (system, *self._messages, said, GO_ON)

    def _take(self, delta: Delta) -> list[Clause]:
        if isinstance(delta, Usage):
            self._timeline.usage = delta
            return []
        self._tokens += 1
        if self._timeline.first_token is None:
            self._timeline.first_token = trio.current_time()
            self._timeline.milestone("reply started", **_only(self._timeline.breakdown(), "llm"))
        if isinstance(delta, ToolCall):
            self.ends_call = self.ends_call or delta.name == END_CALL.name
            return []
        if len(self._generated) + len(delta) > MAX_REPLY_CHARACTERS:
            raise ProviderError("llm", "garbage", f"over {MAX_REPLY_CHARACTERS} characters")
        delta = _speakable(delta)
        self._generated += delta
        return self._splitter.feed(delta)

    async def _pass_on(
        self, clauses: Sequence[Clause], send: trio.MemorySendChannel[Clause]
    ) -> None:
        if clauses and self._timeline.first_clause is None:
            self._timeline.first_clause = trio.current_time()
        self._clauses.extend(clauses)
        for clause in clauses:
            await send.send(clause)

    async def _speak_all(self, receive: trio.MemoryReceiveChannel[Clause]) -> None:
        async with receive:
            async for clause in receive:
                if self.may_speak is not None:
                    await self.may_speak.wait()
                await self.voice.speak(clause)
                self._clauses.popleft()


def _speakable(text: str) -> str:
    """Take out what cannot be spoken: control characters, and the marks of markup."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text if c not in "*`")


def _only(breakdown: dict[str, float], stage: str) -> dict[str, float]:
    return {stage: breakdown[stage]} if stage in breakdown else {}
