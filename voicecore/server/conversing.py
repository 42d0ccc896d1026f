"""A line becomes a call: opened, watched, talked on, and its end told before the line is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext

import trio

from ..call.agents import Agents
from ..call.call import Call, open_call
from ..call.timeline import Observer
from ..contracts import Line
from ..records.call_record import CallRecord
from ..records.records import Records
from ..wire.dialects import TWILIO, Dialect
from ..wire.events import Started
from .admission import Admit
from .call_state import CallStates, StreamKeeper, ended_by
from .control.live_calls import LiveCalls
from .media import Converse, Ending

OPENING_S = 10.0
"""How long it may take to find out who answers a stream, and to open their providers: the caller
hears nothing meanwhile."""

Handler = Callable[[Call], Awaitable[None]]
"""Takes a call once it has started; the call ends when it returns."""


def conversing(agents: Agents) -> Handler:
    """Return a handler that lets the agent of each call talk."""

    async def converse(call: Call) -> None:
        with trio.fail_after(OPENING_S):
            agent = await agents.agent_for(call.parameters)
        await call.converse(agent)

    return converse


def converse_with(
    handler: Handler,
    observe: Observer | None = None,
    records: Records | None = None,
    states: CallStates | None = None,
    calls: LiveCalls | None = None,
) -> Converse:
    """Return what `serve_lines` takes: open a call on each line, and let `handler` talk.

    What is said is kept in `states` as it is said: the call may have to go on without its stream.
    `calls` is where others find it meanwhile.
    """

    async def converse(line: Line, admit: Admit, dialect: Dialect) -> Ending:
        async with _watched(_Watch(records, admit, observe, dialect.name)) as watch:
            keeper = StreamKeeper(states, watch.observe)
            opened = open_call(line, watch.admit, keeper.observe, dialect)
            async with opened as call, keeper.keeping(call):
                call.tap = watch.record
                can_meet = dialect is TWILIO
                async with nullcontext() if calls is None else calls.hosting(call, can_meet):
                    await handler(call)
                # A handler that returns has nothing more to say: the agent ended the call.
                call.hang_up("agent")
        return Ending(call.sid, ended_by(call) or "agent", call.close_code)

    return converse


class _Watch:
    """Begins a call's record when the call is admitted, and tells it what the call tells."""

    def __init__(
        self, records: Records | None, admit: Admit, observe: Observer | None, carrier: str
    ) -> None:
        self.record: CallRecord | None = None
        self._records = records
        self._admit = admit
        self._observe = observe
        self._carrier = carrier

    def admit(self, started: Started) -> None:
        """Let a stream become a call, or raise `CallRefused`."""
        self._admit(started)
        if self._records is not None:
            self.record = self._records.begin(
                started.call_sid, parameters=started.parameters, carrier=self._carrier
            )

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        """Take a milestone."""
        if self._observe is not None:
            self._observe(call_sid, event, at, fields)
        if self.record is not None:
            self.record.observe(call_sid, event, at, fields)


@asynccontextmanager
async def _watched(watch: _Watch) -> AsyncIterator[_Watch]:
    """Watch a call; on leaving, however it ended, its record is on disk."""
    try:
        yield watch
    finally:
        if watch.record is not None:
            await watch.record.close()
