"""What one frame of 20 ms costs at each stage of the server, in microseconds.

    python bench/frame_cost.py

Each stage runs alone, thousands of times, in a process on a core of its own (`stages.py`); the
table shows the median of the repeats.  The first row is the same on any software: with it, tables
of two machines can be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import report
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenario import BenchFailed, Child, cores

STAGES = 14
FRAMES_PER_S = 50
PATIENCE_S = 120.0


def measure(console: Console, options: Any) -> list[dict[str, Any]]:
    """Run the stages; return their lines."""
    count, repeats = (100, 2) if options.quick else (options.frames, options.repeats)
    stages = Child("stages", f"--core={cores()[0]}", f"--count={count}", f"--repeats={repeats}")
    try:
        steps = track(range(STAGES), "stages", console=console, transient=True)
        return [stages.line(PATIENCE_S) for _ in steps]
    finally:
        stages.end()


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Return the costs as a table; a call has fifty frames a second each way."""
    table = Table(title="One frame at each stage", title_justify="left")
    table.add_column("stage")
    for heading in ("µs", "± half the quartiles' distance", "% of a core a call", "× reference"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["stage"],
            f"{row['us']:.2f}",
            f"{row['spread']:.2f}",
            f"{row['us'] * FRAMES_PER_S / 1e4:.4f}",
            f"{row['us'] / rows[0]['us']:.2f}",
        )
    return table


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the costs as bars."""
    pyplot = report.pyplot()
    drawing, axis = pyplot.subplots(figsize=(9, 4.5))
    names = [row["stage"] for row in rows]
    axis.barh(names, [row["us"] for row in rows], xerr=[row["spread"] for row in rows])
    for at, row in enumerate(rows):
        axis.text(row["us"] + row["spread"], at, f" {row['us']:.1f}", va="center", fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set(xlabel="µs a frame")
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


def main() -> int:
    """Run the bench and write its results."""
    parser = report.options(__doc__ or "", "frame_cost")
    parser.add_argument("--frames", type=int, default=2000, help="frames a repeat (2000)")
    parser.add_argument("--repeats", type=int, default=15, help="repeats, at least 2 (15)")
    options = parser.parse_args()
    if not (2 <= options.repeats <= 1000 and 10 <= options.frames <= 2900):
        parser.error("--repeats: 2 to 1000; --frames: 10 to 2900")
    console = Console(record=True, width=110)
    machine = report.machine()
    console.print(report.machine_line(machine))
    try:
        rows = measure(console, options)
    except BenchFailed as failure:
        console.print(str(failure), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    console.print(table_of(rows))
    result = {"machine": machine, "stages": rows}
    plot(rows, report.write(console, options.out, "frame_cost", result))
    console.print(f"written: {options.out / 'frame_cost'}.json, .txt, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
