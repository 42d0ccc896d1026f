"""WebSockets that are opened before they are needed: while the phone still rings."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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


@dataclass(eq=False, slots=True)
class _Parked:
    """An open connection that waits for its call."""

    socket: WebSocket
    taken: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event = field(default_factory=trio.Event)


class WarmSockets:
    """Connections to one endpoint; those that are warm live in `nursery`."""

    def __init__(self, endpoint: Endpoint, nursery: trio.Nursery, connect: Connect) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._connect = connect
        self._parked: list[_Parked] = []
        self._parking = 0

    def __repr__(self) -> str:
        return f"<WarmSockets {self._endpoint.provider} {len(self._parked)}>"

    async def warm_up(self) -> None:
        """Connect for a call that will begin in a moment; return when that stands, or not."""
        if self._parking >= PARKED:
            return
        ready = trio.Event()
        self._parking += 1
        self._nursery.start_soon(self._park, ready, name="warm-up")
        with trio.move_on_after(WARM_S):
            await ready.wait()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[WebSocket]:
        """Take a warm connection, or open one; leaving closes it.

        Raises:
            ProviderError: as `open_websocket`.
        """
        parked = self._take()
        if parked is None:
            async with open_websocket(self._endpoint, self._connect) as socket:
                yield socket
            return
        try:
            yield parked.socket
        finally:
            parked.left.set()
            with trio.CancelScope(deadline=trio.current_time() + HAND_OVER_S, shield=True):
                await parked.closed.wait()

    def _take(self) -> _Parked | None:
        for parked in self._parked:
            if not parked.socket.is_closed:
                self._parked.remove(parked)
                self._parking -= 1
                parked.taken.set()
                return parked
        return None

    async def _park(self, ready: trio.Event) -> None:
        parked: _Parked | None = None
        try:
            async with open_websocket(self._endpoint, self._connect) as socket:
                parked = _Parked(socket)
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

    async def _keep(self, parked: _Parked) -> None:
        """Keep it warm until it is taken or too old; if it is taken, until it is left."""
        try:
            with trio.move_on_after(PARK_S):
                await parked.taken.wait()
        finally:
            if parked in self._parked:
                self._parked.remove(parked)
        if parked.taken.is_set():
            await parked.left.wait()
