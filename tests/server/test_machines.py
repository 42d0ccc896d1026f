"""Who has answered a placed call: a machine gets the message, or is hung up on; humans are let be.

The verdict may come before the stream, while it begins, or after; to this worker or another.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from control_house import (
    PUBLIC,
    FakeTwilio,
    OneAgent,
    control_house,
    decoded,
    sid,
    twilio_error,
)
from test_control import begin_recording
from test_outbound import ordered
from trio.testing import MockClock

from voicecore.phone.twiml import Connect, Hangup
from voicecore.server.control.outbound import Order, parting_words
from voicecore.testing import ScriptedCaller, fake_agent

TEN = "one two three four five six seven eight nine ten."
MESSAGE = "Please call us back today."


def greeting_agent() -> Any:
    return fake_agent(greeting=TEN)


async def test_a_machine_is_left_the_message_after_its_beep(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(greeting_agent(), twilio) as house:
        url = await ordered(house, twilio, machine_detection="message", message=MESSAGE)
        form = twilio.created[0]
        assert (form["MachineDetection"], form["AsyncAmd"]) == (["DetectMessageEnd"], ["true"])
        amd = form["AsyncAmdStatusCallback"][0]

        async def beep() -> None:
            await house.until(lambda: bool(house.calls.lines()))
            await trio.sleep(1.5)
            answer = await house.webhook(amd, CallSid=sid(1), AnsweredBy="machine_end_beep")
            assert answer.status == 204

        async with trio.open_nursery() as nursery:
            nursery.start_soon(beep)
            transcript = await house.answer(ScriptedCaller().pauses(30), url)
        assert transcript.heard[-5:] == MESSAGE.split()
        assert transcript.heard[0] == "one"
        assert "ten." not in transcript.heard
        assert transcript.close_code == 1000
        detail = decoded(await house.get(f"/calls/{sid(1)}"))
        assert (detail["state"], detail["ended_by"]) == ("ended", "agent")
        assert detail["turns"][-1]["agent"] == MESSAGE
        [hang_up] = await house.document(f"{PUBLIC}/voice-stream/ended", CallSid=sid(1))
        assert isinstance(hang_up, Hangup)


@pytest.mark.parametrize("mode", ["message", "hang_up"])
@pytest.mark.parametrize("verdict", ["human", "unknown", ""])
async def test_humans_are_left_alone(mode: str, verdict: str, autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(greeting_agent(), twilio) as house:
        message = {"message": MESSAGE} if mode == "message" else {}
        url = await ordered(house, twilio, machine_detection=mode, **message)
        amd = twilio.created[0]["AsyncAmdStatusCallback"][0]
        assert (await house.webhook(amd, CallSid=sid(1), AnsweredBy=verdict)).status == 204
        transcript = await house.answer(ScriptedCaller().listens().hangs_up(), url)
        assert " ".join(transcript.heard) == TEN


async def test_a_verdict_that_comes_first_is_not_lost(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(greeting_agent(), twilio) as house:
        url = await ordered(house, twilio, machine_detection="message", message=MESSAGE)
        amd = twilio.created[0]["AsyncAmdStatusCallback"][0]
        await house.webhook(amd, CallSid=sid(1), AnsweredBy="machine_end_silence")
        await house.webhook(amd, CallSid=sid(1), AnsweredBy="machine_end_silence")
        transcript = await house.answer(ScriptedCaller().pauses(30), url)
        assert transcript.heard[-5:] == MESSAGE.split()
        assert transcript.close_code == 1000


async def test_a_verdict_meets_an_agent_that_is_late(autojump_clock: MockClock) -> None:
    """The stream has begun, and nobody talks yet: the message waits for who says it."""

    twilio = FakeTwilio()
    async with control_house(OneAgent(greeting_agent(), seconds=4), twilio) as house:
        url = await ordered(house, twilio, machine_detection="message", message=MESSAGE)
        amd = twilio.created[0]["AsyncAmdStatusCallback"][0]
        await house.webhook(amd, CallSid=sid(1), AnsweredBy="machine_end_beep")
        transcript = await house.answer(ScriptedCaller().pauses(30), url)
        assert transcript.heard[-5:] == MESSAGE.split()


@pytest.mark.parametrize("verdict", ["machine_end_beep", "machine_start", "fax"])
async def test_a_machine_is_hung_up_on(verdict: str, autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(greeting_agent(), twilio) as house:
        url = await ordered(house, twilio, machine_detection="hang_up")
        amd = twilio.created[0]["AsyncAmdStatusCallback"][0]

        async def detect() -> None:
            await house.until(lambda: bool(house.calls.lines()))
            await house.webhook(amd, CallSid=sid(1), AnsweredBy=verdict)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(detect)
            transcript = await house.answer(ScriptedCaller().pauses(30), url)
        assert transcript.seconds < 1
        [hang_up] = await house.document(f"{PUBLIC}/voice-stream/ended", CallSid=sid(1))
        assert isinstance(hang_up, Hangup)


async def test_a_machine_that_the_webhook_tells_of(autojump_clock: MockClock) -> None:
    """Whoever had Twilio wait for the verdict (no AsyncAmd) has it in the first webhook."""
    twilio = FakeTwilio()
    async with control_house(greeting_agent(), twilio) as house:
        url = await ordered(house, twilio, machine_detection="message", message=MESSAGE)
        transcript = await house.answer(
            ScriptedCaller().pauses(30), url, AnsweredBy="machine_end_other"
        )
        assert transcript.heard[-5:] == MESSAGE.split()
        for url in (await ordered(house, twilio, machine_detection="hang_up"),
                    f"{PUBLIC}/voice-stream"):  # fmt: skip
            document = await house.document(url, CallSid=sid(2), AnsweredBy="machine_start")
            assert document == (Hangup(),)
            [connect] = await house.document(url, CallSid=sid(3), AnsweredBy="human")
            assert isinstance(connect, Connect)


async def test_a_machine_is_hung_up_on_also_where_no_stream_has_room(
    autojump_clock: MockClock,
) -> None:
    async with control_house(greeting_agent(), max_calls=1) as house:
        house.ledger.call_began()
        form = {"CallSid": sid(2), "AnsweredBy": "machine_start"}
        assert await house.document(f"{PUBLIC}/voice-stream", **form) == (Hangup(),)
        house.ledger.call_over()


@pytest.mark.parametrize(
    ("mode", "verbs"),
    [
        ("message", f'<Say language="en-US">{MESSAGE}</Say><Hangup /></Response>'),
        ("hang_up", "<Response><Hangup /></Response>"),
    ],
)
async def test_a_verdict_reaches_a_call_without_a_stream_through_rest(
    mode: str, verbs: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    twilio = FakeTwilio()
    async with control_house(greeting_agent(), twilio) as house:
        message = {"message": MESSAGE} if mode == "message" else {}
        await ordered(house, twilio, machine_detection=mode, **message)
        amd = twilio.created[0]["AsyncAmdStatusCallback"][0]
        begin_recording(house, sid(1))
        verdict = {"CallSid": sid(1), "AnsweredBy": "machine_end_beep"}
        assert (await house.webhook(amd, **verdict)).status == 204
        [(called, form)] = twilio.updates
        assert (called, list(form)) == (sid(1), ["Twiml"])
        assert form["Twiml"][0].endswith(verbs)
        twilio.plans = [twilio_error(401, 20003, "Authenticate")]
        assert (await house.webhook(amd, **verdict)).status == 204
        assert "REST failed" in caplog.text


async def test_a_verdict_must_be_signed_and_about_an_order(autojump_clock: MockClock) -> None:
    async with control_house() as house:
        assert (await house.raw("/status/amd?order=x", b"")).status == 403
        for query in ("", "?order=x", "?order=x&order=y", "?" + "a=b&" * 1500):
            url = f"{PUBLIC}/status/amd{query}"
            assert (await house.webhook(url, CallSid=sid(1), AnsweredBy="fax")).status == 204


@pytest.mark.parametrize(
    ("mode", "answered_by", "parting"),
    [
        ("off", "machine_end_beep", None),
        ("off", "fax", None),
        ("message", "fax", ""),
        ("message", "machine_start", MESSAGE),
        ("hang_up", "machine_end_other", ""),
        ("message", "something new", None),
    ],
)
def test_what_a_verdict_means(mode: str, answered_by: str, parting: str | None) -> None:
    assert parting_words(Order({}, mode, MESSAGE), answered_by) == parting
