"""Log lines: for people (text) or for machines (json), with the same fields.

Code that logs says what happened and hands over values:

    log.info("speech started", extra={"call": sid, "at": 12.345, "fields": {"confidence": 0.83}})

Rules that hold here: nothing a caller chose can break a line, forge one, or colour a terminal; what
was said and who called are private, and one setting removes them; a log that cannot be written
never stops a call.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

PRIVATE = frozenset({"text", "heard", "from", "to"})
"""Fields that hold spoken words or phone numbers.  VOICECORE_LOG_TEXT=off removes them."""

VALUE_CHARS = 200
REPEATS = 20
REPEATS_S = 10.0
"""The same message of the server at most so often in so many seconds: a stranger who provokes a
line a packet should not fill the disk."""

_PHONE = re.compile(r"(?<!\w)\+?\d{7,15}(?!\w)")
# A number within a word is a piece of a SID.
_PLAIN = re.compile(r"[^\s\"'=\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def configure(
    form: Literal["text", "json"], *, log_text: bool, stream: TextIO | None = None
) -> None:
    """Send every log record of the process to `stream` (stderr) in the given form."""
    pipe = LogPipe(sys.stderr if stream is None else stream)
    pipe.setFormatter(JsonLines(log_text) if form == "json" else TextLines(log_text))
    pipe.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [pipe]
    root.setLevel(logging.INFO)
    # These log each frame and each request, with its URL.
    for name in ("trio-websocket", "httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.WARNING)


class LogPipe(logging.StreamHandler[TextIO]):
    """Writes to a stream that may break: then the line is lost, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing: there is nowhere left to complain."""


class Repeats(logging.Filter):
    """Lets the server's own messages through `REPEATS` times in `REPEATS_S` seconds each, and as
    many of one kind from one call: a stranger who presses keys should not fill the disk either."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[tuple[str, str], int] = {}
        self._since = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        if record.name not in ("voicecore.server", "voicecore.call", "trio.serve_listeners"):
            return True
        if record.created - self._since > REPEATS_S:
            self._counts.clear()
            self._since = record.created
        # By the constant part of the message, of which there are few, and by its call, if there is
        # one that has begun: of those, too, there are only so many in ten seconds.
        is_calls = record.name == "voicecore.call"
        key = record.msg, str(getattr(record, "call", "")) if is_calls else ""
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= REPEATS


class TextLines(logging.Formatter):
    """``14:03:07.123 CA12… 12.345 speech started confidence=0.83``."""

    def __init__(self, log_text: bool) -> None:
        super().__init__()
        self._log_text = log_text

    def format(self, record: logging.LogRecord) -> str:
        """Put a record into one line."""
        stamp = f"{self.formatTime(record, '%H:%M:%S')}.{int(record.msecs):03d}"
        fields = fields_of(record, self._log_text)
        words = [stamp, _one_word(fields.pop("call", None) or "-")]
        at = fields.pop("at_s", None)
        words.append(f"{at:.3f}" if isinstance(at, (int, float)) else "-")
        if record.levelno >= logging.WARNING:
            words.append(record.levelname)
        words.append(_safe(str(fields.pop("message"))))
        words += [f"{name}={_one_word(value)}" for name, value in fields.items()]
        return " ".join(words)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, call, at_s, and the record's fields."""

    def __init__(self, log_text: bool) -> None:
        super().__init__()
        self._log_text = log_text

    def format(self, record: logging.LogRecord) -> str:
        """Put a record into one line of ASCII."""
        stamp = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}"
        head = {"time": stamp, "level": record.levelname.lower()}
        return json.dumps({**head, **fields_of(record, self._log_text)}, default=str)


def fields_of(record: logging.LogRecord, log_text: bool) -> dict[str, object]:
    """Return what a record says, private values removed, phone numbers masked, texts cut."""
    given: object = getattr(record, "fields", None)
    fields: dict[str, object] = {"message": _presentable(record.getMessage())}
    call, at = getattr(record, "call", None), getattr(record, "at", None)
    if call:
        fields["call"] = str(call)[:64]
    if at is not None:
        fields["at_s"] = round(float(at), 3)
    if isinstance(given, Mapping):
        for name, value in given.items():
            if log_text or name not in PRIVATE:
                fields[str(name)] = _presentable(value)
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = _presentable(repr(record.exc_info[1]))
    return fields


def _presentable(value: object) -> object:
    if value is None or isinstance(value, (int, float)):
        return value
    return _PHONE.sub(_mask, str(value))[:VALUE_CHARS]


def _mask(match: re.Match[str]) -> str:
    number = match.group()
    return f"{number[:2]}…{number[-2:]}"


def _one_word(value: object) -> str:
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _safe(text).replace('"', "'") + '"'


def _safe(text: str) -> str:
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
