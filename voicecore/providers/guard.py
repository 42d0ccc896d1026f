"""What stands before each provider of each stage: a breaker, and an allowance for the first answer.

One guard serves all calls of the process.  What it lets through is counted: an answer, a failure,
or, if the turn was cancelled meanwhile, nothing.  Times in seconds.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Generic, TypeVar

import trio

from ..contracts import Usage
from ..errors import ProviderError, ProviderFault, leaves
from .breaker import FAILURES, Attempt, Breaker, BreakerState

_logger = logging.getLogger("voicecore.providers")

JUST_S = 0.5
"""How long ago just now is."""

T = TypeVar("T")


class LeftAlone(ProviderError):
    """The breaker is open: the provider was not even asked.  The fault is its last one."""


class Guard:
    """The guard of one provider in one stage.

    `first_s` is how long it may take to begin its answer; `failures` counts failed attempts by
    provider and fault, those that another provider made good included.
    """

    def __init__(
        self, stage: str, name: str, first_s: float, failures: Counter[tuple[str, ProviderFault]]
    ) -> None:
        self.first_s = first_s
        self.breaker = Breaker()
        self._stage = stage
        self._name = name
        self._failures = failures
        self._broke_off_at = -math.inf
        self._last_fault: ProviderFault = "status"

    def __repr__(self) -> str:
        return f"<Guard of {self._stage} {self._name} {self.breaker.state.name}>"

    @property
    def is_closed(self) -> bool:
        """Whether the provider is asked as usual."""
        return self.breaker.state is BreakerState.CLOSED

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Use the provider once: say in the attempt what it gave; what it raises is counted.

        Raises:
            LeftAlone: it is not to be asked now.
        """
        now = trio.current_time()
        attempt = self.breaker.attempt(now)
        if attempt is None:
            wait_s = max(0.0, self.breaker.retry_at - now)
            detail = f"not asked after {FAILURES} failures; tried again in {wait_s:.0f} s"
            raise LeftAlone(self._name, self._last_fault, detail)
        try:
            yield attempt
        except (ProviderError, BaseExceptionGroup) as error:
            failure = failure_in(error)
            # Once it has given something, what is raised may as well be its reader's.
            if failure is not None and not attempt.has_given:
                self.fail(attempt, failure)
            raise
        finally:
            attempt.leave()

    def give(self, attempt: Attempt) -> None:
        """Its answer has begun: that ends a time of being left alone."""
        was_closed = self.is_closed
        attempt.give()
        if self.is_closed and not was_closed:
            _logger.info("%s by %s works again", self._stage, self._name)

    def fail(self, attempt: Attempt, failure: ProviderError) -> None:
        """Count a failure, and say so if that opens the breaker."""
        was_closed = self.is_closed
        attempt.fail(trio.current_time())
        self.count(failure)
        if was_closed and not self.is_closed:
            what = "%s by %s is left alone for a while: %s"
            _logger.warning(what, self._stage, self._name, failure)

    def break_off(self, attempt: Attempt, failure: ProviderError) -> None:
        """Count a failure in the middle of an answer."""
        self._broke_off_at = trio.current_time()
        self.fail(attempt, failure)

    def count(self, failure: ProviderError) -> None:
        """Count a failure of what nobody was waiting for."""
        self._last_fault = failure.fault
        self._failures[self._name, failure.fault] += 1

    @property
    def has_just_broken_off(self) -> bool:
        """Whether somebody is asked again because of us: others come first then."""
        return trio.current_time() - self._broke_off_at < JUST_S

    def late(self, seconds: float) -> ProviderError:
        """The failure of giving nothing in time."""
        return ProviderError(self._name, "timeout", f"nothing within {seconds:.1f} s")

    @asynccontextmanager
    async def stream(
        self,
        request: Callable[[], AbstractAsyncContextManager[AsyncIterable[T]]],
        *,
        may_be_empty: bool = False,
    ) -> AsyncIterator[AsyncIterable[T]]:
        """Give what `request` streams, once its first item is there; leaving closes it.

        Raises:
            ProviderError: it failed, or gave nothing in time, or nothing at all; while iterating:
                it broke off.
        """
        with self.attempt() as attempt:
            # Around the whole use: a provider may hold a nursery or a scope while it streams.
            with trio.CancelScope(deadline=trio.current_time() + self.first_s) as patience:
                async with request() as items:
                    stream = _Stream(items, attempt, partial(self.break_off, attempt))
                    if not await stream.begin() and not may_be_empty:
                        raise ProviderError(self._name, "garbage", "an empty answer")
                    if patience.cancel_called:
                        raise self.late(self.first_s)
                    patience.deadline = math.inf
                    self.give(attempt)
                    yield stream
                    return
            raise self.late(self.first_s)


class _Stream(Generic[T]):
    """A stream that is watched."""

    def __init__(
        self, items: AsyncIterable[T], attempt: Attempt, fail: Callable[[ProviderError], None]
    ) -> None:
        self._items = aiter(items)
        self._attempt = attempt
        self._fail = fail
        self._begun: list[T] = []

    def __aiter__(self) -> _Stream[T]:
        return self

    async def begin(self) -> bool:
        """Wait for the first item with something in it; return whether there is one."""
        async for item in self._items:
            if isinstance(item, Usage):
                self._begun = [item]  # what it cost is no answer
            elif item:
                self._begun.append(item)
                return True
        return False

    async def __anext__(self) -> T:
        if self._begun:
            return self._begun.pop(0)
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            self._attempt.succeed()
            raise
        except ProviderError as error:
            self._fail(error)
            raise


def failure_in(error: BaseException) -> ProviderError | None:
    """Return the provider's failure, if `error` is nothing else.

    A provider with a nursery of its own fails with a group.
    """
    if isinstance(error, ProviderError):
        return error
    if isinstance(error, BaseExceptionGroup):
        failed, rest = error.split(ProviderError)
        if failed is not None and rest is None:
            return next(leaf for leaf in leaves(failed) if isinstance(leaf, ProviderError))
    return None
