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

FRAMES_PER_DEADLINE = 5
"""Moving a deadline costs half as much as judging a frame; 100 ms late is no matter here."""

FRAME_S = 0.02


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
        self._onset = self._last_voiced = trio.current_time()

    async def run(self, frames: trio.MemoryReceiveChannel[bytes]) -> None:
        """Hear until no media has come for the agent's `no_media_s`."""
        last_media = trio.current_time()
        while trio.current_time() < last_media + self._no_media_s:
            with trio.CancelScope(deadline=trio.current_time() + GAP_S) as gap:
                count = 0
                while True:  # `async for` is one call more, fifty times a second
                    self.hear(await frames.receive())
                    count += 1
                    if count % FRAMES_PER_DEADLINE == 1:
                        last_media = trio.current_time()
                        gap.deadline = last_media + GAP_S + FRAMES_PER_DEADLINE * FRAME_S
            self._hear_nothing()

    def hear(self, frame: bytes) -> None:
        """Take one frame."""
        voicing = self._vad.hear(frame)
        self._feed(frame)
        if voicing is Voicing.VOICED:
            self._last_voiced = trio.current_time()
        for event in self._detector.hear(frame, voicing):
            if isinstance(event, SpeechStarted):
                self._onset = trio.current_time() - event.since_ms / 1000
            self._post.send_nowait(Heard(event, self._last_voiced, self._onset))

    def _hear_nothing(self) -> None:
        """No media came for a while: if the caller was speaking, that was the end."""
        while self._detector.state is not TurnState.QUIET:
            for event in self._detector.hear(SILENCE_FRAME, Voicing.SILENT):
                self._post.send_nowait(Heard(event, self._last_voiced, self._onset))
