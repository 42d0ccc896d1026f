"""From turn events to turns: when one starts, is lost, is interrupted, or is all there is to say.

Every reaction is synchronous: it starts a task, opens a gate or cancels a scope, and the loop is
back at its channel.  At most one turn is live; one that was cut may still be unwinding, and a
reply that goes on after a cough waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import trio

from ..dialogue.turns import (
    SpeechConfirmed,
    SpeechDoubted,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    TurnEnded,
)
from .events import Heard, PipelineEvent, TurnFinished, Typed
from .keypad import Keypad
from .live_turns import LiveTurns, was_heard
from .phrases import Announcement
from .silence import Silence
from .transfer import Transfer
from .turn import Conversation, Outcome, Turn

EVENTS_WAITING = 8
"""Every reaction is immediate: more than this waiting is a bug, and raises."""

MAX_UTTERANCE_BYTES = 60 * 8000
"""A minute: as much as one turn may last."""


class Pipeline:
    """One call's turns.  Events come from the vad task and, as turns finish, from ourselves."""

    def __init__(
        self,
        conversation: Conversation,
        hang_up: Callable[[Literal["agent", "length"]], None],
        give: Callable[[Transfer], None],
    ) -> None:
        self.answers = 0
        """Turns of the caller that were answered, or are being."""
        self.post, self._events = trio.open_memory_channel[PipelineEvent](EVENTS_WAITING)
        self._talk = conversation
        self._hang_up = hang_up
        self._give = give
        self._turn: Turn | None = None
        """The live turn: being speculated about, produced, or heard."""
        self._interrupted: Turn | None = None
        """The turn that the caller's present speech has cut."""
        self._unheard = b""
        """Utterances whose turns were cut before anybody knew their words."""
        self._lost: Turn | None = None
        """The last speculation about what the caller is saying; its reply may still be right."""
        self._speculations = self._failures = 0
        agent, began = conversation.agent, conversation.log.began
        self._silence = Silence(agent.limits, agent.persona.stock_words, began)
        self._waiting = trio.CancelScope()
        """For the next event, or until something must be said."""
        self._farewell: Turn | None = None

    def say(self, text: str) -> bool:
        """Say a sentence in the next pause; false: too much waits to be said."""
        taken = self._silence.order(text)
        self._waiting.cancel()
        return taken

    def take_leave(self, text: str) -> None:
        """Break off, say a last thing that cannot be interrupted, and hang up."""
        self._silence.part(text)
        self._waiting.cancel()

    async def run(self) -> None:
        """Greet, then react until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._turns = LiveTurns(self._talk, self._nursery, self.post)
            if self._talk.desk.line is not None:
                self._nursery.start_soon(self._type, self._talk.desk.line.keypad, name="keypad")
            if greeting := self._talk.agent.persona.greeting:
                self._announce(Announcement(greeting))
            while True:
                self._waiting.deadline = self._silence.due_at(self._turn is not None)
                with self._waiting:
                    event = await self._events.receive()
                if not self._waiting.cancelled_caught:
                    self._react(event)
                self._waiting = trio.CancelScope()
                words = self._silence.next(trio.current_time(), self._turn is not None)
                if words is not None:
                    self._announce(words)

    def press_barge_in(self) -> bool:
        """The caller has pressed the key that interrupts; false: there is nothing to interrupt."""
        is_live = self._may_be_interrupted(self._turn)
        self._interrupt(trio.current_time())
        return is_live

    async def _type(self, keypad: Keypad) -> None:
        while True:
            await self.post.send(Typed(await keypad.typed()))

    def _answer_keys(self, keys: str) -> None:
        """What was typed is what the caller says, and interrupts as that does."""
        self._talk.log.milestone("typed", text=keys)
        self._interrupt(trio.current_time())
        self._lose_speculation()
        if self._turn is not None:
            return  # the goodbye is being said
        self.answers += 1
        self._turn = self._turns.answer_keys(keys)
        self._interrupted, self._lost, self._unheard = None, None, b""
        self._talk.player.release()

    def _react(self, event: PipelineEvent) -> None:
        match event:
            case TurnFinished(turn):
                self._finish(turn)
            case Typed(keys):
                self._answer_keys(keys)
            case Heard():
                self._react_to_speech(event)

    def _react_to_speech(self, heard: Heard) -> None:
        match heard.event:
            case SpeechStarted(confidence):
                self._talk.log.milestone("speech started", confidence=round(confidence, 2))
                self._silence.end()
                self._speculations, self._lost = 0, None
                self._nursery.start_soon(self._talk.agent.keep_warm, name="keep warm")
                if self._may_be_interrupted(self._turn):
                    self._talk.player.hold()
            case SpeechConfirmed():
                self._interrupt(heard.onset)
            case SpeechDoubted():
                self._talk.player.release()
            case SpeechPaused(utterance):
                self._speculate(utterance)
            case SpeechResumed():
                self._lose_speculation()
            case TurnEnded():
                self._end_turn(heard, heard.event)

    def _may_be_interrupted(self, turn: Turn | None) -> bool:
        """Whether the caller can cut a turn short: not the farewell when the time is over."""
        if turn is None or turn is self._farewell or not turn.is_committed:
            return False
        return bool(self._talk.agent.rules.barge_in_ms)

    def _interrupt(self, onset: float) -> None:
        """The caller means it: what the agent is saying, or about to say, is over."""
        turn = self._turn
        if turn is None or not self._may_be_interrupted(turn):
            return
        turn.interrupt(onset)
        self._turn, self._interrupted = None, turn.to_go_on_with
        if turn.words is None:
            # Nobody knows its words yet: they belong to what is being said now.
            self._unheard = turn.utterance

    def _speculate(self, utterance: bytes) -> None:
        """The turn may be over: begin the reply behind a closed gate."""
        if self._turn is None and self._speculations < self._talk.agent.limits.speculations:
            self._speculations += 1
            self._start_answer(utterance)

    def _lose_speculation(self) -> None:
        if self._turn is not None and not self._turn.is_committed:
            self._turn.scope.cancel()
            self._lost, self._turn = self._turn, None
            self._talk.log.milestone(
                "speculation lost", n=self._speculations, tokens=self._lost.reply.tokens
            )

    def _end_turn(self, heard: Heard, ended: TurnEnded) -> None:
        """The caller has finished: the reply is certain now, begun or not."""
        self._talk.log.milestone(
            "speech ended", silence_frames=ended.silence_frames, patient=ended.patient
        )
        self._silence.begin(trio.current_time())
        if ended.confirmed:
            self._interrupt(heard.onset)  # a turn that began while the caller was speaking
        turn = self._turn
        if turn is not None and turn.is_committed:
            # Too short to interrupt with, or not allowed to: the reply goes on.
            self._talk.player.release()
            return
        self._talk.log.milestone("processing", bytes=len(ended.utterance))
        self.answers += 1
        if turn is None:
            turn = self._start_answer(ended.utterance)
        turn.timeline.last_voiced = heard.last_voiced
        turn.timeline.ended = trio.current_time()
        turn.timeline.speculations = self._speculations
        turn.gate.set()
        self._interrupted, self._lost, self._unheard = None, None, b""
        self._talk.player.release()

    def _start_answer(self, utterance: bytes) -> Turn:
        # Its oldest part is let go of: a caller who is never understood must not fill the memory.
        utterance = (self._unheard + utterance)[-MAX_UTTERANCE_BYTES:]
        self._turn = self._turns.answer(utterance, self._interrupted, self._lost)
        return self._turn

    def _announce(self, words: Announcement) -> None:
        if words.is_last:
            if self._turn is not None:
                self._turn.scope.cancel()
            self._talk.player.release()
        self._turn = self._turns.announce(words)
        if words.is_last:
            self._farewell = self._turn

    def _finish(self, turn: Turn) -> None:
        """Draw the consequences of a finished turn."""
        self._silence.finish(turn.announcement, was_heard(turn))
        if turn.is_committed:
            if turn.has_failed:
                self._failures += bool(turn.utterance)
            elif turn.words and turn.outcome is Outcome.HEARD:
                self._failures = self._silence.prompts = 0
        if turn is not self._turn:
            return
        self._turn = None
        self._silence.begin_after_agent(trio.current_time())
        is_cut = turn.outcome is Outcome.CUT
        if turn.transfer is not None and not is_cut:
            self._give(turn.transfer)
        elif (ends_by := turn.ends_call_by) and not is_cut:
            self._hang_up(ends_by)
        elif self._failures >= self._talk.agent.limits.failed_turns:
            self._announce(self._talk.agent.giving_up)
