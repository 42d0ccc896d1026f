"""The vad task: frames in, turn events out.

Time in a turn is counted in the caller's own frames, so that jitter on the way cannot cut a word.
Only where no frames come at all does the clock speak: after `GAP_S` without media an open turn is
ended (some carriers send nothing in silence), after `no_media_s` the call is.

How long a silence ends a turn depends on what was said before it, as far as somebody knows: a live
recogniser's partial words are judged as they change in a silence, a batch recogniser's once, when
the turn that speculates about them has them (`note_words`).
"""

from __future__ import annotations

import trio

from ..audio import SILENCE_FRAME
from ..contracts import Dialogue, LiveTranscription, Transcription, TurnHint, Voicing
from ..dialogue.endpointing import may_go_on
from ..dialogue.turns import Detector, SpeechStarted, TurnEnded, TurnEvent, TurnState
from .agent import Agent
from .events import Heard, PipelineEvent

GAP_S = 0.6
"""Longer than networks stall (half a second), shorter than a caller waits for an answer."""


class Hearing:
    """One call's ears.  `language` is BCP-47: that in which the caller is listened to."""

    def __init__(
        self,
        agent: Agent,
        listener: Transcription | Dialogue,
        post: trio.MemorySendChannel[PipelineEvent],
        language: str,
    ) -> None:
        self.patient_turns = 0
        """Turns whose end waited for the long silence."""
        self.gaps = 0
        """Times that no media came for longer than `GAP_S`."""
        self._vad = agent.vad()
        self._detector = Detector(agent.rules)
        self._feed = listener.feed
        self._live = listener if isinstance(listener, LiveTranscription) else None
        self._judged = ""
        """The partial words that the detector's patience is about, in this silence."""
        self._language = language
        self._patience_s = agent.rules.long_silence_ms / 1000
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
        now = trio.current_time()
        self.gaps += now > self._last_media + GAP_S
        self._last_media = now
        if voicing is Voicing.VOICED:
            self._last_voiced = now
        hint = None if self._live is None else self._consult(self._live, voicing)
        for event in self._detector.hear(frame, voicing, hint):
            if isinstance(event, SpeechStarted):
                self._onset = now - event.since_ms / 1000
            self._tell(event)

    def note_words(self, text: str) -> None:
        """Take the words of the present utterance as they were understood at its pause."""
        if self._detector.state is TurnState.PAUSED:
            self._detector.patient = may_go_on(text, self._language)

    def _consult(self, live: LiveTranscription, voicing: Voicing) -> TurnHint | None:
        """Ask a live recogniser what it has concluded; judge its words if they are news."""
        if voicing is Voicing.VOICED:
            self._judged = ""
        elif self._detector.state is not TurnState.QUIET:
            self._judge(live.partial)
        return live.hint()

    def _judge(self, words: str) -> None:
        if words and words != self._judged:
            self._judged = words
            self._detector.patient = may_go_on(words, self._language)

    def _tell(self, event: TurnEvent) -> None:
        if isinstance(event, TurnEnded):
            self.patient_turns += event.patient
        self._post.send_nowait(Heard(event, self._last_voiced, self._onset))

    def _hear_nothing(self) -> None:
        """No media came for a while: if the caller was speaking, that was the end, or nearly."""
        if self._live is not None:
            self._judge(self._live.partial)
        if self._detector.patient and trio.current_time() < self._last_media + self._patience_s:
            return
        while self._detector.state is not TurnState.QUIET:
            for event in self._detector.hear(SILENCE_FRAME, Voicing.SILENT):
                self._tell(event)
