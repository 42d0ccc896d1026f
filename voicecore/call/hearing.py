"""The vad task: frames in, turn events out.

Time in a turn is counted in the caller's own frames, so that jitter on the way cannot cut a word.
Only where no frames come at all does the clock speak: after `GAP_S` without media an open turn is
ended (some carriers send nothing in silence), after `no_media_s` the call is.
"""

from __future__ import annotations

import trio

from ..audio import SILENCE_FRAME
from ..contracts import Transcription, Voicing
from ..dialogue.turns import Detector, SpeechStarted, TurnState
from .agent import Agent
from .pipeline import Heard, TurnFinished

GAP_S = 0.6
"""Longer than networks stall (half a second), shorter than a caller waits for an answer."""


class Hearing:
    """One call's ears."""

    def __init__(
        self,
        agent: Agent,
        transcription: Transcription,
        post: trio.MemorySendChannel[Heard | TurnFinished],
    ) -> None:
        self._vad = agent.vad()
        self._detector = Detector(agent.rules)
        self._feed = transcription.feed
        self._no_media_s = agent.limits.no_media_s
        self._post = post
        self._onset = self._last_voiced = self._last_media = trio.current_time()

    async def run(self, frames: trio.MemoryReceiveChannel[bytes]) -> None:
        """Hear what has piled up, and watch the silence, until no media came for too long."""
        while (now := trio.current_time()) < self._last_media + self._no_media_s:
            with trio.move_on_at(max(self._last_media, now - GAP_S / 2) + GAP_S):
                while True:
                    self.hear(await frames.receive())
            if trio.current_time() >= self._last_media + GAP_S:
                self._hear_nothing()

    def hear(self, frame: bytes) -> None:
        """Take one frame."""
        voicing = self._vad.hear(frame)
        self._feed(frame)
        now = self._last_media = trio.current_time()
        if voicing is Voicing.VOICED:
            self._last_voiced = now
        for event in self._detector.hear(frame, voicing):
            if isinstance(event, SpeechStarted):
                self._onset = now - event.since_ms / 1000
            self._post.send_nowait(Heard(event, self._last_voiced, self._onset))

    def _hear_nothing(self) -> None:
        """No media came for a while: if the caller was speaking, that was the end."""
        while self._detector.state is not TurnState.QUIET:
            for event in self._detector.hear(SILENCE_FRAME, Voicing.SILENT):
                self._post.send_nowait(Heard(event, self._last_voiced, self._onset))
