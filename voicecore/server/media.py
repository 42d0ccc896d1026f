"""One media stream: from the upgrade to the close, whatever happens between."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from ..call.line import WebSocketLine
from ..contracts import Line
from ..wire.dialects import Dialect
from ..wire.events import Started
from .admission import Admission, Admit
from .ledger import Ledger
from .port.boundary import GONE, Closing, contain
from .port.limits import MEDIA_READ_BYTES, MESSAGE_BYTES, PING_S, PONG_S
from .port.transport import MediaTransport
from .port.upgrade import Upgrade

log = logging.getLogger("voicecore.server")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended: who ended it (see `call.EndedBy`), and the code to close the line with."""

    call_sid: str
    ended_by: str
    close_code: int = 1000


Converse = Callable[[Line, Admit, Dialect], Awaitable[Ending]]
"""What runs on a line: waits for its start, has it admitted, and talks until the call ends."""


class MediaStreams:
    """All media streams of one server."""

    def __init__(self, converse: Converse, admission: Admission, ledger: Ledger) -> None:
        self._converse = converse
        self._admission = admission
        self._ledger = ledger
        self._running: set[trio.CancelScope] = set()
        self._one_less = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._running)

    async def wait_empty(self) -> None:
        """Wait until no stream is left."""
        while self._running:
            await self._one_less.park()

    def hang_up(self) -> None:
        """End every stream: its carrier is told that we go away."""
        for scope in self._running:
            scope.cancel()

    async def run(self, transport: trio.abc.Stream, upgrade: Upgrade, early: bytes) -> None:
        """Answer a stream on an upgraded connection; `early` came behind the request."""
        scope = trio.CancelScope()
        self._running.add(scope)
        try:
            stream = MediaTransport(transport, upgrade.key, early)
            await self._run(stream, upgrade, scope)
        finally:
            self._running.discard(scope)
            self._one_less.unpark_all()

    async def _run(self, stream: MediaTransport, upgrade: Upgrade, scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(
                nursery,
                stream,
                max_message_size=MESSAGE_BYTES,
                receive_buffer_size=MEDIA_READ_BYTES,
            )
            websocket = await request.accept()
            stream.failure_code = lambda: websocket.closed.code if websocket.closed else None
            line = WebSocketLine(websocket, stream)
            log.info("WebSocket connected")
            nursery.start_soon(keep_alive, websocket, stream, name="ping")
            with scope:
                closing = await self._call(line, upgrade)
            await line.aclose(*(Closing(GONE) if scope.cancelled_caught else closing))
            await stream.aclose()
            nursery.cancel_scope.cancel()

    async def _call(self, line: Line, upgrade: Upgrade) -> Closing:
        """Run one call to its end, whatever that is; return how to close the line."""
        ending: Ending | None = None
        call_sid = ""

        async def converse() -> None:
            nonlocal ending
            with self._admission.place(upgrade.is_known) as admit:

                def admit_known(started: Started) -> None:
                    nonlocal call_sid
                    call_sid = started.call_sid
                    admit(started)

                ending = await self._converse(line, admit_known, upgrade.dialect)

        failed = await contain("call", converse, lambda: call_sid)
        if ending is None:
            return Closing(1000) if failed is None else failed
        # Before the close: the carrier asks how it ended as soon as it sees that.
        self._ledger.note_ending(ending.call_sid, ending.ended_by)
        return Closing(ending.close_code)


async def keep_alive(websocket: WebSocketConnection, stream: MediaTransport) -> None:
    """Ping the peer; abort when nothing at all comes back while we listen."""
    while True:
        await trio.sleep(PING_S)
        asked_at = trio.current_time()
        with trio.move_on_after(PONG_S) as patience:
            try:
                await websocket.ping()
            except (ConnectionClosed, LocalProtocolError):
                return
        if patience.cancelled_caught and stream.peer.listening and stream.heard_at < asked_at:
            await stream.peer.abort()
            return
