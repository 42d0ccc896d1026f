"""A server as a program: signals in, an exit status out.

first SIGTERM or SIGINT    drain: no new calls, those that run may end by themselves
second                     out, now
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Awaitable, Callable

import trio

from .port.listening import raise_file_limit
from .serve import Server

Serve = Callable[..., Awaitable[None]]
"""`serve` or `serve_lines` with its arguments, waiting for `task_status`."""


async def run_until_signalled(
    serve: Serve, ready: Callable[[Server], None], lifeline: int | None = None
) -> None:
    """Run a server until a signal has drained it.

    `ready` is called once it listens.  `lifeline` is a pipe from a supervisor: when it closes, the
    supervisor is gone, and so are we.
    """
    raise_file_limit()
    settle_memory()
    # Before the port is open: from then on a signal must find us ready.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as serving:
                server = await serving.start(serve)
                ready(server)
                nursery.start_soon(_obey, signals, server, nursery.cancel_scope, name="signals")
                if lifeline is not None:
                    nursery.start_soon(_hold, lifeline, server, name="lifeline")
            nursery.cancel_scope.cancel()


def settle_memory() -> None:
    """Make collections short and rare: each stalls every call of this process.

    What is there now is there for good: without it a full collection takes a tenth of the time.
    Calls free nearly all of theirs by reference count; ten thousand more than that take 5 ms to
    look through, and full collections are left to a thousandth of the default's pace.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 200)


async def _obey(signals: object, server: Server, everything: trio.CancelScope) -> None:
    asked = False
    async for _ in signals:  # type: ignore[attr-defined]
        if asked:
            everything.cancel()
        asked = True
        server.drain()


async def _hold(lifeline: int, server: Server) -> None:
    await trio.lowlevel.wait_readable(lifeline)
    server.drain()
