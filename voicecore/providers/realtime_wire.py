"""OpenAI's Realtime API, without I/O: what is said to it, and what it says, as far as we use it.

The general API: no beta header, nested audio formats, ``output_audio`` events.  Turns are ours, so
``turn_detection`` is null and every answer is asked for: append, commit, create.

What is asked for has a number, which is in the `event_id` of the messages that ask for it: errors
tell what they are about.

Source: the API reference of the Realtime API, and its Python SDK's types.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from ..contracts import Message, Tool, ToolCall, Usage

APPEND_BYTES = 60_000
"""Mu-law in one message: seven seconds.  The API takes 15 MB."""

LEAST_BYTES = 1600
"""0.2 s.  Less than 0.1 s is refused; what is shorter is followed by silence."""

MAX_TOKENS = 4096
"""Of one answer: the most that can be asked for, about three minutes of speech."""

SETUP = "setup"
"""The `event_id` of a session's first message.  If that is refused, the session is useless: it
would take mu-law for linear audio and decide itself whose turn it is."""

TRANSCRIPTION_MODEL = "gpt-4o-mini-transcribe"

GO_ON = (
    "You were cut off by a noise on the line. Go on exactly after your last word, or give your"
    " answer if you had not begun it; repeat nothing."
)


def session(model: str, prompt: str, tools: Sequence[Tool], voice: str, language: str) -> str:
    """Set a session up."""
    transcription: dict[str, Any] = {"model": TRANSCRIPTION_MODEL}
    code = language.partition("-")[0].lower()
    if len(code) == 2:  # ISO-639-1 is all that it knows
        transcription["language"] = code
    audio = {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": transcription,
            "turn_detection": None,
        },
        "output": {"format": {"type": "audio/pcmu"}, "voice": voice},
    }
    return _message(
        "session.update",
        event_id=SETUP,
        session={
            "type": "realtime",
            "model": model,
            "output_modalities": ["audio"],
            "instructions": prompt,
            "audio": audio,
            "tools": [_tool(tool) for tool in tools],
            "max_output_tokens": MAX_TOKENS,
        },
    )


def commit_id(number: str) -> str:
    """The `event_id` of what says a question."""
    return f"commit_{number}"


def ask_id(number: str) -> str:
    """The `event_id` of what asks for an answer."""
    return f"ask_{number}"


def say(utterance: bytes, number: str) -> list[str]:
    """Say `utterance` to the model; it becomes one item of the conversation."""
    utterance = utterance.ljust(LEAST_BYTES, b"\xff")
    pieces = (utterance[at : at + APPEND_BYTES] for at in range(0, len(utterance), APPEND_BYTES))
    appends = [
        _message("input_audio_buffer.append", audio=base64.b64encode(piece).decode())
        for piece in pieces
    ]
    return [*appends, _message("input_audio_buffer.commit", event_id=commit_id(number))]


def ask(number: str) -> str:
    """Ask for an answer."""
    return _message("response.create", event_id=ask_id(number))


def clear() -> str:
    """Throw away audio that was sent and is no item yet."""
    return _message("input_audio_buffer.clear")


def cancel(response_id: str = "") -> str:
    """Stop the answer that is being made; harmless if there is none."""
    known = {"response_id": response_id} if response_id else {}
    return _message("response.cancel", **known)


def forget(item_id: str) -> str:
    """Take an item out of the conversation."""
    return _message("conversation.item.delete", item_id=item_id)


def truncate(item_id: str, milliseconds: int) -> str:
    """Cut an answer at what was heard of it."""
    return _message(
        "conversation.item.truncate",
        item_id=item_id,
        content_index=0,
        audio_end_ms=milliseconds,
    )


def remember(message: Message, call: ToolCall | None = None) -> str:
    """Add what was said to the conversation, as text.

    A tool's result is that of `call`, if that is known; the session need not know of it.
    """
    if message.role != "tool":
        return _item(message.role, message.text)
    tool = "A tool" if call is None else f"{call.name}({call.arguments})"
    return _item("system", f"{tool}, which you have called, has this result: {message.text}")


def type_in(item_id: str, text: str) -> str:
    """Say what the caller has typed; the item is named so that it can be forgotten."""
    return _item("user", text, id=item_id)


def give_result(call_id: str, result: str) -> str:
    """Give a tool's result to the call that the session knows."""
    item = {"type": "function_call_output", "call_id": call_id, "output": result}
    return _message("conversation.item.create", item=item)


