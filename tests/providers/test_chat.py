"""Chat completions without a server: chunks in, text and tool calls out; messages rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from voicecore.contracts import Message, Tool, ToolCall
from voicecore.providers.chat import (
    MAX_ARGUMENTS_CHARACTERS,
    MAX_REPLY_CHARACTERS,
    MAX_TOOL_CALLS,
    BadReply,
    Reply,
    ReplyFailed,
    request_body,
)


def chunk(finish: str | None = None, **delta: Any) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def fragment(arguments: Any = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {**more, "function": {"name": name, "arguments": arguments}}


def deltas(*chunks: str) -> list[Any]:
    reply = Reply()
    found = [delta for data in chunks for delta in reply.feed(data)]
    assert reply.complete
    return found


def test_text_and_what_is_none() -> None:
    nothing = ['{"choices": []}', '{"choices": null}', "{}", '{"choices": [{"index": 0}]}']
    assert deltas(
        *nothing,
        chunk(role="assistant", content=""),
        chunk(content=None, refusal=None, reasoning_content="hm"),
        chunk(content="It is"),
        '{"choices": [{"index": 1, "delta": {"content": "another"}}]}',
        chunk(content=" one."),
        "[DONE]",
    ) == ["It is", " one."]


def test_a_reply_is_complete_at_its_finish_reason_too() -> None:
    assert deltas(chunk(content="Hi."), chunk(finish="stop"), '{"choices": []}') == ["Hi."]


def test_tool_calls_are_merged_by_index() -> None:
    first = fragment("", "weather", index=0, id="call_1", type="function")
    second = fragment("{}", "end_call", index=1, id="call_2")
    assert deltas(
        chunk(content="One moment.", tool_calls=[first]),
        chunk(tool_calls=[fragment('{"ci', index=0)]),
        chunk(tool_calls=[second, fragment('ty":"Pune"}', index=0)]),
        chunk(finish="tool_calls"),
    ) == [
        "One moment.",
        ToolCall("call_1", "weather", '{"city":"Pune"}'),
        ToolCall("call_2", "end_call", "{}"),
    ]


@pytest.mark.parametrize(
    "fragments",
    [
        [fragment("{}", "a", id="1"), fragment("{}", "b", id="2")],
        [fragment("{}", "a", id="1", index=0), fragment("{}", "b", id="2", index=0)],
        [fragment({}, "a", id="1", index=0), fragment(None, "b", id="2", index=1)],
        [
            fragment("", "a", id="1"),
            fragment("{", id="1"),
            fragment("}"),
            fragment("", "b", id="2"),
        ],
    ],
    ids=["no index", "one index", "objects and nulls", "pieces without index"],
)
def test_how_compatible_servers_call_two_tools(fragments: list[dict[str, Any]]) -> None:
    expected = [ToolCall("1", "a", "{}"), ToolCall("2", "b", "{}")]
    assert deltas(*(chunk(tool_calls=[one]) for one in fragments), "[DONE]") == expected
    assert deltas(chunk(tool_calls=fragments), chunk(finish="stop")) == expected


def test_calls_without_any_id_get_one() -> None:
    both = [fragment("{}", "a"), fragment("{}", "b")]
    assert deltas(chunk(tool_calls=both), "[DONE]") == [
        ToolCall("call_1", "a", "{}"),
        ToolCall("call_2", "b", "{}"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "not json",
        "[]",
        '{"error": ' + "[" * 60_000,
        '{"choices": [{"delta": {"content": 7}}]}',
        '{"choices": ' + "[" * 100_000,
        chunk("stop", tool_calls=[fragment("{", "a")]),
        chunk("stop", tool_calls=[fragment("[]", "a")]),
        chunk("stop", tool_calls=[fragment("[" * 10_000, "a")]),
        chunk("stop", tool_calls=[fragment("{}")]),
        chunk(tool_calls=[fragment("x" * (MAX_ARGUMENTS_CHARACTERS + 1), "a")]),
        chunk(tool_calls=[fragment("{}", "a")] * (MAX_TOOL_CALLS + 1)),
    ],
)
def test_nonsense_is_a_bad_reply(data: str) -> None:
    with pytest.raises(BadReply):
        Reply().feed(data)


def test_an_error_in_the_stream_is_the_servers() -> None:
    with pytest.raises(ReplyFailed):
        Reply().feed('{"error": {"message": "sk-SECRET", "type": "server_error"}}')


def test_an_endless_reply_is_cut() -> None:
    reply = Reply()
    heard = ""
    while not reply.complete:
        heard += "".join(str(delta) for delta in reply.feed(chunk(content="blah " * 100)))
    assert len(heard) == MAX_REPLY_CHARACTERS
    assert reply.feed(chunk(content="more")) == []


def test_messages_as_the_api_wants_them() -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Weather in Pune?"),
        Message("assistant", "Let me", interrupted=True),
        Message("assistant", "", tool_calls=(ToolCall("c1", "weather", '{"city":"Pune"}'),)),
        Message("tool", "31 C", tool_call_id="c1"),
    ]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    body = request_body("m", messages, [Tool("weather", "Tells it.", schema)], "max_tokens")
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Pune?"},
        {"role": "assistant", "content": "Let me…"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Pune"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "31 C"},
    ]
    function = {"name": "weather", "description": "Tells it.", "parameters": schema}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert (body["model"], body["stream"], body["max_tokens"]) == ("m", True, 1000)
    assert "tools" not in request_body("m", messages, [], "max_tokens")
