"""One turn of the agent: one coroutine, one cancel scope, at most one history entry.

A turn may begin before the caller has certainly finished: it works towards its speech behind a
gate, and nothing leaves, and nothing is remembered, before the gate opens.  Cancelling the scope is
all there is to a barge-in and to a lost speculation: provider requests close, the player clears,
and what was heard is written down on the way out.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from ..contracts import Transcript, Transcription
from ..dialogue.history import History
from ..errors import ProviderError
from .agent import Agent
from .playback import Player
from .reply import FIRST_S, Reply
from .timeline import CallLog, TurnTimeline

_logger = logging.getLogger("voicecore.call")

MAX_TRANSCRIPT_CHARACTERS = 4000
"""What a recogniser says is data: longer than any turn, and it is cut."""


class Outcome(enum.Enum):
    """What became of a turn."""

    RUNNING = enum.auto()
    HEARD = enum.auto()
    """The caller heard its end."""
    CUT = enum.auto()
    """It was cancelled: barge-in, lost speculation, hang-up."""
    NOTHING = enum.auto()
    """There were no words to answer."""
    FAILED = enum.auto()
    """A provider failed; the caller heard an apology."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the turns of one call share."""

    agent: Agent
    player: Player
    transcription: Transcription
    history: History
    log: CallLog


class Turn:
    """One turn.  Run one of `answer`, `announce`, in a task; `scope.cancel()` ends it."""

    def __init__(self, conversation: Conversation, name: str) -> None:
        self.name = name
        self.scope = trio.CancelScope()
        self.gate = trio.Event()
        """Set when the turn is certain: its audio may leave, its words be remembered."""
        self.outcome = Outcome.RUNNING
        self.utterance = b""
        self.words: str | None = None
        """What the caller said; None until the recogniser has answered."""
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

    async def answer(self, utterance: bytes, interrupted: Turn | None = None) -> None:
        """Understand `utterance`, reply, and wait until the reply was heard.

        If there is nothing to understand, and `interrupted` was cut for it, that goes on instead.
        """
        self.utterance = utterance
        with self.scope:
            try:
                await self._answer()
                if self.outcome is Outcome.NOTHING and interrupted is not None:
                    await self._go_on(interrupted)
            finally:
                self._write_down()

    async def announce(self, text: str, ends_call: bool = False) -> None:
        """Say a ready text: a greeting, an idle prompt, a goodbye."""
        self.words = ""
        self.gate.set()
        self.timeline.commit()
        self.reply.ends_call = ends_call
        with self.scope:
            try:
                await self._perform(lambda: self.reply.say(text))
            finally:
                self._write_down()

    async def _answer(self) -> None:
        self.timeline.began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._produce, self._think, name="production")
            await self.gate.wait()
            await self._understood.wait()
            self.timeline.commit()
            if self.words:
                self._talk.history.caller_said(self.words)
            await self._talk.player.play(self.reply.speech)
        self._settle()

    async def _perform(self, production: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._produce, production, name="production")
            await self._talk.player.play(self.reply.speech)
        self._settle()

    async def _think(self) -> None:
        self.words = await self._transcribe()
        self.timeline.transcribed = trio.current_time()
        self._understood.set()
        if self.words:
            stt = self.timeline.breakdown().get("stt")
            self.timeline.milestone("user said", text=self.words, stt=stt)
            await self.reply.produce(self._talk.history.with_caller(self.words))

    async def _transcribe(self) -> str:
        with trio.move_on_after(FIRST_S):
            transcript: Transcript = await self._talk.transcription.transcript(self.utterance)
            return _clean(transcript.text)
        raise ProviderError("stt", "timeout", f"nothing for {FIRST_S:.1f} s")

    async def _produce(self, production: Callable[[], Awaitable[None]]) -> None:
        """Fill the speech; when a provider fails, with an apology.  The one place that forgives."""
        try:
            await production()
        except* ProviderError as group:
            for line in _lines(group):
                _logger.warning("%s: turn %s failed: %s", self._talk.log.call_sid, self.name, line)
            self.outcome = Outcome.FAILED
            self.reply.abandon()
            text = self._talk.agent.persona.stock_words.apology
            self._understood.set()
            await self.reply.say_audio(text, self._talk.agent.phrases.apology(text))
        self.reply.speech.finish()

    async def _go_on(self, interrupted: Turn) -> None:
        """It was a cough: the reply that was cut for it goes on from the exact byte."""
        self._talk.log.milestone("resumed", turn=interrupted.name)
        self.outcome = Outcome.RUNNING
        self.name, self.reply = interrupted.name, interrupted.reply
        self.timeline.last_voiced = None  # no answer, so no response gap
        self.reply.speech.rewind()
        await self._perform(self.reply.produce)

    def _settle(self) -> None:
        """Both production and playback have come to their end."""
        if self.outcome is Outcome.RUNNING:
            self.outcome = Outcome.HEARD if self.reply.speech.end else Outcome.NOTHING

    def _write_down(self) -> None:
        """Commit what was heard; also on the way out of a cancelled turn."""
        speech = self.reply.speech
        if self.outcome is Outcome.RUNNING or not speech.done.is_set():
            self.outcome = Outcome.CUT
        heard = speech.spoken.text
        if self.outcome is Outcome.CUT:
            heard = speech.spoken.heard(speech.confirmed)
        if self.is_committed:
            is_whole = self.reply.is_complete and heard == speech.spoken.text
            was_cut = self.outcome is Outcome.CUT and not is_whole
            self._talk.history.agent_said(self.name, heard, interrupted=was_cut)
        self.timeline.first_sent = speech.first_sent_at

    def _new_reply(self) -> Reply:
        return Reply(self._talk.agent, self._talk.player.new_speech(self.name), self.timeline)


def _clean(text: str) -> str:
    """Words only: no control characters, no more than a turn can hold."""
    printable = "".join(c if c.isprintable() else " " for c in text[:MAX_TRANSCRIPT_CHARACTERS])
    return " ".join(printable.split())


def _lines(group: BaseExceptionGroup[ProviderError]) -> list[str]:
    """The messages of a group's leaves."""
    lines = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            lines += _lines(error)
        else:
            lines.append(str(error))
    return lines
