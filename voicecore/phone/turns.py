"""What happened in a call, in turns: a pure recorder of the frames that were said and heard.

One `TurnRecorder.tick` is 20 ms of the call, and ticks are the only clock.  A frame said at tick
*n* was spoken in the 20 ms before it, a frame heard at tick *n* sounds in the 20 ms after it; so a
gap of 0 means that the reply began in the very moment in which the last voiced frame was sent.

Rules that hold here:

* A turn is one utterance of the caller and the replies after it; turn 0 has no utterance, its
  reply is the greeting.
* A reply begins with the first audible frame and ends when the agent was silent for `REPLY_END_S`
  with no mark pending, or with a `clear`.
* An underrun is a dry spell of the playback buffer between two audible frames of one reply: silence
  inside speech.  While the caller talks over a reply, silence is what the agent should give, and
  none is counted.
* What is heard of a reply while the caller talks over it belongs to that reply, until it is cleared
  or falls silent.
* On a stream both sides may talk at any time: the floor is open.  Where the carrier plays and
  records it is not: nobody hears the caller until a recording gives the floor, for one utterance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from .buffer import FRAME_BYTES, Played
from .loudness import is_audible

TICK_S = 0.02
REPLY_END_S = 0.6
"""Silence that ends a reply: longer than a pause between two sentences."""

YIELDED_S = 0.1
"""Silence that ends an interrupted reply which was not cleared, once the caller is done, too."""

_BYTES_PER_S = FRAME_BYTES / TICK_S


class Floor(Enum):
    """Whether the caller may talk."""

    OPEN = auto()
    """Whenever they think it right."""
    CLOSED = auto()
    """Nobody would hear it."""
    GIVEN = auto()
    """Now, whatever they have heard."""


@dataclass(slots=True)
class Underrun:
    """The buffer ran dry inside speech: when (seconds into the stream), and for how long."""

    at: float
    seconds: float


@dataclass(slots=True)
class Reply:
    """One uninterrupted stretch of the agent.  All times are seconds since the stream began."""

    start: float
    """When its first audible frame began to sound."""
    end: float
    """When its last audible frame was over."""
    heard_s: float = 0.0
    """How much of the server's audio was played within it."""
    marks: int = 0
    underruns: list[Underrun] = field(default_factory=list)
    interrupted_at: float | None = None
    """When the caller began to talk over it."""
    cleared_at: float | None = None

    @property
    def yield_s(self) -> float | None:
        """How long it was still heard after the caller had begun to talk over it."""
        return None if self.interrupted_at is None else max(0.0, self.end - self.interrupted_at)

    @property
    def clear_s(self) -> float | None:
        """How long after the caller's first word `clear` came."""
        if self.interrupted_at is None or self.cleared_at is None:
            return None
        return self.cleared_at - self.interrupted_at


@dataclass(slots=True)
class Turn:
    """One utterance (none: the greeting's turn) and what the agent answered."""

    said: str | None
    speech_start: float | None = None
    speech_end: float | None = None
    """When the last voiced frame so far was sent."""
    replies: list[Reply] = field(default_factory=list)

    @property
    def answer(self) -> Reply | None:
        """The first reply that was still heard after the caller's last voiced frame."""
        after = 0.0 if self.speech_end is None else self.speech_end
        return next((reply for reply in self.replies if reply.end > after), None)

    @property
    def gap(self) -> float | None:
        """Last voiced frame to first audible frame; negative: the agent talked over the caller."""
        answer = self.answer
        if answer is None or self.speech_end is None:
            return None
        return answer.start - self.speech_end


class TurnRecorder:
    """Turns one call's frames into turns."""

    def __init__(self) -> None:
        self.turns = [Turn(None)]
        self.reply: Reply | None = None
        """The reply that is being heard."""
        self.floor = Floor.OPEN
        self._owner = self.turns[0]
        self._ticks = 0
        self._dry_s = self._dry_at = 0.0

    def __repr__(self) -> str:
        return f"<TurnRecorder {self.now:.2f} s, {len(self.turns)} turns, now {self.reply}>"

    @property
    def now(self) -> float:
        """Seconds since the stream began, to the tick."""
        return self._ticks * TICK_S

    def begin(self, said: str) -> None:
        """Say that the caller's next utterance starts with the next tick."""
        self.turns.append(Turn(said))
        if self.floor is Floor.GIVEN:
            self.floor = Floor.CLOSED

    def give_floor(self) -> None:
        """Have the caller talk now; the reply before it, whose last frame was played, is over."""
        self.floor, self.reply = Floor.GIVEN, None

    def tick(self, voiced: bool, played: Played, pending_marks: int = 0) -> None:
        """Let 20 ms pass, in which the caller's frame was `voiced` and `played` began to sound."""
        self._ticks += 1
        if voiced:
            self._voiced()
        audible = played.queued > 0 and is_audible(played.audio)
        if audible:
            self._audible(played)
        reply = self.reply
        if reply is not None:
            reply.marks += len(played.marks)
            if not audible:
                self._silent(played, reply, pending_marks)

    def clear(self, marks: int = 0) -> None:
        """Take the server's `clear`, which flushed so many marks."""
        if self.reply is not None:
            self.reply.cleared_at = self.now
            self.reply.marks += marks
            self.reply = None

    def _voiced(self) -> None:
        turn = self.turns[-1]
        turn.speech_end = self.now
        if turn.speech_start is None:
            turn.speech_start = self.now - TICK_S
        reply = self.reply
        if reply is not None and self._owner is not turn and reply.interrupted_at is None:
            reply.interrupted_at = self.now - TICK_S

    def _audible(self, played: Played) -> None:
        reply = self.reply
        if reply is None:
            self.reply = reply = Reply(self.now, self.now)
            self._owner = self.turns[-1]
            self._owner.replies.append(reply)
        elif self._dry_s and reply.interrupted_at is None:
            reply.underruns.append(Underrun(self._dry_at, self._dry_s))
        self._dry_s = 0.0
        reply.heard_s += played.queued / _BYTES_PER_S
        reply.end = self.now + played.queued / _BYTES_PER_S
        self._dry(played)

    def _silent(self, played: Played, reply: Reply, pending_marks: int) -> None:
        reply.heard_s += played.queued / _BYTES_PER_S
        self._dry(played)
        silent = self.now + TICK_S - reply.end
        if (silent >= REPLY_END_S - 1e-6 and not pending_marks) or self._yielded(reply, silent):
            self.reply = None

    def _dry(self, played: Played) -> None:
        missing = FRAME_BYTES - played.queued
        if missing:
            if not self._dry_s:
                self._dry_at = self.now + played.queued / _BYTES_PER_S
            self._dry_s += missing / _BYTES_PER_S

    def _yielded(self, reply: Reply, silent: float) -> bool:
        if reply.interrupted_at is None or silent < YIELDED_S - 1e-6:
            return False
        last_voiced = self.turns[-1].speech_end
        return last_voiced is not None and self.now - last_voiced >= YIELDED_S - 1e-6
