"""Keys in whole calls: collected by a tool, typed into the conversation, pressed for a machine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from test_tools import TEN, answering, roles, use
from trio.testing import MockClock

from voicecore.audio.dtmf import tones
from voicecore.call.tool_run import INTERRUPTED
from voicecore.contracts import Delta, Message
from voicecore.testing import FakeLLM, ScriptedCaller, fake_agent

PROMPT = "Please type your number and then pound. It is on the back of your card."


def types(caller: ScriptedCaller, keys: str, every_s: float = 0.2) -> ScriptedCaller:
    for key in keys:
        caller = caller.presses(key).pauses(every_s)
    return caller


@pytest.mark.parametrize(
    ("keys", "arguments", "result"),
    [
        ("4711#", {}, "The caller typed 4711."),
        ("4711", {"count": 4}, "The caller typed 4711."),
        ("47", {"count": 4, "timeout_s": 2}, "The caller typed 47, then stopped."),
        ("12*", {"terminator": "*"}, "The caller typed 12."),
        ("12*#", {}, "The caller typed 12*."),
        ("", {"timeout_s": 2}, "The caller typed nothing."),
        ("#", {}, "The caller typed nothing."),
        ("4#7", {"count": 3, "terminator": ""}, "The caller typed 4#7."),
    ],
)
async def test_digits_are_collected_behind_the_words(
    keys: str, arguments: dict[str, object], result: str, autojump_clock: MockClock
) -> None:
    llm = answering("Type it.", use("collect_digits", **arguments), then="Thank you.")
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    caller = types(ScriptedCaller().says("my account").pauses(1.5), keys).pauses(8).hangs_up()
    transcript = await caller.call(agent)
    assert transcript.history[2].text == result
    assert transcript.heard[:2] == ["Type", "it."]
    assert transcript.heard[-2:] == ["Thank", "you."]


async def test_digits_during_playback_break_it_off(autojump_clock: MockClock) -> None:
    llm = answering(PROMPT, use("collect_digits"), then="Thank you.")
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    caller = types(ScriptedCaller().says("my account").pauses(2), "4711#").pauses(5).hangs_up()
    transcript = await caller.call(agent)
    assert transcript.history[2].text == "The caller typed 4711."
    heard = " ".join(transcript.heard)
    assert heard.startswith("Please type your")
    assert "card" not in heard
    assert heard.endswith("Thank you.")
    said = transcript.history[1]
    assert said.interrupted
    assert PROMPT.startswith(said.text)
    # The lead of what was out already, and no more.
    words = transcript.heard.index("Thank")
    assert transcript.heard[:words] == said.text.split()
    assert transcript.clears == []


async def test_the_time_out_counts_from_the_end_of_the_words(autojump_clock: MockClock) -> None:
    llm = answering(TEN, use("collect_digits", timeout_s=3), then="Thank you.")
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    transcript = await ScriptedCaller().says("go").pauses(12).hangs_up().call(agent)
    at = dict(map(reversed, transcript.words))  # type: ignore[arg-type]
    assert transcript.history[2].text == "The caller typed nothing."
    assert at["Thank"] - at["ten."] == pytest.approx(3.3, abs=0.2)


async def test_speaking_instead_of_typing_interrupts(autojump_clock: MockClock) -> None:
    def answer(messages: Sequence[Message]) -> str | Sequence[Delta]:
        if "four" in messages[-1].text:
            return "Four seven, thank you."
        return ["Type it.", use("collect_digits")]

    agent = fake_agent(llm=FakeLLM(answer=answer), idle_prompt_s=0)
    caller = ScriptedCaller().says("go").pauses(2).says("four seven").pauses(5).hangs_up()
    transcript = await caller.call(agent)
    assert transcript.heard[-4:] == ["Four", "seven,", "thank", "you."]
    assert [m.role for m in transcript.history] == [
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]


async def test_a_noise_loses_no_digits(autojump_clock: MockClock) -> None:
    llm = answering("Type it.", use("collect_digits", count=4), then="Thank you.")
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    caller = types(ScriptedCaller().says("go").pauses(1.5), "47").coughs().pauses(1.5)
    transcript = await types(caller, "11").pauses(4).hangs_up().call(agent)
    assert transcript.history[2].text == "The caller typed 4711."
    assert " ".join(transcript.heard) == "Type it. Thank you."


async def test_what_was_typed_before_speaking_is_remembered(autojump_clock: MockClock) -> None:
    llm = answering("Type it.", use("collect_digits", count=4), then="Thank you.")
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    caller = types(ScriptedCaller().says("go").pauses(1.5), "47").says("I mean five")
    transcript = await caller.pauses(3).hangs_up().call(agent)
    assert transcript.history[2].text == f"{INTERRUPTED} They had typed 47."


async def test_keys_that_nobody_collects_are_said(autojump_clock: MockClock) -> None:
    agent = fake_agent(greeting="Press one for sales.", idle_prompt_s=0)
    caller = types(ScriptedCaller().listens(), "12").pauses(6).hangs_up()
    transcript = await caller.call(agent)
    assert roles(transcript.history)[1] == ("user", "(12 typed on the keypad)")
    assert " ".join(transcript.heard).endswith("You said (12 typed on the keypad).")


async def test_typed_keys_interrupt(autojump_clock: MockClock) -> None:
    agent = fake_agent(greeting=TEN, idle_prompt_s=0)
    transcript = await types(ScriptedCaller().pauses(0.6), "1#").pauses(6).hangs_up().call(agent)
    assert "ten." not in transcript.heard
    assert transcript.history[0].interrupted
    assert transcript.history[1].text == "(1 typed on the keypad)"
    assert transcript.clears != []


async def test_a_key_may_only_interrupt(autojump_clock: MockClock) -> None:
    agent = fake_agent(greeting=TEN, idle_prompt_s=0, barge_in_key="#")
    caller = types(ScriptedCaller().pauses(0.6), "#").pauses(0.5).says("hello").listens().hangs_up()
    transcript = await caller.call(agent)
    assert "ten." not in transcript.heard
    assert roles(transcript.history)[1:] == [("user", "hello"), ("assistant", "You said hello.")]


async def test_the_barge_in_key_still_ends_digits(autojump_clock: MockClock) -> None:
    llm = answering("Type it.", use("collect_digits"), then="Thank you.")
    agent = fake_agent(llm=llm, idle_prompt_s=0, barge_in_key="#")
    caller = types(ScriptedCaller().says("go").pauses(1.5), "12#").pauses(4).hangs_up()
    transcript = await caller.call(agent)
    assert transcript.history[2].text == "The caller typed 12."


async def test_tones_are_heard_behind_the_words(autojump_clock: MockClock) -> None:
    llm = answering("One moment.", use("press_digits", digits="1w2"), then="There we are.")
    agent = fake_agent(llm=llm, idle_prompt_s=0)
    transcript = await ScriptedCaller().says("go").pauses(5).hangs_up().call(agent)
    assert tones("1w2")[:1600] in bytes(transcript.audio)
    assert tones("2")[:800] in bytes(transcript.audio)
    assert roles(transcript.history)[1:] == [
        ("assistant", "One moment."),
        ("tool", "Pressed 1w2."),
        ("assistant", "There we are."),
    ]


@pytest.mark.parametrize("digits", ["", "1x", "1" * 33])
async def test_what_is_no_key_is_told_to_the_model(digits: str, autojump_clock: MockClock) -> None:
    llm = answering("One moment.", use("press_digits", digits=digits), then="Sorry.")
    transcript = await (
        ScriptedCaller().says("go").pauses(4).hangs_up().call(fake_agent(llm=llm, idle_prompt_s=0))
    )
    assert transcript.history[2].text.startswith("It failed: ")
    assert transcript.heard[-1] == "Sorry."
