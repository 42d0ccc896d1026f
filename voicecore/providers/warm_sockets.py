"""WebSockets that are opened before they are needed: while the phone still rings."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from ..errors import ProviderError
from .websocket import Connect, Endpoint, WebSocket, open_websocket

logger = logging.getLogger(__name__)

PARKED = 8
"""That are warm at the same time: more calls than that do not begin within a second."""

PARK_S = 8.0
"""How long one stays warm; the carrier opens its stream a second after the webhook."""

WARM_S = 3.0
HAND_OVER_S = 1.0


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line(Generic[T]):
    """How to reach a vendor for a language: who speaks there, and where that is.

    `sign_of_life` is sent after each `sign_after_s` in which nothing else is; empty: nothing.
    """

    speaker: T
    endpoint: Endpoint
    sign_of_life: str = ""
    sign_after_s: float = math.inf


@dataclass(eq=False, slots=True)
class _Parked(Generic[T]):
    """An open connection that waits for its call."""

    language: str
    line: Line[T]
    socket: WebSocket
    taken: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event = field(default_factory=trio.Event)


class WarmSockets(Generic[T]):
    """Connections to one vendor; those that are warm live in `nursery`.

    `line` says how each of them is made, for a language.
    """

    def __init__(
        self, line: Callable[[str], Line[T]], nursery: trio.Nursery, connect: Connect
    ) -> None:
        self._line = line
        self._nursery = nursery
        self._connect = connect
        self._parked: list[_Parked[T]] = []
        self._parking = 0

    def __repr__(self) -> str:
        return f"<WarmSockets {len(self._parked)}>"

    async def warm_up(self, language: str) -> None:
        """Connect for a call that will begin in a moment; return when that stands, or not."""
        if self._parking >= PARKED:
            return
        ready = trio.Event()
        self._parking += 1
        self._nursery.start_soon(self._park, language, ready, name="warm-up")
        with trio.move_on_after(WARM_S):
            await ready.wait()

    @asynccontextmanager
    async def open(self, language: str) -> AsyncIterator[tuple[T, WebSocket]]:
        """Take a warm connection for a language, or open one; leaving closes it.

        Raises:
            ProviderError: as `open_websocket`.
        """
        parked = self._take(language)
        if parked is None:
            line = self._line(language)
            async with open_websocket(line.endpoint, self._connect) as socket:
                yield line.speaker, socket
            return
        try:
            yield parked.line.speaker, parked.socket
        finally:
            parked.left.set()
            with trio.CancelScope(deadline=trio.current_time() + HAND_OVER_S, shield=True):
                await parked.closed.wait()

    def _take(self, language: str) -> _Parked[T] | None:
        for parked in self._parked:
            if parked.language == language and not parked.socket.is_closed:
                self._parked.remove(parked)
                self._parking -= 1
                parked.taken.set()
                return parked
        return None

    async def _park(self, language: str, ready: trio.Event) -> None:
        line = self._line(language)
        parked: _Parked[T] | None = None
        try:
            async with open_websocket(line.endpoint, self._connect) as socket:
                parked = _Parked(language, line, socket)
                self._parked.append(parked)
                ready.set()
                await self._keep(parked)
        except ProviderError as error:
            logger.warning("warm-up failed: %s", error)
        finally:
            ready.set()
            if parked is None or not parked.taken.is_set():
                self._parking -= 1
            if parked is not None:
                parked.closed.set()

    async def _keep(self, parked: _Parked[T]) -> None:
        """Keep it warm until it is taken or too old; if it is taken, until it is left."""
        line = parked.line
        try:
            with trio.move_on_after(PARK_S):
                while not parked.taken.is_set():
                    with trio.move_on_after(line.sign_after_s):
                        await parked.taken.wait()
                    if line.sign_of_life and not parked.taken.is_set():
                        await parked.socket.send(line.sign_of_life)
        finally:
            if parked in self._parked:
                self._parked.remove(parked)
        if parked.taken.is_set():
            await parked.left.wait()
