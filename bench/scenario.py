"""One scenario from start to end: a server on one core, the load on another, and what both say.

    with Stage(Scenario(calls=50, seconds=20)) as stage:
        outcome = stage.run(progress)

The server (`target.py`) and the load (`load.py`) are processes of their own; this one reads what
they say and costs next to nothing.  Everything stays on 127.0.0.1.  Leaving the context ends both.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
START_S = 30.0
END_S = 10.0

Progress = Callable[[str, dict[str, Any]], None]
"""Called with each event of the load and its figures."""


class BenchFailed(Exception):
    """The server or the load did not do what it should; the message says which and how."""


@dataclass(frozen=True)
class Scenario:
    """What is run.  `url`: a media stream somewhere on this machine, instead of our own server."""

    calls: int = 50
    seconds: float = 20
    interrupt_every: int = 3
    seed: int = 1
    stall_ms: float = 0
    stall_every_s: float = 2
    stt_ms: float = 0
    llm_ms: float = 0
    token_ms: float = 0
    tts_ms: float = 0
    warm_s: float = 1
    think_s: float = 1.5
    url: str | None = None


def quick(scenario: Scenario) -> Scenario:
    """Return a scenario of a few seconds that does a little of everything."""
    return replace(scenario, calls=min(scenario.calls, 4), seconds=4, warm_s=0.2, think_s=0.4)


class Child:
    """A process that speaks JSON lines on stdout; its stderr goes to a file."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed in `end`
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / f"{name}.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            process_group=0,  # a terminal's Ctrl-C is ours to pass on
        )
        self._unread = b""

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def line(self, patience_s: float) -> dict[str, Any]:
        """Return the next line.

        Raises:
            BenchFailed: none came, or the process has ended.
        """
        assert self._process.stdout is not None
        until = time.monotonic() + patience_s
        while b"\n" not in self._unread:
            readable, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, until - time.monotonic())
            )
            data = os.read(self._process.stdout.fileno(), 65536) if readable else b""
            if not data:
                raise BenchFailed(f"{self.name} said nothing more. {self.complaint()}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return dict(json.loads(line))

    def ask(self) -> dict[str, Any]:
        """Return the answer to SIGUSR1."""
        self._process.send_signal(signal.SIGUSR1)
        return self.line(START_S)

    def complaint(self) -> str:
        """Return the end of what it wrote to stderr."""
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace")

    def errors(self) -> list[str]:
        """Return the newest errors in its log."""
        return [line[:200] for line in self.complaint().splitlines() if " ERROR " in line][-3:]

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._log.close()


class Stage:
    """A scenario's two processes."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.cores = cores()
        self._target: Child | None = None
        self._load: Child | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *exc: object) -> None:
        for child in (self._load, self._target):
            if child is not None:
                child.end()

    def run(self, progress: Progress) -> dict[str, Any]:
        """Run the scenario; return the load's result, with the server's figures under "server".

        Raises:
            BenchFailed: one of the two did not start, or ended before its time.
        """
        scenario = self._scenario
        where, idle = self._where()
        plan = {
            **where,
            "calls": scenario.calls,
            "seconds": scenario.seconds,
            "interrupt_every": scenario.interrupt_every,
            "seed": scenario.seed,
            "warm_s": scenario.warm_s,
            "think_s": scenario.think_s,
            "core": self.cores[1],
        }
        self._load = Child("load", json.dumps(plan))
        self._await("window", progress)
        begin, core = self._read_target(), CoreTimes(self.cores[0])
        over = self._await("over", progress)
        busy_percent, end = core.percent(), self._read_target()
        result = self._await("result", progress)
        server = self._server(idle, begin, end, over["seconds"]) if end else {}
        server["core_busy_percent"] = busy_percent
        if result["errors"] and self._target is not None:
            result["errors"] += self._target.errors()
        return {"scenario": asdict(scenario), "server": server, **result}

    def _await(self, name: str, progress: Progress) -> dict[str, Any]:
        assert self._load is not None
        patience = START_S + self._scenario.calls * 0.05
        while (line := self._load.line(patience))["event"] != name:
            progress(line.pop("event"), line)
        progress(line.pop("event"), line)
        return line

    def _where(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start our server, unless there is another; return its place, and its idle figures."""
        if self._scenario.url:
            url = urlsplit(self._scenario.url)
            return {"host": url.hostname, "port": url.port or 80, "path": url.path or "/"}, {}
        options = [
            f"--{name.replace('_', '-')}={getattr(self._scenario, name)}"
            for name in ("stall_ms", "stall_every_s", "stt_ms", "llm_ms", "token_ms", "tts_ms")
        ]
        self._target = Child("target", "--lifeline", f"--core={self.cores[0]}", *options)
        ready = self._target.line(START_S)
        time.sleep(self._scenario.warm_s)
        names = ("port", "reply_bytes", "lead_ms")
        return {name: ready[name] for name in names}, self._read_target()

    def _read_target(self) -> dict[str, Any]:
        return {} if self._target is None else self._target.ask()

    def _server(
        self, idle: dict[str, Any], begin: dict[str, Any], end: dict[str, Any], seconds: float
    ) -> dict[str, Any]:
        calls = self._scenario.calls
        cpu = 100 * (end["cpu_s"] - begin["cpu_s"]) / seconds
        return {
            "cpu_percent": cpu,
            "cpu_percent_per_call": cpu / calls,
            "idle_rss_mb": idle["rss_mb"],
            "rss_mb": end["rss_mb"],
            "rss_mb_per_call": (end["rss_mb"] - idle["rss_mb"]) / calls,
            "switches_per_s": (end["switches"] - begin["switches"]) / seconds,
            "waited_percent": 100 * (end["waited_s"] - begin["waited_s"]) / seconds,
            **{name: end[name] for name in end if "pass" in name or "collection" in name},
        }


class CoreTimes:
    """How busy a core was since this was made, whoever it worked for."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._then = self._read()

    def percent(self) -> float:
        """Return the busy share of the time since."""
        now = self._read()
        busy, total = now[0] - self._then[0], now[1] - self._then[1]
        return 100 * busy / total if total else 0.0

    def _read(self) -> tuple[float, float]:
        if self._core < 0:
            return 0.0, 0.0
        times = psutil.cpu_times(percpu=True)[self._core]
        return sum(times) - times.idle - times.iowait, sum(times)


def cores() -> tuple[int, int]:
    """Return the core of the server and that of the load; -1: one core only, nobody is pinned."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[-1]) if len(mine) > 1 else (-1, -1)
