"""What every bench writes: the machine, a table, JSON, a plot."""

from __future__ import annotations

import argparse
import json
import os
import platform
import timeit
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scenario import Scenario, Stage

HERE = Path(__file__).resolve().parent
COLUMNS = ("p50", "p90", "p99", "p99.9", "max")
COUNTS = (
    "missed_replies",
    "missed_clears",
    "torn_replies",
    "early_replies",
    "leaked_frames",
    "early_closes",
)
"""What must not happen: all of these should be 0."""

LIBRARIES = ("trio", "trio-websocket", "numpy")


def machine() -> dict[str, Any]:
    """Describe where and when this runs.  The load average tells how much else runs here."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "json_loads_us": round(reference_us(), 2),
        "load_average_before": round(os.getloadavg()[0], 2),
        "date": datetime.now(tz=UTC).isoformat(timespec="seconds"),
    }


def reference_us() -> float:
    """Return what a `json.loads` of one media message takes: how fast this machine is just now.

    A virtual machine's speed changes by half with what its neighbours do, unseen from inside.
    """
    text = json.dumps({"event": "media", "media": {"payload": "/" * 216}, "streamSid": "MZ" * 17})
    return min(timeit.repeat(lambda: json.loads(text), number=5000, repeat=5)) / 5000 * 1e6


def machine_line(found: Mapping[str, Any]) -> str:
    """Return the machine in one line."""
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['system']}, Python {found['python']}, "
        + ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
        + f"; load average before: {found['load_average_before']}"
        f"; json.loads of a message: {found['json_loads_us']} µs"
    )


def options(description: str, stem: str) -> argparse.ArgumentParser:
    """Return the command line that all benches have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results",
        metavar="DIR",
        help=f"where {stem}.json, .txt and .png go (bench/results)",
    )
    return parser


def loopback_url(text: str) -> str:
    """Take the URL of a media stream on this machine; an argparse type."""
    url = urlsplit(text)
    if url.scheme != "ws" or url.hostname not in ("127.0.0.1", "localhost"):
        raise argparse.ArgumentTypeError("takes ws://127.0.0.1:PORT/PATH: load is for this machine")
    return text


def number(value: float | None) -> str:
    """Return a figure with the digits that matter."""
    if value is None:
        return "-"
    size = abs(value)
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def run(console: Console, scenario: Scenario) -> dict[str, Any]:
    """Run one scenario with a progress bar on the terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars, Stage(scenario) as stage:
        bar = bars.add_task(f"{scenario.calls} calls connect", total=scenario.seconds * 2)

        def show(event: str, figures: dict[str, Any]) -> None:
            if event == "progress":
                text = f"{figures['up']} calls, {figures['gaps']} answers"
                bars.update(bar, advance=1, description=text)

        return stage.run(show)


def distributions(title: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table with a row for each distribution."""
    table = Table(title=title, title_justify="left")
    table.add_column("milliseconds")
    for heading in ("n", "min", *COLUMNS):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        cells = (number(row.get(heading)) for heading in ("min", *COLUMNS))
        table.add_row(name, str(row["n"]), *cells)
    return table


def show_cost(console: Console, result: Mapping[str, Any]) -> None:
    """Print what the run cost the server and the load: who was the bottleneck?"""
    server, late = result["server"], result["load_late"]
    if "cpu_percent" in server:
        others = max(0.0, server["core_busy_percent"] - server["cpu_percent"])
        console.print(
            f"server: {server['cpu_percent']:.1f} % of its core"
            f" ({server['cpu_percent_per_call']:.2f} % a call; others had {others:.0f} %, and it"
            f" waited for them {server['waited_percent']:.1f} % of the time),"
            f" {server['rss_mb']:.1f} MB ({server['idle_rss_mb']:.1f} idle,"
            f" {server['rss_mb_per_call']:.2f} a call), longest pass of its event loop"
            f" {server['longest_pass_ms']:.1f} ms, longest collection"
            f" {server['longest_collection_ms']:.1f} ms"
        )
    console.print(
        f"load: {result['load_cpu_percent']:.1f} % of its own core; its ticks were late by"
        f" p50 {number(late.get('p50'))}, p99 {number(late.get('p99'))},"
        f" max {number(late.get('max'))} ms"
    )


def write(console: Console, out: Path, stem: str, result: Mapping[str, Any]) -> Path:
    """Write JSON and what the console has shown; return the path of the plot that belongs to it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / stem
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".txt").write_text(console.export_text())
    return path.with_suffix(".png")


def pyplot() -> Any:
    """Return matplotlib's pyplot, drawing to files."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot
