"""A circuit breaker: who has failed again and again is left alone for a while, then tried once.

The table is the whole behaviour.  Time is an argument; there is no timer and no task.

    CLOSED     every call asks the provider
    OPEN       none does: the caller gets the fallback, or the apology, without waiting
    HALF_OPEN  one does, the *probe*; the others go on as if it were open

`FAILURES` failures in a row within `WINDOW_S` seconds trip it.  In a row: one request in fifty that
fails is a provider as they are, and a busy server would reach any number of such in half a minute.
An attempt that was cancelled says nothing about the provider, and counts as nothing.
"""

from __future__ import annotations

import enum
from collections import deque

FAILURES = 5
WINDOW_S = 30.0
OPEN_S = 10.0


class BreakerState(enum.Enum):
    """What is asked of the provider: everything, nothing, or one probe."""

    CLOSED = enum.auto()
    OPEN = enum.auto()
    HALF_OPEN = enum.auto()


class Signal(enum.Enum):
    """What can change that."""

    TRIPPED = enum.auto()
    """Too many failures."""
    PROBED = enum.auto()
    """It was left alone for long enough, and somebody asks."""
    PASSED = enum.auto()
    """The probe gave something."""
    FAILED = enum.auto()
    """The probe failed."""
    LEFT = enum.auto()
    """The probe was cancelled: the next who asks is the next probe."""


_S, _I = BreakerState, Signal

TABLE: dict[tuple[BreakerState, Signal], BreakerState] = {
    (_S.CLOSED, _I.TRIPPED): _S.OPEN,
    (_S.OPEN, _I.PROBED): _S.HALF_OPEN,
    (_S.HALF_OPEN, _I.PASSED): _S.CLOSED,
    (_S.HALF_OPEN, _I.FAILED): _S.OPEN,
    (_S.HALF_OPEN, _I.LEFT): _S.OPEN,
}
"""(state, signal) -> next state.  What is not here is a bug."""


class Breaker:
    """One provider's breaker in one stage, shared by all calls.  Times are seconds."""

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.retry_at = 0.0
        """When an open breaker lets a probe through."""
        self._failures: deque[float] = deque(maxlen=FAILURES)

    def __repr__(self) -> str:
        return f"<Breaker {self.state.name} failures={len(self._failures)}>"

    def attempt(self, now: float) -> Attempt | None:
        """Return leave to ask the provider once, or `None`: it is to be left alone."""
        if self.state is BreakerState.CLOSED:
            return Attempt(self, is_probe=False)
        if self.state is BreakerState.OPEN and now >= self.retry_at:
            self._signal(Signal.PROBED)
            return Attempt(self, is_probe=True)
        return None

    def _signal(self, signal: Signal, now: float = 0.0) -> None:
        self.state = TABLE[self.state, signal]
        if signal in (Signal.TRIPPED, Signal.FAILED):
            self.retry_at = now + OPEN_S
            self._failures.clear()

    def _count_failure(self, now: float) -> None:
        if self.state is not BreakerState.CLOSED:
            return  # it was asked before the breaker tripped: nothing new
        self._failures.append(now)
        if len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW_S:
            self._signal(Signal.TRIPPED, now)

    def _forgive(self) -> None:
        self._failures.clear()


class Attempt:
    """One use of a provider.  Whatever is said of it first, is said; `leave` it in any case."""

    def __init__(self, breaker: Breaker, *, is_probe: bool) -> None:
        self.has_given = False
        """Whether anything came: from then on another provider could only repeat it."""
        self._breaker = breaker
        self._is_probe = is_probe
        self._is_over = False

    def __repr__(self) -> str:
        kind = "probe" if self._is_probe else "attempt"
        return f"<{kind} has_given={self.has_given} is_over={self._is_over}>"

    def give(self) -> None:
        """The first of the answer is there.  That is all a probe is for."""
        self.has_given = True
        if self._is_probe:
            self._is_probe = False
            self._breaker._signal(Signal.PASSED)

    def succeed(self) -> None:
        """The answer is there to its end."""
        self.give()
        if not self._is_over:
            self._is_over = True
            self._breaker._forgive()

    def fail(self, now: float) -> None:
        """The provider has failed."""
        if self._is_over:
            return
        self._is_over = True
        if self._is_probe:
            self._is_probe = False
            self._breaker._signal(Signal.FAILED, now)
        else:
            self._breaker._count_failure(now)

    def leave(self) -> None:
        """Nobody waits for it any more.  Counts as nothing, and frees the probe's place."""
        self._is_over = True
        if self._is_probe:
            self._is_probe = False
            self._breaker._signal(Signal.LEFT)