def go_on(item_id: str) -> str:
    """Tell the model that it may go on; the item is named so that it can be forgotten."""
    return _item("system", GO_ON, id=item_id)


def _item(role: str, text: str, **fields: str) -> str:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    item = {"type": "message", "role": role, "content": content, **fields}
    return _message("conversation.item.create", item=item)


def _message(kind: str, **fields: object) -> str:
    return msgspec.json.encode({"type": kind, **fields}).decode()


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }


REFUSED = frozenset({"invalid_api_key", "authentication_error", "permission_error"})
BUSY = frozenset(
    {"insufficient_quota", "rate_limit_exceeded", "rate_limit_error", "requests", "tokens"}
)
EXPIRED = frozenset({"session_expired", "session_timeout"})
UNKNOWN_MODEL = "model_not_found"
STILL_ANSWERING = "conversation_already_has_active_response"
"""The errors that end more than themselves, by their code or type."""


def plain(name: str) -> str:
    """Return an error's name if it is a plain word, fit for a log: messages may quote keys."""
    return name if re.fullmatch(r"[a-z0-9_.-]{1,60}", name) else ""


class Item(msgspec.Struct):
    """An item of the conversation, as much of it as matters here."""

    id: str | None = None
    type: str = ""
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None


class Error(msgspec.Struct):
    """What went wrong; `event_id` is that of the message of ours that is to blame, if one is."""

    code: str | None = None
    type: str | None = None
    event_id: str | None = None

    @property
    def name(self) -> str:
        """Its code if it has one, else its type."""
        return self.code or self.type or ""


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _InputDetails | None = None


class _StatusDetails(msgspec.Struct):
    error: Error | None = None


class Response(msgspec.Struct):
    """An answer in the making, or made."""

    id: str | None = None
    status: str | None = None
    status_details: _StatusDetails | None = None
    usage: _Usage | None = None

    @property
    def error(self) -> Error:
        """Why it failed."""
        known = self.status_details.error if self.status_details is not None else None
        return known or Error()

    @property
    def cost(self) -> Usage | None:
        """What it cost."""
        if self.usage is None:
            return None
        cached = self.usage.input_token_details
        return Usage(
            self.usage.input_tokens or 0,
            self.usage.output_tokens or 0,
            (cached.cached_tokens or 0) if cached is not None else 0,
        )


class Event(msgspec.Struct):
    """One message of the server's: the fields of all kinds that matter here."""

    type: str
    item_id: str = ""
    response_id: str = ""
    delta: str = ""
    transcript: str | None = None
    item: Item | None = None
    response: Response | None = None
    error: Error | None = None

    @property
    def audio(self) -> bytes:
        """The mu-law of an audio delta.

        Raises:
            Unreadable: it is no base64.
        """
        try:
            return base64.b64decode(self.delta, validate=True)
        except (binascii.Error, ValueError):
            raise Unreadable from None


KINDS = frozenset(
    {
        "conversation.item.input_audio_transcription.completed",
        "conversation.item.input_audio_transcription.failed",
        "error",
        "input_audio_buffer.committed",
        "response.created",
        "response.done",
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.done",
        "response.output_item.added",
        "response.output_item.done",
    }
)
"""What matters here.  Everything else may look as it likes."""


class _Kind(msgspec.Struct):
    type: str


class Unreadable(Exception):
    """A message that is not what the API says."""


_event, _kind = msgspec.json.Decoder(Event), msgspec.json.Decoder(_Kind)


def read(message: str | bytes) -> Event:
    """Read one message.

    Raises:
        Unreadable: it is none.
    """
    try:
        try:
            return _event.decode(message)
        except msgspec.ValidationError:
            kind = _kind.decode(message).type
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise Unreadable from None
    if kind in KINDS:
        raise Unreadable
    return Event(kind)
