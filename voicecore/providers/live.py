"""Live speech recognition over WebSockets: one session a call, words standing at the pause.

    async with open_live_stt("parrot", lambda language: Parrot(key, language)) as stt:
        await stt.warm_up("en-US")                        # while the phone still rings
        async with stt.listen("en-US") as transcription:
            transcription.feed(frame)
            await transcription.transcript(utterance)

A vendor is a `Dialect`, see `live_dialect`.  The rest is the same for all of them:

* `live_call`: feeds, questions, reconnecting.  `live_session`: the two tasks of a session.
* `live_words` and `live_audio`: which words belong to an utterance, which audio must be sent again.

Feeding never waits; audio that nobody can take is let go of, the oldest first.  Sessions end with
their call, and those that were warmed up for nothing within seconds.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from ..errors import ProviderError
from .live_call import LiveCall
from .live_dialect import Dialect as Dialect
from .live_dialect import Event as Event
from .live_dialect import Failed as Failed
from .live_dialect import Finalized as Finalized
from .live_dialect import Hint as Hint
from .live_dialect import Rules as Rules
from .live_dialect import Word as Word
from .live_dialect import Words as Words
from .websocket import Connect, WebSocket, connect_tcp, open_websocket

logger = logging.getLogger(__name__)

PARKED = 8
"""Sessions that are warm at the same time: more calls than that do not begin within a second."""

PARK_S = 8.0
"""How long a session stays warm; the carrier opens its stream a second after the webhook."""

WARM_S = 3.0
HAND_OVER_S = 1.0


@dataclass(eq=False, slots=True)
class _Parked:
    """An open connection that waits for its call."""

    language: str
    dialect: Dialect
    socket: WebSocket
    taken: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    closed: trio.Event = field(default_factory=trio.Event)


class LiveSTT:
    """Live recognition by one vendor; sessions that are warmed up live in `nursery`."""

    def __init__(
        self,
        provider: str,
        dialect: Callable[[str], Dialect],
        nursery: trio.Nursery,
        connect: Connect = connect_tcp,
    ) -> None:
        self._provider = provider
        self._dialect = dialect
        self._nursery = nursery
        self._connect = connect
        self._parked: list[_Parked] = []
        self._parking = 0

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[LiveCall]:
        """Open one call's recognition.

        It connects, in the background, when the first frame is fed: a call that nobody speaks in,
        or that only falls back on this, costs no session.
        """
        call = LiveCall(self._provider, partial(self._connection, language))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run, name="live")
            yield call
            nursery.cancel_scope.cancel()

    async def warm_up(self, language: str) -> None:
        """Open a session for a call that will begin in a moment; return when it stands, or not."""
        if self._parking >= PARKED:
            return
        ready = trio.Event()
        self._parking += 1
        self._nursery.start_soon(self._park, language, ready, name="live warm-up")
        with trio.move_on_after(WARM_S):
            await ready.wait()

    @asynccontextmanager
    async def _connection(self, language: str) -> AsyncIterator[tuple[Dialect, WebSocket]]:
        parked = self._take(language)
        if parked is None:
            dialect = self._dialect(language)
            async with open_websocket(dialect.endpoint, self._connect) as socket:
                yield dialect, socket
            return
        try:
            yield parked.dialect, parked.socket
        finally:
            parked.left.set()
            with trio.CancelScope(deadline=trio.current_time() + HAND_OVER_S, shield=True):
                await parked.closed.wait()

    def _take(self, language: str) -> _Parked | None:
        for parked in self._parked:
            if parked.language == language and not parked.socket.is_closed:
                self._parked.remove(parked)
                self._parking -= 1
                parked.taken.set()
                return parked
        return None

    async def _park(self, language: str, ready: trio.Event) -> None:
        dialect = self._dialect(language)
        parked: _Parked | None = None
        try:
            async with open_websocket(dialect.endpoint, self._connect) as socket:
                parked = _Parked(language, dialect, socket)
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
        """Keep a session warm until it is taken or too old; if it is taken, until it is left."""
        rules = parked.dialect.rules
        try:
            with trio.move_on_after(PARK_S):
                while not parked.taken.is_set():
                    with trio.move_on_after(rules.keep_alive_s):
                        await parked.taken.wait()
                    if rules.keep_alive and not parked.taken.is_set():
                        await parked.socket.send(rules.keep_alive)
        finally:
            if parked in self._parked:
                self._parked.remove(parked)
        if parked.taken.is_set():
            await parked.left.wait()


@asynccontextmanager
async def open_live_stt(
    provider: str, dialect: Callable[[str], Dialect], connect: Connect = connect_tcp
) -> AsyncIterator[LiveSTT]:
    """Open a vendor's recognition; `dialect` makes a session's dialect for a language."""
    async with trio.open_nursery() as nursery:
        yield LiveSTT(provider, dialect, nursery, connect)
        nursery.cancel_scope.cancel()
