"""Providers that fail as they are told, and an order of two of them to ask."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import trio

from voicecore.contracts import Message
from voicecore.errors import ProviderError, ProviderFault
from voicecore.providers.breaker import BreakerState
from voicecore.providers.fallback import FallbackLLM, FallbackTTS
from voicecore.testing import FakeLLM, FakeTTS, audible

HELLO = (Message("user", "hello there"),)
TEXT = "You said hello there."
Items = AsyncIterable[Any]


class Failing:
    """A provider that fails with `fault` at one place of each request, while `is_down`."""

    def __init__(self, fake: Any, fault: ProviderFault, where: str) -> None:
        self.fake = fake
        self.fault: ProviderFault = fault
        self.where = where
        self.is_down = True

    @asynccontextmanager
    async def reply(self, *asked: Any) -> AsyncIterator[Items]:
        async with self._failing(self.fake.reply(*asked)) as items:
            yield items

    @asynccontextmanager
    async def speak(self, *asked: Any) -> AsyncIterator[Items]:
        async with self._failing(self.fake.speak(*asked)) as items:
            yield items

    @asynccontextmanager
    async def _failing(self, request: AbstractAsyncContextManager[Items]) -> AsyncIterator[Items]:
        async with request as items, aclosing(self._cut(items)) as cut:
            self._fail("entry")
            yield cut

    async def _cut(self, items: Items) -> AsyncGenerator[Any, None]:
        self._fail("first")
        async for item in items:
            yield item
            self._fail("later")

    def _fail(self, where: str) -> None:
        if self.is_down and where == self.where:
            raise ProviderError("first", self.fault, "as told")


class Grouping(Failing):
    """The same, with a nursery around it."""

    @asynccontextmanager
    async def _failing(self, request: AbstractAsyncContextManager[Items]) -> AsyncIterator[Items]:
        async with trio.open_nursery(), super()._failing(request) as items:
            yield items


class Stage:
    """An order of two in one stage, and how to ask it."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.fakes: list[Any]
        if name == "llm":
            self.fakes = [FakeLLM(seconds), FakeLLM(seconds)]
        else:
            self.fakes = [FakeTTS(seconds), FakeTTS(seconds)]
        self.name = name

    def order(self, *providers: Any) -> FallbackLLM | FallbackTTS:
        members = list(zip(("first", "second"), providers, strict=False))
        return FallbackLLM(members) if self.name == "llm" else FallbackTTS(members)

    def ask(self, order: Any) -> AbstractAsyncContextManager[Items]:
        return order.reply(HELLO, ()) if self.name == "llm" else order.speak(TEXT, "", "en-US")

    async def answer(self, order: Any) -> str:
        """Ask, and return the words of the whole answer."""
        async with self.ask(order) as items:
            return self.words([item async for item in items])

    def words(self, items: list[Any]) -> str:
        whole = "".join(items) if self.name == "llm" else audible.words(b"".join(items))
        return whole if isinstance(whole, str) else " ".join(whole)

    @property
    def asked(self) -> list[int]:
        """Requests that each fake has got."""
        return [len(fake.requests) for fake in self.fakes]

    def assert_closed(self) -> None:
        for fake in self.fakes:
            assert not fake.open_requests


class Scripted:
    """A provider that gives these items, whatever it is asked."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    @asynccontextmanager
    async def reply(self, *asked: Any) -> AsyncIterator[Items]:
        async with aclosing(self._stream()) as stream:
            yield stream

    speak = reply

    async def _stream(self) -> AsyncGenerator[Any, None]:
        for item in self.items:
            yield item


def state(order: Any, place: int = 0) -> BreakerState:
    return order.order.choices[place].guard.breaker.state
