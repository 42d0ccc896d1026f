"""A network in memory: one call answered over real WebSocket bytes, without a socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair
from trio_websocket import wrap_server_stream

from ..call.agent import Agent
from ..call.call import Call, open_call
from ..call.line import WebSocketLine
from ..errors import CallRefused, LineClosed


@dataclass
class Answered:
    """The call that was answered, once it is over."""

    call: Call | None = None
    meanwhile: Callable[[Call], Awaitable[None]] | None = None
    """Runs beside the call, until one of both is over."""
    over: trio.Event = field(default_factory=trio.Event)


async def answer_on(
    agent: Agent,
    answered: Answered,
    task_status: trio.TaskStatus[trio.abc.Stream] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer one call for `agent`; starts with the carrier's end of the stream."""
    ours, theirs = memory_stream_pair()
    try:
        async with trio.open_nursery() as nursery:
            task_status.started(theirs)
            request = await wrap_server_stream(nursery, ours)
            websocket = await request.accept()
            line = WebSocketLine(websocket)
            try:
                async with open_call(line) as call:
                    answered.call = call
                    if answered.meanwhile is not None:
                        nursery.start_soon(answered.meanwhile, call, name="meanwhile")
                    await call.converse(agent)
                await line.aclose(call.close_code)
            except (CallRefused, LineClosed):
                await line.aclose(1008)
            nursery.cancel_scope.cancel()
    finally:
        answered.over.set()
        await trio.aclose_forcefully(ours)
