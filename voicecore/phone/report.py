"""What the phone shows: a line while a call runs, then each turn's time line, or one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .call import Call
from .handset import Handset
from .turns import Reply, Turn

REFRESH_S = 0.25
BAR_COLUMNS = 60


async def show_progress(calls: Sequence[Call], console: Console) -> None:
    """Show what is going on until cancelled: one living line on a terminal, else plain lines."""
    if not console.is_terminal:
        await _print_changes(calls, console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        began = trio.current_time()
        while True:
            seconds = trio.current_time() - began
            live.update(Text(f"{seconds:6.1f} s  {progress_line(calls)}"))
            await trio.sleep(REFRESH_S)


async def _print_changes(calls: Sequence[Call], console: Console) -> None:
    began, shown = trio.current_time(), progress_line(calls)
    while True:
        line = progress_line(calls)
        if line != shown:
            seconds = trio.current_time() - began
            console.print(
                f"{seconds:6.1f} s  {line}", markup=False, highlight=False, soft_wrap=True
            )
            shown = line
        await trio.sleep(REFRESH_S)


def progress_line(calls: Sequence[Call]) -> str:
    """Say in one line what all calls are doing."""
    if not calls:
        return "waiting to be called"
    if len(calls) == 1:
        return calls[0].status
    ended = sum(call.progress.over for call in calls)
    answered = sum(turn.answer is not None for call in calls for turn in call.turns)
    return f"{len(calls)} calls, {ended} ended, {answered} replies heard"


def never_connected(calls: Sequence[Call]) -> str | None:
    """Return the one reason for which no call at all got anywhere, if that is what happened."""
    errors = {call.error for call in calls}
    begun = any(call.callers or call.flow.handset.log.now for call in calls)
    if len(errors) == 1 and not begun:
        return errors.pop()
    return None


def print_call(call: Call, console: Console) -> None:
    """Print one call: what the TwiML did, every turn's time line, how it ended."""
    console.print(f"[bold]call {call.call_sid}[/]", highlight=False)
    for step in call.steps:
        console.print(f"  {escape(step)}", highlight=False, soft_wrap=True)
    _print_turns(call.flow.handset, console)
    if call.flow.ended is not None and call.flow.ended not in [c.ended for c in call.callers]:
        now = call.flow.handset.log.now
        console.print(f"  {escape(call.flow.ended)} at {now:.2f} s", highlight=False)
    for caller in call.callers:
        _print_turns(caller.handset, console)
        for warning in caller.stream.warnings:
            console.print(f"  [yellow]warning[/] {escape(warning)}", highlight=False)
        if caller.ended is not None:
            console.print(f"  {escape(caller.ended)} at {caller.log.now:.2f} s", highlight=False)
    if call.taken:
        where = call.taken[0].url.rpartition("/")[0]
        console.print(f"  recordings at {where}", highlight=False, soft_wrap=True)
    for problem in call.callbacks.problems:
        console.print(f"  [yellow]warning[/] {escape(problem)}", highlight=False, soft_wrap=True)
    late_s = call.late_s
    if late_s > 0.02:
        late = f"this phone was up to {late_s * 1000:.0f} ms late itself"
        console.print(f"  [yellow]warning[/] {late}", highlight=False)
    if call.recording is not None and call.recording.error is not None:
        console.print(f"  [yellow]warning[/] recording: {escape(call.recording.error)}")
    if call.error is not None:
        console.print(f"  [red]failed[/] {escape(call.error)}", highlight=False, soft_wrap=True)


def _print_turns(handset: Handset, console: Console) -> None:
    for number, turn in enumerate(handset.log.turns):
        if turn.said is not None or turn.replies:
            _print_turn(number, turn, console)


def _print_turn(number: int, turn: Turn, console: Console) -> None:
    console.print(f"[bold]turn {number}[/]  {escape(turn.said or 'greeting')}", highlight=False)
    began, ended = _span(turn)
    scale = f"{began:.2f} s … {ended:.2f} s"
    if turn.speech_start is not None and turn.speech_end is not None:
        bar = _bar([(turn.speech_start, turn.speech_end)], began, ended)
        console.print(Text.assemble("  caller ", (bar, "cyan"), f" {scale}"), soft_wrap=True)
        scale = ""
    agent = [(reply.start, reply.end) for reply in turn.replies]
    bar = _bar(agent, began, ended)
    console.print(Text.assemble("  agent  ", (bar, "green"), f" {scale}".rstrip()), soft_wrap=True)
    if turn.speech_end is not None:
        gap = "no answer" if turn.gap is None else f"gap {turn.gap:.2f} s"
        spoke = f"spoke {turn.speech_start:.2f}–{turn.speech_end:.2f} s"
        console.print(f"  {spoke}, [bold]{gap}[/]", highlight=False)
    for reply in turn.replies:
        console.print(f"  {_reply_line(reply)}", highlight=False, soft_wrap=True)


