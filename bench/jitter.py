"""How punctually the server speaks: N calls at once over real sockets, every frame timed.

    python bench/jitter.py --calls 50 --seconds 20
    python bench/jitter.py --calls 50 --stall-ms 10 50 100 150     holds the server's event loop

The load times each frame of each reply as it arrives and asks, as the carrier's buffer would:

    send lateness    of a write (a frame, or two) behind the schedule, t0 + n * 20 ms - lead
    jitter           of two writes: how far their distance is from what they carry
    lead             what the carrier has to play once a write is there; and what was left before
    underruns        the buffer ran dry inside speech
    gap              the caller's last speech frame sent -> first audible frame of the reply
    clear            the first speech frame of an interruption sent -> `clear`

Server and load are processes on cores of their own, on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

import measure
import numpy as np
import report
from rich.console import Console
from scenario import BenchFailed, Scenario, quick


def command_line() -> argparse.ArgumentParser:
    """Describe what can be asked for."""
    parser = report.options(__doc__ or "", "jitter")
    parser.add_argument("--calls", type=int, default=50, metavar="N", help="at once, ≤ 2000 (50)")
    parser.add_argument("--seconds", type=float, default=20, help="counted, ≤ 600 (20)")
    parser.add_argument("--interrupt-every", type=int, default=3, help="n-th reply; 0: none (3)")
    parser.add_argument("--seed", type=int, default=1, help="of the callers' pauses (1)")
    parser.add_argument(
        "--stall-ms", type=float, nargs="+", default=[0.0], metavar="MS", help="one run for each"
    )
    parser.add_argument("--stall-every-s", type=float, default=2, metavar="S", help="(2)")
    for what in ("stt", "llm", "token", "tts"):
        parser.add_argument(f"--{what}-ms", type=float, default=0, metavar="MS", help="its delay")
    parser.add_argument("--url", type=report.loopback_url, help="another server's media stream")
    return parser


def scenarios(options: argparse.Namespace) -> list[Scenario]:
    """Return one scenario for each stall that was asked for."""
    names = "calls seconds interrupt_every seed stall_every_s stt_ms llm_ms token_ms tts_ms url"
    first = Scenario(**{name: getattr(options, name) for name in names.split()})
    if options.quick:
        first = quick(first)
    return [replace(first, stall_ms=stall_ms) for stall_ms in options.stall_ms]


def show(console: Console, result: dict[str, Any]) -> None:
    """Print one run: its distributions, its counts, and what it cost whom."""
    scenario, delivery = result["scenario"], result["delivery"]
    stall = f", event loop held {scenario['stall_ms']:.0f} ms" if scenario["stall_ms"] else ""
    title = f"{scenario['calls']} calls for {result['seconds']:.0f} s{stall}"
    rows = {
        "send lateness": delivery["lateness"],
        "jitter between writes": delivery["jitter"],
        "lead": delivery["lead"],
        "left when a write came": delivery["left"],
        "response gap": result["gap"],
        "clear after onset": result["clear"],
    }
    console.print(report.distributions(title, rows))
    counts = ", ".join(f"{name.replace('_', ' ')} {result[name]}" for name in report.COUNTS)
    console.print(
        f"underruns inside speech {delivery['underruns']} of {delivery['frames']} frames"
        f" ({delivery['silence_ms']:.0f} ms); {counts}; errors {len(result['errors'])}"
    )
    for error in sorted(set(result["errors"]))[:3]:
        console.print(f"  {error}", markup=False)
    report.show_cost(console, result)


def summary(result: dict[str, Any], machine: dict[str, Any]) -> str:
    """Return the line for a README."""
    delivery, calls = result["delivery"], result["scenario"]["calls"]
    late = ", ".join(
        f"{name} {report.number(delivery['lateness'].get(name))}" for name in report.COLUMNS
    )
    cpu = result["server"].get("cpu_percent")
    return (
        f"{calls} calls on one core ({machine['cpu']}, Python {machine['python']},"
        f" {report.number(cpu)} % busy): send lateness ms {late} over N ="
        f" {delivery['lateness']['n']} writes of {delivery['frames']} frames;"
        f" {delivery['underruns']} underruns; response gap p50/p99"
        f" {report.number(result['gap'].get('p50'))}/{report.number(result['gap'].get('p99'))} ms."
    )


def plot(results: list[dict[str, Any]], path: Any) -> None:
    """Draw the histograms of lateness and jitter, one line a run."""
    pyplot = report.pyplot()
    drawing, axes = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    edges = np.array((*measure.HISTOGRAM_MS[:-1], 2 * measure.HISTOGRAM_MS[-2]))
    labels = [f"{edge:g}" for edge in edges[:-1]]
    for axis, name in zip(axes, ("lateness", "jitter"), strict=True):
        for at, result in enumerate(results):
            counts = np.array(result["delivery"][f"{name}_histogram"])
            share = 100 * counts / max(1, counts.sum())
            stall = result["scenario"]["stall_ms"]
            place = np.arange(len(labels)) + 0.8 * at / len(results)
            label = f"loop held {stall:.0f} ms" if stall else "undisturbed"
            axis.bar(place, share, width=0.8 / len(results), align="edge", label=label)
        axis.set_xticks(range(len(labels)), labels, fontsize=7)
        axis.set(xlabel=f"{name}, ms, from", yscale="log")
    axes[0].set(ylabel="% of writes", title=f"{results[0]['scenario']['calls']} calls")
    axes[1].legend(fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


def main() -> int:
    """Run the bench and write its results; 1 if it could not be run, 130 if interrupted."""
    options = command_line().parse_args()
    console = Console(record=True, width=110)
    machine = report.machine()
    console.print(report.machine_line(machine))
    results = []
    try:
        for scenario in scenarios(options):
            results.append(report.run(console, scenario))
            show(console, results[-1])
    except BenchFailed as failure:
        console.print(str(failure), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    line = summary(results[0], machine)
    console.print(line)
    result = {"machine": machine, "summary": line, "runs": results}
    plot(results, report.write(console, options.out, "jitter", result))
    console.print(f"written: {options.out / 'jitter'}.json, .txt, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
