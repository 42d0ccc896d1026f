"""Anthropic's Messages API, without I/O: the request's body, and the reply out of its events.

What the API refuses in a history is put right: system messages stand before the conversation or
inside the user's words; the user speaks first and last, and nobody twice in a row; no text is
blank; each tool call is answered at the start of the next message, under an id of its own.

Source: the API reference of /v1/messages, the guides on tool use, prompt caching and thinking, and
its Python SDK's types.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from ..contracts import Delta, Message, Tool, ToolCall, Usage
from .prompts import answered, aside, spoken
from .replies import (
    MAX_REPLY_CHARACTERS,
    MAX_REPLY_TOKENS,
    MAX_TOOL_CALLS,
    BadReply,
    CallInPieces,
    failure,
)

THINKING = {
    "claude-haiku-5-5": "disabled",
    "claude-sonnet-5": "disabled",
    "claude-opus-5": "disabled",
    "claude-sonnet-5-5": "between_tools",
}
"""Models that think before they speak unless told not to: seconds of silence on a phone.  Older
ones do not; some others cannot help it, and refuse the question."""

CACHED = {"type": "ephemeral"}
"""Marks the end of what the next request will begin with too.  See `request_body`."""

OPENING = aside("The phone call begins.")
GO_ON = aside("Go on.")

_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class _Typed(msgspec.Struct):
    type: str = ""


class _Counts(msgspec.Struct):
    """Tokens so far, not since the last event; what is not told has not changed."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class _Opening(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _MessageStart(msgspec.Struct):
    message: _Opening


class _BlockStart(msgspec.Struct):
    index: int
    content_block: msgspec.Raw


class _BlockDelta(msgspec.Struct):
    index: int
    delta: msgspec.Raw


class _Ending(msgspec.Struct):
    stop_reason: str | None = None


class _MessageDelta(msgspec.Struct):
    delta: _Ending
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Failure(msgspec.Struct):
    error: _Typed


class _Text(msgspec.Struct):
    text: str = ""


class _ToolUse(msgspec.Struct):
    id: str
    name: str
    input: dict[str, Any] = {}


class _Json(msgspec.Struct):
    partial_json: str = ""


class Reply:
    """Puts one reply together.  Events, blocks and deltas of unknown types are passed over."""

    def __init__(self) -> None:
        self.complete = False
        self._characters = 0
        self._calls: dict[int, CallInPieces] = {}
        self._counts: dict[str, int] = {}

    @property
    def usage(self) -> Usage | None:
        """What it cost, as far as the server has told; the API counts cached tokens apart."""
        if not self._counts:
            return None
        cached = self._counts.get("cache_read_input_tokens", 0)
        written = self._counts.get("cache_creation_input_tokens", 0)
        prompt = self._counts.get("input_tokens", 0) + written + cached
        return Usage(prompt, self._counts.get("output_tokens", 0), cached)

    def feed(self, data: str) -> list[Delta]:
        """Take one event's data; return the text in it, or the tool calls when they are complete.

        Raises:
            BadReply: it cannot be understood.
            ReplyFailed: it is the server's error, or the model refuses to answer.
        """
        if self.complete:
            return []
        match _decoded(data, _Typed).type:
            case "message_start":
                self._count(_decoded(data, _MessageStart).message.usage)
            case "content_block_start":
                return self._begin(_decoded(data, _BlockStart))
            case "content_block_delta":
                return self._go_on(_decoded(data, _BlockDelta))
            case "message_delta":
                return self._note_ending(_decoded(data, _MessageDelta))
            case "message_stop":
                return self._finish()
            case "error":
                raise failure(_decoded(data, _Failure).error.type)
        return []

    def _begin(self, event: _BlockStart) -> list[Delta]:
        block = event.content_block
        match _decoded(block, _Typed).type:
            case "text":
                return self._say(_decoded(block, _Text).text)
            case "tool_use":
                if len(self._calls) >= MAX_TOOL_CALLS:
                    raise BadReply("too many tool calls")
                self._calls[event.index] = _Call(_decoded(block, _ToolUse))
        return []

    def _go_on(self, event: _BlockDelta) -> list[Delta]:
        match _decoded(event.delta, _Typed).type:
            case "text_delta":
                return self._say(_decoded(event.delta, _Text).text)
            case "input_json_delta" if event.index in self._calls:
                self._calls[event.index].add(_decoded(event.delta, _Json).partial_json)
        return []

    def _say(self, text: str) -> list[Delta]:
        text = text[: MAX_REPLY_CHARACTERS - self._characters]
        self._characters += len(text)
        deltas: list[Delta] = [text] if text else []
        return deltas + (self._finish() if self._characters >= MAX_REPLY_CHARACTERS else [])

    def _note_ending(self, event: _MessageDelta) -> list[Delta]:
        self._count(event.usage)
        if event.delta.stop_reason == "refusal":
            raise failure("refusal")
        return self._finish() if event.delta.stop_reason else []

    def _finish(self) -> list[Delta]:
        # In this order: what is wrong with a reply that is complete matters to nobody.
        calls: list[Delta] = [
            call.finished(number) for number, call in enumerate(self._calls.values(), 1)
        ]
        self.complete = True
        return calls

    def _count(self, usage: msgspec.Raw) -> None:
        """Note the tokens, if they make sense: no reply is lost for its bill."""
        try:
            counts = msgspec.json.decode(usage, type=_Counts | None)
        except (msgspec.DecodeError, RecursionError):
            return
        if counts is not None:
            told = msgspec.structs.asdict(counts)
            self._counts |= {name: count for name, count in told.items() if count is not None}


