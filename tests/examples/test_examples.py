"""The examples, in whole calls: what a model that follows their prompts would do with them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.contracts import Delta, Message, ToolCall
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, LoudnessVAD, ScriptedCaller, Transcript

ROOT = Path(__file__).parents[2]


def example(name: str) -> ModuleType:
    """Load an example afresh, as ``--agent examples/….py:…`` does."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks the hints up there
    spec.loader.exec_module(module)
    return module


class Script:
    """A model that does one thing after the other; a text ends a reply."""

    def __init__(self, *acts: str | tuple[str, dict[str, object]]) -> None:
        self._acts: Iterator[str | tuple[str, dict[str, object]]] = iter(acts)
        self._made = 0

    def __call__(self, messages: Sequence[Message]) -> str | Sequence[Delta]:
        act = next(self._acts)
        if act == "result":
            return messages[-1].text
        if isinstance(act, str):
            return act
        self._made += 1
        return [ToolCall(f"call-{self._made}", act[0], json.dumps(act[1]))]


async def on_the_phone(agent: Agent, model: Script, *says: str) -> Transcript:
    fakes = {"stt": FakeSTT(), "llm": FakeLLM(answer=model), "tts": FakeTTS(word_frames=5)}
    caller = ScriptedCaller().listens()
    for words in says:
        caller = caller.says(words).listens()
    whole = replace(agent, **fakes, vad=LoudnessVAD)
    whole = replace(whole, rules=replace(whole.rules, pause_ms=0))  # so that a script can follow
    return await caller.pauses(3).hangs_up().call(whole)


def results(transcript: Transcript) -> list[str]:
    return [message.text for message in transcript.history if message.role == "tool"]


async def test_a_pizza_is_ordered(autojump_clock: MockClock) -> None:
    pizza = example("pizza")
    model = Script(
        ("add_pizza", {"pizza": "diavola", "size": "large", "count": 2}),
        "Two large diavola. Anything else?",
        ("add_pizza", {"pizza": "hawaii", "size": "small"}),
        "We do not have that one. Margherita?",
        ("add_pizza", {"pizza": "margherita", "size": "small"}),
        ("remove_pizza", {"pizza": "diavola", "size": "large"}),
        ("add_pizza", {"pizza": "diavola", "size": "large"}),
        ("read_order", {}),
        "result",
        ("place_order", {"name": "Ada"}),
        "Ready in twenty five minutes. Goodbye! <end_call>",
    )
    transcript = await on_the_phone(
        pizza.agent, model, "two large diavola", "a small hawaii", "yes just one diavola", "ada"
    )
    heard = " ".join(transcript.heard)
    assert heard.startswith("Pizzeria Bella, what can I get you?")
    assert "1 small margherita, 1 large diavola: 19.50 euros." in heard
    assert "passing it to the kitchen" in heard
    assert heard.endswith("Ready in twenty five minutes. Goodbye!")
    assert transcript.ended_by == "agent"
    assert "'margherita'" in results(transcript)[1]  # what the model is told of hawaii
    order = {("margherita", "small"): 1, ("diavola", "large"): 1}
    assert pizza.kitchen == [("", "Ada", order)]
    assert pizza.orders == {}


async def test_nothing_is_ordered_before_something_is(autojump_clock: MockClock) -> None:
    pizza = example("pizza")
    model = Script(("place_order", {"name": "Ada"}), "What would you like?")
    transcript = await on_the_phone(pizza.agent, model, "order")
    assert results(transcript) == ["It failed: nothing is ordered yet"]
    assert pizza.kitchen == []


async def test_orders_of_abandoned_calls_do_not_pile_up(autojump_clock: MockClock) -> None:
    pizza = example("pizza")
    add = pizza.agent.tools.get("add_pizza")
    for number in range(pizza.ORDERS_KEPT + 50):
        info = pizza.CallInfo(f"CA{number}", {})
        await add.use('{"pizza": "funghi", "size": "small"}', [info])
    assert len(pizza.orders) == pizza.ORDERS_KEPT


@pytest.mark.parametrize(
    ("parameters", "language"),
    [
        ({"From": "+14155550100", "To": "+14155550199"}, "en-US"),
        ({"From": "+919812345678", "To": "+14155550199"}, "hi-IN"),
        ({"From": "+14155550100", "To": "+911140000000"}, "hi-IN"),
        ({"From": "anonymous", "To": "", "language": "hi-IN"}, "hi-IN"),
        ({}, "en-US"),
    ],
)
def test_who_answers_depends_on_the_call(parameters: dict[str, str], language: str) -> None:
    assert example("appointments").agent_for(parameters).persona.language == language


@pytest.mark.parametrize("number", ["+14155550100", "+919812345678"])
async def test_an_appointment_is_booked_in_either_language(
    number: str, autojump_clock: MockClock
) -> None:
    appointments = example("appointments")
    agent = appointments.agent_for({"From": number})
    day = datetime.now() + timedelta(days=1)
    if day.weekday() == 6:
        day += timedelta(days=1)
    when = {"day": f"{day:%Y-%m-%d}"}
    model = Script(
        ("today", {}),
        ("free_times", when),
        "At ten or at eleven?",
        ("book_appointment", {**when, "time": "10:15", "name": "Ada"}),
        ("book_appointment", {**when, "time": "10:00", "name": "Ada"}),
        "result",
        ("free_times", when),
        ("book_appointment", {**when, "time": "10:00", "name": "Bob"}),
        ("cancel_appointment", {"name": "bob"}),
        ("cancel_appointment", {"name": "ADA"}),
        "Cancelled.",
    )
    transcript = await on_the_phone(agent, model, "tomorrow", "ten for ada", "cancel it please")
    assert " ".join(transcript.heard).startswith(agent.persona.greeting)
    came = results(transcript)
    assert '"10:00"' in came[1]
    assert came[2].startswith("It failed: 10:15 is no time that we have")
    assert came[3].startswith("Booked for Ada")
    assert '"10:00"' not in came[4]
    assert came[5].startswith("It failed: 10:00 has just been taken")
    assert came[6] == "There is none under that name and this number."
    assert came[7].startswith("Cancelled: ")
    assert appointments.booked == {}


@pytest.mark.parametrize("when", ["2020-01-06", "2999-01-07", "tomorrow"])
async def test_no_times_in_the_past_or_too_far_ahead(when: str) -> None:
    free = example("appointments").english.tools.get("free_times")
    if when == "tomorrow":
        with pytest.raises(ValueError, match="day"):
            await free.use(f'{{"day": "{when}"}}', [])
    else:
        assert await free.use(f'{{"day": "{when}"}}', []) == "[]"
