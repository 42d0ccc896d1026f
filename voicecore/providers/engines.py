"""A small pool of engine processes, and the jobs that calls give them.

Each engine is kept by one task: it starts the process, hands it one job at a time, and starts
another when it dies.  The rules:

* Nothing blocks the event loop, not even loading: jobs wait for an engine, with a deadline.
* A job that is left is cancelled; an engine that does not stop then is killed and replaced.
* A pool that is closed has no children any more.

What runs on the other side of the pipes is `worker`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from ..errors import ProviderError, ProviderFault
from . import worker

logger = logging.getLogger(__name__)

LOAD_S = 30.0
"""An engine that is not ready by then is started again."""

STOP_S = 0.5
"""How long a cancelled engine may take to stop.  They look every 20 ms or so; a new one would have
to load for longer than this."""

STEADY_S = 10.0
RESTART_S, RESTART_MAX_S = 0.05, 5.0
"""An engine that lived for `STEADY_S` is replaced at once; one that keeps dying, ever slower."""

PIECES = 2048
"""Pieces of an answer that wait for their reader; when full, the engine waits."""

_READ_BYTES = 65536

_PACKAGE_ROOT = str(Path(__file__).parent.parent.parent)

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""numpy's thread pools would be idle memory in a process that multiplies no matrices."""


_Value = TypeVar("_Value")


def module_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module of this package, wherever the server was started."""
    return (sys.executable, "-P", "-m", module)


def default_size() -> int:
    """Return how many engines a pool has where one engine keeps a core busy."""
    return min(2, os.cpu_count() or 1)


class _EngineGone(Exception):
    """The process is dead, or talks nonsense."""


@dataclass(eq=False, slots=True)
class _Job:
    """A request on its way.  `left` is set when nobody waits for the answer any more."""

    request: bytes
    pieces: trio.MemorySendChannel[bytes]
    received: trio.MemoryReceiveChannel[bytes]
    left: trio.Event = field(default_factory=trio.Event)
    fault: ProviderFault | None = "cut"
    detail: str = "the engine died"


class _Engine:
    """One process and its frames."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._read = bytearray()
        self._writing = trio.Lock()
        self.idle = trio.CancelScope()

    async def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one frame."""
        try:
            async with self._writing:
                await self._stdin.send_all(worker.HEADER.pack(kind, len(payload)) + payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _EngineGone from None

    async def receive(self) -> tuple[bytes, bytes]:
        """Return the next frame's kind and payload."""
        kind, size = worker.HEADER.unpack(await self._exactly(worker.HEADER.size))
        if size > worker.MAX_PAYLOAD:
            raise _EngineGone
        return kind, await self._exactly(size)

    async def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            try:
                data = await self._stdout.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise _EngineGone from None
            if not data:
                raise _EngineGone
            self._read += data
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken


class Answer:
    """An engine's answer: iterate over its pieces, each with its deadline.

    An engine that dies before the first piece costs nothing but time: another is asked, once.
    """

    def __init__(
        self,
        name: str,
        wanted: trio.MemorySendChannel[_Job],
        request: bytes,
        wait_s: float,
        piece_s: float,
    ) -> None:
        self._name = name
        self._wanted = wanted
        self._request = request
        self._wait_s = wait_s
        self._piece_s = piece_s
        self._job: _Job | None = None
        self._tries = 0
        self._begun = False

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece.

        Raises:
            ProviderError: timeout, cut (the engine died) or status (it cannot answer this).
        """
        while True:
            job = self._job or await self.ask()
            try:
                piece = await self._within(self._piece_s, job.received.receive, "no answer")
            except trio.EndOfChannel:
                if job.fault is None:
                    raise StopAsyncIteration from None
                if job.fault != "cut" or self._begun or self._tries > 1:
                    raise ProviderError(self._name, job.fault, job.detail) from None
                self.leave()
                continue
            self._begun = True
            return piece

    async def ask(self) -> _Job:
        """Hand the request to the next free engine.

        Raises:
            ProviderError: timeout, if none is free in time.
        """
        job = _Job(self._request, *trio.open_memory_channel[bytes](PIECES))
        await self._within(self._wait_s, partial(self._wanted.send, job), "no engine is free")
        self._tries += 1
        self._job = job
        return job

    def leave(self) -> None:
        """Stop the engine's work, if it is still at it."""
        if self._job is not None:
            self._job.left.set()
            self._job.received.close()
            self._job = None

    async def _within(
        self, seconds: float, wait: Callable[[], Awaitable[_Value]], otherwise: str
    ) -> _Value:
        with trio.move_on_after(seconds):
            return await wait()
        raise ProviderError(self._name, "timeout", f"{otherwise} within {seconds:g} s")