class _Call(CallInPieces):
    """A tool call whose input comes in pieces, or all at once with its beginning, or is empty."""

    def __init__(self, block: _ToolUse) -> None:
        super().__init__()
        self.id, self.name = block.id, block.name
        self._input = block.input

    def finished(self, number: int) -> ToolCall:
        """Return the whole call, the reply's `number`th."""
        if not self.arguments.strip():
            self.arguments = msgspec.json.encode(self._input).decode()
        return super().finished(number)


_T = TypeVar("_T", bound=msgspec.Struct)


def _decoded(data: str | msgspec.Raw, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError):
        raise BadReply("an event is not what it should be") from None


def request_body(model: str, messages: Sequence[Message], tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the body of a streaming request.

    Two places are marked for the cache, which holds what came before them for five minutes: the end
    of the system prompt (tools are part of it), which all calls of an agent share, and the last
    words before the newest, which all speculations about these share and the next turn begins with.
    Writing costs a quarter more than reading afresh, reading from the cache a tenth; and it is
    quicker.  A prompt that is too short to be cached costs what it always did.
    """
    fit = answered(messages)
    leading = next((at for at, one in enumerate(fit) if one.role != "system"), len(fit))
    system = [_text(message.text) for message in fit[:leading] if message.text.strip()]
    turns = _turns(fit[leading:])
    described = _described(tools or _forgotten_tools(fit))
    for blocks in (system or described, turns[-2]["content"] if len(turns) > 1 else []):
        if blocks:
            blocks[-1]["cache_control"] = CACHED
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": MAX_REPLY_TOKENS,
        "stream": True,
        "messages": turns,
    }
    if system:
        body["system"] = system
    if described:
        body["tools"] = described
    if described and not tools:
        body["tool_choice"] = {"type": "none"}
    thinking = THINKING.get(re.sub(r"-\d{8}$", "", model))
    if thinking is not None:
        body["thinking"] = {"type": thinking}
    return body


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the conversation as turns of user and assistant, each a list of blocks."""
    turns: list[dict[str, Any]] = [{"role": "user", "content": []}]
    ids = _ToolUseIds()
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        if blocks := _blocks(message, ids):
            if turns[-1]["role"] != role:
                turns.append({"role": role, "content": []})
            turns[-1]["content"] += blocks
    if turns[-1]["role"] != "user":
        turns.append({"role": "user", "content": [_text(GO_ON)]})
    if not turns[0]["content"]:
        turns[0]["content"] = [_text(OPENING)]
    return turns


def _blocks(message: Message, ids: _ToolUseIds) -> list[dict[str, Any]]:
    """Return a message as blocks; none if there is nothing in it."""
    text = aside(message.text) if message.role == "system" else spoken(message)
    is_blank = not message.text.strip()
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": ids.answered()}
        return [result if is_blank else {**result, "content": text}]
    blocks = [] if is_blank else [_text(text)]
    for call in message.tool_calls:
        use = {"type": "tool_use", "id": ids.called(call.id), "name": call.name}
        blocks.append({**use, "input": _input(call.arguments)})
    return blocks


class _ToolUseIds:
    """The ids of tool calls: unique and of few characters, as the API demands.

    Other vendors' models, who may have made calls earlier in the conversation, begin anew at
    ``call_1`` with every reply.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._unanswered: deque[str] = deque()

    def called(self, own: str) -> str:
        """Return the id of a call."""
        given, number = own, len(self._used)
        while given in self._used or not _TOOL_USE_ID.fullmatch(given):
            given, number = f"call-{number}", number + 1
        self._used.add(given)
        self._unanswered.append(given)
        return given

    def answered(self) -> str:
        """Return the id of the call whose answer comes next: they come in order."""
        return self._unanswered.popleft()


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as an object; what is none was refused when it was called."""
    try:
        found = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _described(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    return [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": dict(tool.parameters),
        }
        for tool in tools
    ]


def _forgotten_tools(messages: Sequence[Message]) -> list[Tool]:
    """Return the tools that were called: a history with calls is refused where no tool is known."""
    names = dict.fromkeys(call.name for message in messages for call in message.tool_calls)
    return [Tool(name, "No longer there.") for name in names]
