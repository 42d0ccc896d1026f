"""Tools that fail, models that only use tools, and what is counted meanwhile."""

from __future__ import annotations

import logging
import sys

import pytest
import trio
from test_tools import answering, use, with_weather
from trio.testing import MockClock

from voicecore.testing import FakeLLM, ScriptedCaller, fake_agent


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("weather", {"town": "Paris"}, "It failed: city: Field required; town: Extra"),
        ("fail", {}, "It failed: no table is free"),
        ("bug", {}, "It failed: division by zero"),
        ("hang", {}, "It took longer than 2 s and was stopped."),
        ("nothing_like_it", {}, "There is no tool named 'nothing_like_it'."),
        ("group", {}, "It failed: division by zero"),
        ("leave", {}, "It failed: SystemExit"),
        ("talk", {}, "It failed: one, two? three"),
        ("say_nothing", {}, "(empty)"),
    ],
)
async def test_what_goes_wrong_is_the_models_to_tell(
    name: str, arguments: dict[str, object], result: str, autojump_clock: MockClock
) -> None:
    agent = fake_agent(llm=answering("Well.", use(name, **arguments), then="Sorry about that."))
    with_weather(agent)

    @agent.tool
    async def fail() -> None:
        raise LookupError("no table is free")

    @agent.tool
    async def bug() -> float:
        return 1 / 0

    @agent.tool(deadline_s=2)
    async def hang() -> None:
        await trio.sleep_forever()

    @agent.tool
    async def group() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bug)

    @agent.tool
    async def leave() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            sys.exit(3)

    @agent.tool
    async def say_nothing() -> str:
        return ""

    @agent.tool
    async def talk() -> None:
        raise RuntimeError("one,\ntwo\ud800   three")

    transcript = await ScriptedCaller().says("hello").pauses(6).hangs_up().call(agent)
    assert transcript.history[2].text.startswith(result)
    assert transcript.heard[-3:] == ["Sorry", "about", "that."]
    assert transcript.ended_by == "caller"


async def test_a_model_that_never_says_a_word_is_apologised_for(autojump_clock: MockClock) -> None:
    agent = fake_agent(
        llm=FakeLLM(answer=lambda m: [use("weather", city="Paris")]), idle_prompt_s=0
    )
    await agent.prepare()
    with_weather(agent)
    transcript = await ScriptedCaller().says("go").pauses(9).hangs_up().call(agent)
    assert " ".join(transcript.heard) == agent.persona.stock_words.apology


async def test_what_is_said_while_a_tool_runs_is_no_stage_of_the_reply(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "voicecore")
    agent = fake_agent(llm=answering(use("weather", city="Paris")))
    with_weather(agent, 3)
    caller = ScriptedCaller().says("weather please").listens().listens().hangs_up()
    await caller.call(agent)
    fields = [vars(record)["fields"] for record in caplog.records if record.msg == "turn done"]
    assert fields[0]["clause"] >= 3
    assert 0 <= fields[0]["tts"] < 0.5
