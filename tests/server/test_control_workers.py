"""Two real worker processes are one server: whichever is asked has the call, and dials once.

Every request comes on a connection of its own, so that the kernel spreads them over both.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio
from control_house import ADMIN, AUTH_TOKEN, CALLED, HUMAN, OUTBOUND, PUBLIC, resource, sid
from test_program import ended
from trio_websocket import wrap_client_stream

from voicecore.phone.signing import form_signature, upgrade_signature
from voicecore.phone.stream import CallIdentity
from voicecore.phone.twiml import Connect, parse
from voicecore.server.port.http import HttpConnection, Request
from voicecore.server.port.json_http import json_response
from voicecore.settings import variable_name
from voicecore.testing import ScriptedCaller, Transcript

ROOT = Path(__file__).parents[2]
AGENT = """
from voicecore.testing import FakeTTS, fake_agent
agent = fake_agent(tts=FakeTTS(word_frames=3), greeting="Good day.")
"""
PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 30, "verify": False}
"""No proxies, and no certificates to load: a client a request."""

ASKED = 12
"""Of so many connections, all to one of two workers are as good as impossible."""


class LoopbackTwilio:
    """A REST API on a real socket."""

    def __init__(self) -> None:
        self.created: list[bytes] = []

    async def connected(self, stream: trio.SocketStream) -> None:
        http = HttpConnection(stream)
        while (request := await http.next_request()) is not None:
            assert isinstance(request, Request)
            assert request.header("authorization").startswith("Basic ")
            body = await http.body()
            await trio.sleep(0.1)  # long enough for a second order to come meanwhile
            self.created.append(body)
            await http.respond(json_response(201, resource(sid(100 + len(self.created)))))


class Workers:
    """The program with two workers."""

    def __init__(self, process: trio.Process, port: int, twilio: LoopbackTwilio) -> None:
        self.process = process
        self.base = f"http://127.0.0.1:{port}"
        self.port = port
        self.twilio = twilio

    async def ask(self, method: str, path: str, value: Any = None, key: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {ADMIN}", **({"Idempotency-Key": key} if key else {})}
        async with httpx.AsyncClient(**PLAIN) as client:
            return await client.request(method, self.base + path, json=value, headers=headers)

    async def each(self, method: str, path: str, value: Any = None, key: str = "") -> set[str]:
        """Ask often, one after the other; return the different answers."""
        answers = [await self.ask(method, path, value, key) for _ in range(ASKED)]
        return {f"{answer.status_code} {answer.text.strip()}" for answer in answers}

    async def call(self, call_sid: str, caller: ScriptedCaller) -> Transcript:
        """Call in, as Twilio does."""
        form = {"CallSid": call_sid, "From": "+15550009999", "To": "+15550001111"}
        url = f"{PUBLIC}/voice-stream"
        async with httpx.AsyncClient(**PLAIN) as client:
            signature = {"X-Twilio-Signature": form_signature(AUTH_TOKEN, url, form)}
            answer = await client.post(f"{self.base}/voice-stream", data=form, headers=signature)
        [connect] = parse(answer.content, url)
        assert isinstance(connect, Connect)
        identity = CallIdentity(call_sid, "MZ" + "1" * 32, parameters=connect.parameters)
        signed = upgrade_signature(AUTH_TOKEN, connect.stream_url).encode()
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "agent.example.com", "/media-stream",
                extra_headers=[(b"X-Twilio-Signature", signed)],
            )  # fmt: skip
            transcript = await caller.talk(websocket, identity)
            nursery.cancel_scope.cancel()
        return transcript

    async def turns(self, call_sid: str) -> list[str]:
        detail = (await self.ask("GET", f"/calls/{call_sid}")).json()
        return [turn.get("agent", "") for turn in detail.get("turns", [])]


@asynccontextmanager
async def workers(tmp_path: Path, **given: str) -> AsyncIterator[Workers]:
    (tmp_path / "agent.py").write_text(AGENT)
    twilio = LoopbackTwilio()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, twilio.connected, 0, host="127.0.0.1")
        )
        rest = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        settings = {variable_name(name): str(value) for name, value in OUTBOUND.items()}
        process = await trio.lowlevel.open_process(
            [sys.executable, str(ROOT / "server.py"), "--host=127.0.0.1", "--port=0",
             "--workers=2", "--agent=agent.py:agent"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
            env={**os.environ, **settings, "TWILIO_BASE_URL": rest, **given},
        )  # fmt: skip
        async with ended(process), process.stdout, process.stderr:
            output = errors = b""
            with trio.fail_after(40):
                while b"Try it" not in output:
                    output += await process.stdout.receive_some()
                while errors.count(b"worker listening") < 2:
                    errors += await process.stderr.receive_some()
            nursery.start_soon(drain, process.stderr)
            port = int(output.split(b"127.0.0.1:")[1].split(b".")[0])
            yield Workers(process, port, twilio)
            nursery.cancel_scope.cancel()


async def drain(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass


async def until(truth: Any) -> None:
    with trio.fail_after(20):
        while not await truth():  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_two_workers_are_one_server(tmp_path: Path) -> None:
    async with workers(tmp_path, VOICECORE_OUTBOUND_PER_HOUR="3") as server:
        transcripts: dict[str, Transcript] = {}

        async def call(call_sid: str) -> None:
            caller = ScriptedCaller().pauses(60)
            transcripts[call_sid] = await server.call(call_sid, caller)

        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                nursery.start_soon(call, sid(number))
            await until(lambda: all_up(server, 3))
            seen = [(await server.ask("GET", "/calls")).json()["calls"] for _ in range(ASKED)]
            assert {line["sid"] for lines in seen for line in lines} == {sid(1), sid(2), sid(3)}
            assert {len(lines) for lines in seen} == {3}
            # A sentence, under one key said once.
            path = f"/calls/{sid(1)}"
            said = await server.each("POST", f"{path}/say", {"text": "Stay calm."}, "s1")
            assert said == {'200 {"status":"accepted"}'}

            async def is_said() -> bool:
                return "Stay calm." in await server.turns(sid(1))

            await until(is_said)
            assert await server.each("POST", f"{path}/hangup") == {'200 {"status":"ended"}'}
            transfer = await server.each("POST", f"/calls/{sid(2)}/transfer", {"to": HUMAN})
            assert transfer == {'200 {"status":"transferring"}'}
            await until(lambda: all_up(server, 1))
            assert " ".join(transcripts[sid(1)].heard) == "Good day. Stay calm."
            details = [(await server.ask("GET", path)).json() for _ in range(ASKED)]
            assert {(each["state"], each["ended_by"]) for each in details} == {("ended", "admin")}
            assert {status[:3] for status in await server.each("GET", f"/calls/{sid(9)}")} == {
                "404"
            }
            await order(server)
            # A worker that dies takes its calls with it, and is not waited for.
            [line] = (await server.ask("GET", "/calls")).json()["calls"]
            victims = psutil.Process(server.process.pid).children()
            os.kill(victims[0].pid, signal.SIGKILL)

            async def is_asked() -> bool:
                try:
                    return (await server.ask("GET", "/calls")).status_code == 200
                except httpx.TransportError:
                    return False  # it was the one that died

            await until(is_asked)
            await until(lambda: hung_up(server, line["sid"]))
            nursery.cancel_scope.cancel()


async def order(server: Workers) -> None:
    """One call under one key, and three in an hour, whoever is asked."""
    answers: list[str] = []

    async def place(key: str) -> None:
        answer = await server.ask("POST", "/calls", {"to": CALLED}, key)
        answers.append(f"{answer.status_code} {answer.text.strip()}")

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(place, "order-1")
    expected = f'201 {{"call_sid":"{sid(101)}","status":"queued","to":"{CALLED}"}}'
    assert answers == [expected] * 8
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(place, f"other-{number}")
    assert sorted(answer[:3] for answer in answers[8:]) == ["201"] * 2 + ["429"] * 6
    assert len(server.twilio.created) == 3
    await place("order-1")
    assert answers[-1] == expected


async def all_up(server: Workers, number: int) -> bool:
    return len((await server.ask("GET", "/calls")).json()["calls"]) == number


async def hung_up(server: Workers, call_sid: str) -> bool:
    """The call is over, by us or with its worker."""
    try:
        return (await server.ask("POST", f"/calls/{call_sid}/hangup")).status_code in (200, 404)
    except httpx.TransportError:
        return False
