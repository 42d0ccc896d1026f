"""The caller's sound between the line and the ears: cut into frames, and never waited for."""

from __future__ import annotations

import trio

from ..audio.framing import Framer
from .hearing import Hearing
from .timeline import CallLog

FRAMES_WAITING = 50
"""One second of the caller's sound between receive and vad.  Full: the newest is dropped and
counted; receive must not wait, or nobody answers pings any more."""


class Inbound:
    """One call's inbound sound."""

    def __init__(self) -> None:
        self.log = CallLog("")
        self.dropped_frames = self.gaps = 0
        self._framer = Framer()
        self._hearing: Hearing | None = None
        self._send_frame, self._frames = trio.open_memory_channel[bytes](FRAMES_WAITING)

    def __repr__(self) -> str:
        return f"<Inbound dropped={self.dropped_frames} gaps={self.gaps}>"

    def take(self, audio: bytes) -> None:
        """Judge a frame that comes alone at once; what comes in a burst waits for `listen_with`.

        Waking a task costs more than judging a frame does.
        """
        frames = self._framer.feed(audio)
        if len(frames) == 1 and self._hearing is not None and not self._is_behind():
            self._hearing.hear(frames[0])
            return
        for frame in frames:
            try:
                self._send_frame.send_nowait(frame)
            except trio.WouldBlock:
                if not self.dropped_frames:
                    self.log.milestone("dropping frames", waiting=FRAMES_WAITING)
                self.dropped_frames += 1

    async def listen_with(self, hearing: Hearing) -> None:
        """Let `hearing` hear everything, until there was nothing to hear for too long."""
        self._hearing = hearing
        try:
            await hearing.run(self._frames)
        finally:
            self._hearing = None
            self.gaps = hearing.gaps

    def note_words(self, words: str) -> None:
        """Tell the ears the words of an utterance that may not be over yet."""
        if self._hearing is not None:
            self._hearing.note_words(words)

    def _is_behind(self) -> bool:
        return self._frames.statistics().current_buffer_used > 0
