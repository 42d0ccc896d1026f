"""Which words belong to which utterance, by where on the line they lie.

Pure: no clock, no network.  Positions are bytes of the line (see `live_audio`).  The rules:

* A final stretch replaces what was known of its time, so a vendor may send it twice.
* What was answered is over as soon as something else is asked for: words that end up before its end
  are never returned again, however late they come.
* An utterance that begins with the one asked for before goes on with it, and keeps its beginning:
  a caller who paused and went on, or whose turns were cut before their words were known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ..audio import SAMPLE_RATE

SLACK = SAMPLE_RATE * 3 // 10
"""How far before its utterance a word may end: recognisers time words less exactly than we do."""

STALL = SAMPLE_RATE // 2
"""How much less may have come on the line between two parts of one utterance than it holds more."""

LONGEST = 60 * SAMPLE_RATE
"""An utterance of this length may have lost its front."""

REMEMBERED = 2 * LONGEST
"""How far back words are kept that nobody asks for."""

NEW_UTTERANCE = SAMPLE_RATE
"""Silence after an utterance that was answered, before words that cannot belong to it."""


@dataclass(frozen=True, slots=True)
class PlacedWord:
    """A word on the line."""

    text: str
    start: int
    end: int
    confidence: float = 1.0

    @property
    def middle(self) -> int:
        """Where the word is, if one number must say it."""
        return (self.start + self.end) // 2


@dataclass(eq=False, slots=True)
class Ask:
    """A question for the words of an utterance that lies from `start` to `end`."""

    utterance: bytes
    start: int
    end: int
    answered: bool = False


class Understanding:
    """What is known of the words on one call's line."""

    def __init__(self) -> None:
        self.covered = 0
        """How far the words are final."""
        self.floor = 0
        """What lies before has been answered, or was given up."""
        self._finals: list[PlacedWord] = []
        self._interim: list[PlacedWord] = []
        self._interim_end = 0
        self._last: Ask | None = None

    @property
    def reached(self) -> int:
        """How far there are words, final or not."""
        return max(self.covered, self._interim_end)

    @property
    def interim_start(self) -> int | None:
        """Where the words begin that are not final; none if there are none."""
        return self._interim[0].start if self._interim else None

    def note(self, words: Sequence[PlacedWord], start: int, end: int, is_final: bool) -> None:
        """Learn what is said from `start` to `end`."""
        if not is_final:
            known = max(self.covered, self.floor)
            self._interim = [word for word in words if word.middle >= known]
            self._interim_end = end
            return
        if words:
            kept = [word for word in self._finals if not start <= word.middle < end]
            self._finals = sorted([*kept, *words], key=lambda word: word.middle)
        self._interim, self._interim_end = [], 0
        self.covered = max(self.covered, end)
        self._forget(max(self.floor, self.covered - REMEMBERED))

    def ask(self, utterance: bytes, end: int) -> Ask:
        """Ask for an utterance that ends at `end`."""
        last = self._last
        if last is not None and _goes_on(last, utterance, end):
            start = last.start
        else:
            start = end - len(utterance)
            if last is not None and last.answered:
                self._forget(last.end)
        self._last = Ask(utterance, start, end)
        return self._last

    def standing(self, utterance: bytes, end: int, slack: int) -> list[PlacedWord]:
        """Return the words of an utterance that ends at `end`, if they are known up to `slack`
        before it; changes nothing."""
        if self.reached < end - slack:
            return []
        start, floor, last = end - len(utterance), self.floor, self._last
        if last is not None and _goes_on(last, utterance, end):
            start = last.start
        elif last is not None and last.answered:
            floor = max(floor, last.end)
        return [
            word
            for word in (*self._finals, *self._interim)
            if word.middle >= floor and word.end > start - SLACK
        ]

    def give_up(self, before: int) -> None:
        """Forget everything before a position: its audio will be sent again from there."""
        self._forget(before)
        self._interim, self._interim_end = [], 0
        self.covered = max(self.covered, before)
        self._last = None

    def words_of(self, ask: Ask) -> list[PlacedWord]:
        """Return the words of an utterance, as far as they are known."""
        return [
            word
            for word in (*self._finals, *self._interim)
            if word.middle >= self.floor and word.end > ask.start - SLACK
        ]

    @property
    def present(self) -> list[PlacedWord]:
        """The words of what is being said now."""
        words = [*self._finals, *self._interim]
        if self._last is not None and self._last.answered:
            new = self._last.end + NEW_UTTERANCE
            if any(word.middle >= new for word in words):
                return [word for word in words if word.middle >= self._last.end]
        return words

    def _forget(self, before: int) -> None:
        self.floor = max(self.floor, before)
        keep = bisect_left(self._finals, self.floor, key=lambda word: word.middle)
        del self._finals[:keep]
        self._interim = [word for word in self._interim if word.middle >= self.floor]


def _goes_on(last: Ask, utterance: bytes, end: int) -> bool:
    """Return whether `utterance` is the one before and more.

    The same bytes may come twice on a line without noise: unless nobody has got the words of the
    first, the second must follow on it.
    """
    if not utterance.startswith(last.utterance):
        return not last.answered and len(utterance) >= LONGEST
    more = len(utterance) - len(last.utterance)
    return not last.answered or end - last.end <= more + STALL


def joined(words: Sequence[PlacedWord]) -> str:
    """Return words as text."""
    return " ".join(" ".join(word.text for word in words).split())


def confidence(words: Sequence[PlacedWord]) -> float:
    """Return how sure the vendor is of words on average; 1 of none."""
    return sum(word.confidence for word in words) / len(words) if words else 1.0
