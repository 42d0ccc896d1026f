"""One turn of the agent: one coroutine, one cancel scope, at most one history entry.

A turn may begin before the caller has certainly finished: it works towards its speech behind a
gate, and nothing leaves, and nothing is remembered, before the gate opens.  Cancelling the scope is
all there is to a barge-in and to a lost speculation: provider requests close, the player clears,
and what was heard is written down on the way out.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from ..audio import SAMPLE_RATE
from ..contracts import Dialogue, Message, Transcription
from ..dialogue.history import History
from ..errors import ProviderError, leaves
from .agent import Agent
from .hands import Desk
from .phrases import Announcement, EndsBy
from .playback import Player
from .speech import Speech
from .timeline import CallLog, TurnTimeline
from .transfer import Transfer
from .voice import Voice

MAX_TRANSCRIPT_CHARACTERS = 4000
"""What a recogniser says is data: longer than any turn, and it is cut."""


class Outcome(enum.Enum):
    """What became of a turn."""

    RUNNING = enum.auto()
    HEARD = enum.auto()
    """The caller heard its end."""
    CUT = enum.auto()
    """It was cancelled: barge-in, lost speculation, hang-up."""
    SILENT = enum.auto()
    """There was nothing to say: no words to answer, or only a tool to call."""
    FAILED = enum.auto()
    """A provider failed; the caller heard an apology."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the turns of one call share."""

    agent: Agent
    player: Player
    listener: Transcription | Dialogue
    """Who listens: a recogniser, or a model that speaks as well."""
    history: History
    log: CallLog
    desk: Desk
    note_words: Callable[[str], None] = lambda words: None
    """Told the words of a turn that may not be over yet: they may need more patience."""


class AnyReply(Protocol):
    """What a turn needs of its reply, however that is made.  See `reply.Reply`."""

    speech: Speech
    voice: Voice

    @property
    def ends_call(self) -> bool:
        """Whether the call is over once this was heard."""

    @property
    def transfer(self) -> Transfer | None:
        """With whom the call goes on once this was heard."""

    @property
    def is_begun(self) -> bool:
        """Whether there is anything to say, or to think about."""

    @property
    def is_complete(self) -> bool:
        """Whether there is no more to it than what was generated."""

    @property
    def tokens(self) -> int:
        """What the model was asked to make so far."""

    def heard(self, position: int | None) -> tuple[list[Message], str]:
        """Return what a history says of it when so many bytes were heard; None: everything.

        Messages that stand before the last words (earlier words, tools), and those words.
        """

    async def produce(self, messages: Sequence[Message] | None = None) -> None:
        """Make it, or the rest of it."""

    async def say(self, text: str) -> None:
        """Make it of a ready text."""

    async def apologise(self, text: str, audio: bytes) -> None:
        """Make an apology of it."""


