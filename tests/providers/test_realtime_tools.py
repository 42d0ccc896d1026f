"""Tools and typed words over OpenAI's Realtime API: on the wire, and in whole calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.call.tool_run import INTERRUPTED, RUNNING
from voicecore.contracts import Dialogue, Message, Question, ToolCall
from voicecore.testing import ScriptedCaller, Transcript

from .fake_realtime import Behaviour, FakeSession
from .realtime_line import Heard, take, talking, utterance
from .test_realtime_calls import TEN, calling

PARIS = '{"city":"Paris"}'


def look(words: str) -> str:
    return 'Let me look. <weather {"city":"Paris"}>' if "weather" in words else f"Said {words}."


LOOKS = Behaviour(answer=look)


async def asked(dialogue: Dialogue, question: Question, messages: Sequence[Message] = ()) -> Heard:
    async with dialogue.answer(question, messages) as answer:
        return await take(answer)


async def test_an_answer_goes_on_with_a_result(autojump_clock: MockClock) -> None:
    async with talking(LOOKS) as (dialogue, fake):
        heard = await asked(dialogue, utterance("weather"))
        assert heard.words == ["Let", "me", "look."]
        assert heard.calls == [ToolCall("call_1", "weather", PARIS)]
        dialogue.tool_done("call_1", "Sunny.")
        async with dialogue.answer(None) as answer:
            assert await answer.question() == ""
            assert (await take(answer)).words == ["It", "says", "Sunny.."]
        assert fake.sessions[0].memory == [
            ("user", "weather"),
            ("assistant", "Let me look."),
            ("tool", PARIS),
            ("output", "Sunny."),
            ("assistant", "It says Sunny.."),
        ]
        assert fake.sessions[0].kinds[-2:] == ["conversation.item.create", "response.create"]


async def test_two_tools_at_once_without_a_word(autojump_clock: MockClock) -> None:
    both = Behaviour(answer=lambda words: "<one><two {}>", conclude=lambda result: f"{result}.")
    async with talking(both) as (dialogue, fake):
        heard = await asked(dialogue, utterance("go"))
        assert [(call.id, call.name) for call in heard.calls] == [
            ("call_1", "one"), ("call_2", "two")
        ]  # fmt: skip
        for call in heard.calls:
            dialogue.tool_done(call.id, call.name)
        assert (await asked(dialogue, None)).text == "two."
        assert [role for role, _ in fake.sessions[0].memory] == [
            "user", "tool", "tool", "output", "output", "assistant"
        ]  # fmt: skip


@pytest.mark.parametrize("cancel_s", [0, 0.3])
async def test_a_call_that_came_to_nothing_is_forgotten_one_with_a_result_is_not(
    cancel_s: float, autojump_clock: MockClock
) -> None:
    two = Behaviour(answer=lambda words: f"{TEN} <one><two>" if "go" in words else "Yes.")
    two = Behaviour(answer=two.answer, cancel_s=cancel_s)
    async with talking(two) as (dialogue, fake):
        async with dialogue.answer(utterance("go")) as answer:
            await take(answer)
        dialogue.tool_done("call_2", INTERRUPTED)
        answer.heard(700)
        await asked(dialogue, utterance("wait"))
        assert fake.sessions[0].contexts[-1] == [
            ("user", "go"),
            ("assistant", "one two"),
            ("tool", "{}"),
            ("output", INTERRUPTED),
            ("user", "wait"),
        ]
        answer.forget()  # too late, and harmless
        await trio.sleep(1)
        assert len(fake.sessions) == 1


async def test_what_comes_of_a_tool_later_is_told_as_text(autojump_clock: MockClock) -> None:
    async with talking(LOOKS) as (dialogue, fake):
        async with dialogue.answer(utterance("weather")) as answer:
            await take(answer)
        dialogue.tool_done("call_1", RUNNING)
        answer.heard(9_999)
        await asked(dialogue, utterance("wait"))
        before = len(fake.sessions[0].contexts)
        dialogue.tool_done("call_1", "Sunny.")
        dialogue.tool_done("call_77", "Nobody knows whose.")
        await trio.sleep(2)
        assert len(fake.sessions[0].contexts) == before  # nothing was answered because of it
        await asked(dialogue, utterance("and now"))
        *_, known, unknown, user = fake.sessions[0].contexts[-1]
        assert known == (
            "system", f"weather({PARIS}), which you have called, has this result: Sunny."
        )  # fmt: skip
        assert unknown[1].startswith("A tool, which you have called,")
        assert user == ("user", "and now")


@pytest.mark.parametrize("spared", [False, True])
async def test_a_session_that_breaks_while_a_tool_runs(
    spared: bool, autojump_clock: MockClock
) -> None:
    call = ToolCall("call_1", "weather", PARIS)
    result = RUNNING if spared else "Sunny."
    history = [
        Message("user", "weather"),
        Message("assistant", "Let me look.", tool_calls=(call,)),
        Message("tool", result, tool_call_id="call_1"),
    ]
    breaks = Behaviour(answer=look, expires_s=2.5)
    async with talking(breaks, lasting=LOOKS) as (dialogue, fake):
        await asked(dialogue, utterance("weather"))
        await trio.sleep(3)
        assert len(fake.sessions) == 2
        dialogue.tool_done("call_1", result)  # to a session that will be told it with the rest
        heard = await asked(dialogue, None, history)
        assert heard.text == f"It says {result}."
        told = [
            ("user", "weather"),
            ("assistant", "Let me look."),
            ("system", f"weather({PARIS}), which you have called, has this result: {result}"),
        ]
        assert fake.sessions[1].contexts == [told]
        if spared:
            dialogue.tool_done("call_1", "Sunny.")
            await trio.sleep(1)
            assert fake.sessions[1].memory[-1] == (
                "system", f"weather({PARIS}), which you have called, has this result: Sunny."
            )  # fmt: skip


async def test_an_answer_to_a_result_goes_on_after_a_noise(autojump_clock: MockClock) -> None:
    behaviour = Behaviour(answer=look, conclude=lambda result: TEN)
    async with talking(behaviour) as (dialogue, fake):
        await asked(dialogue, utterance("weather"))
        dialogue.tool_done("call_1", "Sunny.")
        async with dialogue.answer(None) as answer:
            before = await take(answer, 1)
        answer.heard(900)
        rest = await asked(dialogue, b"")
        assert before.words[:3] + rest.words == TEN.split()
        await trio.sleep(1)
        assert [role for role, _ in fake.sessions[0].memory] == [
            "user", "assistant", "tool", "output", "assistant", "assistant"
        ]  # fmt: skip


async def test_typed_words(autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        async with dialogue.answer("(12 typed)") as answer:
            assert await answer.question() == "(12 typed)"
            heard = await take(answer)
        assert heard.text == "You said (12 typed)."
        async with dialogue.answer("(3 typed)") as answer:
            await take(answer, 0.3)
        answer.forget()
        await trio.sleep(1)
        assert fake.sessions[0].memory == [
            ("user", "(12 typed)"), ("assistant", "You said (12 typed).")
        ]  # fmt: skip
        assert "input_audio_buffer.commit" not in fake.sessions[0].kinds


async def call(
    caller: ScriptedCaller,
    behaviour: Behaviour,
    seconds: float = 0,
    on_barge_in: str = "cancel",
) -> tuple[Transcript, FakeSession]:
    """Make a call to an agent that can look at the weather, which takes so long."""

    def equip(agent: Agent) -> None:
        @agent.tool(on_barge_in=on_barge_in)  # type: ignore[call-overload, untyped-decorator]
        async def weather(city: str) -> str:
            await trio.sleep(seconds)
            return f"Sunny in {city}"

    transcript, (session,), _ = await calling(caller, lasting=behaviour, equip=equip)
    return transcript, session


def said(transcript: Transcript) -> list[str]:
    return [message.text for message in transcript.history]


async def test_a_call_in_which_a_tool_is_used(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("weather please").listens().says("thanks").listens().hangs_up()
    transcript, session = await call(caller, LOOKS)
    assert " ".join(transcript.heard) == "Let me look. It says Sunny in Paris. Said thanks."
    assert said(transcript) == [
        "weather please", "Let me look.", "Sunny in Paris", "It says Sunny in Paris.",
        "thanks", "Said thanks.",
    ]  # fmt: skip
    assert session.memory == [
        ("user", "weather please"),
        ("assistant", "Let me look."),
        ("tool", PARIS),
        ("output", "Sunny in Paris"),
        ("assistant", "It says Sunny in Paris."),
        ("user", "thanks"),
        ("assistant", "Said thanks."),
    ]
    tools = [tool["name"] for tool in session.received[0]["session"]["tools"]]
    assert tools == ["end_call", "press_digits", "collect_digits", "weather"]


@pytest.mark.parametrize("on_barge_in", ["cancel", "keep"])
async def test_a_tool_that_is_interrupted(on_barge_in: str, autojump_clock: MockClock) -> None:
    caller = (
        ScriptedCaller().says("weather").pauses(2.2).says("never mind").pauses(6)
        .says("and now").listens().hangs_up()
    )  # fmt: skip
    transcript, session = await call(caller, LOOKS, 5, on_barge_in)
    memory = [
        ("user", "weather"),
        ("assistant", "Let me look."),
        ("tool", PARIS),
        ("output", INTERRUPTED if on_barge_in == "cancel" else RUNNING),
        ("user", "never mind"),
        ("assistant", "Said never mind."),
    ]
    late = f"weather({PARIS}), which you have called, has this result: Sunny in Paris"
    if on_barge_in == "keep":
        memory.append(("system", late))
        assert said(transcript)[2] == "Sunny in Paris"
    assert session.contexts[-1] == [*memory, ("user", "and now")]
    assert transcript.heard[-3:] == ["Said", "and", "now."]


async def test_a_lost_beginning_calls_nobody(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().says("the weather").pauses(0.2).says("in paris").listens().hangs_up()
    transcript, session = await call(caller, LOOKS)
    assert [role for role, _ in session.memory] == ["user", "assistant", "tool", "output",
                                                    "assistant"]  # fmt: skip
    assert [m.role for m in transcript.history] == ["user", "assistant", "tool", "assistant"]


async def test_keys_hush_it_and_its_memory_ends_there(autojump_clock: MockClock) -> None:
    collects = Behaviour(answer=lambda words: f'{TEN} <collect_digits {{"count":2}}>')
    caller = ScriptedCaller().says("my account").pauses(2.4)
    caller = caller.presses("4").pauses(0.2).presses("7").pauses(5).hangs_up()
    transcript, session = await call(caller, collects)
    *heard, _, _, _, _, _, _ = transcript.heard
    assert 2 < len(heard) < 9
    assert " ".join(transcript.heard).endswith("It says The caller typed 47..")
    assert session.memory[1:4] == [
        ("assistant", " ".join(heard)),
        ("tool", '{"count":2}'),
        ("output", "The caller typed 47."),
    ]


async def test_typed_keys_are_answered(autojump_clock: MockClock) -> None:
    caller = ScriptedCaller().pauses(0.5).presses("1").presses("#").pauses(4).hangs_up()
    transcript, session = await call(caller, LOOKS)
    assert " ".join(transcript.heard) == "Said (1 typed on the keypad)."
    assert session.memory[0] == ("user", "(1 typed on the keypad)")


@pytest.mark.parametrize("part", range(2))
def test_left_at_any_moment_of_a_tool_nothing_stays_open(part: int) -> None:
    async def hang_up_after(frames: int) -> None:
        caller = ScriptedCaller().says("weather", 0.3)
        for _ in range(frames):
            caller = caller.pauses(0.02)
        await call(caller.drops(), LOOKS, 1, "keep")

    for frames in range(40 + 10 * part, 160, 20):
        trio.run(hang_up_after, frames, clock=MockClock(autojump_threshold=0))
