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
from typing import Any

import psutil
import pytest
import trio
from server_house import ask, get

from voicecore.errors import SettingsError
from voicecore.server.workers import METERS_DIRECTORY, Supervisor
from voicecore.settings import load

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


AGENTS = {
    "raise RuntimeError('first\\nsecond')": "RuntimeError: first",
    "1 / 0": "ZeroDivisionError: division by zero",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "raise AttributeError('odd')": "AttributeError: odd",
    "raise KeyError": "KeyError",
    "import sys\ndef answer(given): sys.exit(3)": "picks nobody for an unknown call: SystemExit: 3",
    "answer = 42": "answer is neither an Agent nor an async function",
    "def answer(call): ...": "answer is neither",
    "class answer:\n    async def __call__(self, call): ...": "answer is neither",
    "from voicecore import Agent as answer": "answer is neither",
    "from voicecore import Agent\nanswer = Agent(stt=3)": "stt: 3 cannot listen",
    "from voicecore import Agent\nanswer = Agent(persona='x')": "persona: takes a Persona, not 'x'",
    "from voicecore import Agent\nanswer = Agent(transfers={'a': 'b'})": "transfers: a: takes a",
}


@pytest.mark.parametrize("source", AGENTS)
@pytest.mark.parametrize("check", [["--check"], ["--port=0"]])
def test_an_agent_that_cannot_be_one_is_one_line_and_status_2(
    source: str, check: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.py").write_text(source + "\n")
    assert server.main([*check, "--agent=agent.py:answer"]) == 2
    [complaint] = capsys.readouterr().err.splitlines()
    assert complaint.startswith("VOICECORE_AGENT: got 'agent.py:answer'; ")
    assert AGENTS[source] in complaint


@pytest.mark.parametrize(
    "source",
    [
        "async def answer(call): ...",
        "class Answer:\n    async def __call__(self, call): ...\nanswer = Answer()",
        "from functools import partial\nasync def a(b, call): ...\nanswer = partial(a, 1)",
        "from voicecore import Agent\nanswer = Agent(None, None, None)",
    ],
)
def test_an_agent_is_a_value_or_an_async_callable(source: str, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(source + "\n")
    assert server.main(["--check", "--agent=agent.py:answer"]) == 0


URLS = {
    "VOICECORE_PUBLIC_URL": (
        "https://agent.example.com /x", " https://agent.example.com", "https://a\r\nX: y",
        "https://me:secret@agent.example.com", "https://", "https://:443", "https://h:99999",
        "https://h:port", "https://[::1", "ftp://h", "agent.example.com", "https://h?x", "https://h#x",
        "https://é.example.com", "https://h:", "https://a<b",
    ),
    "OPENAI_BASE_URL": (
        "http://", "http://[::1", "http://h:99999/v1", "http://h h/v1", "http:/h", "h/v1",
        "http://me:secret@/v1", "http://me:secret@h:99999/v1", "http://h\n/v1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in URLS.items() for value in values]
)
def test_what_is_no_url_is_one_line_and_status_2(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert server.main(["--check"]) == 2
    shown = capsys.readouterr()
    [complaint] = shown.err.splitlines()
    assert complaint.startswith(f"{name}: got ")
    assert "; takes a" in complaint
    assert "secret" not in shown.out + shown.err


@pytest.mark.parametrize(
    "value",
    ["https://agent.example.com", "http://127.0.0.1:8000/", "https://[::1]:8443/phone/in_dia/"],
)
def test_an_origin_may_have_a_port_and_a_prefix(value: str) -> None:
    assert load(public_url=value).public_url == value.rstrip("/")


def test_a_password_in_a_url_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:hush@llm.internal:8080/v1")
    assert server.main(["--check"]) == 0
    shown = capsys.readouterr().out
    assert "llm.internal:8080/v1'" in shown
    assert "hush" not in shown


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("VOICECORE_PORT", "70000", "takes a whole number from 0 to 65535"),
        ("VOICECORE_PORT", "abc", "takes a whole number from 0 to 65535"),
        ("VOICECORE_WORKERS", "1.5", "takes a whole number from 1 to 64"),
        ("VOICECORE_MAX_CALLS", "-1", "takes a whole number of at least 0"),
        ("VOICECORE_DRAIN_S", "soon", "takes a number from 0 to 3600"),
        ("VOICECORE_DRAIN_S", "nan", "takes a number from 0 to 3600"),
        ("VOICECORE_MAX_CALL_S", "0", "takes a number above 0 and up to 86400"),
        ("VOICECORE_LOG_FORMAT", "xml", "takes text or json"),
        ("VOICECORE_LOG_TEXT", "maybe", "takes on or off"),
        ("VOICECORE_LANGUAGE", "english!", "takes a language such as en-US"),
    ],
)
def test_a_bad_value_is_told_what_is_taken(
    name: str, value: str, takes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as complaint:
        load()
    assert str(complaint.value) == f"{name}: got {value!r}; {takes}"


@pytest.mark.parametrize(
    ("name", "value"), [("VOICECORE_TTS_VOICE", "nobody"), ("VOICECORE_LANGUAGE", "xx-YY")]
)
def test_a_voice_that_is_not_there_is_found_by_the_check(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert server.main(["--check"]) == 2
    [complaint] = capsys.readouterr().err.splitlines()
    assert complaint.startswith(f"{name}: got {value!r}; espeak has no such voice")


async def test_an_interrupted_start_is_silent(tmp_path: Path) -> None:
    """At the earliest: as soon as the program is more than its interpreter."""
    (tmp_path / "trio.py").write_text("import sys; print('x', flush=True); sys.stdin.read()\n")
    process = await trio.lowlevel.open_process(
        PROGRAM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    async with ended(process), process.stdin, process.stdout, process.stderr:
        with trio.fail_after(40):
            assert await process.stdout.receive_some(1) == b"x"
            process.send_signal(signal.SIGINT)
            assert await process.wait() == -signal.SIGINT
            assert await process.stderr.receive_some() == b""


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
                timeout=40,
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
        with trio.fail_after(40):
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


async def test_a_signal_while_a_worker_starts_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is there before we hold it: the signal that stops all must not go by it."""
    started = trio.lowlevel.open_process
    ours = Supervisor([sys.executable, "-c", "import time; time.sleep(100)"], 2)

    async def signalled_meanwhile(*command: Any, **how: Any) -> trio.Process:
        process = await started(*command, **how)
        os.kill(os.getpid(), signal.SIGTERM)
        await ours._leaving.wait()
        return process

    monkeypatch.setenv(METERS_DIRECTORY, "")  # what it sets is for its workers
    monkeypatch.setattr(trio.lowlevel, "open_process", signalled_meanwhile)
    with trio.fail_after(40):
        assert await ours.run("127.0.0.1", 0) == 0


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


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ({}, 1),
        ({"twilio_auth_token": "hush-hush"}, 0),
        ({"carrier_secret": "hush-hush"}, 0),
    ],
)
def test_a_door_without_a_lock_is_told_of(
    given: dict[str, str], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    server._warn_unsigned(load(**given))
    assert len(caplog.records) == lines
