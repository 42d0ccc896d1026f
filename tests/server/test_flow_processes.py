"""A worker, or the whole server, is killed in mid-call: the call goes on.  Real processes, once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio
from flow_house import Carrier, RecordingStore
from server_house import CALL_SID, STREAM_SID
from test_program import answers, ended, workers_of
from trio_websocket import WebSocketConnection, wrap_client_stream

from voicecore.audio import SILENCE_FRAME
from voicecore.call.phrases import STOCK_WORDS
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.testing import audible

ROOT = Path(__file__).parents[2]
WORDS = STOCK_WORDS["en"]
AGENT = """
from voicecore.testing import FakeLLM, fake_agent

def everything(messages):
    return "You said " + " ".join(m.text for m in messages if m.role == "user") + "."

answer = fake_agent(llm=FakeLLM(answer=everything))
"""


class Port:
    """A server on a port, and the recordings that it fetches, on another."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.recordings = RecordingStore()
        self.recordings_url = ""

    async def dial(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def serve_recording(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = bytes(await stream.receive_some(65536)).decode()
            sid = head.split()[1].rpartition("/")[2].removesuffix(".wav")
            body = self.recordings.files[sid]
            await stream.send_all(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
            )


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("VOICECORE_", "TWILIO_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text(AGENT)


@asynccontextmanager
async def reachable() -> AsyncIterator[Port]:
    """A free port for a server; its recordings are served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = Port(free.getsockname()[1])
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port.recordings_url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, port.serve_recording, listeners)
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def program(port: Port, *flags: str) -> AsyncIterator[trio.Process]:
    command = [sys.executable, str(ROOT / "server.py"), "--host=127.0.0.1", f"--port={port.port}"]
    process = await trio.lowlevel.open_process(
        [*command, "--agent=agent.py:answer", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TWILIO_BASE_URL": port.recordings_url},
    )
    async with ended(process):
        with trio.fail_after(40):
            while not await answers(port.port):  # noqa: ASYNC110  another process says no more
                await trio.sleep(0.02)
        yield process


@asynccontextmanager
async def stream(port: Port) -> AsyncIterator[tuple[WebSocketConnection, int]]:
    """A stream in which something was said and the answer is being heard, and its local port."""
    transport = await port.dial()
    async with transport, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, transport, "127.0.0.1", "/media-stream")
        carrier = CarrierStream(CallIdentity(CALL_SID, STREAM_SID))
        for message in carrier.open():
            await websocket.send_message(message)
        for frame in [*audible.say("book a table", 45), *[SILENCE_FRAME] * 25]:
            await websocket.send_message(carrier.media(frame))
            await trio.sleep(0.02)
        while carrier.media_messages < 20:  # the answer is on its way, and has begun long ago
            carrier.receive(await websocket.get_message())
        yield websocket, transport.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def worker_with(workers: list[int], remote: int) -> int:
    """The worker that has the connection from a port."""
    return next(
        pid
        for pid in workers
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.raddr and connection.raddr.port == remote
    )


async def test_a_worker_is_killed_and_another_goes_on_with_the_history() -> None:
    async with reachable() as port, program(port, "--workers=2") as supervisor:
        with trio.fail_after(40):
            async with stream(port) as (_, remote):
                victim = worker_with(workers_of(supervisor.pid), remote)
                os.kill(victim, signal.SIGKILL)
            while victim in workers_of(supervisor.pid):  # noqa: ASYNC110  its port is its own
                await trio.sleep(0.01)
            caller = Carrier(port)
            caller.is_patient = False
            heard = await caller.visit("/voice-stream/ended")
            assert (heard.text, heard.verbs[-2:]) == (WORDS.cut_off, ["Record", "Redirect"])
            assert (await caller.says("for two")).text == "You said book a table for two."
            assert (await caller.says("at eight")).text == "You said book a table for two at eight."
            assert (await caller.hangs_up()).verbs == ["Hangup"]


async def test_the_server_is_killed_and_the_next_one_apologises_and_goes_on() -> None:
    async with reachable() as port:
        async with program(port) as process, stream(port):
            process.kill()
            await process.wait()
        async with program(port) as process:
            with trio.fail_after(40):
                caller = Carrier(port)
                caller.is_patient = False
                heard = await caller.visit("/voice-stream/ended")
                assert (heard.text, heard.verbs[-2:]) == (WORDS.apology, ["Record", "Redirect"])
                assert (await caller.says("for two")).text == "You said for two."
                await caller.hangs_up()
                process.terminate()
                assert await process.wait() == 0
