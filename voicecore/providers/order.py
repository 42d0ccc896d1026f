"""Several providers of one stage, in the order in which they are asked.

* What fails before it has given anything is followed by the next one, at once, in the same turn.
  What fails after that is an error: nobody hears half a sentence twice.
* Who has somebody behind it gets less time for its first answer: the next one must be able to give
  its own while the caller still waits.
* Who is left alone by its guard is passed over; if that is everybody, the turn fails without
  waiting.  An order of one keeps this rule too, only nobody takes over.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..contracts import WarmsUp
from ..errors import ProviderError, ProviderFault
from .guard import Guard, LeftAlone, failure_in

_logger = logging.getLogger("voicecore.providers")

P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Choice(Generic[P]):
    """One provider of an order."""

    name: str
    provider: P
    guard: Guard


class Order(Generic[P]):
    """The providers of one stage.

    `first_s` is what each may take to begin its answer, `last_s` what the last one may.
    """

    def __init__(
        self,
        stage: str,
        members: Sequence[tuple[str, P]],
        first_s: float,
        last_s: float = math.inf,
    ) -> None:
        if not members:
            raise ValueError("an order has at least one provider")
        self.failures: Counter[tuple[str, ProviderFault]] = Counter()
        """Failed attempts by provider and fault, those that another one made good included."""
        allowances = [first_s] * (len(members) - 1) + [last_s]
        self.choices = tuple(
            Choice(name, provider, Guard(stage, name, allowance, self.failures))
            for (name, provider), allowance in zip(members, allowances, strict=True)
        )
        self._stage = stage

    def __repr__(self) -> str:
        return f"<Order {self._stage} {' '.join(choice.name for choice in self.choices)}>"

    @property
    def first(self) -> Choice[P] | None:
        """Who would be asked first now, if anybody."""
        return next((choice for choice in self.choices if choice.guard.is_closed), None)

    async def warm_up(self, language: str) -> None:
        """Let it connect who would be asked first now, if that is an ability of it."""
        if self.first is not None and isinstance(self.first.provider, WarmsUp):
            await self.first.provider.warm_up(language)

    @asynccontextmanager
    async def stream(
        self, ask: Callable[[Choice[P]], AbstractAsyncContextManager[AsyncIterable[T]]]
    ) -> AsyncIterator[AsyncIterable[T]]:
        """Give the stream of the first one that has anything to give; leaving closes its request.

        `ask` enters when the first item is there, as a `Guard` does.

        Raises:
            ProviderError: nobody had anything; or, while iterating, who had broke off.
        """
        failures: list[ProviderError] = []
        # Stable: who has just broken off in the middle is asked last, where there is anybody else.
        for choice in sorted(self.choices, key=lambda choice: choice.guard.has_just_broken_off):
            has_begun = False
            try:
                async with ask(choice) as items:
                    has_begun = True
                    self.note_answer(choice, failures)
                    yield items
                    return
            except (ProviderError, BaseExceptionGroup) as error:
                failure = failure_in(error)
                if has_begun or failure is None:
                    raise
                failures.append(failure)
        raise worst_of(failures)

    def note_answer(self, choice: Choice[P], failures: Sequence[ProviderError]) -> None:
        """Say for whom somebody answers; not of those who are left alone, or each turn would."""
        if failures and not isinstance(failures[-1], LeftAlone):
            _logger.warning("%s by %s instead: %s", self._stage, choice.name, failures[-1])


def worst_of(failures: Sequence[ProviderError]) -> ProviderError:
    """Return what to say when everybody failed: the last who was asked, or why nobody was."""
    asked = [failure for failure in failures if not isinstance(failure, LeftAlone)]
    return asked[-1] if asked else failures[0]
