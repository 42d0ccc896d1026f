"""How long a caller waits for an answer, and where each millisecond of it goes.

    python bench/latency.py

The same callers and the same vendors' delays, in several ways: each row is `python server.py` with
its environment variables, the vendors (`vendors.py`) and the callers (`load.py`) on sockets of
127.0.0.1.  "Batch" rows have all three stages from an OpenAI-compatible server; "live" rows hear by
Deepgram's live API and speak by ElevenLabs'.  The gap is measured at the caller, from the last
voiced frame sent to the first audible frame of the reply.  "Recorded" rows are answered by the
recording flow (`POST /voice`), batch: the phone's engine is the carrier (`recorded_load.py`).

Each row also says what the gap has to be, by VOICECORE_SPECULATION, if nothing but silence and the
vendors took time.  What was said before costs no TTS:

    off    end silence + STT + LLM to the first clause + TTS
    llm    max(end silence, pause + STT + LLM to the first clause) + TTS
    full   max(end silence, pause + STT + LLM to the first clause + TTS)

    recorded   silence + upload + webhook + download + STT + LLM to its end + TTS to its end

with 300 ms of end silence and a pause of 100 ms, 40 more after each pause of the caller's that was
only that: one utterance of four has one, of 160 ms, and loses a speculation.  What the gap is above
that is the excess: server, adapters, sockets, vendors' timers.  The target is 10 ms (p50) and 20 ms
(p99) at most.

The carrier's part of a recording: 1000 ms of silence end it, as our `<Record timeout="1">` says;
200 ms later it is kept, 100 ms after that comes its webhook, and a download takes 300 ms.  All but
the silence are assumed.  A file is played when it is whole: the voice, five times as fast as one
listens, needs 140 ms from the first of this reply to the last.

The sets of delays.  "Classic": an upload takes 300 ms to be transcribed; the LLM's first token
comes after 400 ms, its last after 600; TTS takes 450 (of 400 to 500).  "Of 2026", typical values:
50 for STT, 250 and 12 a token for the LLM, 100 for TTS.  The first clause stands with the fourth
token: "Good question, let".  A live recogniser hears along: what it says is 50 ms behind the audio,
in both sets, however long an upload would take.  What the gap has to be counts these 50 ms after
the pause; but interim words come every 100 ms, and where they reach the pause the reply is begun
with them: such a gap is smaller than it has to be, and its excess negative.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import measure
import report
from program import Program, free_port
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenario import ROOT, START_S, BenchFailed, Child, cores

sys.path.insert(0, str(ROOT))

from answers import STAGES, Answer, Way, faults, matched, outlived, shares, speculations, strays
from delays import CARRIER, TOKENS, Delays

CLASSIC = Delays(stt_ms=300, live_ms=50, llm_ms=400, token_ms=200 / (len(TOKENS) - 1), tts_ms=450)
RECENT = Delays(stt_ms=50, live_ms=50, llm_ms=250, token_ms=12, tts_ms=100)
INSTANT = Delays()
SETS = {"classic": CLASSIC, "of 2026": RECENT, "instant": INSTANT}

RECORDED_TIMES = 1.5
"""So many times as long is counted of a recorded row: its turns take longer."""

PAUSE_MS = 160
THINK_S = 0.4
SAID_BEFORE_S = 4.0
"""From the last connection until a whole reply has been said: the cache has it."""

TARGET_MS = {"p50": 10, "p99": 20}
SETTLE_S = 1.0
"""From the end of the calls until no request may be open any more."""


@dataclass(frozen=True)
class Row:
    """A row of the table: a set of delays, and a way to answer."""

    set: str
    name: str
    way: Way

    def settings(self, port: int, live_port: int, rest_port: int) -> dict[str, str]:
        """Return the server's environment variables."""
        url = f"http://127.0.0.1:{port}"
        return {
            "VOICECORE_STT": "deepgram" if self.way.is_live else "openai",
            "VOICECORE_LLM": "openai",
            "VOICECORE_TTS": "elevenlabs" if self.way.is_live else "openai",
            "OPENAI_BASE_URL": f"{url}/v1",
            "DEEPGRAM_BASE_URL": f"http://127.0.0.1:{live_port}",
            "ELEVENLABS_BASE_URL": url,
            "TWILIO_BASE_URL": f"http://127.0.0.1:{rest_port}",
            "VOICECORE_SPECULATION": self.way.speculation,
            "VOICECORE_CACHE_MB": "64" if self.way.is_cached else "0",
            "VOICECORE_GREETING": "Hello.",
        }


