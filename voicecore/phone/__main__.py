"""``python -m voicecore.phone URL``: the command line."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NoReturn
from urllib.parse import urlsplit

import trio
from rich.console import Console

from ..audio import wav
from ..errors import SettingsError
from . import report
from .call import Call, Number
from .handset import Conditions, Key
from .microphone import Microphone
from .network import Stall
from .script import Manners, Script, Utterance, Voice

PROGRAM = "python -m voicecore.phone"

SPREAD_S = 0.02
"""Calls begin so far apart, as they would; it also keeps their 20 ms ticks out of step."""


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    p = _OneLineParser(
        prog=PROGRAM,
        description="Place calls as Twilio would, and show what a caller would hear.",
        epilog="Exit status: 0 if each call got its replies, 1 if not, 2 for bad usage.",
    )
    p.add_argument(
        "url", type=_url, help="voice webhook (http, https), or a media stream itself (ws, wss)"
    )
    talk = p.add_argument_group("what the caller does")
    talk.add_argument(
        "--say", nargs="+", action="extend", default=[], type=_utterance, metavar="FILE.wav",
        help="say each file, the next one when the reply to the one before has been heard",
    )  # fmt: skip
    talk.add_argument(
        "--interrupt-at", type=_seconds, metavar="S",
        help="say the next file S seconds into the reply (with one file: into the greeting)",
    )  # fmt: skip
    talk.add_argument("--mic", action="store_true", help="talk yourself; Ctrl-C hangs up")
    talk.add_argument(
        "--dtmf", action="append", default=[], type=_key, metavar="DIGIT@S", help="press a key"
    )
    talk.add_argument(
        "--greeting-wait", type=_seconds, default=5.0, metavar="S",
        help="how long a greeting may take to begin (%(default)s)",
    )  # fmt: skip
    talk.add_argument(
        "--patience", type=_seconds, default=15.0, metavar="S",
        help="how long a reply may take to begin (%(default)s)",
    )  # fmt: skip
    talk.add_argument(
        "--max", type=_seconds, default=300.0, metavar="S", help="hang up after S (%(default)s)"
    )
    talk.add_argument("--calls", type=_count, default=1, metavar="N", help="N calls at once")
    _add_carrier(p.add_argument_group("who calls, and how it is signed"))
    _add_line(p.add_argument_group("the line"))
    return p


def _add_carrier(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--auth-token", metavar="TOKEN", help="sign with this (default: TWILIO_AUTH_TOKEN)"
    )
    group.add_argument(
        "--public-url", type=_url, metavar="URL",
        help="what the server believes to be its URL; requests are signed for it",
    )  # fmt: skip
    group.add_argument("--from", dest="caller", default="+15550001111", metavar="NUMBER")
    group.add_argument("--to", dest="called", default="+15550002222", metavar="NUMBER")
    group.add_argument(
        "--parameter", action="append", default=[], type=_parameter, metavar="NAME=VALUE",
        help="a custom parameter, for a stream opened directly",
    )  # fmt: skip


def _add_line(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--jitter", type=_seconds, default=0.0, metavar="MS", help="delay each message by 0..MS"
    )
    group.add_argument(
        "--stall", action="append", default=[], type=_stall, metavar="MS@S",
        help="nothing passes for MS milliseconds, S seconds into the stream",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the jitter's chance")
    group.add_argument(
        "--record", type=Path, metavar="OUT.wav", help="stereo: caller left, agent right"
    )
    group.add_argument("--json", type=Path, metavar="OUT", help="write all that was measured")


def main(argv: list[str] | None = None) -> int:
    """Place the calls and return the exit status."""
    grammar = parser()
    options = grammar.parse_args(argv)
    if options.mic and (options.say or options.calls > 1):
        grammar.error("--mic is one person: it goes with neither --say nor --calls")
    console = Console()
    with ExitStack() as devices:
        try:
            microphone = devices.enter_context(Microphone()) if options.mic else None
        except SettingsError as error:
            grammar.error(str(error))
        calls = [_call(options, number, microphone) for number in range(options.calls)]
        trio.run(_place, calls, console)
    return _finish(options, calls, console)


async def _place(calls: list[Call], console: Console) -> None:
    tls = ssl.create_default_context()
    async with trio.open_nursery() as progress:
        progress.start_soon(report.show_progress, calls, console)
        await progress.start(_hang_up_on_interrupt, calls)
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call.place, tls)
                await trio.sleep(SPREAD_S if len(calls) > 1 else 0)
        progress.cancel_scope.cancel()


async def _hang_up_on_interrupt(
    calls: list[Call], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Ctrl-C hangs up, so that the server sees `stop` and the recording is whole."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            for call in calls:
                call.hang_up()


def _call(options: argparse.Namespace, number: int, microphone: Microphone | None) -> Call:
    manners = Manners(options.greeting_wait, options.patience, options.interrupt_at)
    voice: Voice = Script(options.say, manners) if microphone is None else microphone
    conditions = Conditions(
        max_s=options.max,
        keys=options.dtmf,
        jitter_s=options.jitter / 1000,
        stalls=options.stall,
        chance=Random(options.seed + number),
    )
    whom = Number(
        url=options.url,
        token=options.auth_token or os.environ.get("TWILIO_AUTH_TOKEN") or None,
        public_url=options.public_url and options.public_url.rstrip("/"),
        caller=options.caller,
        called=options.called,
        parameters=dict(options.parameter),
    )
    record: Path | None = options.record
    if record is not None and options.calls > 1:
        record = record.with_stem(f"{record.stem}-{number + 1}")
    return Call(whom, voice, conditions, [] if microphone is None else [microphone], record)


def _finish(options: argparse.Namespace, calls: list[Call], console: Console) -> int:
    files = len(options.say)
    reason = report.never_connected(calls)
    if reason is not None:
        print(f"{PROGRAM}: {reason}", file=sys.stderr)  # noqa: T201 - this is a command line
    elif len(calls) == 1:
        report.print_call(calls[0], console)
    else:
        report.print_summary(calls, files, console)
    measured = report.as_json(calls, files)
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(measured, indent=2) + "\n")
        except OSError as error:
            console.print(f"cannot write {options.json}: {error.strerror}", markup=False)
            return 1
    return 0 if measured["ok"] else 1


def _url(text: str) -> str:
    try:
        url = urlsplit(text)
        known = url.scheme in ("http", "https", "ws", "wss") and url.port != 0
    except ValueError:
        known = False
    if not known or not url.hostname:
        raise argparse.ArgumentTypeError(
            f"{text!r} takes a URL such as http://127.0.0.1:8000/voice-stream"
        )
    return text


def _utterance(text: str) -> Utterance:
    try:
        return Utterance(Path(text).name, wav.read_telephone(text))
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} takes a number, such as 1.5")
    return float(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} takes a whole number from 1")
    return int(text)


def _key(text: str) -> Key:
    found = re.fullmatch(r"([0-9*#])@(\d+(?:\.\d+)?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} takes a key and a second, such as 1@4.5")
    return Key(found[1], float(found[2]))


def _stall(text: str) -> Stall:
    found = re.fullmatch(r"(\d+)@(\d+(?:\.\d+)?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} takes milliseconds and a second, such as 400@3.0"
        )
    return Stall(at=float(found[2]), seconds=int(found[1]) / 1000)


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} takes NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
