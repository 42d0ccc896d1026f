"""What a model with a memory of its own knows of one reply.

It must be what the caller heard of the reply, no more and no less, and which tools were used: when
a reply is over, for now or for good, `settle` tells the model what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..audio import SAMPLE_RATE
from ..contracts import Dialogue, SpokenAnswer
from .speech import Speech
from .tool_run import ToolRun


@dataclass(slots=True)
class Part:
    """The stretch of a speech that is one answer of the model; without `start`, it is silent."""

    answer: SpokenAnswer
    step: int
    """How often the model had been asked before."""
    start: int | None = None
    end: int = 0

    def reach(self, start: int, end: int) -> None:
        """More of it lies between two bytes."""
        self.start = start if self.start is None else self.start
        self.end = end

    def heard_ms(self, position: int) -> int:
        """Return how much of it was heard when `position` bytes of the speech were."""
        if self.start is None:
            return 0
        return max(0, min(position, self.end) - self.start) * 1000 // SAMPLE_RATE


class Recollection:
    """One reply's."""

    def __init__(self, dialogue: Dialogue, speech: Speech) -> None:
        self._dialogue = dialogue
        self._speech = speech
        self._parts: list[Part] = []
        """The answers that the model may have to be told how much was heard of."""
        self._told: dict[str, str] = {}
        """Results by their calls' ids."""
        self._own = ""
        """What the agent says behind the answers without the model."""
        self._own_from = 0
        self._is_hushed = False
        self._known = ""
        """The text that the model knows of, apart from these answers."""

    def __repr__(self) -> str:
        return f"<Recollection of {len(self._parts)} answers>"

    @property
    def is_settled(self) -> bool:
        """Whether the model knows of nothing but what it was told."""
        return not self._parts

    def begin(self, answer: SpokenAnswer, step: int) -> Part:
        """The model is asked: return the part of the speech that will be its answer."""
        part = Part(answer, step)
        self._parts.append(part)
        return part

    def note_results(self, runs: Iterable[ToolRun]) -> None:
        """Tell the model what became of its calls; of a spared tool, only that it still runs.

        Its result is told by the call, which may live longer than the reply.
        """
        for run in runs:
            text = run.message().text
            is_told = run.is_spared and run.done.is_set()
            if not is_told and self._told.get(run.call.id) != text:
                self._told[run.call.id] = text
                self._dialogue.tool_done(run.call.id, text)
        if self._is_hushed:
            self._is_hushed = False
            self._cut(self._speech.end)

    def add_own(self, text: str) -> None:
        """The agent says something itself, behind all that the model has made of the reply."""
        self._own, self._own_from = text, self._speech.end

    def tell(self, text: str) -> None:
        """Tell the model of the reply's text what it does not know of."""
        if not self._known.startswith(text):
            self._dialogue.said(text.removeprefix(self._known).strip())
            self._known = text

    def hush(self) -> None:
        """No more of the answers will be heard than what the speech holds now.

        The model is told of it with the results: its calls are not to be forgotten.
        """
        self._is_hushed = True
        for part in self._parts:
            part.end = min(part.end, self._speech.end)

    def settle(self, heard: str, is_whole: bool) -> None:
        """The reply is over, maybe for now: `heard` of it, or all of it."""
        if self.is_settled:
            self.tell(heard)
            return
        confirmed = self._speech.confirmed
        if not is_whole:
            self._cut(confirmed)
        if self._own and confirmed > self._own_from:
            self._dialogue.said(self._own)
        self._parts.clear()
        self._known = max(self._known, heard, key=len)

    def forget(self) -> None:
        """The reply never happened."""
        for part in self._parts:
            part.answer.forget()
        self._parts.clear()

    def _cut(self, position: int) -> None:
        for part in self._parts:
            part.answer.heard(part.heard_ms(position))
