"""Chat completions without a server: chunks in, text and tool calls out; messages rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from voicecore.contracts import Message, Tool, ToolCall, Usage
from voicecore.providers.chat import COMPATIBLE, OFFICIAL, Reply, request_body
from voicecore.providers.prompts import NO_ANSWER
from voicecore.providers.replies import (
    MAX_ARGUMENTS_CHARACTERS,
    MAX_REPLY_CHARACTERS,
    MAX_TOOL_CALLS,
    BadReply,
    ReplyFailed,
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


def test_a_refusal_is_spoken() -> None:
    assert deltas(chunk(refusal="I cannot"), chunk(refusal=" help."), chunk("stop")) == [
        "I cannot",
        " help.",
    ]


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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ('{"message": "sk-SECRET", "type": "server_error"}', "server_error in the stream"),
        ('{"message": "sk-SECRET", "type": "t", "code": "overloaded"}', "overloaded in the stream"),
        ('{"message": "sk-SECRET", "code": "sk-SECRET: no"}', "an error in the stream"),
        ('"sk-SECRET"', "an error in the stream"),
    ],
)
def test_an_error_in_the_stream_is_the_servers(error: str, told: str) -> None:
    with pytest.raises(ReplyFailed, match=f"^{told}$"):
        Reply().feed('{"error": ' + error + "}")


COUNTS = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


@pytest.mark.parametrize(
    ("chunks", "usage"),
    [
        ([{"choices": [], "usage": COUNTS}], Usage(20, 5)),
        (
            [{"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": 16}}}],
            Usage(20, 5, 16),
        ),
        ([{"usage": {**COUNTS, "prompt_tokens_details": {"cached_tokens": None}}}], Usage(20, 5)),
        ([{"x_groq": {"id": "r", "usage": COUNTS}}], Usage(20, 5)),
        ([{"usage": COUNTS}, {"usage": {**COUNTS, "completion_tokens": 7}}], Usage(20, 7)),
        ([{"usage": COUNTS}, {"usage": None}, {"x_groq": {"id": "r"}}], Usage(20, 5)),
        ([{"usage": None}], None),
        ([{"usage": {}}], None),
        ([{"usage": {"prompt_tokens": "many"}}], None),
        ([{"usage": [1, 2]}], None),
        ([{"x_groq": "r"}], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("ended", [False, True], ids=["within", "after"])
def test_usage(chunks: list[dict[str, Any]], usage: Usage | None, ended: bool) -> None:
    """It comes after the end, or with any chunk; no reply fails for it."""
    reply = Reply()
    ending = [*(reply.feed(chunk("stop")) if ended else [])]
    assert ending + [delta for one in chunks for delta in reply.feed(json.dumps(one))] == []
    assert reply.complete is ended
    assert reply.feed("[DONE]") == []
    assert reply.complete
    assert reply.usage == usage


def test_nothing_is_said_after_the_end() -> None:
    reply = Reply()
    assert reply.feed(chunk("stop", content="Bye.")) == ["Bye."]
    assert reply.feed(chunk("stop", content="More.", tool_calls=[fragment("{", "a")])) == []


def test_an_endless_reply_is_cut() -> None:
    reply = Reply()
    heard = ""
    while not reply.complete:
        heard += "".join(str(delta) for delta in reply.feed(chunk(content="blah " * 100)))
    assert len(heard) == MAX_REPLY_CHARACTERS
    assert reply.feed(chunk(content="more")) == []


ASKED = [Message("user", "Hello?")]


def test_only_who_wants_it_is_asked_for_usage() -> None:
    assert request_body("m", ASKED, [], OFFICIAL)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in request_body("m", ASKED, [], COMPATIBLE)


def test_the_bound_goes_by_the_name_the_server_knows() -> None:
    assert request_body("m", ASKED, [], OFFICIAL)["max_completion_tokens"] == 1000
    assert request_body("m", ASKED, [], COMPATIBLE)["max_tokens"] == 1000


def test_where_system_messages_may_stand() -> None:
    conversation = [
        Message("system", "Be brief."),
        Message("system", "Speak English."),
        Message("user", "Hello?"),
        Message("system", "Go on."),
    ]
    first, second, _, last = request_body("m", conversation, [], COMPATIBLE)["messages"]
    assert (first["role"], second["role"], last["role"]) == ("system", "system", "user")
    assert "Go on." in last["content"] != "Go on."
    official = request_body("m", conversation, [], OFFICIAL)["messages"]
    assert official[-1] == {"role": "system", "content": "Go on."}


def test_every_call_has_its_answer_and_no_answer_is_alone() -> None:
    """Else the API refuses the history, and the call could not go on."""
    calls = tuple(ToolCall(name, name) for name in "abc")
    history = [
        Message("tool", "forgotten", tool_call_id="z"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "B", tool_call_id="b"),
        Message("user", "Well?"),
        Message("tool", "A", tool_call_id="a"),
        Message("tool", "A again", tool_call_id="a"),
        Message("assistant", "", tool_calls=calls[:1]),
    ]
    sent = request_body("m", history, [], OFFICIAL)["messages"]
    assert [(one["role"], one.get("tool_call_id"), one["content"]) for one in sent] == [
        ("assistant", None, None),
        ("tool", "a", "A"),
        ("tool", "b", "B"),
        ("tool", "c", NO_ANSWER),
        ("user", None, "Well?"),
        ("assistant", None, None),
        ("tool", "a", NO_ANSWER),
    ]


def test_messages_as_the_api_wants_them() -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Weather in Pune?"),
        Message("assistant", "Let me", interrupted=True),
        Message("assistant", "", tool_calls=(ToolCall("c1", "weather", '{"city":"Pune"}'),)),
        Message("tool", "31 C", tool_call_id="c1"),
    ]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    body = request_body("m", messages, [Tool("weather", "Tells it.", schema)], COMPATIBLE)
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
    assert "tools" not in request_body("m", messages, [], COMPATIBLE)
