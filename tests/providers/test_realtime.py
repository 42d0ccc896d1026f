"""Speech to speech by OpenAI's Realtime API, over real WebSocket bytes in memory."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Message, ToolCall, Usage, WarmsUp
from voicecore.testing import audible

from .fake_realtime import Behaviour, open_fake
from .realtime_line import ask, named, open_model, take, talking, utterance


async def test_an_answer_comes_as_words_and_audio(autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        await trio.sleep(0.5)
        began = trio.current_time()
        async with dialogue.answer(utterance("good day"), ()) as answer:
            heard = await take(answer)
            assert await answer.question() == "good day"
            assert answer.is_whole
        assert heard.words == ["You", "said", "good", "day."]
        assert heard.text == "You said good day."
        assert heard.usage == Usage(100, 20, 64)
        assert trio.current_time() - began == pytest.approx(0.05 + 0.2 + 1.2 / 4, abs=0.15)
    session = fake.sessions[0]
    assert session.path == "/v1/realtime?model=gpt-realtime-1.5"
    assert session.headers["authorization"] == "Bearer k"
    assert "openai-beta" not in session.headers
    assert session.kinds == ["session.update", "input_audio_buffer.commit", "response.create"]
    assert session.memory == [("user", "good day"), ("assistant", "You said good day.")]
    setup = session.received[0]["session"]
    assert setup["audio"]["output"]["voice"] == "cedar"
    assert setup["audio"]["input"]["turn_detection"] is None
    assert setup["tools"][0]["name"] == "end_call"


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(delta_bytes=333),
        Behaviour(delta_bytes=11),
        Behaviour(bytewise=True, delta_bytes=8000),
        Behaviour(chatty=True),
        Behaviour(deltas=False),
        Behaviour(huge=3 << 20),
        Behaviour(speed=float("inf"), think_s=0, latency_s=0),
        Behaviour(status_of={1: "incomplete"}),
    ],
    ids=named,
)
async def test_however_it_comes(behaviour: Behaviour, autojump_clock: MockClock) -> None:
    async with talking(behaviour) as (dialogue, fake):
        for number in range(2):
            heard = await ask(dialogue, f"number {number}")
            assert heard.words == ["You", "said", "number", f"{number}."]
            assert heard.text.strip() == f"You said number {number}."
        assert len(fake.sessions) == 1


async def test_a_minute_is_said_in_pieces(autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        words = " ".join(f"word{number}" for number in range(200))
        async with dialogue.answer(utterance(words)) as answer:
            assert await answer.question() == words
        sizes = [len(e["audio"]) for e in fake.sessions[0].of_kind("input_audio_buffer.append")]
        assert max(sizes) <= 80_000


async def test_a_click_is_long_enough_to_be_said(autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        async with dialogue.answer(audible.LOUD_FRAME) as answer:
            assert (await take(answer)).text == "You said ."
            assert await answer.question() == ""
        assert not fake.sessions[0].errors


async def test_a_call_of_a_tool(autojump_clock: MockClock) -> None:
    behaviour = Behaviour(answer=lambda words: f"{words.title()}. <end_call>")
    async with talking(behaviour) as (dialogue, fake):
        heard = await ask(dialogue, "goodbye")
        assert heard.words == ["Goodbye."]
        assert heard.calls == [ToolCall("call_1", "end_call", "{}")]
        async with dialogue.answer(utterance("no wait")) as answer:
            assert (await take(answer)).calls
        answer.heard(100)  # it was cut: the call goes on, and nobody was called
        await trio.sleep(1)
        assert [item.role for item in fake.sessions[0].items[-2:]] == ["user", "assistant"]


async def test_a_tool_without_a_word(autojump_clock: MockClock) -> None:
    async with talking(Behaviour(answer=lambda words: "<end_call>")) as (dialogue, _):
        heard = await ask(dialogue, "goodbye")
        assert (heard.audio, len(heard.calls)) == (b"", 1)


@pytest.mark.parametrize(("heard_ms", "left"), [(700, "You said"), (0, None), (60_000, "You said")])
@pytest.mark.parametrize("cancel_s", [0, 0.3])
async def test_what_was_not_heard_is_not_remembered(
    heard_ms: int, left: str | None, cancel_s: float, autojump_clock: MockClock
) -> None:
    async with talking(lasting=Behaviour(cancel_s=cancel_s)) as (dialogue, fake):
        async with dialogue.answer(utterance("one two three four")) as answer:
            heard = await take(answer, 0.7)
            assert not answer.is_whole
        assert heard.words == ["You", "said"]
        answer.heard(heard_ms)
        assert (await ask(dialogue, "again")).words == ["You", "said", "again."]
        session = fake.sessions[0]
        assert len(fake.sessions) == 1
        before = [("user", "one two three four")] + ([("assistant", left)] if left else [])
        assert session.contexts[1] == [*before, ("user", "again")]
        for cut in session.of_kind("conversation.item.truncate"):
            assert cut["audio_end_ms"] == min(heard_ms, len(heard.audio) // 8)
    assert session.kinds.count("response.cancel") == 1


async def test_an_answer_that_was_whole_is_cut_only_if_it_was_not_heard(
    autojump_clock: MockClock,
) -> None:
    async with talking() as (dialogue, fake):
        for heard_ms, left in ((99_999, "You said yes."), (350, "You")):
            async with dialogue.answer(utterance("yes")) as answer:
                await take(answer)
            answer.heard(heard_ms)
            await trio.sleep(0.2)
            assert fake.sessions[0].memory[-1] == ("assistant", left)
        assert fake.sessions[0].kinds.count("conversation.item.truncate") == 1
        assert "response.cancel" not in fake.sessions[0].kinds


@pytest.mark.parametrize("step", range(30))
@pytest.mark.parametrize("create_s", [0, 0.1])
async def test_left_at_any_moment_and_forgotten_it_never_was(
    step: int, create_s: float, autojump_clock: MockClock
) -> None:
    behaviour = Behaviour(create_s=create_s, wait_s=0.1)
    async with talking(lasting=behaviour) as (dialogue, fake):
        answers = []
        with trio.move_on_after(step * 0.04 + 0.001):
            async with dialogue.answer(utterance("lost")) as answer:
                answers.append(answer)
                await take(answer)
        for one in answers:
            one.forget()
        heard = await ask(dialogue, "kept")
        assert heard.words == ["You", "said", "kept."]
        session = fake.sessions[0]
        assert session.contexts[-1] == [("user", "kept")]
        await trio.sleep(1)
        assert session.memory == [("user", "kept"), ("assistant", "You said kept.")]
        assert not session.active
        assert len(fake.sessions) == 1


@pytest.mark.parametrize("create_s", [0, 0.2])
async def test_what_is_left_is_stopped_however_early(
    create_s: float, autojump_clock: MockClock
) -> None:
    async with talking(
        lasting=Behaviour(
            create_s=create_s, answer=lambda words: "so " * 99 if "1" in words else "no"
        )
    ) as (dialogue, fake):
        await trio.sleep(0.5)
        async with dialogue.answer(utterance("1")) as answer:
            await trio.sleep(0.02)
        answer.forget()
        began = trio.current_time()
        assert (await ask(dialogue, "2")).words == ["no"]
        assert trio.current_time() - began < 1.2
        assert fake.sessions[0].contexts[-1] == [("user", "2")]
        assert len(fake.sessions) == 1


async def test_what_the_agent_says_itself_is_remembered(autojump_clock: MockClock) -> None:
    greeting = Message("assistant", "Good day.")
    async with talking() as (dialogue, fake):
        dialogue.said("Good day.")  # nobody was asked yet: it is a part of the history
        await ask(dialogue, "hello", [greeting])
        dialogue.said("Are you still there?")
        await ask(dialogue, "yes", [greeting, Message("user", "anything")])
        assert fake.sessions[0].memory == [
            ("assistant", "Good day."),
            ("user", "hello"),
            ("assistant", "You said hello."),
            ("assistant", "Are you still there?"),
            ("user", "yes"),
            ("assistant", "You said yes."),
        ]


@pytest.mark.parametrize("heard_ms", [900, 0])
async def test_an_answer_goes_on_after_a_noise(heard_ms: int, autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        async with dialogue.answer(utterance("one two three")) as answer:
            await take(answer, 0.9)
        answer.heard(heard_ms)
        async with dialogue.answer(b"") as rest:
            assert await rest.question() == ""
            heard = await take(rest)
        whole = ["You", "said", "one", "two", "three."]
        assert heard.words == (whole[3:] if heard_ms else whole)
        if not heard_ms:
            rest.heard(700)
        await trio.sleep(1)
        asked, *said = fake.sessions[0].memory
        assert asked == ("user", "one two three")
        assert said == (
            [("assistant", "You said one"), ("assistant", "two three.")]
            if heard_ms
            else [("assistant", "You said")]
        )


async def test_a_session_that_was_opened_at_the_webhook_is_taken(
    autojump_clock: MockClock,
) -> None:
    async with open_fake(lasting=Behaviour(wait_s=0.5)) as fake:
        async with open_model(fake) as model:
            assert isinstance(model, WarmsUp)
            await model.warm_up("en-US")
            assert len(fake.sessions) == 1
            await trio.sleep(1)
            async with model.converse("Be brief.", (), "", "en-US") as dialogue:
                began = trio.current_time()
                assert (await ask(dialogue, "hello")).words == ["You", "said", "hello."]
                assert trio.current_time() - began < 1
            assert [session.left is None for session in fake.sessions] == [False]
            await model.warm_up("en-US")
            await trio.sleep(9)
            assert not fake.open_sessions
            await model.warm_up("en-US")
            assert len(fake.open_sessions) == 1
        assert not fake.open_sessions


async def test_warming_up_for_nothing(autojump_clock: MockClock) -> None:
    async with open_fake(lasting=Behaviour(hangs="before")) as fake, open_model(fake) as model:
        began = trio.current_time()
        await model.warm_up("en-US")
        assert trio.current_time() - began < 3.1
    async with open_fake(lasting=Behaviour(status=401)) as fake, open_model(fake) as model:
        for _ in range(20):
            await model.warm_up("en-US")
        assert fake.attempts == 20
    async with open_fake() as fake, open_model(fake) as model:
        for _ in range(20):
            await model.warm_up("en-US")
        assert fake.attempts == 8
        for session in fake.sessions:
            assert session.left is None


async def test_a_warm_session_that_broke_is_not_taken(autojump_clock: MockClock) -> None:
    async with open_fake(Behaviour(expires_s=0.5)) as fake, open_model(fake) as model:
        await model.warm_up("en-US")
        await trio.sleep(1)
        async with model.converse("Be brief.", (), "", "en-US") as dialogue:
            assert (await ask(dialogue, "hello")).words == ["You", "said", "hello."]
        assert len(fake.sessions) == 2


async def test_a_voice_that_it_does_not_have(autojump_clock: MockClock) -> None:
    async with open_fake() as fake, open_model(fake) as model:
        async with model.converse("Be brief.", (), "nova", "hi-IN") as dialogue:
            await ask(dialogue, "hello")
        audio = fake.sessions[0].received[0]["session"]["audio"]
        assert audio["output"]["voice"] == "marin"
        assert audio["input"]["transcription"]["language"] == "hi"
