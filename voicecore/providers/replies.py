"""What replies of all chat APIs have in common, without I/O: bounds, failures, tool calls."""

from __future__ import annotations

import re
from typing import Protocol

import msgspec

from ..contracts import Delta, ToolCall, Usage

MAX_REPLY_CHARACTERS = 4000
"""Five minutes of speech.  What a model says beyond that is not waited for."""

MAX_REPLY_TOKENS = 1000
MAX_TOOL_CALLS = 16
MAX_ARGUMENTS_CHARACTERS = 16384


class BadReply(Exception):
    """An event that is not what the format says; one line, without its text."""


class ReplyFailed(Exception):
    """The server says in the stream that it failed; one line, without its message."""


class Reply(Protocol):
    """Puts one reply together from the events of its stream."""

    @property
    def complete(self) -> bool:
        """Whether all was said; what may still come is the usage."""

    @property
    def usage(self) -> Usage | None:
        """What it cost, as far as the server has told."""

    def feed(self, data: str) -> list[Delta]:
        """Take one event's data; return the text in it, or the tool calls when they are complete.

        Raises:
            BadReply: it cannot be understood.
            ReplyFailed: it is the server's error.
        """


class CallInPieces:
    """A tool call as its fragments come in."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments = ""

    def add(self, arguments: str) -> None:
        """Add to the JSON of the arguments."""
        self.arguments += arguments
        if len(self.arguments) > MAX_ARGUMENTS_CHARACTERS:
            raise BadReply("a tool call's arguments are too long")

    def finished(self, number: int) -> ToolCall:
        """Return the whole call, the reply's `number`th; one without an id gets one."""
        arguments = self.arguments.strip() or "{}"
        try:
            valid = isinstance(msgspec.json.decode(arguments), dict)
        except (msgspec.DecodeError, RecursionError):
            valid = False
        if not valid or not self.name:
            raise BadReply("a tool call is not complete")
        return ToolCall(self.id or f"call_{number}", self.name, arguments)


def failure(code: object) -> ReplyFailed:
    """Return an error in the stream; its `code` is told if it is a plain word."""
    plain = isinstance(code, str) and re.fullmatch(r"[A-Za-z0-9_]{1,60}", code)
    return ReplyFailed(f"{code} in the stream" if plain else "an error in the stream")
