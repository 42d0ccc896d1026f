"""The benches run, and what they measure with is right."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import SILENCE_FRAME
from voicecore.phone.buffer import PlaybackBuffer
from voicecore.phone.stream import CallIdentity, CarrierStream


class Run(NamedTuple):
    """What came of one bench: its exit status, its output, and where its results are."""

    status: int
    said: str
    stem: Path


ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"


def module(name: str) -> ModuleType:
    """Import a module of the benches, which are scripts and no package."""
    sys.path.insert(0, str(BENCH))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCH))


client, measure = module("client"), module("measure")


ROWS = {"jitter": "runs", "capacity": "steps", "frame_cost": "stages", "startup": "starts"}
"""Each bench, and under which name its results are in the JSON."""


ALL_AT_ONCE = """
import json, os, runpy, sys
import matplotlib.pyplot, numpy, rich.console, rich.progress, rich.table  # once for all
where, out, *benches = sys.argv[1:]
sys.path.insert(0, where)
running = {}
for bench in benches:
    running[bench] = os.fork()
    if not running[bench]:
        said = os.open(f"{out}/{bench}.said", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = [f"{where}/{bench}.py", "--quick", "--out", out]
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit()
waited = {bench: os.waitpid(pid, 0)[1] for bench, pid in running.items()}
print(json.dumps({bench: os.waitstatus_to_exitcode(how) for bench, how in waited.items()}))
"""
"""Each bench as a program in a process of its own, with its exit status."""


@pytest.fixture(scope="module")
def quick_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All benches at once: they are to work here, not to measure."""
    out = tmp_path_factory.mktemp("results")
    with subprocess.Popen(
        [sys.executable, "-c", ALL_AT_ONCE, str(BENCH), str(out), *ROWS],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            statuses, _ = process.communicate(timeout=100)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    return {
        bench: Run(status, (out / f"{bench}.said").read_text(), out / bench)
        for bench, status in json.loads(statuses).items()
    }


def test_run_and_write_their_results(quick_runs: dict[str, Run]) -> None:
    assert set(quick_runs) == set(ROWS)
    for bench, run in quick_runs.items():
        assert run.status == 0, run.said
        result = json.loads(run.stem.with_suffix(".json").read_text())
        assert result["machine"]["cores"] == os.cpu_count()
        assert result[ROWS[bench]]
        assert run.stem.with_suffix(".png").stat().st_size > 1000
        assert result["machine"]["cpu"] in run.stem.with_suffix(".txt").read_text()
    hears_conversations(quick_runs["jitter"])


def hears_conversations(run: Run) -> None:
    (result,) = json.loads(run.stem.with_suffix(".json").read_text())["runs"]
    assert result["errors"] == []
    assert result["gap"]["n"] == len(result["gaps"]) >= 2
    assert min(result["gaps"]) > 200
    assert result["delivery"]["frames"] > 50
    assert result["server"]["passes"] > 100


@pytest.mark.parametrize("bench", ROWS)
def test_explains_itself(
    bench: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr(sys, "argv", [f"{bench}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCH / f"{bench}.py"), run_name="__main__")
    assert end.value.code == 0
    assert "--quick" in capsys.readouterr().out


def test_goes_to_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr(sys, "argv", ["jitter.py", "--url", "ws://192.0.2.1:80/media-stream"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(BENCH / "jitter.py"), run_name="__main__")
    assert end.value.code == 2
    assert "127.0.0.1" in capsys.readouterr().err


STEPS = st.lists(
    st.one_of(
        st.just("play"),
        st.just("clear"),
        st.tuples(st.just("mark"), st.text("ab", min_size=1, max_size=2)),
        st.tuples(st.just("media"), st.integers(0, 700)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_counted_buffer_is_the_phones(steps: list[str | tuple[str, str | int]]) -> None:
    real, counted = PlaybackBuffer(), client.CountedBuffer()
    for step in steps:
        match step:
            case "play":
                assert tuple(counted.play()) == real.play().marks
            case "clear":
                assert tuple(counted.clear()) == real.clear()
            case ("mark", str(name)):
                assert tuple(counted.mark(name)) == real.mark(name)
            case ("media", int(size)):
                real.media(b"\x00" * size)
                counted.media(size)
        assert counted.queued == real.queued_bytes


def test_the_streams_messages_are_the_phones() -> None:
    number = 7
    cheap = client.Stream(number)
    real = CarrierStream(CallIdentity(f"CA{number:032x}", f"MZ{number:032x}"))
    (payload,) = client.payloads(SILENCE_FRAME)
    ours = _texts(
        cheap.opening() + cheap.media(payload) + cheap.media(payload) + cheap.mark("t1:1")
    )
    theirs = [*real.open(), real.media(SILENCE_FRAME), real.media(SILENCE_FRAME)]
    echoes = real.receive(
        json.dumps({"event": "mark", "streamSid": f"MZ{number:032x}", "mark": {"name": "t1:1"}})
    )
    assert [json.loads(text) for text in ours] == [json.loads(text) for text in theirs + echoes]


def _texts(data: bytes) -> list[bytes]:
    """Unmask what a client sent, a frame at a time, as RFC 6455 says."""
    texts = []
    while data:
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        mask, body = data[start : start + 4], data[start + 4 : start + 4 + size]
        texts.append(bytes(code ^ mask[at % 4] for at, code in enumerate(body)))
        data = data[start + 4 + size :]
    return texts


@given(st.lists(st.integers(1, 400), min_size=1), st.integers(1, 900))
def test_reads_frames_however_they_are_cut(sizes: list[int], cut: int) -> None:
    payloads = [bytes([at % 256]) * size for at, size in enumerate(sizes)]
    data = b"".join(_unmasked(payload) for payload in payloads)
    reader, found = client.FrameReader(), []
    for start in range(0, len(data), cut):
        found += reader.feed(data[start : start + cut])
    assert found == [(client.TEXT, payload) for payload in payloads]


def _unmasked(payload: bytes) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2)
    return bytes((client.TEXT,)) + length + payload


def _reply(arrivals_ms: list[float]) -> object:
    reply = measure.Reply()
    for at in arrivals_ms:
        reply.note(at / 1000, 160)
    return reply


def test_a_punctual_reply_is_not_late() -> None:
    arrivals = [max(0.0, n * 20 - 160) for n in range(100)]
    found = measure.delivery([_reply(arrivals)], 160)
    assert found["lateness"]["max"] == pytest.approx(0, abs=1e-6)
    assert found["jitter"]["max"] == pytest.approx(0, abs=1e-6)
    assert found["lead"]["min"] == pytest.approx(180)
    assert (found["frames"], found["underruns"]) == (100, 0)


def test_a_hole_in_speech_is_found_and_measured() -> None:
    arrivals = [n * 20.0 for n in range(50)] + [n * 20.0 + 30 for n in range(50, 100)]
    found = measure.delivery([_reply(arrivals)], 20)
    assert found["underruns"] == 1
    assert found["silence_ms"] == pytest.approx(30)
    assert found["jitter"]["max"] == pytest.approx(30)


def test_what_the_lead_covers_is_no_hole() -> None:
    arrivals = [max(0.0, n * 20 - 160) for n in range(100)]
    arrivals[50] += 159
    arrivals[51:58] = [max(at, arrivals[50]) for at in arrivals[51:58]]
    found = measure.delivery([_reply(arrivals)], 160)
    assert found["underruns"] == 0
    assert found["lateness"]["max"] == pytest.approx(159)
    assert found["left"]["min"] == pytest.approx(1)


def test_pairs_are_due_with_their_first_frame() -> None:
    arrivals = [0.0] * 10 + [20.0 * (pair + 2) for pair in range(0, 90, 2) for _ in (1, 2)]
    found = measure.delivery([_reply(arrivals)], 160)
    assert (found["frames"], found["lateness"]["n"]) == (100, 46)
    assert found["lateness"]["max"] == pytest.approx(0, abs=1e-6)
    late = [*arrivals[:50], *(at + 70 for at in arrivals[50:52]), *arrivals[52:]]
    assert measure.delivery([_reply(late)], 160)["lateness"]["max"] == pytest.approx(70)


def test_the_lead_of_an_unknown_server_is_found() -> None:
    arrivals = [max(0.0, n * 20 - 100) for n in range(200)]
    found = measure.delivery([_reply(arrivals)], 0)
    assert found["lead_ms"] == pytest.approx(100)
    assert found["lateness"]["max"] == pytest.approx(0, abs=1e-6)


def test_no_replies_are_no_error() -> None:
    found = measure.delivery([], 160)
    assert (found["frames"], found["lateness"]) == (0, {"n": 0})
