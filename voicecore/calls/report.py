"""What the command line prints: tables for people, JSON and CSV for programs.

What callers and carriers chose to be called is data: it neither marks up nor controls a terminal,
and is no formula in a spreadsheet.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..records.query import TIMES, percentile

Rows = Sequence[Mapping[str, Any]]

SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

WIDTH = 140
"""What a table of calls takes: a file or a pipe has no width of its own, and a narrower terminal
breaks the lines, which loses less than what folding would leave of the columns."""

_FORMULA = re.compile(r"[=@\t\n]|[+-](?!\d*\Z)")
"""How a text begins that a spreadsheet would work out (OWASP, "CSV injection"); a number, of a
telephone too, may have a sign."""


def calls(rows: Rows) -> None:
    """Print calls as a table, a line each."""
    table = Table()
    table.add_column("began", no_wrap=True, min_width=19)
    table.add_column("call", no_wrap=True, min_width=34)  # what `show` is to be given
    for heading, width in (("from", 12), ("to", 12), ("flow", 9), ("s", 6)):
        table.add_column(heading, overflow="fold", min_width=width)
    for heading in ("turns", "cut", "ended by"):
        table.add_column(heading, overflow="fold", min_width=len(heading))
    for row in rows:
        table.add_row(
            *map(
                _cell,
                (
                    row["began"][:19].replace("T", " "), row["sid"], row["from"], row["to"],
                    row["flow"], _seconds(row["seconds"], 1), row["turns"], row["barge_ins"],
                    row["ended_by"] or "(up)",
                ),
            )
        )  # fmt: skip
    _console().print(table)


def call(facts: Mapping[str, Any], turns: Rows, transcript: Rows) -> None:
    """Print all that is known of one call."""
    console = _console()
    for name, value in facts.items():
        if value is not None:
            console.print(Text(f"{name}: ").append_text(_cell(value)), highlight=False)
    table = Table("at", "turn", *TIMES, "interrupted")
    for turn in turns:
        stages = (turn[name] for name in TIMES)
        table.add_row(
            _cell(_seconds(turn["at"], 2)),
            _cell(turn["turn"]),
            *(_cell(_seconds(stage, 3)) for stage in stages),
            _cell("yes" if turn["interrupted"] else ""),
        )
    if turns:
        console.print(table)
    for line in transcript:
        cut = " (interrupted)" if line.get("interrupted") else ""
        at = _seconds(line.get("at"), 2).rjust(8)
        words = _cell(f"{at}  {line.get('who')}: {line.get('text')}{cut}")
        console.print(words, highlight=False, soft_wrap=True)


def percentiles(latencies: Mapping[tuple[str, str], Sequence[float]]) -> list[dict[str, Any]]:
    """Return a row for each flow and stage: n and percentiles, in seconds."""
    return [
        {
            "flow": flow,
            "stage": stage,
            "n": len(values),
            **{name: round(percentile(values, share), 3) for name, share in SHARES.items()},
        }
        for (flow, stage), values in latencies.items()
    ]


def latency(rows: Rows) -> None:
    """Print percentiles as a table, in milliseconds."""
    table = Table("flow", "stage", "n", *(f"{name}, ms" for name in SHARES))
    for row in rows:
        figures = (f"{row[name] * 1000:.0f}" for name in SHARES)
        table.add_row(*map(_cell, (row["flow"], row["stage"], row["n"], *figures)))
    _console().print(table)


def as_json(value: object) -> None:
    """Print JSON, in ASCII."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
    sys.stdout.flush()


def as_csv(rows: Rows, path: Path | None) -> None:
    """Write rows with a heading, to a file for its owner only or to standard output.

    Raises:
        OSError: the file cannot be written.
    """
    if path is None:
        _write_csv(rows, sys.stdout)
        return
    path.touch(mode=0o600)
    with path.open("w", newline="", encoding="utf-8") as file:
        _write_csv(rows, file)


def _write_csv(rows: Rows, file: TextIO) -> None:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    file.flush()


def _inert(value: object) -> object:
    """Return what a spreadsheet shows as it is, and does not work out."""
    if not isinstance(value, str):
        return value
    # Not every Python's csv quotes a lone carriage return, which would break the row.
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{value}" if _FORMULA.match(value) else value


def _console() -> Console:
    console = Console()
    return console if console.is_terminal and console.width > WIDTH else Console(width=WIDTH)


def _seconds(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""


def _cell(value: object) -> Text:
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() else "\ufffd" for c in text))
