"""When to connect again: soon, ever later, and at once when somebody waits for it."""

from __future__ import annotations

import math
import random

import trio

from ..errors import ProviderError
from .websocket import Refusal

BACKOFF_S = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Before the second attempt, the third, and so on.  After the last nobody tries, until somebody
asks for something."""

JITTER_S = 0.1
"""At most, in every wait but the first: calls that were cut together shall not come back together.
"""


class Redial:
    """One call's attempts to hold a session; `attempts` is what a question waits through."""

    def __init__(self, attempts: int) -> None:
        self.failures = 0
        """All of them."""
        self._attempts = attempts
        self._failure: ProviderError | None = None
        self._in_a_row = 0
        """Those in which nothing came of the session."""
        self._wanted = trio.Event()

    def ask(self) -> None:
        """Somebody waits: do not wait for the next attempt's time."""
        self._in_a_row = 0
        self._wanted.set()

    def succeed(self) -> None:
        """Something came of a session."""
        self._in_a_row = 0

    def fail(self, failure: ProviderError) -> None:
        """A session was lost, or could not be had."""
        self._failure = failure
        self.failures += 1
        self._in_a_row += 1

    def hopeless(self, failures_before: int) -> ProviderError | None:
        """Return why a question that began after so many failures has waited in vain, if so."""
        failed = self.failures - failures_before
        enough = 1 if isinstance(self._failure, Refusal) else self._attempts
        return self._failure if failed >= enough else None

    async def wait(self) -> None:
        """Wait for the next attempt's time, or until somebody asks."""
        self._wanted = trio.Event()
        delay = math.inf
        if not isinstance(self._failure, Refusal) and self._in_a_row <= len(BACKOFF_S):
            delay = BACKOFF_S[self._in_a_row - 1]
            delay += random.uniform(0, JITTER_S) if delay else 0
        with trio.move_on_after(delay):
            await self._wanted.wait()
