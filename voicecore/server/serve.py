"""One port, HTTP and WebSocket, from bind to drained.

    await serve(handler, settings)                                   a program
    server = await nursery.start(partial(serve, handler, settings))  inside somebody else's

Rules that hold here:

* Every connection is a task in one nursery; a connection's errors end at `contain`.
* `Server.drain` lets no more calls in, and keeps the port open for probes while the calls that run
  may end by themselves, for VOICECORE_DRAIN_S.  Then they are told, and everything is cancelled.
* Signals belong to the program (`lifecycle`), not to this: an embedded server touches none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import trio

from ..call.call import Call, open_call
from ..call.line import CLOSE_S
from ..contracts import Line
from ..settings import Settings
from .admission import Admission, Admit
from .boundary import contain
from .http import BadRequest, HttpConnection
from .ledger import Ledger
from .limits import RESERVED_FILES
from .listening import file_limit, listen
from .media import Converse, Ending, MediaStreams
from .peer import linger
from .routes import House, Upgrade, find_route

Handler = Callable[[Call], Awaitable[None]]

OVERLOADED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server:
    """A server that listens: what `nursery.start(serve, …)` returns."""

    def __init__(
        self, house: House, streams: MediaStreams, addresses: list[tuple[str, int]]
    ) -> None:
        self.addresses = addresses
        """Host and port of every socket that listens."""
        self._house = house
        self._streams = streams
        self._connections = self._answering = 0
        self._answered = trio.lowlevel.ParkingLot()
        self._max_connections = max(64, file_limit() - RESERVED_FILES)

    @property
    def port(self) -> int:
        """The port; with ``port=0`` in the settings, the one that was free."""
        return self.addresses[0][1]

    @property
    def calls(self) -> int:
        """Calls that are up."""
        return self._house.ledger.calls

    def drain(self) -> None:
        """Take no more calls; `serve` returns when those that run are over."""
        self._house.admission.drain()

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until drained."""
        settings = self._house.settings
        async with trio.open_nursery() as connections:
            connections.start_soon(
                partial(trio.serve_listeners, self.connected, listeners), name="listen"
            )
            await self._house.admission.wait_draining()
            with trio.move_on_after(settings.drain_s):
                await self._streams.wait_empty()
            self._streams.hang_up()
            with trio.move_on_after(CLOSE_S + 1):
                await self._streams.wait_empty()
                while self._answering:
                    await self._answered.park()
            connections.cancel_scope.cancel()

    async def connected(self, transport: trio.abc.Stream) -> None:
        """Serve one connection.  Raises nothing."""
        self._connections += 1
        try:
            if self._connections > self._max_connections:
                await contain("connection", partial(_turn_away, transport))
            else:
                await contain("connection", partial(self._serve, transport))
        finally:
            self._connections -= 1

    async def _serve(self, transport: trio.abc.Stream) -> None:
        http = HttpConnection(transport)
        upgrade = await self._answer_requests(http)
        if upgrade is not None:
            await self._streams.run(transport, upgrade.key, http.unread)
        else:
            await linger(transport)

    async def _answer_requests(self, http: HttpConnection) -> Upgrade | None:
        """Answer requests until the connection should close, or become a media stream."""
        again = True
        while again:
            try:
                request = await http.next_request()
                if request is None:
                    return None
                with self._at_work():
                    answer = await find_route(request)(self._house, request, await http.body())
                    if isinstance(answer, Upgrade):
                        return answer
                    again = await http.respond(answer)
            except BadRequest as refusal:
                again = await http.respond(refusal.response)
        return None

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """A request is being answered: going down waits for that."""
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            self._answered.unpark_all()


async def serve(
    handler: Handler,
    settings: Settings,
    *,
    ledger: Ledger | None = None,
    share_port: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls with `handler` until drained or cancelled.

    `handler` gets each call once it has started, and the call ends when it returns.  An exception
    in it ends its own call (1011) and no other.  `ledger` and `share_port` are for several workers
    on one port.

    Raises:
        CannotListen: the port is taken, or the host is not ours.
    """
    await serve_lines(
        partial(_converse, handler),
        settings,
        ledger=ledger,
        share_port=share_port,
        task_status=task_status,
    )


async def serve_lines(
    converse: Converse,
    settings: Settings,
    *,
    ledger: Ledger | None = None,
    share_port: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do what `serve` does, with something that takes the bare line."""
    listeners = await listen(settings.host, settings.port, share=share_port)
    ledger = Ledger() if ledger is None else ledger
    # trio's clock starts anywhere; tokens must mean the same to all workers.
    since_epoch = datetime.now(tz=UTC).timestamp() - trio.current_time()
    admission = Admission(settings, ledger, lambda: trio.current_time() + since_epoch)
    streams = MediaStreams(converse, admission, ledger)
    addresses = [listener.socket.getsockname()[:2] for listener in listeners]
    server = Server(House(settings, admission, ledger), streams, addresses)
    task_status.started(server)
    await server.run(listeners)


async def _converse(handler: Handler, line: Line, admit: Admit) -> Ending:
    async with open_call(line, admit=admit) as call:
        await handler(call)
        # A handler that returns has nothing more to say: the agent ended the call.
        call.hang_up("agent")
    return Ending(call.sid, call.ended_by or "agent", call.close_code)


async def _turn_away(transport: trio.abc.Stream) -> None:
    with trio.move_on_after(1):
        await transport.send_all(OVERLOADED)
