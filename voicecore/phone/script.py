"""What the caller does next, frame by frame: pure, driven by what was heard so far.

Each file is said after the agent's reply to the one before (or its greeting) was heard to its end,
or a given time into it; where the carrier records, when a recording begins.  Nothing waits for
ever: an agent that stays silent is given up after `Manners.patience_s`, and then the next file is
said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .loudness import QUIET_FRAME, frames_of, voiced_frames
from .turns import Floor, TurnRecorder


@dataclass(frozen=True, slots=True)
class Manners:
    """How a caller takes turns, in seconds."""

    greeting_wait_s: float = 5.0
    """How long a silent line is given to greet."""
    patience_s: float = 15.0
    """How long a reply may take to begin."""
    interrupt_at_s: float | None = None
    """Talk over each reply that has a next file to say, this long after its beginning."""
    lingers_s: float = 0.0
    """Hang up only when there was nothing more to hear for so long, as an answering machine."""


class Voice(Protocol):
    """Where the caller's frames come from."""

    def frame(self, log: TurnRecorder) -> tuple[bytes, bool] | None:
        """Return the next 160 bytes and whether there is speech in them; None: hang up."""


class Utterance:
    """One file, cut and measured once however many calls say it."""

    def __init__(self, name: str, audio: bytes) -> None:
        """Take 8 kHz mu-law of any length."""
        self.name = name
        self.frames = frames_of(audio)
        self.voiced = voiced_frames(self.frames)

    def __repr__(self) -> str:
        return f"<Utterance {self.name} {len(self.frames) * 0.02:.2f} s>"


class Script:
    """A caller that says files, each in its turn, and then hangs up."""

    def __init__(self, utterances: Sequence[Utterance], manners: Manners | None = None) -> None:
        self._manners = manners or Manners()
        self._ahead = list(utterances)
        # With one file there is no reply to talk over but the greeting.
        self._greeting_too = len(self._ahead) == 1
        self._saying: Utterance | None = None
        self._at = 0
        self._silent_since = 0.0
        self._over_since: float | None = None
        """Since when there is nothing left to say, and nothing to hear."""

    def __repr__(self) -> str:
        return f"<Script says {self._saying}, {len(self._ahead)} ahead>"

    def frame(self, log: TurnRecorder) -> tuple[bytes, bool] | None:
        """Return the next frame to say, by what the log has heard; None: hang up."""
        if log.now == 0:
            self._silent_since = 0.0
        if self._saying is None and self._my_turn(log):
            if not self._ahead:
                return self._linger(log.now)
            self._saying, self._at = self._ahead.pop(0), 0
            log.begin(self._saying.name)
        else:
            self._over_since = None
        saying = self._saying
        if saying is None or self._at >= len(saying.frames):
            self._saying = None
            return QUIET_FRAME, False
        said = saying.frames[self._at], saying.voiced[self._at]
        self._at += 1
        if self._at == len(saying.frames):
            self._saying, self._silent_since = None, log.now
        return said

    def _linger(self, now: float) -> tuple[bytes, bool] | None:
        if self._over_since is None:
            self._over_since = now
        is_over = now - self._over_since >= self._manners.lingers_s
        return None if is_over else (QUIET_FRAME, False)

    def _my_turn(self, log: TurnRecorder) -> bool:
        if log.floor is not Floor.OPEN:
            return log.floor is Floor.GIVEN
        if log.reply is not None:
            return self._interrupts(log)
        turn = log.turns[-1]
        if turn.answer is not None:
            return True
        greeting = turn.said is None
        patience = self._manners.greeting_wait_s if greeting else self._manners.patience_s
        return log.now - self._silent_since >= patience

    def _interrupts(self, log: TurnRecorder) -> bool:
        after, turn = self._manners.interrupt_at_s, log.turns[-1]
        if after is None or not self._ahead or log.reply is not turn.answer:
            return False
        if turn.said is None and not self._greeting_too:
            return False
        return log.reply is not None and log.now - log.reply.start >= after - 1e-6
