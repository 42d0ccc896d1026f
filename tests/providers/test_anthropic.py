"""The anthropic provider against a server that speaks the API: what is sent, what comes of it."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Delta, Message, Tool, ToolCall, Usage
from voicecore.errors import ProviderError
from voicecore.providers import anthropic
from voicecore.providers.anthropic import Anthropic
from voicecore.settings import Settings

from .fake_anthropic import (
    PING,
    FakeAnthropic,
    answers,
    empty,
    event,
    events,
    failure,
    reply,
    start,
    stop,
    text,
    tool_use,
)
from .fake_openai import Answer, garbage, page, silence

ASKED = [Message("system", "Be brief."), Message("user", "Hello?")]
END_CALL = Tool("end_call", "Ends the call.")


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for what is under way in the kernel's loopback."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def client(fake: FakeAnthropic, key: str | None = "sk-SECRET") -> AsyncIterator[Anthropic]:
    settings = Settings(_env_file=None, anthropic_base_url=fake.base_url, anthropic_api_key=key)
    async with anthropic.opened(settings) as vendor:
        yield vendor


async def think(vendor: Anthropic, into: list[Delta] | None = None) -> list[Delta]:
    said = [] if into is None else into
    async with vendor.llm.reply(ASKED, [END_CALL]) as deltas:
        async for delta in deltas:
            said.append(delta)
    return said


async def test_it_streams_words_and_asks_for_them(clock: MockClock) -> None:
    async with FakeAnthropic(llm=[reply("It is noon.")]) as fake, client(fake) as vendor:
        assert await think(vendor) == ["It", " is", " noon.", Usage(25, 12)]
    [request] = fake.requests
    assert fake.refused == []
    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == "sk-SECRET"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["content-type"] == "application/json"
    assert request.json["model"] == "claude-haiku-5-5"
    assert request.json["stream"] is True


async def test_it_calls_tools_and_goes_on_with_their_answer(clock: MockClock) -> None:
    called = events(start(), *tool_use(0, "toolu_1", "end_call", "{}"), *stop("tool_use"))
    async with FakeAnthropic(llm=[called, reply("Bye.")]) as fake, client(fake) as vendor:
        call, _ = await think(vendor)
        assert call == ToolCall("toolu_1", "end_call", "{}")
        history = [
            *ASKED,
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "Ended.", tool_call_id=call.id),
        ]
        async with vendor.llm.reply(history, [END_CALL]) as deltas:
            assert await anext(aiter(deltas)) == "Bye."
    assert fake.refused == []


async def test_other_models_and_no_key(clock: MockClock) -> None:
    async with FakeAnthropic() as fake:
        settings = Settings(_env_file=None, anthropic_base_url=fake.base_url, llm_model="own")
        async with anthropic.opened(settings) as vendor:
            with pytest.raises(ProviderError, match="anthropic: refused: HTTP 401"):
                await think(vendor)
    assert fake.requests[0].json["model"] == "own"
    assert "x-api-key" not in fake.requests[0].headers


async def test_it_connects_before_it_is_needed(clock: MockClock) -> None:
    async with FakeAnthropic() as fake, client(fake) as vendor:
        await vendor.llm.warm_up("en-US")
        await trio.sleep(0.1)
        warm = fake.connections
        assert warm >= 1
        assert fake.requests == []
        await think(vendor)
        assert fake.connections == warm


async def test_an_empty_reply_is_no_failure(clock: MockClock) -> None:
    async with FakeAnthropic(llm=[empty()]) as fake, client(fake) as vendor:
        assert await think(vendor) == [Usage(25, 12)]


async def test_chunking_changes_nothing(clock: MockClock) -> None:
    usual = reply("Hello नमस्ते you.")
    for answer in (usual.bytewise(), usual.in_chunks_of(7), usual.in_chunks_of(1_000_000)):
        async with FakeAnthropic(llm=[answer]) as fake, client(fake) as vendor:
            assert await think(vendor) == ["Hello", " नमस्ते", " you.", Usage(25, 12)]


async def test_a_finished_reply_keeps_its_connection(clock: MockClock) -> None:
    async with FakeAnthropic() as fake, client(fake) as vendor:
        for _ in range(3):
            await think(vendor)
    assert fake.connections == 1


@pytest.mark.parametrize(
    ("answer", "fault", "requests"),
    [
        (answers(401), "refused: HTTP 401 authentication_error", 1),
        (answers(403), "refused: HTTP 403 permission_error", 1),
        (answers(400), "status: HTTP 400 invalid_request_error", 1),
        (answers(404), "status: HTTP 404 not_found_error", 1),
        (answers(413), "status: HTTP 413 request_too_large", 1),
        (answers(429, retry_after="3600"), "busy: HTTP 429 rate_limit_error", 1),
        (answers(500), "status: HTTP 500 api_error", 2),
        (answers(529), "status: HTTP 529 overloaded_error", 2),
        (page(), "garbage: not an event stream", 1),
        (garbage(), "cut: the connection broke", 2),
        (silence(), "timeout: no answer within 5 s", 1),
        (events(), "cut: the reply broke off", 1),
        (empty("refusal"), "status: refusal in the stream", 1),
    ],
)
async def test_failures(answer: Answer, fault: str, requests: int, clock: MockClock) -> None:
    async with FakeAnthropic(llm=[answer]) as fake, client(fake) as vendor:
        began = trio.current_time()
        with pytest.raises(ProviderError) as found:
            await think(vendor)
        assert str(found.value) == f"anthropic: {fault}"
        assert trio.current_time() - began <= (5.01 if "timeout" in fault else 0.5)
        await fake.all_closed()
    assert len(fake.requests) == requests


@pytest.mark.parametrize("first", [answers(529), answers(500), garbage()], ids=["529", "500", "?"])
async def test_one_quick_retry(first: Answer, clock: MockClock) -> None:
    async with FakeAnthropic(llm=[first, reply("Hello.")]) as fake, client(fake) as vendor:
        assert (await think(vendor))[0] == "Hello."
    assert len(fake.requests) == 2


async def test_nobody_listens(clock: MockClock) -> None:
    async with FakeAnthropic() as fake:
        pass
    async with client(fake) as vendor:
        with pytest.raises(ProviderError, match="anthropic: connect"):
            await think(vendor)


BEGUN = events(start(), *text(0, "Well,")[:2])


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (replace(BEGUN, hang=True), "timeout"),
        (replace(BEGUN, cut=True), "cut"),
        (BEGUN, "cut"),
        (events(start(), *text(0, "Well,"), failure("overloaded_error")), "status: overloaded"),
        (events(start(), *text(0, "Well,"), *stop("refusal")), "status: refusal"),
        (replace(BEGUN, chunks=(*BEGUN.chunks, b"data: {broken\n\n")), "garbage"),
        (replace(BEGUN, chunks=(*BEGUN.chunks, b"data: " + b"x" * 70_000)), "garbage"),
        (replace(BEGUN, chunks=(*BEGUN.chunks, b"data: \xff\n\n")), "garbage"),
    ],
)
async def test_what_came_before_a_failure_is_had(
    answer: Answer, fault: str, clock: MockClock
) -> None:
    async with FakeAnthropic(llm=[answer]) as fake, client(fake) as vendor:
        words: list[Delta] = []
        with pytest.raises(ProviderError, match=f"^anthropic: {fault}") as found:
            await think(vendor, words)
        assert words == ["Well,"]
        assert "SECRET" not in str(found.value)
        await fake.all_closed()
    assert len(fake.requests) == 1


async def test_pings_keep_a_slow_reply_alive(clock: MockClock) -> None:
    first, *rest = text(0, "At last.")
    slow = events(start(), first, *[PING] * 3, *rest, *stop()).slow(pause_s=2.5)
    async with FakeAnthropic(llm=[slow]) as fake, client(fake) as vendor:
        assert await think(vendor) == ["At", " last.", Usage(25, 12)]


async def test_a_server_that_never_ends_is_not_waited_for(clock: MockClock) -> None:
    async with (
        FakeAnthropic(llm=[replace(reply("All."), hang=True)]) as fake,
        client(fake) as vendor,
    ):
        began = trio.current_time()
        assert await think(vendor) == ["All.", Usage(25, 12)]
        assert trio.current_time() - began < 0.1
        await fake.all_closed()


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before a task's `step`th step from now."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.left = step
        self._scope = scope
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self.left -= 1
            if self.left == 0:
                self._scope.cancel()


async def test_cancelled_at_every_await_the_request_is_closed(clock: MockClock) -> None:
    """The server is the witness: whatever it was asked, nobody waits for it any more."""
    answer = reply("a b").slow(0.01, 0.01)
    steps = cut = 0
    async with FakeAnthropic(llm=[answer]) as fake:
        while cut == steps:
            steps += 1
            async with client(fake) as vendor:
                with trio.CancelScope() as scope:
                    instrument = CancelAtStep(steps, scope)
                    trio.lowlevel.add_instrument(instrument)
                    await think(vendor)
                cut += scope.cancelled_caught
                trio.lowlevel.remove_instrument(instrument)
                await fake.all_closed()
    assert steps > 10
    assert len(fake.requests) > 5
    gc.collect()


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_a_stream_that_is_left_is_closed(kept: int, clock: MockClock) -> None:
    """Leaving between two reads closes the request, and leaves no generator to the collector."""
    slow = reply("a b c d e f").slow(0, 0.1)
    async with FakeAnthropic(llm=[slow, reply("Hi.")]) as fake, client(fake) as vendor:
        async with vendor.llm.reply(ASKED, []) as deltas:
            for _ in range(kept):
                await anext(aiter(deltas))
        await fake.all_closed()
        assert fake.requests[0].left
        assert await think(vendor)
    gc.collect()


async def test_the_fake_refuses_what_the_api_refuses() -> None:
    """Else its silence proves nothing."""
    async with FakeAnthropic() as fake, client(fake) as vendor:
        answer = event({"type": "ping"})
        assert answer == b'event: ping\ndata: {"type": "ping"}\n\n'
        body = {"model": "m", "messages": [{"role": "assistant", "content": " "}]}
        with pytest.raises(ProviderError, match="HTTP 400 invalid_request_error"):
            async with vendor.llm._api.post(
                "v1/messages", anthropic.LLM_DEADLINES, json={**body, "max_tokens": 1}
            ):
                raise AssertionError("it was accepted")
    assert fake.refused == [
        "text content blocks must contain non-whitespace text",
        "first message must use the user role",
        "this model does not support assistant message prefill",
    ]
