"""From turn events to turns: when one starts, is lost, is interrupted, or is all there is to say.

Every reaction is synchronous: it starts a task, opens a gate or cancels a scope, and the loop is
back at its channel.  At most one turn is live and one is still unwinding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import trio

from ..dialogue.turns import (
    SpeechConfirmed,
    SpeechDoubted,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    TurnEnded,
    TurnEvent,
)
from .turn import Conversation, Outcome, Turn


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn event, and when its last voiced frame and its first came from the line."""

    event: TurnEvent
    last_voiced: float
    onset: float


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """A turn's task has come to its end."""

    turn: Turn


PipelineEvent = Heard | TurnFinished


class Pipeline:
    """One call's turns.  `events` come from the vad task and, as turns finish, from ourselves."""

    def __init__(
        self,
        conversation: Conversation,
        events: tuple[
            trio.MemorySendChannel[PipelineEvent], trio.MemoryReceiveChannel[PipelineEvent]
        ],
        hang_up: Callable[[Literal["agent"]], None],
    ) -> None:
        self.turns = 0
        self._talk = conversation
        self._post, self._events = events
        self._hang_up = hang_up
        self._turn: Turn | None = None
        """The live turn: being speculated about, produced, or heard."""
        self._interrupted: Turn | None = None
        """The turn that the caller's present speech has cut."""
        self._unheard = b""
        """Utterances whose turns were cut before anybody knew their words."""
        self._speculations = 0
        self._failures = 0
        self._prompts = 0
        self._idle_since = trio.current_time()
        self._must_end_at = conversation.log.began + conversation.agent.limits.max_call_s

    async def run(self) -> None:
        """Greet, then react until cancelled."""
        async with trio.open_nursery() as self._nursery:
            if greeting := self._talk.agent.persona.greeting:
                self._announce(greeting)
            while True:
                with trio.move_on_at(min(self._idle_at(), self._must_end_at)) as patience:
                    event = await self._events.receive()
                if patience.cancelled_caught:
                    self._run_out_of_patience()
                elif isinstance(event, TurnFinished):
                    self._finish(event.turn)
                else:
                    self._react(event)

    def _react(self, heard: Heard) -> None:
        match heard.event:
            case SpeechStarted(confidence):
                self._talk.log.milestone("speech started", confidence=round(confidence, 2))
                self._idle_since = math.inf
                self._speculations = 0
                if self._talk.agent.rules.barge_in_ms:
                    self._talk.player.hold()
            case SpeechConfirmed():
                self._interrupt(heard)
            case SpeechDoubted():
                self._talk.player.release()
            case SpeechPaused(utterance):
                self._speculate(utterance, heard)
            case SpeechResumed():
                self._lose_speculation()
            case TurnEnded():
                self._end_turn(heard, heard.event)

    def _interrupt(self, heard: Heard) -> None:
        """The caller means it: what the agent is saying, or about to say, is over."""
        turn = self._turn
        if turn is None or not turn.is_committed:
            return
        turn.scope.cancel()
        self._turn, self._interrupted = None, turn
        if turn.words is None:
            self._unheard, self._interrupted = turn.utterance, None
        spoken, player = turn.reply.speech, self._talk.player
        self._talk.log.milestone(
            "interrupted",
            turn=turn.name,
            heard=spoken.spoken.heard(player.heard(spoken)),
            reaction_ms=round((trio.current_time() - heard.onset) * 1000),
        )

    def _speculate(self, utterance: bytes, heard: Heard) -> None:
        """The turn may be over: begin the reply behind a closed gate."""
        if self._turn is None and self._speculations < self._talk.agent.limits.speculations:
            self._speculations += 1
            self._start_answer(utterance, heard)

    def _lose_speculation(self) -> None:
        if self._turn is not None and not self._turn.is_committed:
            self._turn.scope.cancel()
            self._turn = None
            self._talk.log.milestone("speculation lost", n=self._speculations)

    def _end_turn(self, heard: Heard, ended: TurnEnded) -> None:
        """The caller has finished: the reply is certain now, begun or not."""
        self._talk.log.milestone("speech ended", silence_frames=ended.silence_frames)
        self._idle_since = trio.current_time()
        turn = self._turn
        if turn is not None and turn.is_committed:
            # Too short to interrupt with: the reply goes on as if nothing had been said.
            self._talk.player.release()
            return
        speech_bytes = len(ended.utterance)
        self._talk.log.milestone("processing", bytes=speech_bytes)
        if turn is None:
            turn = self._start_answer(ended.utterance, heard)
        turn.timeline.last_voiced = heard.last_voiced
        turn.timeline.speculations = self._speculations
        turn.gate.set()
        self._interrupted, self._unheard = None, b""
        self._talk.player.release()

    def _start_answer(self, utterance: bytes, heard: Heard) -> Turn:
        turn = self._new_turn()
        self._nursery.start_soon(
            self._follow, turn, turn.answer, self._unheard + utterance, self._interrupted
        )
        return turn

    def _announce(self, text: str, ends_call: bool = False) -> None:
        turn = self._new_turn()
        self._nursery.start_soon(self._follow, turn, turn.announce, text, ends_call)

    def _new_turn(self) -> Turn:
        self.turns += 1
        self._turn = Turn(self._talk, f"t{self.turns}")
        return self._turn

    async def _follow(self, turn: Turn, act: Callable[..., object], *args: object) -> None:
        """Run a turn to its end, whatever end, and say so."""
        await act(*args)  # type: ignore[misc]
        self._post.send_nowait(TurnFinished(turn))

    def _finish(self, turn: Turn) -> None:
        """Draw the consequences of a finished turn."""
        self._report(turn)
        if turn is not self._turn:
            return
        self._turn = None
        self._idle_since = trio.current_time()
        limits, words = self._talk.agent.limits, self._talk.agent.persona.stock_words
        if turn.words:
            self._prompts = 0
        self._failures = self._failures + 1 if turn.outcome is Outcome.FAILED else 0
        if turn.reply.ends_call and turn.outcome is not Outcome.CUT:
            self._hang_up("agent")
        elif self._failures >= limits.failed_turns:
            self._announce(words.give_up, ends_call=True)

    def _report(self, turn: Turn) -> None:
        timeline = turn.timeline
        if turn.outcome is Outcome.HEARD and timeline.gap is not None:
            self._talk.log.milestone(
                "turn done",
                turn=turn.name,
                gap=round(timeline.gap, 3),
                speculations=timeline.speculations,
                **timeline.breakdown(),
            )
        if turn.outcome in (Outcome.HEARD, Outcome.NOTHING, Outcome.FAILED):
            self._talk.log.milestone("ready")

    def _idle_at(self) -> float:
        """When the silence will have lasted long enough to say something about it."""
        patience = self._talk.agent.limits.idle_prompt_s
        if self._turn is not None or not patience:
            return math.inf
        return self._idle_since + patience

    def _run_out_of_patience(self) -> None:
        """Nobody says anything, or everything has been said."""
        words, limits = self._talk.agent.persona.stock_words, self._talk.agent.limits
        if trio.current_time() >= self._must_end_at:
            self._must_end_at = math.inf
            if self._turn is not None:
                self._turn.scope.cancel()
            self._announce(words.goodbye, ends_call=True)
        elif self._prompts < limits.idle_prompts:
            self._prompts += 1
            self._announce(words.still_there)
        else:
            self._announce(words.goodbye, ends_call=True)
