"""How many calls one core carries: N is raised until the callers notice.

    python bench/capacity.py
    python bench/capacity.py --steps 1 50 100 --stt-ms 120 --llm-ms 250 --token-ms 12 --tts-ms 150

Each step is a fresh server on a core of its own, and N callers on the other (see `jitter.py`, which
explains the figures).  A step fails if

    the response gap's p99 is more than 100 ms above the first step's,
    the carrier's buffer ran dry inside speech, even once,
    a reply or a clear was missed or torn, a caller was cut off, or anything broke.

The capacity is the last step before the first that failed.  "waited" is how long the server could
have run but others had its core: on a machine that is not idle it says how far to trust a row.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import report
from rich.console import Console
from rich.table import Table
from scenario import BenchFailed, Scenario, quick

STEPS = (1, 10, 25, 50, 75, 100, 125, 150, 175, 200, 250, 300, 350, 400, 500, 600, 800, 1000)
MARGIN_MS = 100


def command_line() -> argparse.ArgumentParser:
    """Describe what can be asked for."""
    parser = report.options(__doc__ or "", "capacity")
    parser.add_argument(
        "--steps", type=int, nargs="+", metavar="N", default=STEPS, help="calls, ascending, ≤ 2000"
    )
    parser.add_argument("--seconds", type=float, default=20, help="counted at each step (20)")
    parser.add_argument("--seed", type=int, default=1, help="of the callers' pauses (1)")
    for what in ("stt", "llm", "token", "tts"):
        parser.add_argument(f"--{what}-ms", type=float, default=0, metavar="MS", help="its delay")
    parser.add_argument("--go-on", action="store_true", help="one step beyond the first that fails")
    return parser


def verdict(first: dict[str, Any], result: dict[str, Any]) -> str:
    """Say why a step failed; empty if it did not."""
    delivery, gap = result["delivery"], result["gap"]
    reasons = [name.replace("_", " ") for name in report.COUNTS if result[name]]
    if delivery["underruns"]:
        reasons.insert(0, f"{delivery['underruns']} underruns")
    if not gap["n"]:
        reasons.append("no answers")
    elif gap["p99"] > first["gap"].get("p99", 0) + MARGIN_MS:
        reasons.insert(0, f"gap {gap['p99']:.0f} ms")
    if result["errors"]:
        reasons.append(f"errors: {result['errors'][0]}")
    return ", ".join(reasons)


def climb(console: Console, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the steps until one fails; each result gets its "verdict".

    Raises:
        BenchFailed: a step could not be run.
    """
    steps = (3,) if options.quick else options.steps
    names = ("seed", "stt_ms", "llm_ms", "token_ms", "tts_ms")
    delays = {name: getattr(options, name) for name in names}
    results: list[dict[str, Any]] = []
    failures = 0
    for calls in steps:
        # One call answers two or three times in 20 s: a lone caller is listened to for longer.
        seconds = options.seconds if calls >= 10 else 2 * options.seconds
        scenario = Scenario(calls=calls, seconds=seconds, **delays)
        result = report.run(console, quick(scenario) if options.quick else scenario)
        results.append(result)
        result["verdict"] = verdict(results[0], result)
        console.print(f"{calls} calls: {result['verdict'] or 'carried'}", markup=False)
        failures += bool(result["verdict"])
        if failures > options.go_on:
            break
    return results


def capacity(results: list[dict[str, Any]]) -> int:
    """Return the calls of the last step before the first that failed."""
    carried = 0
    for result in results:
        if result["verdict"]:
            break
        carried = int(result["scenario"]["calls"])
    return carried


def table_of(results: list[dict[str, Any]]) -> Table:
    """Return the steps as a table."""
    table = Table(title="Capacity of one core; times in ms", title_justify="left")
    headings = (
        "N", "gap p50", "p99", "n", "clear p50", "p99", "late p99", "max", "dry", "CPU %",
        "% a call", "waited %", "MB a call", "loop max", "gc max", "load %", "late p99",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    for result in results:
        server, late = result["server"], result["delivery"]["lateness"]
        figures = (
            result["gap"].get("p50"), result["gap"].get("p99"), result["gap"]["n"],
            result["clear"].get("p50"), result["clear"].get("p99"),
            late.get("p99"), late.get("max"), result["delivery"]["underruns"],
            server["cpu_percent"], server["cpu_percent_per_call"], server["waited_percent"],
            server["rss_mb_per_call"], server["longest_pass_ms"],
            server["longest_collection_ms"], result["load_cpu_percent"],
            result["load_late"].get("p99"),
        )  # fmt: skip
        cells = (str(f) if isinstance(f, int) else report.number(f) for f in figures)
        table.add_row(str(result["scenario"]["calls"]), *cells)
    return table


def summary(results: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """Return the line for a README."""
    best = [result for result in results if not result["verdict"]]
    if not best:
        return "not even the first step was carried"
    last = best[-1]
    server, delivery = last["server"], last["delivery"]
    return (
        f"{capacity(results)} calls on one core ({machine['cpu']}, Python {machine['python']}):"
        f" response gap p50/p99 {last['gap']['p50']:.0f}/{last['gap']['p99']:.0f} ms (one call:"
        f" {results[0]['gap']['p99']:.0f}), {delivery['underruns']} underruns in"
        f" {delivery['frames']} frames, {server['cpu_percent']:.0f} % CPU,"
        f" {server['rss_mb_per_call']:.2f} MB a call over {server['idle_rss_mb']:.0f} MB idle,"
        f" longest pass of the event loop {server['longest_pass_ms']:.0f} ms; the load took"
        f" {last['load_cpu_percent']:.0f} % of its own core."
    )


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw gap, lateness and cost over N."""
    pyplot = report.pyplot()
    drawing, axes = pyplot.subplots(1, 3, figsize=(12, 3.6))
    calls = [result["scenario"]["calls"] for result in results]
    for share in ("p50", "p99", "max"):
        axes[0].plot(calls, [r["gap"].get(share) for r in results], "o-", label=share)
        late = [r["delivery"]["lateness"].get(share) for r in results]
        axes[1].plot(calls, late, "o-", label=share)
    axes[0].axhline(results[0]["gap"].get("p99", 0) + MARGIN_MS, color="0.7", linestyle="--")
    axes[1].axhline(results[0]["delivery"]["lead_ms"], color="0.7", linestyle="--")
    axes[2].plot(calls, [r["server"]["cpu_percent"] for r in results], "o-", label="server")
    axes[2].plot(calls, [r["load_cpu_percent"] for r in results], "o-", label="load, its own core")
    titles = ("response gap, ms", "send lateness, ms (dashed: the lead)", "CPU, %")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlabel="calls", title=title, ylim=(0, None))
        axis.legend(fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


def main() -> int:
    """Run the bench and write its results; 1 if it could not be run, 130 if interrupted."""
    parser = command_line()
    options = parser.parse_args()
    if list(options.steps) != sorted(set(options.steps)) or not 1 <= max(options.steps) <= 2000:
        parser.error("--steps: ascending, 1 to 2000")
    console = Console(record=True, width=140)
    machine = report.machine()
    console.print(report.machine_line(machine))
    try:
        results = climb(console, options)
    except BenchFailed as failure:
        console.print(str(failure), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    console.print(table_of(results))
    line = summary(results, machine)
    console.print(line)
    result = {"machine": machine, "summary": line, "steps": results}
    plot(results, report.write(console, options.out, "capacity", result))
    console.print(f"written: {options.out / 'capacity'}.json, .txt, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