class EnginePool:
    """Engines of one kind.  Made by `open_pool`."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self._name = name
        self._command = command
        self._wanted, self._taken = trio.open_memory_channel[_Job](0)

    def __repr__(self) -> str:
        return f"<EnginePool {self._name}>"

    @asynccontextmanager
    async def job(self, request: bytes, wait_s: float, piece_s: float) -> AsyncIterator[Answer]:
        """Give `request` to the next free engine, within `wait_s`; leaving stops its work on it.

        Raises:
            ProviderError: timeout, if no engine is free in time.
        """
        answer = Answer(self._name, self._wanted, request, wait_s, piece_s)
        try:
            await answer.ask()
            yield answer
        finally:
            answer.leave()

    async def keep_engine(self) -> None:
        """Keep one engine alive and at work, for ever."""
        pause = RESTART_S
        while True:
            began = trio.current_time()
            try:
                async with _running(self._command) as engine:
                    await self._use(engine)
            except OSError as error:
                logger.error("%s: cannot start an engine: %s", self._name, error)
            lived = trio.current_time() - began
            pause = RESTART_S if lived >= STEADY_S else min(2 * pause, RESTART_MAX_S)
            logger.warning("%s: an engine died after %.1f s", self._name, lived)
            await trio.sleep(pause)

    async def _use(self, engine: _Engine) -> None:
        """Serve jobs until the process ends, at work or idle."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, engine)
            await engine.process.wait()
            engine.idle.cancel()
            nursery.cancel_scope.deadline = trio.current_time() + STOP_S  # to read what it left

    async def _serve(self, engine: _Engine) -> None:
        try:
            with trio.fail_after(LOAD_S):
                alive = (await engine.receive())[0] == worker.READY
            while alive:
                job = None
                with trio.CancelScope() as engine.idle:
                    job = await self._taken.receive()
                alive = job is not None and await self._answer(engine, job)
        except (_EngineGone, trio.TooSlowError):
            pass
        engine.process.kill()  # and `_use` sees it end

    async def _answer(self, engine: _Engine, job: _Job) -> bool:
        """Let the engine answer one job; return whether it can take another."""
        alive = True
        with job.pieces:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_if_left, engine, job)
                try:
                    await _forward(engine, job)
                except _EngineGone:
                    alive = False
                nursery.cancel_scope.cancel()
        return alive


async def _forward(engine: _Engine, job: _Job) -> None:
    """Pass the pieces of one answer on; after its reader left, only wait for its end."""
    await engine.send(worker.REQUEST, job.request)
    while True:
        kind, payload = await engine.receive()
        if kind == worker.DATA:
            try:
                await job.pieces.send(payload)
            except trio.BrokenResourceError:
                pass
        elif kind == worker.DONE:
            job.fault = None
            return
        elif kind == worker.FAILED:
            job.fault, job.detail = "status", payload.decode(errors="replace")
            return
        else:
            raise _EngineGone


async def _stop_if_left(engine: _Engine, job: _Job) -> None:
    await job.left.wait()
    with trio.move_on_after(STOP_S):
        try:
            await engine.send(worker.CANCEL)
            await trio.sleep_forever()  # until the answer has ended
        except _EngineGone:
            pass
    engine.process.kill()


@asynccontextmanager
async def _running(command: Sequence[str]) -> AsyncIterator[_Engine]:
    """Start an engine process; on leaving it is killed and reaped, whatever it was doing.

    Raises:
        OSError: no process can be started.
    """
    path = [_PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path)},
    )
    try:
        yield _Engine(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_S):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()


@asynccontextmanager
async def open_pool(name: str, command: Sequence[str], size: int) -> AsyncIterator[EnginePool]:
    """Open a pool of `size` engines that `command` starts; they load while you go on."""
    pool = EnginePool(name, command)
    async with trio.open_nursery() as nursery:
        for _ in range(size):
            nursery.start_soon(pool.keep_engine)
        try:
            yield pool
        finally:
            nursery.cancel_scope.cancel()
