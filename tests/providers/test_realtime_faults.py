"""OpenAI's Realtime API when it fails, in every way that a vendor can."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Message
from voicecore.errors import ProviderError

from .fake_realtime import Behaviour
from .realtime_line import ask, fails, named, take, talking, utterance

NO_AUDIO = '{"type":"response.output_audio.delta","response_id":"resp_9","delta":"%"}'


@pytest.mark.parametrize(
    ("status", "body", "fault", "attempts"),
    [
        (401, b"", "refused", 1),
        (403, b"", "refused", 1),
        (429, b'{"error":{"code":"insufficient_quota"}}', "busy", 1),
        (400, b"", "status", 1),
        (500, b"", "status", 2),
        (503, b"<html>", "status", 2),
    ],
)
async def test_a_refusal_at_the_door_is_told_at_once_and_tried_again_next_time(
    status: int, body: bytes, fault: str, attempts: int, autojump_clock: MockClock
) -> None:
    lasting = Behaviour(status=status, body=body)
    async with talking(lasting=lasting) as (dialogue, fake):
        await trio.sleep(60)  # the caller is greeted, and thinks
        before = fake.attempts
        for _ in range(2):
            told, seconds = await fails(dialogue)
            assert told == fault
            assert seconds < 0.5
        assert before == (1 if attempts == 1 else 6)
        assert fake.attempts - before == 2 * attempts
        fake.lasting = Behaviour()
        assert (await ask(dialogue, "hello")).words == ["You", "said", "hello."]


async def test_a_wrong_key(autojump_clock: MockClock) -> None:
    async with talking(key="wrong") as (dialogue, _):
        assert (await fails(dialogue))[0] == "refused"


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(refuses=True), Behaviour(status=500), Behaviour(raw=b"\x00\xff garbage\r\n\r\n")],
    ids=named,
)
async def test_one_failure_to_connect_is_not_noticed(
    behaviour: Behaviour, autojump_clock: MockClock
) -> None:
    async with talking(behaviour) as (dialogue, _):
        assert (await ask(dialogue, "hello")).words == ["You", "said", "hello."]


async def test_a_server_that_cannot_be_reached(autojump_clock: MockClock) -> None:
    async with talking(lasting=Behaviour(refuses=True)) as (dialogue, fake):
        assert (await fails(dialogue))[0] == "connect"
        await trio.sleep(600)
        assert fake.attempts <= 8


@pytest.mark.parametrize(
    ("hangs", "least", "most"), [("before", 2.9, 3.1), ("after", 4.4, 4.6), ("answering", 4.4, 4.6)]
)
async def test_a_server_that_says_nothing(
    hangs: str, least: float, most: float, autojump_clock: MockClock
) -> None:
    async with talking(Behaviour(hangs=hangs)) as (dialogue, fake):
        fault, seconds = await fails(dialogue)
        assert fault == "timeout"
        assert least < seconds < most
        began = trio.current_time()
        heard = await ask(dialogue, "again", [Message("user", "hello")])
        assert heard.words == ["You", "said", "again."]
        assert trio.current_time() - began < 3
        assert fake.sessions[-1].contexts == [[("user", "hello"), ("user", "again")]]


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (Behaviour(cut_after_s=0.5), "cut"),
        (Behaviour(closes_after_s=0.5), "cut"),
        (Behaviour(garbage_after_s=0.5), "garbage"),
        (Behaviour(garbage_after_s=0.5, garbage=b"\xff\xfe"), "garbage"),
        (Behaviour(garbage_after_s=0.5, garbage='{"type":"error","error":1}'), "garbage"),
        (Behaviour(garbage_after_s=0.5, garbage=NO_AUDIO), "garbage"),
        (Behaviour(garbage_after_s=0.5, garbage="[" * 100_000), "garbage"),
        (Behaviour(garbage_after_s=0.5, garbage="x" * (17 << 20)), "cut"),
        (Behaviour(expires_s=0.4), "cut"),
    ],
    ids=named,
)  # fmt: skip
async def test_a_session_that_breaks_is_replaced_by_one_that_knows_what_was_said(
    behaviour: Behaviour, fault: str, autojump_clock: MockClock
) -> None:
    history = [Message("user", "hello"), Message("assistant", "You", interrupted=True)]
    async with talking(behaviour) as (dialogue, fake):
        async with dialogue.answer(utterance("hello"), ()) as answer:
            with pytest.raises(ProviderError) as caught:
                await take(answer)
        assert caught.value.fault == fault
        answer.heard(200)
        dialogue.said("Sorry.")
        began = trio.current_time()
        assert (await ask(dialogue, "again", history)).words == ["You", "said", "again."]
        assert trio.current_time() - began < 1.5
        assert fake.sessions[1].contexts[0] == [
            ("user", "hello"), ("assistant", "You"), ("user", "again")
        ]  # fmt: skip
        assert len(fake.sessions) == 2


async def test_a_session_that_expires_between_two_turns(autojump_clock: MockClock) -> None:
    async with talking(Behaviour(expires_s=3600)) as (dialogue, fake):
        await ask(dialogue, "hello")
        await trio.sleep(3700)
        assert len(fake.open_sessions) == 1
        assert (await ask(dialogue, "again")).words == ["You", "said", "again."]


@pytest.mark.parametrize(
    ("errors", "fault", "sessions"),
    [
        ({"session.update": "invalid_value"}, "status", 2),
        ({"response.create": "invalid_value"}, "status", 1),
        ({"response.create": "rate_limit_exceeded"}, "busy", 1),
        ({"response.create": "conversation_already_has_active_response"}, "status", 1),
        ({"input_audio_buffer.commit": "input_audio_buffer_commit_empty"}, "status", 1),
        ({"response.create": "session_expired"}, "cut", 2),
        ({"response.create": "invalid_api_key"}, "refused", 2),
        ({"response.create": "model_not_found"}, "status", 2),
    ],
)
async def test_an_error_is_the_end_of_what_it_is_about(
    errors: dict[str, str], fault: str, sessions: int, autojump_clock: MockClock
) -> None:
    behaviour = Behaviour(errors=dict(errors))
    async with talking(behaviour) as (dialogue, fake):
        await trio.sleep(0.02)
        async with dialogue.answer(utterance("hello"), ()) as answer:
            with pytest.raises(ProviderError) as caught:
                await take(answer)
        assert caught.value.fault == fault
        answer.heard(0)
        await trio.sleep(1)
        behaviour.errors.clear()
        async with dialogue.answer(utterance("again")) as answer:
            assert (await take(answer)).words == ["You", "said", "again."]
            assert await answer.question() == "again"
        behaviour.errors.update(errors)
        assert len(fake.sessions) == sessions
        assert ("assistant", "You said .") not in fake.sessions[-1].memory


async def test_errors_about_moments_that_have_passed_are_harmless(
    autojump_clock: MockClock,
) -> None:
    errors = {"response.cancel": "response_cancel_not_active", "conversation.item.delete": "gone"}
    async with talking(Behaviour(errors=errors)) as (dialogue, fake):
        async with dialogue.answer(utterance("one"), ()) as answer:
            await take(answer, 0.2)
        answer.forget()
        assert (await ask(dialogue, "two")).words == ["You", "said", "two."]
        assert len(fake.sessions) == 1
        assert fake.sessions[0].errors.count("gone") == 2


@pytest.mark.parametrize(
    ("status", "fault"), [("failed", "busy"), ("cancelled", "cut"), ("incomplete", None)]
)
async def test_how_an_answer_may_end(
    status: str, fault: str | None, autojump_clock: MockClock
) -> None:
    async with talking(Behaviour(status_of={1: status})) as (dialogue, fake):
        if fault is not None:
            assert (await fails(dialogue))[0] == fault
        else:
            assert (await ask(dialogue, "hello")).words == ["You", "said", "hello."]
        assert (await ask(dialogue, "again")).words == ["You", "said", "again."]
        assert len(fake.sessions) == 1


async def test_an_answer_that_does_not_stop_costs_the_session(autojump_clock: MockClock) -> None:
    async with talking(Behaviour(cancel_s=99, answer=lambda words: "so " * 99)) as (dialogue, fake):
        async with dialogue.answer(utterance("one"), ()) as answer:
            await take(answer, 0.2)
        began = trio.current_time()
        history = [Message("user", "one")]
        assert (await ask(dialogue, "two", history)).words == ["You", "said", "two."]
        assert trio.current_time() - began < 3
        assert len(fake.sessions) == 2
        assert fake.sessions[1].contexts == [[("user", "one"), ("user", "two")]]


@pytest.mark.parametrize("behaviour", [Behaviour(transcript_fails=True), Behaviour(cut_after_s=0)])
async def test_words_that_never_become_known(
    behaviour: Behaviour, autojump_clock: MockClock
) -> None:
    async with talking(behaviour) as (dialogue, _):
        async with dialogue.answer(utterance("hello"), ()) as answer:
            with pytest.raises(ProviderError):
                await answer.question()


async def test_words_that_come_late_are_those_of_their_question(autojump_clock: MockClock) -> None:
    async with talking(Behaviour(transcript_s=2)) as (dialogue, _):
        answers = []
        for text in ("one", "two"):
            async with dialogue.answer(utterance(text), ()) as answer:
                await take(answer)
                answers.append(answer)
        assert [await answer.question() for answer in answers] == ["one", "two"]


async def test_an_answer_without_end_is_bounded(autojump_clock: MockClock) -> None:
    endless = Behaviour(answer=lambda words: "on " * 600, speed=float("inf"), delta_bytes=8000)
    async with talking(endless) as (dialogue, _):
        async with dialogue.answer(utterance("go"), ()) as answer:
            await trio.sleep(2)
            size = sum(len(sound) for sound in answer.rest() if isinstance(sound, bytes))
            assert 119 * 8000 < size <= 120 * 8000
            with pytest.raises(ProviderError, match="without end"):
                await take(answer)


async def test_an_hour_of_turns_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        for number in range(100):
            async with dialogue.answer(utterance(f"turn {number}")) as answer:
                await take(answer, 0.2 if number % 3 else 99)
            if number % 3:
                answer.forget()
        assert len(fake.sessions) == 1
        session = dialogue._session  # type: ignore[attr-defined]
        assert len(session._answers) <= 16
        assert not session._committing


async def test_a_session_that_takes_nothing_is_given_up(autojump_clock: MockClock) -> None:
    async with talking() as (dialogue, fake):
        await ask(dialogue, "hello")
        for _ in range(300):
            dialogue.said("Are you still there?")
        assert (await ask(dialogue, "again")).words == ["You", "said", "again."]
        assert len(fake.sessions) == 2
