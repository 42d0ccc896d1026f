"""How a reply of OpenAI's API, or of a compatible server, ends: its usage, and what comes after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Delta, Message, Usage
from voicecore.errors import ProviderError
from voicecore.providers import openai
from voicecore.providers.chat import COMPATIBLE, OFFICIAL, Dialect
from voicecore.providers.openai import OpenAI
from voicecore.settings import Settings

from .fake_openai import FakeOpenAI, chunk, cost, event, events, reply


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for what is under way in the kernel's loopback."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def client(fake: FakeOpenAI) -> AsyncIterator[OpenAI]:
    settings = Settings(_env_file=None, openai_base_url=fake.base_url, openai_api_key="sk-SECRET")
    async with openai.opened(settings) as vendor:
        yield vendor


async def think(vendor: OpenAI) -> list[Delta]:
    async with vendor.llm.reply([Message("user", "Hello?")], []) as deltas:
        return [delta async for delta in deltas]


@pytest.mark.parametrize(
    ("url", "dialect"),
    [
        ("https://api.openai.com/v1", OFFICIAL),
        ("https://eu.api.openai.com/v1", OFFICIAL),
        ("https://notapi.openai.com/v1", COMPATIBLE),
        ("https://api.openai.com.example.org/v1", COMPATIBLE),
        ("http://localhost:11434/v1", COMPATIBLE),
    ],
)
async def test_a_server_is_spoken_to_as_it_understands(url: str, dialect: Dialect) -> None:
    settings = Settings(_env_file=None, openai_base_url=url)
    async with openai.opened(settings) as vendor:
        assert vendor.llm._dialect is dialect


async def test_llm_tells_its_usage_last(clock: MockClock) -> None:
    answer = reply("It is noon.", usage=cost(20, 5, cached=16))
    async with FakeOpenAI(llm=[answer]) as fake, client(fake) as vendor:
        assert await think(vendor) == ["It", " is", " noon.", Usage(20, 5, 16)]
        assert await think(vendor) == ["It", " is", " noon.", Usage(20, 5, 16)]
    assert fake.connections == 1


@pytest.mark.parametrize("late_s", [0.04, 1])
async def test_usage_is_not_waited_for(late_s: float, clock: MockClock) -> None:
    """The last sentence is spoken when the reply is over: a bill must not delay it."""
    answer = reply("Noon.", usage=cost(20, 5)).late(late_s, chunks=2)
    async with FakeOpenAI(llm=[answer]) as fake, client(fake) as vendor:
        began = trio.current_time()
        assert await think(vendor) == ["Noon.", *([Usage(20, 5)] if late_s < 0.05 else [])]
        assert trio.current_time() - began <= 0.06
        await fake.all_closed()


async def test_a_server_that_never_ends_is_not_waited_for(clock: MockClock) -> None:
    lingering = reply("That is all.")
    lingering = lingering.hangs_after(len(lingering.chunks))
    async with FakeOpenAI(llm=[lingering]) as fake, client(fake) as vendor:
        began = trio.current_time()
        assert await think(vendor) == ["That", " is", " all."]
        assert trio.current_time() - began < 0.1
        await fake.all_closed()


@pytest.mark.parametrize(
    "rest",
    [
        (),
        (event("{broken"),),
        (event({"error": {"message": "late"}}),),
        (b"data: " + b"x" * 70_000,),
    ],
    ids=["cut", "broken", "error", "long"],
)
@pytest.mark.parametrize("size", [None, 1_000_000], ids=["apart", "together"])
async def test_nothing_that_comes_after_the_end_matters(
    rest: tuple[bytes, ...], size: int | None, clock: MockClock
) -> None:
    whole = events([chunk({"content": "Bye."}), chunk({}, "stop"), *rest], done=False)
    answer = whole.in_chunks_of(size) if size else whole.slow(0, 0.01)
    async with FakeOpenAI(llm=[answer.cut_after(9)]) as fake, client(fake) as vendor:
        assert await think(vendor) == ["Bye."]
        await fake.all_closed()


async def test_a_tool_call_that_broke_off_is_a_failure_and_no_silence(clock: MockClock) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "order", "arguments": '{"cou'}}
    answer = events(
        [chunk({"content": "Well."}), chunk({"tool_calls": [call]}), chunk({}, "length")]
    )
    async with FakeOpenAI(llm=[answer]) as fake, client(fake) as vendor:
        with pytest.raises(ProviderError, match="a tool call is not complete") as caught:
            await think(vendor)
    assert caught.value.fault == "garbage"
