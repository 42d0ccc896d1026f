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

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import trio

from ..call.agent import Agent
from ..call.agents import AgentPicker, Agents, picker_of
from ..call.line import CLOSE_S
from ..records.records import Records, open_records
from ..settings import Settings
from .admission import Admission
from .call_state import CallStates
from .control.live_calls import LiveCalls
from .control.siblings import Siblings
from .control.switchboard import Switchboard
from .conversing import Handler, converse_with, conversing
from .house import House
from .ledger import Ledger
from .media import Converse, MediaStreams
from .metrics import Metrics, Totals
from .port.boundary import contain
from .port.http import BadRequest, HttpConnection
from .port.limits import RECORDED_CALLS, RECORDED_CALLS_A_PLACE, RESERVED_FILES
from .port.listening import file_limit, listen
from .port.peer import linger
from .port.upgrade import Upgrade
from .recordings.flow_calls import FlowCalls
from .recordings.flow_records import FlowRecords
from .recordings.recorded_turns import RecordedTurns
from .recordings.recording_flow import RecordingFlow
from .recordings.recording_source import RecordingSource
from .routes import find_route
from .store import Clock, store_for
from .workers import WorkerSeat

WarmUp = Callable[[], Awaitable[None]]

WARMING = 16
"""Warm-ups at once: with more calls than that in a moment, connections are warm anyway."""

OVERLOADED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class WarmUps:
    """Starts what makes providers ready, in a nursery of the server's."""

    def __init__(self, warm_up: WarmUp | None, nursery: trio.Nursery) -> None:
        self._warm_up = warm_up
        self._nursery = nursery
        self._running = 0

    def start(self) -> None:
        """A call will begin in a moment."""
        if self._warm_up is not None and self._running < WARMING:
            self._running += 1
            self._nursery.start_soon(self._run, self._warm_up)

    async def _run(self, warm_up: WarmUp) -> None:
        try:
            await contain("warm-up", warm_up)
        finally:
            self._running -= 1


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
        """Calls that are up: streams of all workers, and recording flows of this one."""
        flow = self._house.flow
        return self._house.ledger.calls + (0 if flow is None else len(flow.calls))

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
                if self._house.flow is not None:
                    await self._house.flow.calls.wait_empty()
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
            await self._streams.run(transport, upgrade, http.unread)
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
    who: Handler | Agent | AgentPicker,
    settings: Settings,
    *,
    seat: WorkerSeat | None = None,
    warm_up: WarmUp | None = None,
    totals: Totals = dict,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls until drained or cancelled.

    `who` answers them: an agent; a plain function from a call's parameters to an agent; or an async
    function that gets each call once it has started, whose call ends when it returns.  Such a
    function answers streams only: there is no recording flow to fall back to.  An exception in a
    call ends that call (1011) and no other.  A worker that shares the port has a `seat`.  With
    VOICECORE_RECORD_DIR calls are recorded.

    For a function that takes calls, `warm_up` runs at the webhook, a moment before its call, and
    `totals` is asked for what the metrics should follow (`meters.TOTALS`); agents have their own.

    Raises:
        CannotListen: the port is taken, or the host is not ours.
        SettingsError: calls cannot be recorded, or providers cannot be opened.  Where agents are
            open, or calls are recorded, both errors come in an exception group.
    """
    async with AsyncExitStack() as stack:
        records = await stack.enter_async_context(open_records(settings))
        pick, agents = picker_of(who), None
        if pick is None:
            handler: Handler = who  # type: ignore[assignment]
        else:
            from .open_agents import open_agents  # slow to import: providers

            agents = await stack.enter_async_context(open_agents(pick, settings))
            handler, warm_up, totals = conversing(agents), agents.warm_up, agents.totals
        clock, directory = common_clock(), "" if seat is None else seat.directory
        calls = LiveCalls(clock, 0 if seat is None else seat.number)
        states = CallStates(store_for(directory, clock), clock, settings.max_call_s)
        outfit = Outfit(warm_up, Metrics(totals), agents, records, calls, states)
        converse = converse_with(handler, outfit.observe, records, states, calls)
        await serve_lines(converse, settings, seat=seat, outfit=outfit, task_status=task_status)


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a server has besides its settings."""

    warm_up: WarmUp | None = None
    metrics: Metrics = field(default_factory=Metrics)
    agents: Agents | None = None
    records: Records | None = None
    """None: calls are not recorded."""
    calls: LiveCalls = field(default_factory=lambda: LiveCalls(common_clock()))
    states: CallStates | None = None
    """What is known of calls; they are a store's, so that is everybody's."""

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        """Tell all who want to know a call's milestones (see `call.timeline.Observer`)."""
        self.metrics.observe(call_sid, event, at, fields)
        self.calls.observe(call_sid, event, at, fields)


def common_clock() -> Clock:
    """Return trio's clock moved to the time of day.

    trio's own starts anywhere; tokens and stored values must mean the same to all workers.
    """
    since_epoch = datetime.now(tz=UTC).timestamp() - trio.current_time()
    return lambda: trio.current_time() + since_epoch


async def serve_lines(
    converse: Converse,
    settings: Settings,
    *,
    seat: WorkerSeat | None = None,
    outfit: Outfit | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do what `serve` does, with something that takes the bare line."""
    listeners = await listen(settings.host, settings.port, share=seat is not None)
    ledger = Ledger() if seat is None else seat.ledger()
    outfit = outfit or Outfit()
    clock, directory = outfit.calls.clock, "" if seat is None else seat.directory
    states = outfit.states or CallStates(store_for(directory, clock), clock, settings.max_call_s)
    admission = Admission(settings, ledger, clock)
    streams = MediaStreams(converse, admission, ledger)
    addresses = [listener.socket.getsockname()[:2] for listener in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outfit.metrics.run, name="metrics")
        siblings = Siblings() if seat is None else Siblings(directory, seat.number, seat.workers)
        board = Switchboard(
            settings,
            ledger,
            states.store,
            outfit.calls,
            siblings,
            outfit.agents,
            outfit.metrics.observe,
        )
        nursery.start_soon(board.run, name="switchboard")
        house = House(
            settings,
            admission,
            ledger,
            states.store,
            metrics=outfit.metrics,
            warm_up=WarmUps(outfit.warm_up, nursery).start,
            records=outfit.records,
            states=states,
            flow=await _started_flow(nursery, settings, ledger, outfit, states),
            switchboard=board,
        )
        server = Server(house, streams, addresses)
        task_status.started(server)
        await server.run(listeners)
        nursery.cancel_scope.cancel()


async def _started_flow(
    nursery: trio.Nursery, settings: Settings, ledger: Ledger, outfit: Outfit, states: CallStates
) -> RecordingFlow | None:
    """Start the recording flow, if there are agents that can answer in it."""
    if outfit.agents is None:
        return None
    source = RecordingSource(settings)
    nursery.start_soon(source.run, name="recordings")
    most = RECORDED_CALLS_A_PLACE * settings.max_calls or RECORDED_CALLS
    calls = FlowCalls(states, most, FlowRecords(outfit.records, outfit.observe))
    flow = RecordingFlow(outfit.agents, calls, RecordedTurns(states.store, ledger), source.fetch)
    await nursery.start(flow.run)
    return flow


async def _turn_away(transport: trio.abc.Stream) -> None:
    with trio.move_on_after(1):
        await transport.send_all(OVERLOADED)
