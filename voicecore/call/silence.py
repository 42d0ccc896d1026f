"""What an agent says of its own accord: what others want said, "are you still there?", goodbye.

A pure machine: time is an argument, and what to say next is its answer.
"""

from __future__ import annotations

import math
from collections import deque

from .agent import CallLimits
from .phrases import Announcement, StockWords

ORDERS_WAITING = 8
"""Sentences from outside that wait for a pause in the conversation."""


class Silence:
    """One call's silences.  `began` is when the call did."""

    def __init__(self, limits: CallLimits, words: StockWords, began: float) -> None:
        self.prompts = 0
        """Idle prompts since the caller last said something."""
        self._limits = limits
        self._words = words
        self._orders: deque[Announcement] = deque()
        self._parting = ""
        self._ends_at = began + limits.max_call_s
        self._since = began
        """Since when neither side has spoken; infinity: the caller is speaking."""
        self._is_over = False
        """Whether the last thing is being said."""

    def __repr__(self) -> str:
        return f"<Silence since {self._since:.2f}, {self.prompts} prompts>"

    def begin(self, now: float) -> None:
        """The caller has stopped speaking."""
        self._since = now

    def begin_after_agent(self, now: float) -> None:
        """The agent has; the caller may be speaking."""
        if math.isfinite(self._since):
            self._since = now

    def end(self) -> None:
        """The caller begins to speak."""
        self._since = math.inf

    def order(self, text: str) -> bool:
        """Have a sentence said in the next pause; false: too many wait already."""
        if len(self._orders) >= ORDERS_WAITING:
            return False
        self._orders.append(Announcement(text))
        return True

    def finish(self, words: Announcement, was_heard: bool) -> None:
        """`words` were said; if anything was heard of them, they are not said again."""
        if was_heard and self._orders and self._orders[0] is words:
            self._orders.popleft()

    def part(self, text: str) -> None:
        """Have a last thing said, now."""
        self._parting = text

    def due_at(self, is_speaking: bool) -> float:
        """Return when something must be said; `is_speaking` is whether the agent is."""
        if self._is_over:
            return math.inf
        patience = self._limits.idle_prompt_s
        idle = math.inf if is_speaking or not patience else self._since + patience
        return min(idle, self._ends_at)

    def next(self, now: float, is_speaking: bool) -> Announcement | None:
        """Return what must be said now, if anything must."""
        if self._is_over:
            return None
        if self._parting:
            self._is_over = True
            return Announcement(self._parting, "agent", is_last=True)
        if now >= self._ends_at:
            self._is_over = True
            return Announcement(self._words.goodbye, "length", is_last=True)
        if is_speaking or not math.isfinite(self._since):
            return None
        if self._orders:
            # It stays until it is finished: a caller who begins to speak may hear none of it.
            return self._orders[0]
        if now < self.due_at(is_speaking):
            return None
        if self.prompts < self._limits.idle_prompts:
            self.prompts += 1
            return Announcement(self._words.still_there)
        return Announcement(self._words.goodbye, "agent")
