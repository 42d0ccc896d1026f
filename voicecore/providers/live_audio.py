"""A call's audio as far as it may have to be sent, or sent again, and where it lies in time.

Positions are bytes since the call began: 8000 are a second of the line.  A vendor counts seconds of
what it was sent, which is not the same: a session begins late, skips what was dropped, and is kept
alive with silence that was never on the line.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from ..audio import SAMPLE_RATE

SEARCHED_BYTES = 6 * SAMPLE_RATE
"""How long ago an utterance may have ended when its words are asked for: another recogniser may
have been asked before, and have taken its time."""

TAIL_BYTES = SAMPLE_RATE
"""Enough of an utterance to find it by: it holds speech, which never comes twice."""

PIECES = 512


class HeldAudio:
    """The newest audio of a call, contiguous, from `start` to `end`."""

    def __init__(self) -> None:
        self.start = 0
        self._data = bytearray()
        self._recent = bytearray()
        """The end of the line, held or not: to find an utterance in."""

    @property
    def end(self) -> int:
        """How much has been on the line."""
        return self.start + len(self._data)

    def append(self, audio: bytes) -> None:
        """Take what comes next on the line."""
        self._data += audio
        self._recent += audio
        if len(self._recent) > 2 * (SEARCHED_BYTES + TAIL_BYTES):
            del self._recent[: -(SEARCHED_BYTES + TAIL_BYTES)]

    def read(self, position: int, most: int) -> bytes:
        """Return at most so many bytes from a position that is held."""
        at = position - self.start
        return bytes(self._data[at : at + most])

    def forget(self, before: int) -> None:
        """Let go of what lies before a position."""
        size = max(0, min(before - self.start, len(self._data)))
        del self._data[:size]
        self.start += size

    def end_of(self, utterance: bytes) -> int:
        """Return where `utterance` ends, by its own bytes; the end of all if it is not found."""
        tail = utterance[-TAIL_BYTES:]
        searched = self._recent[-(SEARCHED_BYTES + len(tail)) :]
        at = searched.rfind(tail)
        return self.end if at < 0 else self.end - len(searched) + at + len(tail)


@dataclass(slots=True)
class _Piece:
    """So much sent from one position on; `advance` is how much of it is of the line."""

    sent: int
    position: int
    advance: int


class StreamClock:
    """Where on the line the moments of one session's stream lie."""

    def __init__(self) -> None:
        self.sent = 0
        """Bytes, silence of our own included."""
        self._pieces: deque[_Piece] = deque(maxlen=PIECES)

    def note_audio(self, position: int, size: int) -> None:
        """So much of the line was sent, from `position` on."""
        last = self._pieces[-1] if self._pieces else None
        if (
            last is not None
            and last.position + last.advance == position
            and last.sent + last.advance == self.sent
        ):
            last.advance += size
        else:
            self._pieces.append(_Piece(self.sent, position, size))
        self.sent += size

    def note_silence(self, size: int) -> None:
        """So much was sent that was never on the line."""
        last = self._pieces[-1] if self._pieces else _Piece(0, 0, 0)
        if not self._pieces or last.advance:
            self._pieces.append(_Piece(self.sent, last.position + last.advance, 0))
        self.sent += size

    def position(self, seconds: float) -> int:
        """Return where on the line a moment of the stream lies."""
        moment = round(max(0.0, min(seconds * SAMPLE_RATE, self.sent)))
        position = 0
        for piece in reversed(self._pieces):
            position = piece.position
            if piece.sent <= moment:
                return position + min(moment - piece.sent, piece.advance)
        return position
