"""``python -m voicecore.calls``: the command line."""

from __future__ import annotations

import argparse
import io
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from ..errors import SettingsError
from ..records import dates
from ..records.query import CallLog, Which, open_log
from ..settings import load, variable_name
from . import report

PROGRAM = "python -m voicecore.calls"

_AGO = re.compile(r"(\d{1,6})(m|h|d|w)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class NothingFound(Exception):
    """The log has no answer; ``str()`` is one line."""


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    p = _OneLineParser(
        prog=PROGRAM,
        description="What the log of recorded calls says.",
        epilog="Exit status: 0; 1 if nothing was found, or the log cannot be read; 2 for bad"
        " usage.",
    )
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    everywhere = _OneLineParser(add_help=False)
    everywhere.add_argument(
        "--dir", type=Path, metavar="DIR", help=f"the records ({variable_name('record_dir')})"
    )
    as_json = _OneLineParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON instead of a table")
    since = _OneLineParser(add_help=False)
    since.add_argument(
        "--since", type=_moment, metavar="WHEN", help="a date, or an age such as 30m, 12h, 7d, 4w"
    )
    which = _OneLineParser(add_help=False, parents=[since])
    which.add_argument(
        "--number", dest="digits", type=_digits, metavar="NUMBER",
        help="calls from or to it; a part of it will do",
    )  # fmt: skip
    which.add_argument(
        "--ended-by",
        metavar="WHO",
        help="caller, agent, admin, transfer, carrier, silence, length, server or lost",
    )
    listing = commands.add_parser(
        "list", parents=[everywhere, which, as_json], help="calls, the newest first"
    )
    listing.add_argument(
        "--limit", type=_count, default=50, metavar="N", help="at most so many (%(default)s)"
    )
    show = commands.add_parser(
        "show", parents=[everywhere, as_json], help="one call: its turns, what was said"
    )
    show.add_argument("sid", metavar="SID", help="the carrier's name of the call, or its beginning")
    export = commands.add_parser("export", parents=[everywhere, which], help="calls or turns, CSV")
    export.add_argument("what", choices=["calls", "turns"])
    export.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output")
    commands.add_parser(
        "latency", parents=[everywhere, since, as_json], help="percentiles of gaps and stages"
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Answer one question; return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # words in any script, to any terminal
    grammar = parser()
    options = grammar.parse_args(argv)
    try:
        directory = options.dir or load().record_dir
        if directory is None:
            name = variable_name("record_dir")
            raise SettingsError(f"where are the records? {name} is not set; give --dir DIR")
        with open_log(directory) as log:
            _COMMANDS[options.command](log, options)
    except SettingsError as error:
        return _complain(str(error), 2)
    except NothingFound as error:
        return _complain(str(error), 1)
    except sqlite3.Error as error:
        return _complain(f"the log cannot be read: {error}", 1)
    except BrokenPipeError:
        # Somebody has read enough; what is left in the buffer must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _complain(f"{where}{error.strerror or error}", 1)
    return 0


def _list(log: CallLog, options: argparse.Namespace) -> None:
    calls = log.calls(_which(options), options.limit)
    if options.json:
        report.as_json(calls)
    if not calls:
        raise NothingFound("no such calls")
    if not options.json:
        report.calls(calls)


def _show(log: CallLog, options: argparse.Namespace) -> None:
    found = log.named(options.sid)
    if not found:
        raise NothingFound(f"no call is named {options.sid!r}")
    if len(found) > 1:
        raise NothingFound(f"more than one call's name begins with {options.sid!r}")
    (call,) = found
    turns, transcript = log.turns_in(call["directory"]), log.transcript(call["directory"])
    if options.json:
        report.as_json({**call, "turns": turns, "transcript": transcript})
    else:
        report.call(call, turns, transcript)


def _export(log: CallLog, options: argparse.Namespace) -> None:
    which = _which(options)
    rows = log.calls(which) if options.what == "calls" else log.turns(which)
    if not rows:
        raise NothingFound(f"no such {options.what}")
    report.as_csv(rows, options.output)


def _latency(log: CallLog, options: argparse.Namespace) -> None:
    rows = report.percentiles(log.latencies(Which(since=options.since)))
    if options.json:
        report.as_json(rows)
    if not rows:
        raise NothingFound("no turn was answered")
    if not options.json:
        report.latency(rows)


_COMMANDS: dict[str, Callable[[CallLog, argparse.Namespace], None]] = {
    "list": _list,
    "show": _show,
    "export": _export,
    "latency": _latency,
}


def _which(options: argparse.Namespace) -> Which:
    return Which(options.since, options.digits, options.ended_by)


def _complain(line: str, status: int) -> int:
    sys.stderr.write(f"{PROGRAM}: {line}\n")
    return status


def _moment(text: str) -> datetime:
    """A date, or so long ago."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return dates.now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return dates.parse(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"got {text!r}; takes a date such as 2026-01-31, or an age such as 12h"
        ) from None


def _digits(text: str) -> str:
    digits = re.sub(r"\D", "", text)
    if not digits:
        raise argparse.ArgumentTypeError(f"got {text!r}; takes a telephone number, or a part of it")
    return digits


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}; takes a number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
