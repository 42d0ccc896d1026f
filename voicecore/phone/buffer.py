"""The carrier's playback buffer, without I/O: what the caller really hears, 20 ms at a time.

The model is Twilio's: one first-in-first-out queue of audio and marks, played in real time.  A mark
is echoed when everything before it has been played, at once if nothing is queued; `clear` throws
the audio away and echoes every pending mark in order.  When the queue runs dry the caller hears
silence and nobody is told.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FRAME_BYTES = 160
SILENCE = b"\xff"


@dataclass(frozen=True, slots=True)
class Played:
    """Twenty milliseconds of the caller's ear.

    `audio` is always 160 bytes; the first `queued` of them came from the server, the rest is
    silence.  `marks` were reached within them, in order, and are to be echoed now.
    """

    audio: bytes
    queued: int
    marks: tuple[str, ...] = ()


class PlaybackBuffer:
    """Audio and marks waiting to be played."""

    def __init__(self) -> None:
        self._queue: deque[memoryview | str] = deque()
        self.queued_bytes = 0
        """Audio not yet played."""
        self.pending_marks = 0
        """Marks not yet reached."""

    def __repr__(self) -> str:
        return f"<PlaybackBuffer {self.queued_bytes / 8:.0f} ms, {len(self._queue)} entries>"

    def media(self, audio: bytes) -> None:
        """Append audio of any length."""
        if audio:
            # A view, so that playing the front of a long payload copies 160 bytes, not the rest.
            self._queue.append(memoryview(audio))
            self.queued_bytes += len(audio)

    def mark(self, name: str) -> tuple[str, ...]:
        """Append a mark; return the marks to echo at once (this one, if nothing is queued)."""
        if not self._queue:
            return (name,)
        self._queue.append(name)
        self.pending_marks += 1
        return ()

    def clear(self) -> tuple[str, ...]:
        """Throw the audio away; return the pending marks, all to be echoed at once."""
        marks = tuple(entry for entry in self._queue if isinstance(entry, str))
        self._queue.clear()
        self.queued_bytes = self.pending_marks = 0
        return marks

    def play(self) -> Played:
        """Let 20 ms pass."""
        heard = bytearray()
        marks: list[str] = []
        queue = self._queue
        while queue:
            entry = queue[0]
            if isinstance(entry, str):
                marks.append(entry)
                queue.popleft()
                continue
            room = FRAME_BYTES - len(heard)
            if room == 0:
                break
            heard += entry[:room]
            if len(entry) > room:
                queue[0] = entry[room:]
                break
            queue.popleft()
        self.queued_bytes -= len(heard)
        self.pending_marks -= len(marks)
        return Played(bytes(heard).ljust(FRAME_BYTES, SILENCE), len(heard), tuple(marks))
