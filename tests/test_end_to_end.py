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

import pytest

from voicecore.audio import wav
from voicecore.audio.vad import GatedVad
from voicecore.dialogue.turns import Detector, SpeechPaused
from voicecore.providers import pocketsphinx
from voicecore.settings import Settings

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


async def test_an_utterance_cut_at_its_first_pause_is_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Speculation hands over what there is 100 ms after the last word."""
    monkeypatch.setattr(pocketsphinx, "WAIT_S", 60.0)  # the machine may be busy with other tests
    monkeypatch.setattr(pocketsphinx, "TOTAL_S", 60.0)
    silence = b"\xff" * 8000
    async with pocketsphinx.opened(Settings(_env_file=None)) as engines:
        for recording, words in (
            ("weather_question", {"weather", "paris"}),
            ("hello_world", {"hello", "world"}),
        ):
            audio = silence + wav.read_telephone(AUDIO / f"{recording}.wav") + silence
            detector, vad = Detector(), GatedVad()
            frames = [audio[at : at + 160] for at in range(0, len(audio) - 159, 160)]
            events = [event for frame in frames for event in detector.hear(frame, vad.hear(frame))]
            (utterance,) = [event.utterance for event in events if isinstance(event, SpeechPaused)]
            async with engines.stt.listen("en-US") as transcription:
                transcript = await transcription.transcript(utterance)
            assert words <= set(transcript.text.split()), transcript.text