def _span(turn: Turn) -> tuple[float, float]:
    times = [t for t in (turn.speech_start, turn.speech_end) if t is not None]
    times += [t for reply in turn.replies for t in (reply.start, reply.end)]
    return (min(times), max(times)) if times else (0.0, 0.0)


def _bar(spans: Sequence[tuple[float, float]], began: float, ended: float) -> str:
    """Draw spans of time to scale; however short one is, it has a column."""
    per_s = BAR_COLUMNS / max(ended - began, 1e-9)
    cells = ["·"] * BAR_COLUMNS
    for start, end in spans:
        first = min(BAR_COLUMNS - 1, int((start - began) * per_s))
        last = max(first + 1, round((end - began) * per_s))
        cells[first:last] = "█" * (min(last, BAR_COLUMNS) - first)
    return "".join(cells)


def _reply_line(reply: Reply) -> str:
    line = f"reply {reply.start:.2f}–{reply.end:.2f} s, {reply.heard_s:.2f} s heard"
    line += f", {reply.marks} mark{'' if reply.marks == 1 else 's'}"
    if reply.underruns:
        total = sum(underrun.seconds for underrun in reply.underruns)
        line += f", [red]{len(reply.underruns)} underruns ({total * 1000:.0f} ms)[/]"
    if reply.yield_s is not None:
        line += f", interrupted: heard {reply.yield_s * 1000:.0f} ms more"
        clear = reply.clear_s
        line += ", no clear" if clear is None else f", clear after {clear * 1000:.0f} ms"
    return line


def print_summary(calls: Sequence[Call], files: int, console: Console) -> None:
    """Print one table: a line a call."""
    table = Table(title=f"{len(calls)} calls")
    for name in ("call", "replies", "gaps, s", "underruns", "late, ms", "end"):
        table.add_column(name, justify="left" if name in ("call", "end") else "right")
    for call in calls:
        gaps = [turn.gap for turn in call.turns if turn.gap is not None]
        underruns = sum(len(r.underruns) for turn in call.turns for r in turn.replies)
        good = call.got_replies(files)
        table.add_row(
            call.call_sid[:10],
            Text(f"{len(gaps)}/{files}", "green" if good else "red"),
            " ".join(f"{gap:.2f}" for gap in gaps),
            str(underruns),
            f"{call.late_s * 1000:.0f}",
            escape(call.error or call.status),
        )
    console.print(table)


def as_json(calls: Sequence[Call], files: int) -> dict[str, Any]:
    """Return all that was measured; times are seconds since each stream, or the line, began."""
    return {
        "ok": all(call.got_replies(files) for call in calls),
        "calls": [_call_json(call, files) for call in calls],
    }


def _call_json(call: Call, files: int) -> dict[str, Any]:
    return {
        "call_sid": call.call_sid,
        "ok": call.got_replies(files),
        "error": call.error,
        "direction": call.progress.parties.direction,
        "status": call.progress.status,
        "flow": "recording" if call.taken else "stream" if call.callers else "twiml",
        "documents": call.flow.documents,
        "twiml": call.steps,
        "recordings": [
            {
                "sid": taken.sid,
                "url": taken.url,
                "seconds": _rounded(taken.seconds),
                "digits": taken.digits,
                "voiced": taken.voiced,
            }
            for taken in call.taken
        ],
        "callback_problems": call.callbacks.problems,
        "line": {
            "ended": call.flow.ended,
            "seconds": round(call.flow.handset.log.now, 3),
            "turns": [_turn_json(turn) for turn in call.flow.handset.log.turns],
            "phone_late_ms": round(call.flow.handset.late_s * 1000, 1),
        },
        "streams": [
            {
                "stream_sid": caller.stream.identity.stream_sid,
                "ended": caller.ended,
                "seconds": round(caller.log.now, 3),
                "turns": [_turn_json(turn) for turn in caller.log.turns],
                "media_messages": caller.stream.media_messages,
                "clears": caller.stream.clears,
                "ignored": caller.stream.ignored,
                "warnings": caller.stream.warnings,
                "dropped": caller.dropped,
                "phone_late_ms": round(caller.late_s * 1000, 1),
            }
            for caller in call.callers
        ],
    }


def _turn_json(turn: Turn) -> dict[str, Any]:
    return {
        "said": turn.said,
        "speech_start": _rounded(turn.speech_start),
        "speech_end": _rounded(turn.speech_end),
        "gap": _rounded(turn.gap),
        "replies": [
            {
                "start": _rounded(reply.start),
                "end": _rounded(reply.end),
                "heard": _rounded(reply.heard_s),
                "marks": reply.marks,
                "underruns": [
                    {"at": _rounded(dry.at), "seconds": _rounded(dry.seconds)}
                    for dry in reply.underruns
                ],
                "interrupted_at": _rounded(reply.interrupted_at),
                "cleared_at": _rounded(reply.cleared_at),
                "heard_after_interruption": _rounded(reply.yield_s),
            }
            for reply in turn.replies
        ],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
