"""`python server.py` as a process of a bench: its settings in, its log lines out.

with Program({"VOICECORE_LLM": "openai", "OPENAI_BASE_URL": url}, core=0) as program:
    ...                      # it listens at program.port
program.lines                # the log, a dictionary a line
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import psutil
from scenario import END_S, ROOT, START_S, BenchFailed

OURS = re.compile(r"VOICECORE_|TWILIO_|[A-Z]+_(API_KEY|BASE_URL)$")
"""Variables that mean something to the server: none of the surroundings' count."""

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """Runs in the child: a bench that is killed leaves no server behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Program:
    """The server.  Entered, it listens on 127.0.0.1; leaving ends it, and reads its log."""

    def __init__(self, settings: Mapping[str, str], core: int = -1) -> None:
        self.port = free_port()
        self.lines: list[dict[str, Any]] = []
        self._settings = settings
        self._core = core

    def __enter__(self) -> Program:
        self._home = tempfile.TemporaryDirectory()
        self._log = open(os.path.join(self._home.name, "log"), "w+b")
        environment = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        address = ("--host", "127.0.0.1", "--port", str(self.port))
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "server.py"), *address, "--log-format", "json"],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            cwd=self._home.name,  # where there is no .env
            env={**environment, "VOICECORE_DRAIN_S": "1", **self._settings},
            process_group=0,
            preexec_fn=_end_with_parent,
        )
        if self._core >= 0:
            os.sched_setaffinity(self._process.pid, {self._core})
        try:
            self._await_port()
        except BenchFailed:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def usage(self) -> dict[str, float]:
        """Return its CPU seconds so far, and for how many seconds others had its core."""
        with open(f"/proc/{self._process.pid}/schedstat") as schedstat:
            waited = int(schedstat.read().split()[1]) / 1e9
        times = psutil.Process(self._process.pid).cpu_times()
        return {"cpu_s": times.user + times.system, "waited_s": waited}

    def _await_port(self) -> None:
        until = time.monotonic() + START_S
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self._log.seek(0)
                said = self._log.read()[-2000:].decode(errors="replace")
                raise BenchFailed(f"python server.py does not listen. {said}")
            time.sleep(0.01)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.seek(0)
        self.lines = [json.loads(line) for line in self._log if line.startswith(b"{")]
        self._log.close()
        self._home.cleanup()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a connection to a port of 127.0.0.1 is taken."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
