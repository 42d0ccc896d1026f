"""A call's turns as tasks: how each begins, and who is told of its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import trio

from ..contracts import Transcription
from .cascade import CascadeTurn
from .duplex import SpokenTurn
from .events import PipelineEvent, TurnFinished
from .keypad import as_words
from .phrases import Announcement
from .timeline import CallLog
from .turn import Conversation, Outcome, Turn


class LiveTurns:
    """Starts turns, in a nursery that it is given, and says when they are over."""

    def __init__(
        self,
        conversation: Conversation,
        nursery: trio.Nursery,
        post: trio.MemorySendChannel[PipelineEvent],
    ) -> None:
        self._talk = conversation
        self._nursery = nursery
        self._post = post
        self._names = count(1)

    def answer(self, utterance: bytes, interrupted: Turn | None, lost: Turn | None) -> Turn:
        """Begin to answer what was said.  The other turns: see `Turn`."""
        turn = self._new(interrupted, lost)
        return self._start(turn, partial(turn.answer, utterance))

    def answer_keys(self, keys: str) -> Turn:
        """Answer what was typed: it is certain already."""
        turn = self._new()
        turn.timeline.last_voiced = turn.timeline.ended = trio.current_time()
        return self._start(turn, partial(turn.answer_words, as_words(keys)))

    def announce(self, words: Announcement) -> Turn:
        """Say something of our own accord."""
        turn = self._new()
        return self._start(turn, partial(turn.announce, words))

    def _new(self, interrupted: Turn | None = None, lost: Turn | None = None) -> Turn:
        return new_turn(self._talk, f"t{next(self._names)}", interrupted, lost)

    def _start(self, turn: Turn, act: Callable[[], Awaitable[None]]) -> Turn:
        self._nursery.start_soon(self._follow, turn, act, name=f"turn {turn.name}")
        return turn

    async def _follow(self, turn: Turn, act: Callable[[], Awaitable[None]]) -> None:
        """Run a turn to its end, whatever end, and say so."""
        await act()
        report(turn, self._talk.log)
        self._post.send_nowait(TurnFinished(turn))


def new_turn(
    conversation: Conversation, name: str, interrupted: Turn | None = None, lost: Turn | None = None
) -> Turn:
    """Return a turn of the kind that who listens makes it."""
    kind = CascadeTurn if isinstance(conversation.listener, Transcription) else SpokenTurn
    return kind(conversation, name, interrupted, lost)


def report(turn: Turn, log: CallLog, **more: object) -> None:
    """Log what a finished turn was like, and `more` of it."""
    timeline = turn.timeline
    if turn.outcome is Outcome.HEARD and timeline.gap is not None:
        log.milestone(
            "turn done",
            turn=turn.name,
            gap=round(timeline.gap, 3),
            speculations=timeline.speculations,
            speculated=timeline.speculated,
            **timeline.breakdown(),
            **timeline.cost(),
            **more,
        )
    if turn.outcome in (Outcome.HEARD, Outcome.SILENT, Outcome.FAILED):
        log.milestone("ready")


def was_heard(turn: Turn) -> bool:
    """Return whether a finished turn was heard, in part at least, or is not worth another try."""
    speech = turn.reply.speech
    is_cut = turn.outcome is Outcome.CUT and not turn.has_failed
    return not is_cut or bool(speech.spoken.heard(speech.confirmed))
