"""OpenAI's chat completions, without I/O: the request's body, and the reply out of its chunks.

What compatible servers do otherwise is taken as they mean it: no choices, null texts, tool calls
without index or id or in one piece, ``stop`` as the reason of a reply that calls tools, usage in
every chunk, in ``x_groq``, or never.

Source: the API reference of /v1/chat/completions, and its Python SDK's types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ..contracts import Delta, Message, Tool, Usage
from .prompts import answered, aside, spoken
from .replies import (
    MAX_REPLY_CHARACTERS,
    MAX_REPLY_TOKENS,
    MAX_TOOL_CALLS,
    BadReply,
    CallInPieces,
    failure,
)

DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Dialect:
    """In what servers of this API differ.

    The bound on a reply's tokens is named ``max_completion_tokens`` by OpenAI's own (its newer
    models refuse the old name) and ``max_tokens`` by compatible servers (many know no other).

    OpenAI's own tells a stream's usage only when asked (``stream_options``).  No other is asked:
    Mistral's and Fireworks' have refused the whole request for it, Groq and OpenRouter tell it
    unasked, and who runs a model of their own gets no bill.

    OpenAI's own takes a system message anywhere; the chat templates of some models (Qwen's, for
    one) raise an error unless it is the first.
    """

    limit_field: str
    asks_for_usage: bool
    system_anywhere: bool


OFFICIAL = Dialect("max_completion_tokens", asks_for_usage=True, system_anywhere=True)
COMPATIBLE = Dialect("max_tokens", asks_for_usage=False, system_anywhere=False)


_NULL = msgspec.Raw(b"null")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Fragment(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Fragment] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None
    usage: msgspec.Raw = _NULL
    x_groq: msgspec.Raw = _NULL


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = _NULL


_decoder = msgspec.json.Decoder(_Chunk)


class Reply:
    """Puts one reply together."""

    def __init__(self) -> None:
        self.complete = False
        self.usage: Usage | None = None
        self._characters = 0
        self._calls: list[_Call] = []

    def feed(self, data: str) -> list[Delta]:
        """Take one event's data; return the text in it, or the tool calls when they are complete.

        Raises:
            BadReply: it cannot be understood.
            ReplyFailed: it is the server's error.
        """
        if data.strip() == DONE:
            return [] if self.complete else self._finish()
        try:
            chunk = _decoder.decode(data)
        except (msgspec.DecodeError, RecursionError):
            raise BadReply("a chunk is not what it should be") from None
        if chunk.error:
            named = chunk.error if isinstance(chunk.error, dict) else {}
            raise failure(named.get("code") or named.get("type"))
        self.usage = _usage(chunk) or self.usage
        deltas: list[Delta] = []
        for choice in chunk.choices or ():
            if choice.index == 0 and not self.complete:
                deltas += self._take(choice)
        return deltas

    def _take(self, choice: _Choice) -> list[Delta]:
        deltas: list[Delta] = []
        if choice.delta is not None:
            for fragment in choice.delta.tool_calls or ():
                self._merge(fragment)
            text = (choice.delta.content or "") + (choice.delta.refusal or "")
            text = text[: MAX_REPLY_CHARACTERS - self._characters]
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
            call.add(function.arguments)
        elif function.arguments is not None:
            call.arguments = ""
            call.add(msgspec.json.encode(function.arguments).decode())

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
        # In this order: what is wrong with a reply that is complete matters to nobody.
        calls: list[Delta] = [call.finished(number) for number, call in enumerate(self._calls, 1)]
        self.complete = True
        return calls


class _Call(CallInPieces):
    """A tool call, and the number under which its fragments come."""

    def __init__(self, index: int | None) -> None:
        super().__init__()
        self.index = index


def _usage(chunk: _Chunk) -> Usage | None:
    """Return the usage in a chunk, if it makes sense: no reply is lost for its bill."""
    try:
        groq = msgspec.json.decode(chunk.x_groq, type=_Groq | None)
        counts = msgspec.json.decode(chunk.usage, type=_Counts | None)
        if counts is None and groq is not None:
            counts = msgspec.json.decode(groq.usage, type=_Counts | None)
    except (msgspec.DecodeError, RecursionError):
        return None
    if counts is None:
        return None
    cached = counts.prompt_tokens_details and counts.prompt_tokens_details.cached_tokens
    return Usage(counts.prompt_tokens, counts.completion_tokens, cached or 0)


def request_body(
    model: str, messages: Sequence[Message], tools: Sequence[Tool], dialect: Dialect
) -> dict[str, Any]:
    """Return the body of a streaming request.

    Prompts are cached without being asked for, and the first 256 tokens decide where: calls of one
    agent meet at a machine that has read its prompt.  ``prompt_cache_key`` would keep a call's
    turns together instead, and pays only where an agent has so many calls that they overflow.
    """
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        dialect.limit_field: MAX_REPLY_TOKENS,
        "messages": [_rendered(message) for message in _placed(answered(messages), dialect)],
    }
    if dialect.asks_for_usage:
        body["stream_options"] = {"include_usage": True}
    if tools:
        body["tools"] = [{"type": "function", "function": _schema(tool)} for tool in tools]
    return body


def _placed(messages: Sequence[Message], dialect: Dialect) -> Iterator[Message]:
    """Give `messages`; a system message where the server would refuse it is the user's aside."""
    begun = False
    for message in messages:
        begun = begun or message.role != "system"
        if begun and message.role == "system" and not dialect.system_anywhere:
            message = Message("user", aside(message.text))
        yield message


def _schema(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }


def _rendered(message: Message) -> dict[str, Any]:
    """Return a message in the API's shape."""
    text = spoken(message)
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