class Turn(ABC):
    """One turn.  Run one of `answer`, `announce`, in a task; `scope.cancel()` ends it.

    `interrupted` is the turn that was cut for what the caller is saying now; `lost`, the last
    speculation about it.
    """

    def __init__(
        self,
        conversation: Conversation,
        name: str,
        interrupted: Turn | None = None,
        lost: Turn | None = None,
    ) -> None:
        self.name = name
        self.interrupted = interrupted
        self._lost = lost
        self.scope = trio.CancelScope()
        self.gate = trio.Event()
        """Set when the turn is certain: its audio may leave, its words be remembered."""
        self.finished = trio.Event()
        """Set when nothing of it runs any more."""
        self.outcome = Outcome.RUNNING
        self.has_failed = False
        """Whether a provider has: the caller hears an apology, to its end or not."""
        self.certain = trio.Event()
        """Set when it is certain what the caller said, and that it was all: tools may be used."""
        self.announcement = Announcement("")
        """What is said without being asked; empty if this is an answer."""
        self.utterance = b""
        self.words: str | None = None
        """What the caller said, empty if nothing; None until the recogniser has answered."""
        self.timeline = TurnTimeline(conversation.log, name)
        self._talk = conversation
        self._understood = trio.Event()
        self.reply = self._new_reply()

    def __repr__(self) -> str:
        return f"<Turn {self.name} {self.outcome.name} gate={self.gate.is_set()}>"

    @property
    def is_committed(self) -> bool:
        """Whether the turn is certain, and no speculation."""
        return self.gate.is_set()

    @property
    def to_go_on_with(self) -> Turn | None:
        """The turn to resume if this one was cut for nothing: itself, or what it was cut for."""
        return self if self.reply.is_begun else self.interrupted

    @property
    def transfer(self) -> Transfer | None:
        """With whom the call goes on when this turn was heard."""
        return self.announcement.transfer or self.reply.transfer

    @property
    def ends_call_by(self) -> EndsBy:
        """Who ends the call here when this turn was heard: the model may have asked for it."""
        return self.announcement.ends_by or ("agent" if self.reply.ends_call else "")

    @abstractmethod
    def _new_reply(self) -> AnyReply:
        """Return an empty reply."""

    async def answer(self, utterance: bytes) -> None:
        """Understand `utterance`, reply, and wait until the reply was heard.

        If there is nothing to understand, the reply that was cut for it goes on instead.
        """
        self.utterance = utterance
        with self.scope:
            self.timeline.began = trio.current_time()
            await self._perform(self._think)
            if self.words == "" and self.interrupted is not None and not self.has_failed:
                await self._go_on(self.interrupted)
        self.finished.set()

    async def answer_words(self, words: str) -> None:
        """Reply to what is known already: the caller has typed it."""
        self.words = words
        self.gate.set()
        await self.answer(b"")

    async def announce(self, words: Announcement) -> None:
        """Say a ready text: a greeting, an idle prompt, a goodbye."""
        self.words, self.announcement = "", words
        self.gate.set()
        self._understood.set()
        with self.scope:
            await self._perform(partial(self.reply.say, words.text))
        self.finished.set()

    def interrupt(self, onset: float) -> None:
        """The caller has begun to speak over it, at `onset`, and means it: it is over."""
        speech = self.reply.speech
        self._talk.log.milestone(
            "interrupted",
            turn=self.name,
            heard=speech.spoken.heard(self._talk.player.heard(speech)),
            reaction_ms=round((trio.current_time() - onset) * 1000),
        )
        self.scope.cancel()

    async def _perform(self, production: Callable[[], Awaitable[None]]) -> None:
        """Produce, and play once that is certain.  What was heard is written down in any case,
        before the providers of a cancelled turn have closed: the next turn's prompt needs it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._produce, production, name="production")
            try:
                await self.gate.wait()
                if self.timeline.ended is not None and self._talk.agent.limits.filler_s:
                    nursery.start_soon(self._fill, self.timeline.ended, name="filler")
                await self._understood.wait()
                self.timeline.commit()
                self._remember_caller()
                self.certain.set()
                await self._talk.player.play(self.reply.speech)
                nursery.cancel_scope.cancel()  # a filler that nobody needed
            finally:
                self._write_down()

    async def _fill(self, ended: float) -> None:
        """Say "let me see", if there is nothing to hear yet."""
        agent = self._talk.agent
        await trio.sleep_until(ended + agent.limits.filler_s)
        await self._understood.wait()
        fillers = [text for text in agent.persona.stock_words.fillers if agent.phrases.audio(text)]
        if self.words and fillers and not self.has_failed:
            text = fillers[len(self._talk.history.messages) // 2 % len(fillers)]
            await self.reply.voice.fill(text, agent.phrases.audio(text) or b"")

    def _remember_caller(self) -> None:
        if self.words:
            self._talk.history.caller_said(self.words)

    @abstractmethod
    async def _think(self) -> None:
        """Find out what the caller said, fill the reply, and set `_understood`."""

    async def _produce(self, production: Callable[[], Awaitable[None]]) -> None:
        """Fill the speech; when a provider fails, with an apology.  The one place that forgives."""
        try:
            await production()
        except* ProviderError as group:
            for error in leaves(group):
                self._note_failure(error)
            self.has_failed = True
            self._understood.set()
            text = self._talk.agent.persona.stock_words.apology
            await self.reply.apologise(text, self._talk.agent.phrases.apology(text))
        self.reply.speech.finish()

    def _note_failure(self, error: Exception) -> None:
        assert isinstance(error, ProviderError)
        self._talk.log.warning(
            "provider failed",
            turn=self.name,
            provider=error.provider,
            fault=error.fault,
            why=str(error),
        )

    async def _go_on(self, interrupted: Turn) -> None:
        """It was a cough: the reply that was cut for it goes on from where it was cut."""
        await interrupted.finished.wait()
        self._talk.log.milestone("resumed", turn=interrupted.name)
        self.name, self.reply = interrupted.name, interrupted.reply
        self.announcement = interrupted.announcement
        self.timeline.last_voiced = None  # no answer, so no response gap
        self.reply.speech.rewind()
        await self._perform(self.reply.produce)

    def _write_down(self) -> str:
        """Commit what was heard, and return it."""
        speech = self.reply.speech
        if not speech.done.is_set():
            self.outcome = Outcome.CUT
        elif self.has_failed:
            self.outcome = Outcome.FAILED
        else:
            self.outcome = Outcome.HEARD if speech.end else Outcome.SILENT
        heard = ""
        if self.is_committed:
            cut = self.outcome is Outcome.CUT
            heard = speech.spoken.heard(speech.confirmed) if cut else speech.spoken.text
            is_whole = self.reply.is_complete and heard == speech.spoken.text
            interrupted = cut and not is_whole
            before, last = self.reply.heard(speech.confirmed if cut else None)
            self._talk.history.agent_said(self.name, last, interrupted, before)
            if heard:
                self._talk.log.milestone(
                    "agent said",
                    turn=self.name,
                    text=heard,
                    interrupted=interrupted,
                    heard_s=round((speech.confirmed if cut else speech.end) / SAMPLE_RATE, 2),
                )
        self.timeline.first_sent = speech.first_sent_at
        return heard


def clean(text: str) -> str:
    """Words only: no control characters, no more than a turn can hold."""
    if not any(c.isalnum() for c in text):
        return ""  # "...": what some recognisers make of noise
    printable = "".join(c if c.isprintable() else " " for c in text[:MAX_TRANSCRIPT_CHARACTERS])
    return " ".join(printable.split())
