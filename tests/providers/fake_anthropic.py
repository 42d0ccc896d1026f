"""A server that speaks Anthropic's Messages API, refuses what the API refuses, and can misbehave.

async with FakeAnthropic(llm=[answers(529), reply("Hi.")]) as fake:
    settings = load(anthropic_base_url=fake.base_url, anthropic_api_key="k", llm="anthropic")
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .fake_openai import Answer, FakeOpenAI, Request, Stage

MODEL = "claude-haiku-5-5"


def event(data: Mapping[str, object]) -> bytes:
    """One server-sent event, named by its type."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def events(*data: Mapping[str, object]) -> Answer:
    """What the LLM answers, event by event."""
    chunks = tuple(event(one) for one in data)
    return Answer(content_type="text/event-stream; charset=utf-8", chunks=chunks)


def start(read: int = 0, written: int = 0, fresh: int = 25) -> dict[str, object]:
    """The first event; tokens of the prompt that were read from the cache, written, or neither."""
    usage = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": 1,
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": MODEL}
    ending = {"stop_reason": None, "stop_sequence": None, "usage": usage}
    return {"type": "message_start", "message": message | ending}


def block(index: int, content: Mapping[str, object], *deltas: Mapping[str, object]) -> list[Any]:
    """A content block from its start to its stop."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, words: str) -> list[Any]:
    """A block of text, word by word."""
    said = [{"type": "text_delta", "text": word} for word in words.replace(" ", "\0 ").split("\0")]
    return block(index, {"type": "text", "text": ""}, *said)


def tool_use(index: int, call_id: str, name: str, *pieces: str) -> list[Any]:
    """A block that calls a tool, its input in pieces."""
    called = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
    said = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return block(index, called, *said)


def stop(reason: str = "end_turn", tokens: int = 12) -> list[Any]:
    """The last two events."""
    ending = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": ending, "usage": {"output_tokens": tokens}},
        {"type": "message_stop"},
    ]


PING: dict[str, object] = {"type": "ping"}


def reply(words: str) -> Answer:
    """A reply, word by word, with a ping where the API puts one."""
    first, *rest = text(0, words)
    return events(start(), first, PING, *rest, *stop())


def empty(reason: str = "end_turn") -> Answer:
    """A reply without content."""
    return events(start(), *stop(reason))


def failure(kind: str) -> dict[str, Any]:
    """An error, with a message that quotes a secret."""
    error = {"type": kind, "message": "bad key sk-SECRET"}
    return {"type": "error", "error": error, "request_id": "req_1"}


KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


def answers(status: int, retry_after: str = "") -> Answer:
    """An error instead of a stream."""
    headers = (("Retry-After", retry_after),) if retry_after else ()
    body = json.dumps(failure(KINDS[status])).encode()
    return Answer(status=status, chunks=(body,), headers=headers)


@dataclass
class FakeAnthropic(FakeOpenAI):
    """The server.  What the API would refuse it answers with 400 and 401; `refused` says why."""

    paths: dict[str, Stage] = field(default_factory=lambda: {"/v1/messages": "llm"})
    refused: list[str] = field(default_factory=list)

    async def __aenter__(self) -> FakeAnthropic:
        await super().__aenter__()
        self.base_url = self.base_url.removesuffix("/v1")
        return self

    def _answer(self, stage: Stage) -> Answer:
        request = self.requests[-1]
        if not ({"x-api-key", "authorization"} & set(request.headers)):
            return answers(401)
        problems = list(objections(request))
        self.refused += problems
        if problems:
            return answers(400)
        script = self.llm or [reply("Hello, how can I help you?")]
        return script[min(len(self.requests), len(script)) - 1]


def objections(request: Request) -> Iterable[str]:
    """Give what the API would refuse in a request."""
    body: dict[str, Any] = request.json
    version = request.headers.get("anthropic-version", "")
    if not version:
        yield "anthropic-version: required"
    if version >= "2026-10-21" and {"temperature", "top_p", "top_k"} & set(body):
        yield "sampling parameters"
    if not body.get("max_tokens") or not body.get("model") or not body.get("messages"):
        yield "required fields"
        return
    messages = [
        (one["role"], _blocks(one["content"]))
        for one in [{"role": "system", "content": body.get("system", [])}, *body["messages"]]
    ]
    blocks = [content for _, contents in messages for content in contents]
    if any(one["type"] == "text" and not one["text"].strip() for one in blocks):
        yield "text content blocks must contain non-whitespace text"
    if sum("cache_control" in one for one in [*blocks, *body.get("tools", [])]) > 4:
        yield "a maximum of 4 blocks with cache_control may be provided"
    yield from _objections_to_turns(messages[1:])
    if any(one["type"].startswith("tool_") for one in blocks) and not body.get("tools"):
        yield "requests which include tool_use or tool_result blocks must define tools"


def _objections_to_turns(messages: list[tuple[str, list[Any]]]) -> Iterable[str]:
    if messages[0][0] != "user":
        yield "first message must use the user role"
    if messages[-1][0] != "user":
        yield "this model does not support assistant message prefill"
    used: set[str] = set()
    waiting: list[str] = []
    for role, contents in messages:
        if not contents:
            yield "messages must have non-empty content"
        answered = [one["tool_use_id"] for one in contents if one["type"] == "tool_result"]
        kinds = [one["type"] for one in contents[: len(answered)]]
        if sorted(answered) != sorted(waiting) or set(kinds) - {"tool_result"}:
            yield "each tool_use must have its tool_result at the start of the next message"
        waiting = [one["id"] for one in contents if one["type"] == "tool_use"]
        if role != "assistant" and waiting:
            yield "tool_use by the user"
        if used & set(waiting) or len(set(waiting)) < len(waiting):
            yield "tool_use ids must be unique"
        if not all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in waiting):
            yield "tool_use id: string should match pattern"
        used |= set(waiting)


def _blocks(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
