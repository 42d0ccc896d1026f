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

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from .live_call import LiveCall
from .live_dialect import Dialect as Dialect
from .live_dialect import Event as Event
from .live_dialect import Failed as Failed
from .live_dialect import Finalized as Finalized
from .live_dialect import Hint as Hint
from .live_dialect import Rules as Rules
from .live_dialect import Word as Word
from .live_dialect import Words as Words
from .warm_sockets import Line, WarmSockets
from .websocket import Connect, connect_tcp


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
        self._sockets = WarmSockets(self._line, nursery, connect)

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[LiveCall]:
        """Open one call's recognition.

        It connects, in the background, when the first frame is fed: a call that nobody speaks in,
        or that only falls back on this, costs no session.
        """
        call = LiveCall(self._provider, partial(self._sockets.open, language))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.run, name="live")
            yield call
            nursery.cancel_scope.cancel()

    async def warm_up(self, language: str) -> None:
        """Open a session for a call that will begin in a moment; return when it stands, or not."""
        await self._sockets.warm_up(language)

    def _line(self, language: str) -> Line[Dialect]:
        dialect = self._dialect(language)
        rules = dialect.rules
        return Line(dialect, dialect.endpoint, rules.keep_alive, rules.keep_alive_s)


@asynccontextmanager
async def open_live_stt(
    provider: str, dialect: Callable[[str], Dialect], connect: Connect = connect_tcp
) -> AsyncIterator[LiveSTT]:
    """Open a vendor's recognition; `dialect` makes a session's dialect for a language."""
    async with trio.open_nursery() as nursery:
        yield LiveSTT(provider, dialect, nursery, connect)
        nursery.cancel_scope.cancel()
