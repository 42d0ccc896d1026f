"""How long `python server.py` takes until it listens, and what it needs when nobody calls.

    python bench/startup.py

The time is from the start of the process to the first connection that it takes, seen from outside.
Memory is what is resident a moment later (RSS), and this process's share of it (PSS).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import report
from program import free_port, listens
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenario import ROOT, BenchFailed

PATIENCE_S = 30.0
SETTLE_S = 3.0


def start_once(settle_s: float) -> dict[str, float]:
    """Start the server once; return seconds to the open port, CPU seconds, and megabytes."""
    port = free_port()
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "server.py"), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        process_group=0,
        env={name: value for name, value in os.environ.items() if "VOICECORE" not in name},
    )
    try:
        while not listens(port):
            if server.poll() is not None or time.perf_counter() - began > PATIENCE_S:
                raise BenchFailed("python server.py does not listen")
            time.sleep(0.002)
        seconds = time.perf_counter() - began
        process = psutil.Process(server.pid)
        cpu = sum(process.cpu_times()[:2])
        time.sleep(settle_s)
        memory = process.memory_full_info()
        children = process.children(recursive=True)
        return {
            "seconds": seconds,
            "cpu_s": cpu,
            "rss_mb": memory.rss / 2**20,
            "pss_mb": memory.pss / 2**20,
            "children": float(len(children)),
            "children_pss_mb": sum(child.memory_full_info().pss for child in children) / 2**20,
        }
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def table_of(starts: list[dict[str, float]]) -> Table:
    """Return medians and extremes as a table."""
    table = Table(title=f"{len(starts)} starts of server.py", title_justify="left")
    table.add_column("")
    for heading in ("median", "min", "max"):
        table.add_column(heading, justify="right")
    names = {
        "seconds": "start to listening, s",
        "cpu_s": "CPU until then, s",
        "rss_mb": "idle RSS, MB",
        "pss_mb": "idle PSS, MB",
        "children_pss_mb": "idle PSS of its child processes, MB",
    }
    for key, name in names.items():
        values = [start[key] for start in starts]
        figures = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(report.number(figure) for figure in figures))
    return table


def measure(console: Console, count: int, settle_s: float) -> list[dict[str, float]]:
    """Start the server `count` times, after one start that fills the disk's cache.

    Raises:
        BenchFailed: it does not listen.
    """
    start_once(0)
    steps = track(range(count), "starts", console=console, transient=True)
    return [start_once(settle_s) for _ in steps]


def plot(starts: list[dict[str, float]], path: Path) -> None:
    """Draw every start as a point."""
    pyplot = report.pyplot()
    drawing, axes = pyplot.subplots(1, 2, figsize=(7, 3))
    for axis, key, name in zip(axes, ("seconds", "rss_mb"), ("s", "idle RSS, MB"), strict=True):
        axis.plot([start[key] for start in starts], "o")
        axis.set(ylabel=name, xlabel="start", ylim=(0, None))
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


def main() -> int:
    """Run the bench and write its results."""
    parser = report.options(__doc__ or "", "startup")
    parser.add_argument("--starts", type=int, default=10, help="(10)")
    options = parser.parse_args()
    if not 1 <= options.starts <= 100:
        parser.error("--starts: 1 to 100")
    console = Console(record=True, width=110)
    machine: dict[str, Any] = report.machine()
    console.print(report.machine_line(machine))
    try:
        count, settle_s = (1, 0.2) if options.quick else (options.starts, SETTLE_S)
        starts = measure(console, count, settle_s)
    except BenchFailed as failure:
        console.print(str(failure), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    console.print(table_of(starts))
    result = {"machine": machine, "starts": starts}
    plot(starts, report.write(console, options.out, "startup", result))
    console.print(f"written: {options.out / 'startup'}.json, .txt, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
