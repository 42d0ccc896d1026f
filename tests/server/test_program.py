"""The command line: its checks, its exit statuses, and workers on one port."""

from __future__ import annotations

import importlib.util
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
from server_house import ask, get

from voicecore.errors import SettingsError

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("voicecore_program", ROOT / "server.py")
assert spec is not None
assert spec.loader is not None
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
PROGRAM = [sys.executable, str(ROOT / "server.py"), "--host=127.0.0.1", "--agent=agent.py:answer"]
AGENT = "async def answer(call):\n    await call.wait_ended()\n"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("VOICECORE_", "TWILIO_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("argv", "lines"),
    [
        (["--port", "abc"], ["VOICECORE_PORT: got 'abc'"]),
        (["--port", "70000", "--log-format", "xml"], ["VOICECORE_PORT: ", "VOICECORE_LOG_FORMAT"]),
        (["--nonsense"], ["server.py: unrecognized arguments: --nonsense"]),
        (["--agent", "nowhere"], ["VOICECORE_AGENT: got 'nowhere'; takes"]),
        (["--agent", "nowhere:agent"], ["VOICECORE_AGENT: got 'nowhere:agent'; No module"]),
        (["--agent", "json:agent"], ["VOICECORE_AGENT: got 'json:agent'; json has no"]),
        (["--agent", "missing.py:agent"], ["VOICECORE_AGENT: got 'missing.py:agent'"]),
    ],
)
def test_a_bad_value_is_one_line_and_status_2(
    argv: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = server.main(argv)
    except SystemExit as leaving:
        status = leaving.code
    assert status == 2
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == len(lines)
    for complaint, line in zip(complaints, lines, strict=True):
        assert complaint.startswith(line)


def test_a_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "hush-hush")
    assert server.main(["--check", "--port", "8123"]) == 0
    shown = capsys.readouterr().out
    assert "VOICECORE_PORT = 8123" in shown
    assert "TWILIO_AUTH_TOKEN = (set)" in shown
    assert "hush" not in shown


def test_an_agent_is_found_in_a_file_or_a_module(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("agent = 42\n")
    assert server.attribute(f"{path}:agent") == 42
    assert server.attribute("mine:agent") == 42
    path.write_text("agent = (\n")
    with pytest.raises(SettingsError):
        server.attribute(f"{path}:agent")


def test_a_port_in_use_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for workers in ("1", "2"):
            done = subprocess.run(
                [*PROGRAM, f"--port={port}", f"--workers={workers}"],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
            line = f"cannot listen on 127.0.0.1:{port}: address already in use"
            assert done.returncode == 1
            assert done.stderr.splitlines()[-1] == line
            assert "Traceback" not in done.stderr


async def test_workers_share_a_port_and_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(AGENT)
    process = await trio.lowlevel.open_process(
        [*PROGRAM, "--port=0", "--workers=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with ended(process), process.stdout, process.stderr:
        output = b""
        with trio.fail_after(10):
            while b"Try it" not in output:
                output += await process.stdout.receive_some()
            port = int(output.split(b"127.0.0.1:")[1].split(b".")[0])
            victim = workers_of(process.pid)[0]
            os.kill(victim, signal.SIGKILL)
            # Another process is what we wait for: there is no event to wait on.
            while victim in workers_of(process.pid) or len(workers_of(process.pid)) < 2:  # noqa: ASYNC110
                await trio.sleep(0.02)
            while not await answers(port):  # noqa: ASYNC110
                await trio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            errors = b"".join([data async for data in process.stderr])
            assert await process.wait() == 0
        assert b"worker died" in errors
        assert b"Traceback" not in errors


@asynccontextmanager
async def ended(process: trio.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 3):
            process.terminate()
            await process.wait()


async def answers(port: int) -> bool:
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            return (await ask(stream, get("/readyz"))).status == 200
    except OSError:
        return False


def workers_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]