def rows() -> list[Row]:
    """Return what is measured."""
    found = []
    for name in ("classic", "of 2026"):
        delays = SETS[name]
        found += [
            Row(name, "recorded", Way(delays, False, "off", is_recorded=True)),
            Row(name, "batch, off", Way(delays, False, "off")),
            Row(name, "batch, full", Way(delays, False, "full")),
            Row(name, "live, llm", Way(delays, True, "llm")),
            Row(name, "live, full", Way(delays, True, "full")),
            Row(name, "live, full, cached", Way(delays, True, "full", is_cached=True)),
        ]
    recorded = Row("instant", "recorded", Way(INSTANT, False, "off", is_recorded=True))
    return [*found, recorded, Row("instant", "live, full", Way(INSTANT, True, "full"))]


@dataclass(frozen=True)
class Size:
    """How much is measured of a row."""

    calls: int
    seconds: float
    seed: int
    warm_s: float = 1.5
    """From the last connection to the window."""
    hurry: float = 1
    """How many times as fast as usual the voice speaks."""


def measure_row(row: Row, size: Size) -> dict[str, Any]:
    """Let the callers call; return the row's figures.

    Raises:
        BenchFailed: something did not start, or ended before its time.
    """
    server_core, load_core = cores()
    delays = json.dumps(asdict(row.way.delays))
    vendors = Child("vendors", delays, f"--hurry={size.hurry}", f"--core={load_core}")
    try:
        ports = vendors.line(START_S) | {"rest_port": free_port()}
        program = Program(row.settings(**ports), server_core)
        with program:
            load, plan = _plan(row, size, ports["rest_port"])
            plan |= {"port": program.port, "core": load_core}
            result = _load(Child(load, json.dumps(plan)), program, plan["seconds"])
            sold = _settled(vendors)
    finally:
        vendors.end()
    answers = matched(result, program.lines, row.way)
    if not answers:
        said = [*result["errors"], *faults(program.lines)]
        raise BenchFailed(f"{row.set}, {row.name}: no answers {said[:3]}")
    return {
        "set": row.set,
        "name": row.name,
        "way": asdict(row.way),
        "due_ms": row.way.due_ms(),
        "gap": measure.distribution([answer.gap for answer in answers]),
        "excess": measure.distribution([answer.excess for answer in answers]),
        "mean_due_ms": statistics.fmean(answer.due for answer in answers),
        "shares": shares(answers),
        "speculations": speculations(program.lines),
        "outlived": outlived(row.way, sold, program.lines),
        "faults": _faults(result, program, answers),
        "server": result["server"],
        "load": {name: result[f"load_{name}"] for name in ("cpu_percent", "late")},
        "vendors": sold,
        "answers": [
            {name: round(value, 1) for name, value in asdict(answer).items()} for answer in answers
        ],
    }


def _plan(row: Row, size: Size, rest_port: int) -> tuple[str, dict[str, Any]]:
    """Return which load calls, and its plan."""
    plan = {
        "calls": size.calls,
        "seconds": size.seconds,
        "seed": size.seed,
        "interrupt_every": 0,
        "warm_s": size.warm_s + SAID_BEFORE_S * row.way.is_cached,
        "think_s": THINK_S,
        "pause_ms": PAUSE_MS,
    }
    if not row.way.is_recorded:
        return "load", plan
    seconds = size.seconds * RECORDED_TIMES
    return "recorded_load", plan | {"seconds": seconds, "rest_port": rest_port}


