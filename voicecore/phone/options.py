"""The grammar of the phone's command line: its options, and what each of them takes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from ..audio import wav
from .account import RECORDING_DELAY_S
from .handset import Key
from .network import Stall
from .script import Utterance

PROGRAM = "python -m voicecore.phone"


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
        "url", type=_url, nargs="?",
        help="voice webhook (http, https), or a media stream itself (ws, wss); "
        "with --callee where the server really is, if its URLs do not say",
    )  # fmt: skip
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
    _add_carrier_side(p.add_argument_group("the carrier's side"))
    _add_callee(p.add_argument_group("being called"))
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


def _add_carrier_side(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--rest-port", type=_port, metavar="PORT",
        help="serve the REST API and the recordings on this port (default: any free one)",
    )  # fmt: skip
    group.add_argument(
        "--recording-delay", type=_seconds, default=1000 * RECORDING_DELAY_S, metavar="MS",
        help="a recording can be had so long after it was announced (%(default).0f)",
    )  # fmt: skip
    group.add_argument(
        "--dial-status", choices=("completed", "busy", "no-answer", "failed"), default="completed",
        help="what comes of a <Dial> (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--status-callback", type=_url, metavar="URL",
        help="report here that the call is over, as a number's configuration would have it",
    )  # fmt: skip


def _add_callee(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--callee", action="store_true",
        help="place no call: wait until --calls of them were ordered by REST, and take them",
    )  # fmt: skip
    group.add_argument(
        "--ring", type=_seconds, default=1.0, metavar="S", help="take a call after S (%(default)s)"
    )
    group.add_argument(
        "--callee-status", choices=("answered", "busy", "no-answer", "failed"), default="answered",
        help="take the call, or do not (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--answered-by", default="human", metavar="WHO",
        choices=("human", "machine_start", "machine_end_beep", "machine_end_silence",
                 "machine_end_other", "fax", "unknown"),
        help="what machine detection hears, if it is asked for (%(default)s)",
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


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} takes a port from 0 to 65535")
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
