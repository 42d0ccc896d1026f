"""`--check`: each provider is asked once, and what came is a table, a line and an exit status."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Transcript
from voicecore.errors import ProviderError, ProviderFault, SettingsError
from voicecore.providers.reach import ALL_S, REQUEST_S, SILENCE, Reached, complaints, reach
from voicecore.settings import Settings
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("voicecore_program_checked", ROOT / "server.py")
assert spec is not None
assert spec.loader is not None
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)

FAULTS: tuple[ProviderFault, ...] = get_args(ProviderFault)
OWN = {"stt": "own_vendor:stt", "llm": "own_vendor:llm", "tts": "own_vendor:tts"}


class SilentTTS(FakeTTS):
    """Has nothing to say in letters: its fake audio has room for whole words only."""

    @asynccontextmanager
    async def speak(self, *asked: Any) -> AsyncIterator[Any]:
        async with self._request("OK"):
            yield (piece async for piece in self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b""


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A vendor of one's own in all stages: ``own.fakes`` are its providers."""
    for name in list(os.environ):
        if name.startswith(("VOICECORE_", "TWILIO_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("own_vendor")
    fakes: dict[str, Any] = {"stt": FakeSTT(), "llm": FakeLLM(), "tts": FakeTTS()}
    module.fakes = fakes  # type: ignore[attr-defined]
    for stage in fakes:
        setattr(module, stage, lambda settings, stage=stage: fakes[stage])
    monkeypatch.setitem(sys.modules, "own_vendor", module)
    return module


@pytest.fixture
def owned(own: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The environment names the own vendor in all stages."""
    for stage, name in OWN.items():
        monkeypatch.setenv(f"VOICECORE_{stage.upper()}", name)
    fakes: dict[str, Any] = own.fakes
    return fakes


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **{**OWN, **values})


def rows(output: str) -> list[list[str]]:
    """The cells of the table in an output, its header left out."""
    lines = [line for line in output.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines][1:]


def failing(fault: ProviderFault) -> Any:
    class Failing:
        @asynccontextmanager
        async def listen(self, *asked: Any) -> AsyncIterator[Any]:
            raise ProviderError("own", fault, "as told")
            yield

        reply = speak = listen

    return Failing()


def test_all_is_well(owned: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert server.main(["--check"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    table = rows(shown.out)
    assert [row[:4] for row in table] == [
        [stage, OWN[stage], "yes", "yes"] for stage in ("stt", "llm", "tts")
    ]
    assert all(row[4].endswith(" ms") and row[5] == "an answer" for row in table)
    assert "outbound calls: off, for want of VOICECORE_OUTBOUND_FROM, " in shown.out
    assert "control of calls: this machine only (no VOICECORE_ADMIN_TOKEN)" in shown.out
    assert "stt: own_vendor:stt (a provider of your own), default model, needs no key" in shown.out
    for fake in owned.values():
        assert len(fake.requests) == 1
        assert not fake.open_requests


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", OWN)
def test_what_fails_is_in_the_table_and_one_line_and_status_2(
    stage: str, fault: ProviderFault, owned: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    owned[stage] = failing(fault)
    assert server.main(["--check"]) == 2
    shown = capsys.readouterr()
    assert shown.err == f"VOICECORE_{stage.upper()}: {stage} by own: {fault}: as told\n"
    [row] = [row for row in rows(shown.out) if row[0] == stage]
    reachable = fault not in ("connect", "timeout")
    assert row[2] == ("yes" if reachable else "no")
    assert row[3] == ("no" if fault == "refused" else "unknown")
    assert row[4].endswith(" ms") if reachable else row[4] == "-"
    assert row[5] == f"own: {fault}: as told"


def test_a_fallback_that_fails_is_in_the_table_only(
    owned: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ModuleType("broken_vendor")
    broken.llm = lambda settings: failing("connect")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken_vendor", broken)
    monkeypatch.setenv("VOICECORE_LLM", "own_vendor:llm, broken_vendor:llm")
    assert server.main(["--check"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "llm fallback: broken_vendor:llm (a provider of your own)" in shown.out
    table = rows(shown.out)
    assert [row[1] for row in table if row[0] == "llm"] == ["own_vendor:llm", "broken_vendor:llm"]
    assert table[2][2:4] == ["no", "unknown"]
    monkeypatch.setenv("VOICECORE_LLM", "broken_vendor:llm, own_vendor:llm")
    assert server.main(["--check"]) == 2
    assert capsys.readouterr().err.startswith("VOICECORE_LLM: llm by own: connect")


def test_a_fallback_that_cannot_start_is_a_bad_setting(
    owned: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOICECORE_TTS", "own_vendor:tts,openai")
    assert server.main(["--check"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "VOICECORE_TTS: 'openai' needs a key: set OPENAI_API_KEY\n"
    assert not owned["tts"].requests  # nothing is asked before the settings are right


def test_embedded_engines_are_not_started(
    owned: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VOICECORE_STT", "pocketsphinx")
    assert server.main(["--check"]) == 0
    assert rows(capsys.readouterr().out)[0] == ["stt", "pocketsphinx", "embedded", "-", "-", ""]


@pytest.mark.parametrize(
    ("given", "warns"),
    [
        ({}, True),
        ({"TWILIO_ACCOUNT_SID": "AC1"}, True),
        ({"TWILIO_AUTH_TOKEN": "secret"}, True),
        ({"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "secret"}, False),
    ],
)
def test_recordings_that_need_a_password_are_warned_of(
    given: dict[str, str],
    warns: bool,
    owned: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert server.main(["--check"]) == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warnings) == warns
    assert all("/voice" in line and "TWILIO_ACCOUNT_SID" in line for line in warnings)


def test_ones_own_agent_needs_no_providers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "agent.py").write_text("async def answer(call): ...\n")
    monkeypatch.setenv("VOICECORE_LLM", "openai")
    assert server.main(["--check", "--agent=agent.py:answer"]) == 0
    assert not rows(capsys.readouterr().out)


@contextmanager
def http_server(status: int) -> Iterator[tuple[str, list[str]]]:
    """A vendor on loopback that answers everything with `status`; gives its URL, and the keys."""
    keys: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            keys.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *of_what: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/v1", keys
        finally:
            httpd.shutdown()
            thread.join()


KEY = "sk-proj-AbCdEfGhIjKlMnOpQrStUvWxYz-last"


@pytest.mark.parametrize(
    ("status", "cells", "line"),
    [
        (401, ["yes", "no"], "OPENAI_API_KEY: llm by openai: refused: HTTP 401"),
        (429, ["yes", "unknown"], "VOICECORE_LLM: llm by openai: busy: HTTP 429"),
        (404, ["yes", "unknown"], "VOICECORE_LLM: llm by openai: status: HTTP 404"),
    ],
)
def test_a_vendor_that_refuses(
    status: int,
    cells: list[str],
    line: str,
    owned: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with http_server(status) as (url, keys):
        monkeypatch.setenv("VOICECORE_LLM", "openai")
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        assert server.main(["--check"]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [line]
    assert rows(shown.out)[1][2:4] == cells
    assert keys == [f"Bearer {KEY}"]
    assert "OPENAI_API_KEY = …last\n" in shown.out
    assert KEY[:-4] not in shown.out + shown.err
    assert KEY[-6:] not in shown.out + shown.err


def test_an_address_that_nobody_answers_at_is_named(
    owned: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with http_server(500) as (url, _):
        pass  # the port was free a moment ago, and is again
    monkeypatch.setenv("VOICECORE_LLM", "openai")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert server.main(["--check"]) == 2
    [complaint] = capsys.readouterr().err.splitlines()
    assert complaint.startswith("OPENAI_BASE_URL: llm by openai: connect: ")


@pytest.mark.parametrize("secret", ["short", "twenty-three-characters"])
def test_nothing_of_a_short_secret_is_shown(
    secret: str,
    owned: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", secret)
    assert server.main(["--check"]) == 0
    shown = capsys.readouterr().out
    assert "TWILIO_AUTH_TOKEN = (set)" in shown
    assert secret[-4:] not in shown.partition("TWILIO_AUTH_TOKEN")[2].splitlines()[0]


@pytest.mark.parametrize("stage", OWN)
async def test_who_hangs_is_late_and_holds_nobody_up(
    stage: str, own: ModuleType, autojump_clock: MockClock
) -> None:
    own.fakes[stage]._faults = iter(["hang"])
    everybody = {reached.named.stage: reached for reached in await reach(settings())}
    assert trio.current_time() == REQUEST_S
    late = everybody.pop(stage)
    assert (late.is_reachable, late.is_authorised) == (False, None)
    assert complaints([late], settings()) == [
        f"VOICECORE_{stage.upper()}: {stage} by own_vendor:{stage}: timeout: nothing within 5 s"
    ]
    assert [reached.failure for reached in everybody.values()] == [None, None]
    assert not own.fakes[stage].open_requests


async def test_who_does_not_close_is_left_at_the_cap(
    own: ModuleType, autojump_clock: MockClock
) -> None:
    @asynccontextmanager
    async def stt(settings: Settings) -> AsyncIterator[FakeSTT]:
        yield own.fakes["stt"]
        await trio.sleep_forever()

    own.stt = stt  # type: ignore[attr-defined]
    everybody = await reach(settings())
    assert trio.current_time() == ALL_S
    assert [reached.failure for reached in everybody] == [None, None, None]


async def test_requests_are_made_at_the_same_time(
    own: ModuleType, autojump_clock: MockClock
) -> None:
    for fake in own.fakes.values():
        fake.seconds = 2.0
    everybody = await reach(settings())
    assert trio.current_time() == 2
    assert [reached.latency_ms for reached in everybody] == [2000, 2000, 2000]


async def test_a_recogniser_is_fed_and_asked_as_in_a_call(own: ModuleType) -> None:
    seen: list[Any] = []

    class Live:
        @asynccontextmanager
        async def listen(self, language: str) -> AsyncIterator[Live]:
            seen.append(language)
            yield self
            seen.append("closed")

        def feed(self, frame: bytes) -> None:
            seen.append(frame)

        async def transcript(self, utterance: bytes) -> Transcript:
            seen.append(utterance)
            return Transcript("")

    own.fakes["stt"] = Live()
    await reach(settings(language="hi-IN"))
    language, *frames, utterance, closed = seen
    assert (language, utterance, closed) == ("hi-IN", SILENCE, "closed")
    assert b"".join(frames) == SILENCE
    assert {len(frame) for frame in frames} == {160}


@pytest.mark.parametrize("stage", ["llm", "tts"])
async def test_nothing_is_no_answer(stage: str, own: ModuleType) -> None:
    own.fakes[stage] = FakeLLM(answer=lambda messages: "") if stage == "llm" else SilentTTS()
    failed = [reached for reached in await reach(settings()) if reached.failure]
    assert [(one.named.stage, str(one.failure)) for one in failed] == [
        (stage, f"own_vendor:{stage}: garbage: an empty answer")
    ]


async def test_a_setting_that_no_vendor_can_use_is_complained_of() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(SettingsError, match="OPENAI_API_KEY")):
        await reach(settings(llm="openai", openai_api_key="ключ"))


async def test_an_engines_mistake_is_the_line(own: ModuleType) -> None:
    given = settings(tts="own_vendor:tts,espeak", tts_voice=",nobody")
    everybody = await reach(given)
    assert complaints(everybody, given) == [
        "VOICECORE_TTS_VOICE: got 'nobody'; espeak has no such voice"
    ]
    assert isinstance(everybody[-1], Reached)
    assert everybody[-1].is_embedded