def _load(load: Child, program: Program, seconds: float) -> dict[str, Any]:
    """Run the callers; return their result, with what the window cost the server."""
    usage = {}
    try:
        while (line := load.line(seconds + START_S))["event"] != "result":
            if line["event"] in ("window", "over"):
                usage[line["event"]] = program.usage()
    finally:
        load.end()
    spent = {name: usage["over"][name] - usage["window"][name] for name in usage["over"]}
    return line | {"server": {name: 100 * used / seconds for name, used in spent.items()}}


def _settled(vendors: Child) -> dict[str, Any]:
    """Return what the vendors have done, once no request is open; or after a while anyway."""
    until = time.monotonic() + SETTLE_S
    while (sold := vendors.ask())["open"] and time.monotonic() < until:
        time.sleep(0.05)
    return sold


def _faults(result: dict[str, Any], program: Program, answers: list[Answer]) -> list[str]:
    """Return what went wrong, of all that must not."""
    counted = [f"{result[name]} {name}" for name in report.COUNTS if result[name]]
    if count := strays(answers):
        counted.append(f"{count} gaps that the server takes for others: somebody was held up")
    return counted + result["errors"] + faults(program.lines)


def table_of(results: Sequence[dict[str, Any]]) -> Table:
    """Return the gaps as a table."""
    table = Table(title="Response gap at the caller, ms", title_justify="left")
    table.add_column("delays")
    table.add_column("STT, speculation")
    headings = (
        "n", "p50", "p90", "p99", "max", "has to be", "excess p50", "p99",
        "spec. kept", "lost", "its tokens", "outlived", "faults",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    for at, result in enumerate(results):
        gap, excess, guessed = result["gap"], result["excess"], result["speculations"]
        times = (*(gap[share] for share in ("p50", "p90", "p99", "max")), result["due_ms"])
        counts = (*guessed.values(), result["outlived"], len(result["faults"]))
        cells = (
            str(gap["n"]),
            *(f"{time:.0f}" for time in times),
            *(f"{excess[share]:.1f}" for share in TARGET_MS),
            *map(str, counts),
        )
        is_last = results[at + 1 :] and results[at + 1]["set"] != result["set"]
        table.add_row(result["set"], result["name"], *cells, end_section=bool(is_last))
    return table


def shares_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return where each millisecond goes as a table."""
    table = Table(title="Where the mean gap goes, ms", title_justify="left")
    table.add_column("delays")
    table.add_column("STT, speculation")
    for heading in STAGES:
        table.add_column(heading, justify="right")
    for result in results:
        cells = (f"{result['shares'][stage]:.0f}" for stage in STAGES)
        table.add_row(result["set"], result["name"], *cells)
    return table


def proof(results: Sequence[dict[str, Any]]) -> str:
    """Say how far load and vendors can be what is measured."""
    ticks = max(result["load"]["late"].get("p99", 0) for result in results)
    answers = [result["vendors"]["late"] for result in results]
    return (
        f"The worst row of each: the server took {_worst(results, 'cpu_s'):.0f} % of its core and"
        f" waited for others {_worst(results, 'waited_s'):.1f} % of the time; the callers took"
        f" {max(result['load']['cpu_percent'] for result in results):.0f} % of theirs, and their"
        f" ticks were late by p99 {ticks:.1f} ms; the vendors' answers were late by p50"
        f" {max(late['p50'] for late in answers):.1f}, p99"
        f" {max(late['p99'] for late in answers):.1f} ms, which is in the excess."
    )


def _worst(results: Sequence[dict[str, Any]], name: str) -> float:
    return max(float(result["server"][name]) for result in results)


def verdict(results: Sequence[dict[str, Any]]) -> str:
    """Say which rows miss the target."""
    missed = [
        f"{result['set']}, {result['name']} ({share} {result['excess'][share]:.1f})"
        for result in results
        for share, most in TARGET_MS.items()
        if result["excess"][share] > most
    ]
    if not missed:
        return "Excess at most 10 ms (p50) and 20 ms (p99) in every row."
    return "Excess over 10 ms (p50) or 20 ms (p99): " + "; ".join(missed)


FOOTNOTE = (
    f"Recorded: of each gap, {CARRIER.total_ms:.0f} ms are the carrier's: {CARRIER.silence_ms:.0f}"
    f" of silence that ends the recording, as TwiML has it, and, assumed, {CARRIER.upload_ms:.0f}"
    f" upload, {CARRIER.webhook_ms:.0f} webhook, {CARRIER.download_ms:.0f} download."
)

COLOURS = {
    "pause": "0.75",
    "carrier": "#9b7fb8",
    "stt": "#4c9fd6",
    "llm": "#e49b3b",
    "clause": "#f3c886",
    "tts": "#62ac68",
    "whole": "#b5d8b8",
    "gate": "0.9",
    "rest": "#c0392b",
}
LABELS = {
    "pause": "silence until the turn begins",
    "carrier": "upload, webhook, download",
    "stt": "STT",
    "llm": "LLM, first token",
    "clause": "LLM, first clause",
    "tts": "TTS",
    "whole": "TTS to its end, to be played as a file",
    "gate": "waiting for the end of the turn",
    "rest": "from the first audio to the caller",
}


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw where each millisecond goes, a stacked bar a row."""
    pyplot = report.pyplot()
    drawing, axis = pyplot.subplots(figsize=(11, 0.9 + 0.38 * len(results)))
    sets = list(dict.fromkeys(result["set"] for result in results))
    places = [at + 0.6 * sets.index(result["set"]) for at, result in enumerate(results)]
    begin = [0.0] * len(results)
    for stage in STAGES:
        widths = [max(0.0, result["shares"][stage]) for result in results]
        axis.barh(places, widths, left=begin, color=COLOURS[stage], label=LABELS[stage])
        begin = [left + width for left, width in zip(begin, widths, strict=True)]
    for place, end, result in zip(places, begin, results, strict=True):
        axis.text(end, place, f" {result['gap']['p50']:.0f}", va="center", fontsize=8)
        axis.vlines(result["mean_due_ms"], place - 0.4, place + 0.4, color="black", linewidth=1)
    axis.set_yticks(places, [f"{result['set']}: {result['name']}" for result in results])
    axis.invert_yaxis()
    axis.margins(x=0.06)
    axis.set(xlabel="ms from the caller's last sound; bars: means; lines: due; figures: p50")
    axis.legend(fontsize=8, loc="lower right")
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


def command_line() -> argparse.ArgumentParser:
    """Describe what can be asked for."""
    parser = report.options(__doc__ or "", "latency")
    parser.add_argument("--calls", type=int, default=14, help="side by side (14)")
    parser.add_argument("--seconds", type=float, default=16, help="counted of each row (16)")
    parser.add_argument("--seed", type=int, default=1, help="of the callers' pauses (1)")
    parser.add_argument("--set", choices=SETS, help="these delays only")
    return parser


def main() -> int:
    """Run the bench and write its results; 1 if it could not be run, 130 if interrupted."""
    parser = command_line()
    options = parser.parse_args()
    if not (1 <= options.calls <= 100 and 1 <= options.seconds <= 600):
        parser.error("--calls: 1 to 100; --seconds: 1 to 600")
    size = Size(options.calls, options.seconds, options.seed)
    wanted = [row for row in rows() if options.set in (None, row.set)]
    if options.quick:
        size, wanted = replace(size, calls=4, seconds=3, warm_s=0.2, hurry=3), wanted[-2:]
    console = Console(record=True, width=150)
    machine = report.machine()
    console.print(report.machine_line(machine))
    try:
        steps = track(wanted, "rows", console=console, transient=True)
        results = [measure_row(row, size) for row in steps]
    except BenchFailed as failure:
        console.print(str(failure), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    console.print(f"{size.calls} calls side by side, {size.seconds:g} s a row")
    console.print(table_of(results))
    console.print(shares_table(results))
    for line in (verdict(results), proof(results), FOOTNOTE):
        console.print(line)
    for result in results:
        for fault in result["faults"][:3]:
            console.print(f"{result['set']}, {result['name']}: {fault}", markup=False)
    result = {"machine": machine, "size": asdict(size), "rows": results}
    plot(results, report.write(console, options.out, "latency", result))
    console.print(f"written: {options.out / 'latency'}.json, .txt, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
