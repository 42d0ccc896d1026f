"""Signals, ports and leaks: real processes and real sockets, once each."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio
import trio.lowlevel
import trio_websocket
from server_house import CALL_SID, STREAM_SID, UPGRADE, ask, get, port_server
from test_handshake import HOSTILE

from voicecore.phone.stream import CallIdentity, CarrierStream

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def program(drain_s: float) -> AsyncIterator[tuple[trio.Process, int]]:
    """The test server in a process of its own, and its port."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, Path(__file__).with_name("server_program.py"), "0", str(drain_s)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
            )
        )
        line = b""
        with trio.fail_after(40):
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
        yield process, int(line)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def call(port: int) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        websocket = await trio_websocket.wrap_client_stream(
            nursery, stream, "127.0.0.1", "/media-stream"
        )
        for message in CarrierStream(CallIdentity(CALL_SID, STREAM_SID)).open():
            await websocket.send_message(message)
        await websocket.send_message("hello")
        assert await websocket.get_message() == "hello"
        yield websocket
        nursery.cancel_scope.cancel()


async def exit_of(process: trio.Process, within: float) -> tuple[int, bytes]:
    with trio.fail_after(within):
        stderr = b"".join([data async for data in process.stderr])
        return await process.wait(), stderr


async def test_sigterm_ends_an_idle_server_and_its_idle_connections() -> None:
    async with program(drain_s=30) as (process, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as kept_alive:
            assert (await ask(kept_alive, get("/readyz"))).status == 200
            process.send_signal(signal.SIGTERM)
            assert await exit_of(process, within=15) == (0, b"")


async def test_sigterm_waits_for_a_call_and_a_second_does_not() -> None:
    async with program(drain_s=30) as (process, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as probe, call(port) as websocket:
            assert (await ask(probe, get("/readyz"))).status == 200
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(10):
                while (await ask(probe, get("/readyz"))).status != 503:
                    pass
            assert (await ask(probe, UPGRADE)).status == 503
            await websocket.send_message("still here")
            assert await websocket.get_message() == "still here"
            process.send_signal(signal.SIGTERM)
            assert await exit_of(process, within=15) == (0, b"")


async def test_the_end_of_the_drain_closes_1001() -> None:
    async with program(drain_s=0.1) as (process, port), call(port) as websocket:
        process.send_signal(signal.SIGINT)
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await websocket.get_message()
        assert closed.value.reason.code == 1001
        assert await exit_of(process, within=15) == (0, b"")


async def test_hostile_handshakes_over_a_socket() -> None:
    async with port_server() as server:
        for request in HOSTILE.values():
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
                assert (await ask(stream, request)).status == 400
        async with call(server.port):
            assert server.calls == 1


async def test_a_caller_who_reads_nothing_costs_little_and_gets_everything_in_the_end() -> None:
    async with port_server() as server, call(server.port) as websocket:
        texts = [f"{number}:{'x' * 30_000}" for number in range(100)]
        async with trio.open_nursery() as nursery:
            # Three megabytes: the kernel's buffers fill, and sends begin to wait half-way.
            nursery.start_soon(send_all, websocket, texts)
            await trio.sleep(0.1)
            assert [await websocket.get_message() for _ in texts] == texts


async def send_all(websocket: trio_websocket.WebSocketConnection, texts: list[str]) -> None:
    for text in texts:
        await websocket.send_message(text)


async def test_two_hundred_dropped_calls_leave_nothing() -> None:
    async with port_server() as server:

        async def dropped() -> None:
            # Leaving without a word resets: the server has just sent, and nobody reads it.
            async with call(server.port) as websocket:
                await websocket.send_message("unread")

        async def twenty() -> None:
            for _ in range(20):
                await dropped()

        await twenty()  # what the first calls load stays loaded
        before, memory = footprint(), resident()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(twenty)
        with trio.fail_after(20):
            while server.calls or footprint()[0] > before[0]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert footprint()[1] <= before[1]
        assert resident() - memory < 10e6


def resident() -> int:
    """Bytes of memory that this process occupies."""
    occupied: int = psutil.Process().memory_info().rss
    return occupied


def footprint() -> tuple[int, int]:
    """Tasks and open descriptors of this process."""
    gc.collect()
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))
