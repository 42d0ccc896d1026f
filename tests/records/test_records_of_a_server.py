"""Servers that record: real processes and sockets, disks that fail, and what carriers tell."""

from __future__ import annotations

import importlib.util
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from records_house import (
    SID,
    inline,
    lines,
    loud,
    only,
    recorded_call,
    rows,
    settings,
    sides,
    virtual_records,
)
from trio.testing import MockClock
from trio_websocket import wrap_client_stream

from voicecore.audio import mulaw
from voicecore.call.call import Call
from voicecore.call.playback import Player
from voicecore.errors import SettingsError
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.records.query import Which, open_log
from voicecore.records.records import open_records
from voicecore.server.serve import Server, serve
from voicecore.testing import FakeTTS, ScriptedCaller, fake_agent
from voicecore.wire.events import Command, Play

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORDS = "one two three four five six seven eight nine ten."


# -- a process that is killed


@asynccontextmanager
async def program(directory: Path) -> AsyncIterator[tuple[trio.Process, int]]:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, str(HERE / "records_program.py"), str(directory)]
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
            )
        )  # fmt: skip
        assert process.stdout is not None
        line = b""
        with trio.fail_after(40):
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
        yield process, int(line)
        nursery.cancel_scope.cancel()


async def test_a_killed_process_leaves_the_call_up_to_then(tmp_path: Path) -> None:
    caller = ScriptedCaller().pauses(0.5).says("hello there", 0.4).pauses(1.6)
    async with program(tmp_path) as (process, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/media-stream")

            async def talk() -> None:
                transcript = await caller.talk(websocket)
                heard.append(transcript.seconds)

            heard: list[float] = []
            nursery.start_soon(talk)
            with trio.fail_after(30):
                while not _said(tmp_path):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert rows(tmp_path)[0]["ended_by"] is None
            process.send_signal(signal.SIGKILL)
            await process.wait()
            nursery.cancel_scope.cancel()
    left, right = sides(only(tmp_path))  # a valid file
    (spoke,) = loud(left)
    assert spoke[1] - spoke[0] == pytest.approx(0.4, abs=0.05)
    assert loud(right)[0][0] < 0.5
    (row,) = rows(tmp_path)
    assert row["ended_by"] == "lost"
    with open_log(tmp_path) as log:
        assert log.turns(Which())[0]["agent_text"]
    async with open_records(settings(tmp_path)):
        pass  # the next server writes it down
    with sqlite3.connect(tmp_path / "calls.sqlite3") as sql:
        ended, seconds = sql.execute("SELECT ended, seconds FROM calls").fetchone()
    sql.close()
    assert ended > row["began"]
    assert 0.5 < seconds < 30


def _said(directory: Path) -> bool:
    """Whether the call's log knows already what the caller said."""
    try:
        return any(line["who"] == "caller" for line in lines(only(directory)))
    except (OSError, ValueError):
        return False


# -- disks that fail


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may be longer: to whoever writes, the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_costs_the_record_and_not_the_call(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caller = ScriptedCaller().listens().says("hello there").listens().pauses(20).hangs_up()
    agent = fake_agent(greeting="Good day.", idle_prompt_s=0)
    async with virtual_records(tmp_path) as records:
        with file_size_limit(200_000):
            transcript = await recorded_call(records, caller, agent)
        assert transcript.heard == ["Good", "day.", "You", "said", "hello", "there."]
        assert transcript.seconds > 20
        warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert [r.name for r in warnings] == ["voicecore.records"]
        assert "calls are not recorded" in warnings[0].getMessage()
        assert 5 < len(sides(only(tmp_path))[0]) / 8000 <= 200_000 / 32_000
        assert len(lines(only(tmp_path))) == 3

        record = records.begin("CA-later")  # there is room again
        record.received(b"\x10" * 160, None)
        record.observe("", "call ended", 0, {"reason": "agent"})
        await record.close()
    assert [row["ended_by"] for row in rows(tmp_path, "CA-later")] == ["agent"]


async def test_a_full_log_costs_rows_and_not_the_call(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with virtual_records(tmp_path) as records:
        with file_size_limit(1):
            caller = ScriptedCaller().listens().says("hello there").listens().hangs_up()
            transcript = await recorded_call(records, caller, fake_agent(greeting="Good day."))
    assert len(transcript.heard) == 6
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


async def test_a_directory_that_is_gone_costs_files_and_not_the_row(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records_dir = tmp_path / "records"
    async with virtual_records(records_dir) as records:
        record = records.begin(SID)
        record.received(b"\x10" * 160, None)
        await records._write()
        only(records_dir).rename(tmp_path / "gone")
        record.observe(SID, "user said", 0, {"turn": "t1", "text": "hello"})
        await records._write()
        record.observe(SID, "user said", 0, {"turn": "t2", "text": "hello"})
        record.observe(SID, "call ended", 0, {"reason": "caller"})
        await record.close()
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    (row,) = rows(records_dir)
    assert (row["ended_by"], row["turns"]) == ("caller", 2)


async def test_a_disk_that_hangs_is_waited_for_a_moment_at_the_end_alone(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = trio.Event()

    async def run(work: Callable[[], Any], limiter: trio.CapacityLimiter) -> Any:
        if hanging.is_set():
            await trio.sleep_forever()
        return await inline(work, limiter)

    async with open_records(settings(tmp_path), run) as records:
        assert records is not None
        hanging.set()
        caller = ScriptedCaller().says("hello there").listens().pauses(60).hangs_up()
        agent = fake_agent(idle_prompt_s=0)
        transcript = await recorded_call(records, caller, agent)
        assert len(transcript.heard) == 4
        assert transcript.seconds == pytest.approx(63, abs=2)
        record = records.begin("CA-flood")
        for _ in range(100_000):
            record.received(b"\x10" * 160, None)
            record.observe("", "user said", 0, {"turn": "t1", "text": "hello"})
        assert record._waiting < 1 << 20
        assert record.dropped_bytes > 10_000_000
    assert "gave no answer" in caplog.text


@pytest.mark.parametrize("what", ["a file", "under a file", "no log", "a log that is a directory"])
def test_a_directory_that_cannot_be_used_is_one_line_and_status_2(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "records"
    if what == "a file":
        bad.write_text("x")
    elif what == "under a file":
        (tmp_path / "file").write_text("x")
        bad = tmp_path / "file" / "records"
    else:
        bad.mkdir()
        log = bad / "calls.sqlite3"
        if what == "no log":
            log.write_bytes(b"x" * 5000)
        else:
            log.mkdir()
    with pytest.raises(SettingsError, match=r"^VOICECORE_RECORD_DIR: got '.*'; takes a directory"):
        trio.run(serve, _silent, settings(bad))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECORE_RECORD_DIR", str(bad))
    (tmp_path / "agent.py").write_text("async def answer(call): ...\n")
    spec = importlib.util.spec_from_file_location("voicecore_program", ROOT / "server.py")
    assert spec is not None
    assert spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    assert server.main(["--check", "--agent", "agent.py:answer"]) == 2
    complaint = capsys.readouterr().err
    assert len(complaint.splitlines()) == 1
    assert complaint.startswith("VOICECORE_RECORD_DIR: ")


async def _silent(call: Call) -> None:
    await call.wait_ended()


# -- a server with a port, and what carriers tell it


@asynccontextmanager
async def recording_server(directory: Path, **given: object) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve, _silent, settings(directory, **given)))
        nursery.cancel_scope.cancel()


async def post(server: Server, path: str, body: str) -> int:
    """Post a form; return the answer's status."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all((head + body).encode())
        answer = b"".join([chunk async for chunk in stream])
    return int(answer.split()[1])


async def test_a_call_is_on_disk_before_its_line_is_closed(tmp_path: Path) -> None:
    async with recording_server(tmp_path) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/media-stream")
            carrier = CarrierStream(
                CallIdentity(SID, "MZ" + "1" * 32, parameters={"From": "+15550001111"})
            )
            for message in [*carrier.open(), carrier.media(b"\x10" * 160), carrier.stop()]:
                await websocket.send_message(message)
            with pytest.raises(Exception, match="CloseReason"):
                await websocket.get_message()
            (row,) = rows(tmp_path)
            assert (row["ended_by"], row["from"]) == ("caller", "+15550001111")
        for path, form in {
            "/status/call?1": "CallStatus=completed&CallDuration=7&SipResponseCode=200"
            "&SequenceNumber=2",
            "/status/call?2": "CallStatus=ringing&SequenceNumber=1",
            "/status/stream": "StreamEvent=stream-error&StreamError=31921",
        }.items():
            assert await post(server, path, f"CallSid={SID}&{form}") == 204
        (row,) = rows(tmp_path)
        assert (row["status"], row["carrier_seconds"], row["sip_code"]) == ("completed", 7, 200)
        assert row["stream_error"] == "31921"


@pytest.mark.parametrize("path", ["/status/call", "/status/stream"])
async def test_callbacks_are_signed_forms(path: str, tmp_path: Path) -> None:
    async with recording_server(tmp_path, twilio_auth_token="secret") as server:
        assert await post(server, path, "CallSid=CA1&CallStatus=completed") == 403
    async with recording_server(tmp_path) as server:
        assert await post(server, path, "CallStatus=completed") == 400
        odd = "CallSid=%00%ff&SequenceNumber=99999999999999999&CallDuration=-1&CallStatus=%F0%9F"
        assert await post(server, path, odd + "x" * 5000) == 204


async def test_without_records_callbacks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with trio.open_nursery() as nursery:
        given = settings(Path("unused"), record_dir=None)
        server = await nursery.start(partial(serve, _silent, given))
        assert await post(server, "/status/call", "CallSid=CA1&CallStatus=busy") == 204
        nursery.cancel_scope.cancel()
    (record,) = [r for r in caplog.records if r.getMessage() == "call status"]
    assert record.fields == {"status": "busy", "sequence": 0}  # type: ignore[attr-defined]


async def test_a_server_that_is_told_to_go_writes_what_it_has(tmp_path: Path) -> None:
    async with recording_server(tmp_path, drain_s=0) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream, trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/media-stream")
            carrier = CarrierStream(CallIdentity(SID, "MZ" + "1" * 32))
            for message in carrier.open():
                await websocket.send_message(message)
            while not server.calls:  # noqa: ASYNC110
                await trio.sleep(0.01)
            server.drain()
            with pytest.raises(Exception, match="CloseReason"):
                await websocket.get_message()
            (row,) = rows(tmp_path)
            assert row["ended_by"] == "server"


# -- what the player tells


class Tape:
    """Lies open: what was played, byte by byte, and when it was heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []

    def received(self, audio: bytes, at_ms: int | None) -> None:
        raise AssertionError("the player receives nothing")

    def played(self, audio: bytes, at: float) -> None:
        self.heard += [
            (at + n / 50, audio[n * 160 : n * 160 + 160]) for n in range(len(audio) // 160)
        ]

    def taken_back(self, size: int) -> None:
        assert size % 160 == 0
        del self.heard[len(self.heard) - size // 160 :]


async def test_a_line_that_is_slow_is_heard_late(autojump_clock: MockClock) -> None:
    slow_until = trio.current_time() + 0.5
    carrier: list[tuple[float, bytes]] = []

    async def send(commands: Sequence[Command]) -> None:
        if trio.current_time() - began > 0.3:
            await trio.sleep_until(slow_until)
        dry = max([trio.current_time(), *(at + 0.02 for at, _ in carrier[-1:])])
        carrier.extend(
            (dry + n / 50, command.audio)
            for n, command in enumerate(c for c in commands if isinstance(c, Play))
        )

    tape = Tape()
    began = trio.current_time()
    player = Player(send, 0.04, tap=tape)
    speech = player.new_speech("t1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(player.play, speech)
        for n in range(50):
            await speech.put(bytes([n]) * 160)
        speech.finish()
        await speech.done.wait()
        nursery.cancel_scope.cancel()
    assert [audio for _, audio in tape.heard] == [audio for _, audio in carrier]
    for (told, _), (true, _) in zip(tape.heard, carrier, strict=True):
        assert told == pytest.approx(true, abs=0.001)


async def test_a_hang_up_takes_back_what_was_not_heard(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    caller = ScriptedCaller().pauses(1.0).drops()
    async with virtual_records(tmp_path) as records:
        agent = fake_agent(tts=FakeTTS(), greeting=WORDS)
        transcript = await recorded_call(records, caller, agent)
    ear = np.frombuffer(mulaw.decode(bytes(transcript.audio)), "<i2")
    errors = np.array(loud(sides(only(tmp_path))[1])) - np.array(loud(ear))
    assert np.abs(errors).max() <= 0.0201
