"""Once with everything real: processes, sockets, recorded speech, the embedded engines.

What a newcomer does in the first minute, judged by what was heard on the line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voicecore.audio import wav

ROOT = Path(__file__).parent.parent
AUDIO = ROOT / "tests" / "audio"


@contextmanager
def server(log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "server.py"), "--host", "127.0.0.1", "--port", "0"],
            stdout=subprocess.PIPE, stderr=stderr, env=environment, cwd=log.parent,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            listening = re.search(rb"listens on http://127\.0\.0\.1:(\d+)", line)
            assert listening is not None
            yield process, int(listening[1])
        finally:
            process.kill()
            process.communicate()


def call(port: int, *arguments: str, report: Path) -> dict[str, object]:
    """Place a call with the phone; return its report."""
    done = subprocess.run(
        [sys.executable, "-m", "voicecore.phone", f"http://127.0.0.1:{port}/voice-stream",
         "--json", str(report), *arguments],
        capture_output=True, text=True, timeout=50, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text())


def test_the_first_minute(tmp_path: Path) -> None:
    log, recording = tmp_path / "log", tmp_path / "call.wav"
    said = ["--say", str(AUDIO / "hello_world.wav"), "--record", str(recording)]
    with server(log) as (process, port):
        call(port, *said, report=tmp_path / "report.json")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    lines = log.read_text()
    assert "hello world" in lines
    assert "call ended reason=caller" in lines
    assert "Traceback" not in lines
    both_sides = wav.read(recording)
    assert (both_sides.channels, both_sides.rate) == (2, 8000)
