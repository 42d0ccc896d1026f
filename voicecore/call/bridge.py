"""What is said while a tool runs: nobody listens to a silence of three seconds on the telephone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import trio

from ..errors import ProviderError
from .timeline import CallLog
from .voice import Voice

FIRST_S = 0.8
"""From the beginning of the tool; the words that came with it are heard to their end first."""

AGAIN_S = 6.0
"""From the end of the filler before."""

QUIET_S = 0.3
"""Silence before a filler."""


class Bridge:
    """Says a filler, and later another one, until a tool is done."""

    def __init__(
        self, voice: Voice, fillers: Sequence[str], seconds_left: Callable[[], float]
    ) -> None:
        self._voice = voice
        self._fillers = fillers
        self._seconds_left = seconds_left
        """How long there is still something to hear; above 0 also while something is being made."""
        self._done = trio.Event()

    def __repr__(self) -> str:
        return f"<Bridge of {len(self._fillers)} fillers>"

    def end(self) -> None:
        """The tool is done.  What has begun is said to its end."""
        self._done.set()

    async def run(self, log: CallLog) -> None:
        """Speak until `end`."""
        patience = FIRST_S
        for text in cycle(self._fillers):
            await self._wait(patience)
            while (left := self._seconds_left()) and not self._done.is_set():
                await self._wait(left + QUIET_S)
            if self._done.is_set():
                return
            log.milestone("filler", text=text)
            try:
                await self._voice.bridge(text)
            except ProviderError:
                return  # the answer will find out by itself
            patience = AGAIN_S

    async def _wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._done.wait()
