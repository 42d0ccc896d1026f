"""OpenAI's chat completions, without I/O: the request's body, and the reply out of its chunks.

What compatible servers do otherwise is taken as they mean it: no choices, null texts, tool calls
without index or id or in one piece, ``stop`` as the reason of a reply that calls tools.

Source: the API reference of /v1/chat/completions, and its Python SDK's types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..contracts import Delta, Message, Tool, ToolCall

MAX_REPLY_CHARACTERS = 4000
"""Five minutes of speech.  What a model says beyond that is not waited for."""

MAX_REPLY_TOKENS = 1000
MAX_TOOL_CALLS = 16
MAX_ARGUMENTS_CHARACTERS = 16384
DONE = "[DONE]"


class BadReply(Exception):
    """A chunk that is not what the format says; one line, without its text."""


class ReplyFailed(Exception):
    """The server says in the stream that it failed."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Fragment(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Fragment] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


class _Call:
    """A tool call as its fragments come in."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.arguments = ""


class Reply:
    """Puts one reply together."""

    def __init__(self) -> None:
        self.complete = False
        self._characters = 0
        self._calls: list[_Call] = []

    def feed(self, data: str) -> list[Delta]:
        """Take one event's data; return the text in it, or the tool calls when they are complete.

        Raises:
            BadReply: it cannot be understood.
            ReplyFailed: it is the server's error.
        """
        if self.complete:
            return []
        if data.strip() == DONE:
            return self._finish()
        try:
            chunk = _decoder.decode(data)
        except (msgspec.DecodeError, RecursionError):
            raise BadReply("a chunk is not what it should be") from None
        if chunk.error:
            raise ReplyFailed("an error in the stream")
        deltas: list[Delta] = []
        for choice in chunk.choices or ():
            if choice.index == 0:
                deltas += self._take(choice)
        return deltas

    def _take(self, choice: _Choice) -> list[Delta]:
        deltas: list[Delta] = []
        if choice.delta is not None:
            for fragment in choice.delta.tool_calls or ():
                self._merge(fragment)
            text = (choice.delta.content or "")[: MAX_REPLY_CHARACTERS - self._characters]
            self._characters += len(text)
            if text:
                deltas.append(text)
        if choice.finish_reason or self._characters >= MAX_REPLY_CHARACTERS:
            deltas += self._finish()
        return deltas

    def _merge(self, fragment: _Fragment) -> None:
        function = fragment.function or _Function()
        call = self._call_of(fragment, function)
        call.id = call.id or fragment.id or ""
        call.name = call.name or function.name or ""
        if isinstance(function.arguments, str):
            call.arguments += function.arguments
        elif function.arguments is not None:
            call.arguments = msgspec.json.encode(function.arguments).decode()
        if len(call.arguments) > MAX_ARGUMENTS_CHARACTERS:
            raise BadReply("a tool call's arguments are too long")

    def _call_of(self, fragment: _Fragment, function: _Function) -> _Call:
        """Return the call that a fragment goes on with, or a new one."""
        known = [call for call in self._calls if call.index == fragment.index]
        if known:
            call = known[-1]
            another_id = bool(fragment.id and call.id and fragment.id != call.id)
            unnumbered = fragment.index is None and not fragment.id
            if not another_id and not (unnumbered and function.name and call.name):
                return call
        if len(self._calls) >= MAX_TOOL_CALLS:
            raise BadReply("too many tool calls")
        self._calls.append(_Call(fragment.index))
        return self._calls[-1]

    def _finish(self) -> list[Delta]:
        self.complete = True
        return [_finished(number, call) for number, call in enumerate(self._calls, 1)]


def _finished(number: int, call: _Call) -> ToolCall:
    arguments = call.arguments.strip() or "{}"
    try:
        valid = isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError):
        valid = False
    if not valid or not call.name:
        raise BadReply("a tool call is not complete")
    return ToolCall(call.id or f"call_{number}", call.name, arguments)


def request_body(
    model: str, messages: Sequence[Message], tools: Sequence[Tool], limit_field: str
) -> dict[str, Any]:
    """Return the body of a streaming request; `limit_field` names the bound on its tokens."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        limit_field: MAX_REPLY_TOKENS,
        "messages": [_rendered(message) for message in messages],
    }
    if tools:
        body["tools"] = [{"type": "function", "function": _schema(tool)} for tool in tools]
    return body


def _schema(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }


def _rendered(message: Message) -> dict[str, Any]:
    """Return a message in the API's shape; an interrupted one ends in an ellipsis."""
    text = f"{message.text}…" if message.interrupted else message.text
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id or "", "content": text}
    if not message.tool_calls:
        return {"role": message.role, "content": text}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in message.tool_calls
    ]
    return {"role": message.role, "content": text or None, "tool_calls": calls}
