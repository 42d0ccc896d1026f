"""The Messages API without a server: events in, text and tool calls out; messages rendered."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.contracts import Message, Tool, ToolCall, Usage
from voicecore.providers.anthropic_messages import GO_ON, OPENING, Reply, request_body
from voicecore.providers.prompts import NO_ANSWER, aside
from voicecore.providers.replies import (
    MAX_ARGUMENTS_CHARACTERS,
    MAX_REPLY_CHARACTERS,
    MAX_TOOL_CALLS,
    BadReply,
    ReplyFailed,
)

from .fake_anthropic import PING, block, failure, objections, start, stop, text, tool_use
from .fake_openai import Request

WEATHER = Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {}}})


def fed(*data: Any) -> tuple[Reply, list[Any]]:
    reply = Reply()
    return reply, [delta for one in data for delta in reply.feed(json.dumps(one))]


def deltas(*data: Any) -> list[Any]:
    reply, found = fed(*data)
    assert reply.complete
    return found


def test_text_and_what_is_none() -> None:
    odd = [
        PING,
        {"type": "new_event", "delta": 7, "message": "?", "index": "x"},
        {},
        *block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "h"},
               {"type": "signature_delta", "signature": "s"}),
        *block(1, {"type": "new_block", "text": 7, "input": 8, "id": 9},
               {"type": "new_delta", "text": 7}, {"type": "input_json_delta", "partial_json": "{"}),
    ]  # fmt: skip
    assert deltas(start(), *odd, *text(2, "It is one."), PING, *stop()) == ["It", " is", " one."]


def test_a_block_may_begin_with_text() -> None:
    assert deltas(start(), *block(0, {"type": "text", "text": "Hi."}), *stop()) == ["Hi."]


def test_tools_are_called_when_all_is_said() -> None:
    assert deltas(
        start(),
        *text(0, "One moment."),
        *tool_use(1, "toolu_1", "weather", "", '{"city": "Pu', 'ne"}'),
        *tool_use(2, "toolu_2", "end_call"),
        *tool_use(3, "toolu_3", "end_call", ""),
        *block(4, {"type": "tool_use", "id": "toolu_4", "name": "weather", "input": {"city": "X"}}),
        *stop("tool_use"),
    ) == [
        "One",
        " moment.",
        ToolCall("toolu_1", "weather", '{"city": "Pune"}'),
        ToolCall("toolu_2", "end_call", "{}"),
        ToolCall("toolu_3", "end_call", "{}"),
        ToolCall("toolu_4", "weather", '{"city":"X"}'),
    ]


@pytest.mark.parametrize(
    "reason",
    ["end_turn", "max_tokens", "stop_sequence", "pause_turn", "model_context_window_exceeded", "?"],
)
def test_a_reply_is_complete_at_its_stop_reason(reason: str) -> None:
    assert deltas(start(), *text(0, "Hi."), stop(reason)[0]) == ["Hi."]


def test_a_reply_may_be_empty() -> None:
    assert deltas(start(), *stop()) == []
    assert deltas({"type": "message_stop"}) == []


def test_a_refusal_is_a_failure_even_after_words() -> None:
    """What a classifier has cut off is no reply, and its tool calls are not to be made."""
    for said in ([], text(0, "Well,"), tool_use(0, "toolu_1", "end_call")):
        with pytest.raises(ReplyFailed, match=r"^refusal in the stream$"):
            fed(start(), *said, *stop("refusal"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (failure("overloaded_error"), "overloaded_error in the stream"),
        (failure("sk-SECRET: no"), "an error in the stream"),
    ],
)
def test_an_error_in_the_stream_is_the_servers(error: dict[str, Any], told: str) -> None:
    with pytest.raises(ReplyFailed, match=f"^{told}$"):
        fed(start(), error)


def test_usage_is_cumulative_and_counts_what_was_cached() -> None:
    reply, _ = fed(start(read=300, written=40, fresh=5))
    assert reply.usage == Usage(345, 1, 300)
    reply, _ = fed(start(read=300, written=40, fresh=5), *stop(tokens=61))
    assert reply.usage == Usage(345, 61, 300)
    corrected = {"input_tokens": 6, "output_tokens": 61, "cache_read_input_tokens": None}
    ending = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": corrected}
    reply, _ = fed(start(read=300, written=40, fresh=5), ending)
    assert reply.usage == Usage(346, 61, 300)


@pytest.mark.parametrize("usage", [None, {}, [], {"input_tokens": "many"}])
def test_no_reply_fails_for_its_usage(usage: object) -> None:
    reply, said = fed(
        {"type": "message_start", "message": {"usage": usage}},
        *text(0, "Hi."),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
    )
    assert (said, reply.complete, reply.usage) == (["Hi."], True, None)


@pytest.mark.parametrize(
    "data",
    [
        "not json",
        "[]",
        "[" * 60_000,
        '{"type": 7}',
        '{"type": "content_block_start", "index": "x", "content_block": {"type": "text"}}',
        '{"type": "content_block_start", "index": 0, "content_block": []}',
        '{"type": "content_block_delta", "index": 0}',
        '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}}',
        '{"type": "message_delta", "delta": {"stop_reason": 7}}',
        '{"type": "error", "error": "sk-SECRET"}',
    ],
)
def test_nonsense_is_a_bad_reply(data: str) -> None:
    with pytest.raises(BadReply):
        Reply().feed(data)


@pytest.mark.parametrize(
    "calls",
    [
        tool_use(0, "t", "weather", '{"city": '),
        tool_use(0, "t", "weather", "[]"),
        tool_use(0, "t", "", "{}"),
        tool_use(0, "t", "weather", "x" * (MAX_ARGUMENTS_CHARACTERS + 1)),
        [one for at in range(MAX_TOOL_CALLS + 1) for one in tool_use(at, f"t{at}", "weather")],
    ],
)
def test_tool_calls_that_cannot_be(calls: list[Any]) -> None:
    reply, told = Reply(), map(json.dumps, (start(), *calls, *stop("tool_use")))
    with pytest.raises(BadReply):
        deque(map(reply.feed, told))
    assert not reply.complete


def test_an_endless_reply_is_cut() -> None:
    reply, said = fed(start(), *text(0, "blah " * 2000))
    assert (len("".join(said)), reply.complete) == (MAX_REPLY_CHARACTERS, True)
    assert reply.feed(json.dumps(text(0, "more")[1])) == []


def rendered(*messages: Message) -> list[tuple[str, list[Any]]]:
    turns = request_body("m", messages, [WEATHER])["messages"]
    return [(turn["role"], [bare(one) for one in turn["content"]]) for turn in turns]


def bare(block: dict[str, Any]) -> Any:
    """A block without its mark for the cache; a text is only its text."""
    return block["text"] if block["type"] == "text" else block | {"cache_control": 0}


def call(call_id: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(call_id, "weather", arguments)


def use(call_id: str, given: object = None) -> dict[str, Any]:
    named = {"type": "tool_use", "id": call_id, "name": "weather"}
    return named | {"input": given or {}, "cache_control": 0}


def result(call_id: str, content: str = "") -> dict[str, Any]:
    said = {"content": content} if content else {}
    return {"type": "tool_result", "tool_use_id": call_id, "cache_control": 0} | said


def test_a_call_as_the_api_wants_it() -> None:
    assert rendered(
        Message("system", "Be brief."),
        Message("assistant", "Hello!"),
        Message("user", "Weather in"),
        Message("user", "Pune?"),
        Message("assistant", "Let me", interrupted=True),
        Message("assistant", "", tool_calls=(call("toolu_1", '{"city":"Pune"}'),)),
        Message("tool", "31 C", tool_call_id="toolu_1"),
        Message("system", "You were cut off."),
    ) == [
        ("user", [OPENING]),
        ("assistant", ["Hello!"]),
        ("user", ["Weather in", "Pune?"]),
        ("assistant", ["Let me…", use("toolu_1", {"city": "Pune"})]),
        ("user", [result("toolu_1", "31 C"), aside("You were cut off.")]),
    ]


def test_nothing_blank_is_sent() -> None:
    assert rendered(
        Message("system", " "),
        Message("user", ""),
        Message("assistant", "\n", interrupted=True),
        Message("user", "Hm?"),
        Message("assistant", " ", tool_calls=(call("a"),)),
        Message("tool", " ", tool_call_id="a"),
    ) == [("user", ["Hm?"]), ("assistant", [use("a")]), ("user", [result("a")])]
    assert "system" not in request_body("m", [Message("system", " ")], [])


def test_the_user_has_the_last_word() -> None:
    assert rendered(Message("user", "Hi."), Message("assistant", "Hello.")) == [
        ("user", ["Hi."]),
        ("assistant", ["Hello."]),
        ("user", [GO_ON]),
    ]
    assert rendered() == [("user", [OPENING])]


def test_calls_and_answers_that_lost_each_other() -> None:
    assert rendered(
        Message("tool", "forgotten", tool_call_id="z"),
        Message("user", "Well?"),
        Message("assistant", "Moment.", tool_calls=(call("a"), call("b"))),
        Message("user", "So?"),
        Message("tool", "B", tool_call_id="b"),
    ) == [
        ("user", ["Well?"]),
        ("assistant", ["Moment.", use("a"), use("b")]),
        ("user", [result("a", NO_ANSWER), result("b", "B"), "So?"]),
    ]


def test_ids_are_made_unique_and_plain() -> None:
    """Other models begin at ``call_1`` with every reply, or use other characters, or none."""
    turns = rendered(
        Message("user", "Hi."),
        *(Message("assistant", "", tool_calls=(call("call_1"), call("a|b.c"))),) * 2,
        Message("assistant", "", tool_calls=(call(""), call(""))),
        Message("user", "Go on."),
    )
    ids = [one["id"] for role, blocks in turns for one in blocks if role == "assistant"]
    answered = [
        one["tool_use_id"] for role, blocks in turns for one in blocks
        if role == "user" and isinstance(one, dict)
    ]  # fmt: skip
    assert ids == answered == ["call_1", "call-1", "call-2", "call-3", "call-4", "call-5"]


@pytest.mark.parametrize("arguments", ["", "not json", "[]", "[" * 10_000])
def test_arguments_are_an_object(arguments: str) -> None:
    turns = rendered(
        Message("user", "?"), Message("assistant", "", tool_calls=(call("a", arguments),))
    )
    assert turns[1] == ("assistant", [use("a")])


def test_the_body() -> None:
    body = request_body("claude-haiku-5-5", [Message("user", "Hi.")], [WEATHER])
    assert body == {
        "model": "claude-haiku-5-5",
        "max_tokens": 1000,
        "stream": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi."}]}],
        "tools": [
            {
                "name": "weather",
                "description": "Tells it.",
                "input_schema": {"type": "object", "properties": {"city": {}}},
                "cache_control": {"type": "ephemeral"},
            }
        ],
        "thinking": {"type": "disabled"},
    }


@pytest.mark.parametrize(
    ("model", "thinking"),
    [
        ("claude-haiku-5-5-20261007", {"type": "disabled"}),
        ("claude-sonnet-5-5", {"type": "between_tools"}),
        ("claude-haiku-4-5", None),
        ("claude-opus-5-5", None),
    ],
)
def test_models_do_not_think_in_silence(model: str, thinking: object) -> None:
    assert request_body(model, [Message("user", "Hi.")], []).get("thinking") == thinking


def test_tools_that_are_gone_are_named_and_not_called() -> None:
    """A history with calls is refused without tools."""
    history = [Message("user", "?"), Message("assistant", "", tool_calls=(call("a"), call("b")))]
    body = request_body("m", history, [])
    assert [tool["name"] for tool in body["tools"]] == ["weather"]
    assert body["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in request_body("m", history, [WEATHER])


def marked(found: Any) -> list[Any]:
    """Everything in a body that is marked for the cache."""
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else []
    own = [found] if isinstance(found, dict) and "cache_control" in found else []
    return own + [mark for one in inner for mark in marked(one)]


def test_what_the_next_request_begins_with_is_cached() -> None:
    system = [Message("system", "Be brief."), Message("system", "Speak English.")]
    said = [Message("user", "Hi."), Message("assistant", "Hello."), Message("user", "Well")]
    body = request_body("m", [*system, *said], [WEATHER])
    assert [one["text"] for one in marked(body)] == ["Hello.", "Speak English."]
    first = request_body("m", [*system, said[0]], [WEATHER])
    assert [one["text"] for one in marked(first)] == ["Speak English."]


ids = st.sampled_from(["a", "b", "call_1", "", "x y"])
messages = st.lists(
    st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.sampled_from(["", " ", "word", "another word"]),
        st.booleans(),
        tool_call_id=ids,
    )
    | st.builds(
        Message,
        st.just("assistant"),
        st.sampled_from(["", "word"]),
        tool_calls=st.lists(st.builds(ToolCall, ids, st.just("weather")), max_size=3).map(tuple),
    ),
    max_size=8,
)


@given(messages, st.booleans())
def test_no_history_is_refused(history: list[Message], with_tools: bool) -> None:
    body = request_body("m", history, [WEATHER] if with_tools else [])
    sent = json.dumps(body).encode()
    headers = {"anthropic-version": "2026-10-21"}
    assert list(objections(Request("llm", "/v1/messages", headers, sent, 1, 0))) == []
    roles = [turn["role"] for turn in body["messages"]]
    assert roles == [("user", "assistant")[at % 2] for at in range(len(roles))]
