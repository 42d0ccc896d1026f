"""GET /calls and what an operator does to a call: all of it once, and asked twice without harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import trio
from control_house import (
    CALLED,
    HUMAN,
    PUBLIC,
    ControlHouse,
    FakeTwilio,
    control_house,
    decoded,
    sid,
    twilio_error,
)
from trio.testing import MockClock

from voicecore.call.transfer import Transfer
from voicecore.server.control.call_report import TEXT_CHARS, TURNS_KEPT, CallStatistics
from voicecore.server.control.live_calls import (
    ENDED_KEPT,
    ENDED_S,
    ENDED_TURNS,
    SILENT_S,
    LiveCalls,
)
from voicecore.server.routes import NAMED_ROUTES
from voicecore.testing import FakeLLM, FakeTTS, ScriptedCaller, Transcript, fake_agent

ROOT = Path(__file__).parents[2]
TEN = "one two three four five six seven eight nine ten."


class Talk:
    """A call that is up while a test does things to it."""

    def __init__(self, house: ControlHouse) -> None:
        self.house = house
        self.transcript = Transcript()
        self.over = trio.Event()

    async def ended(self) -> Transcript:
        with trio.fail_after(120):
            await self.over.wait()
        return self.transcript


@asynccontextmanager
async def talking(
    caller: ScriptedCaller,
    agent: Any = None,
    twilio: FakeTwilio | None = None,
    call_sid: str = sid(1),
    **given: object,
) -> AsyncIterator[tuple[ControlHouse, Talk]]:
    async with control_house(agent or fake_agent(greeting="Good day."), twilio, **given) as house:
        talk = Talk(house)

        async def run() -> None:
            talk.transcript = await house.answer(caller, CallSid=call_sid)
            await house.streams.wait_empty()
            talk.over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await house.until(lambda: bool(house.calls.lines()))
            yield house, talk
            nursery.cancel_scope.cancel()


async def test_a_call_is_seen_while_it_is_up_and_for_some_minutes_after(
    autojump_clock: MockClock,
) -> None:
    caller = (
        ScriptedCaller().listens().says("one").pauses(0.16).says("two").pauses(2)
        .says("wait please").listens().hangs_up()
    )  # fmt: skip
    agent = fake_agent(llm=FakeLLM(answer=lambda m: TEN), tts=FakeTTS(0.5), greeting="Hi.")
    async with talking(caller, agent) as (house, talk):
        began = trio.current_time()
        await trio.sleep(2)
        [line] = decoded(await house.get("/calls"))["calls"]
        assert line["seconds"] == pytest.approx(2, abs=0.1)
        assert datetime.fromisoformat(line.pop("began")).timestamp() == pytest.approx(began, abs=1)
        line.pop("seconds")
        assert line == {
            "sid": sid(1), "state": "live", "flow": "stream", "from": "+15550001111",
            "to": CALLED, "ended_by": "", "worker": 0, "turns": 0,
        }  # fmt: skip
        await talk.ended()
        assert decoded(await house.get("/calls"))["calls"] == []
        detail = decoded(await house.get(f"/calls/{sid(1)}"))
        assert (detail["state"], detail["ended_by"]) == ("ended", "caller")
        greeting, first, second = detail["turns"]
        assert greeting == {"turn": "t1", "at": pytest.approx(1, abs=1), "agent": "Hi."}
        assert (first["caller"], first["interrupted"]) == ("one two", True)
        assert TEN.startswith(first["agent"])
        assert 100 <= first["reaction_ms"] <= 300
        assert (second["caller"], second["agent"]) == ("wait please", TEN)
        assert second["gap"] == pytest.approx(0.6, abs=0.03)
        assert second["stages"]["tts"] == pytest.approx(0.5, abs=0.01)
        numbers = detail["numbers"]
        assert (numbers["answered"], numbers["interruptions"]) == (1, 1)
        assert (numbers["gap_mean"], numbers["gap_max"]) == (second["gap"], second["gap"])
        assert (numbers["speculations_kept"], numbers["speculations_lost"]) == (1, 1)
        assert set(numbers["playback"]) == {
            "dropped_frames", "inbound_gaps", "underruns", "starved", "late_ms", "mark_ms"
        }  # fmt: skip
        await trio.sleep(ENDED_S)
        assert (await house.get(f"/calls/{sid(1)}")).status == 404


async def test_hanging_up_ends_the_call_and_asked_again_says_so(autojump_clock: MockClock) -> None:
    async with talking(ScriptedCaller().pauses(60)) as (house, talk):
        for _ in range(2):
            answer = await house.post(f"/calls/{sid(1)}/hangup")
            assert (answer.status, decoded(answer)) == (200, {"status": "ended"})
        transcript = await talk.ended()
        assert (transcript.seconds < 1, transcript.close_code) == (True, 1000)
        answer = await house.post(f"/calls/{sid(1)}/hangup", {})
        assert (answer.status, decoded(answer)) == (200, {"status": "ended"})
        assert decoded(await house.get(f"/calls/{sid(1)}"))["ended_by"] == "admin"
        assert (await house.post(f"/calls/{sid(9)}/hangup")).status == 404
        assert (await house.post(f"/calls/{sid(1)}/hangup", {"now": True})).status == 400


async def test_a_sentence_is_said_in_the_next_pause_and_under_a_key_once(
    autojump_clock: MockClock,
) -> None:
    async with talking(ScriptedCaller().pauses(9).hangs_up()) as (house, talk):
        path = f"/calls/{sid(1)}/say"
        for _ in range(3):
            answer = await house.post(path, {"text": " Stay calm. "}, "Idempotency-Key: s1")
            assert (answer.status, decoded(answer)) == (200, {"status": "accepted"})
        answer = await house.post(path, {"text": "Run."}, "Idempotency-Key: s1")
        assert answer.status == 422
        assert (await house.post(path, {"text": "All is well."})).status == 200
        for bad in ({"text": ""}, {"text": "x\0"}, {"text": "x" * 1001}, {"text": 1}, {}, None):
            assert (await house.post(path, bad)).status == 400
        transcript = await talk.ended()
        assert " ".join(transcript.heard) == "Good day. Stay calm. All is well."
        answer = await house.post(path, {"text": "Too late."})
        assert (answer.status, decoded(answer)["status"]) == (409, "ended")
        assert (await house.post(f"/calls/{sid(2)}/say", {"text": "x"})).status == 404


async def test_a_sentence_of_which_nothing_was_heard_is_said_later(
    autojump_clock: MockClock,
) -> None:
    """Whenever the caller begins to speak: it is heard, and it is heard once."""
    for step in range(8):
        caller = (
            ScriptedCaller().pauses(2.8 + 0.05 * step).says("one two three").pauses(9).hangs_up()
        )
        async with talking(caller, fake_agent(greeting="")) as (house, talk):
            await trio.sleep(3)
            answer = await house.post(f"/calls/{sid(1)}/say", {"text": "Taxi."})
            assert answer.status == 200
            transcript = await talk.ended()
            assert transcript.heard.count("Taxi.") == 1


async def test_too_much_to_say_is_refused(autojump_clock: MockClock) -> None:
    async with talking(ScriptedCaller().pauses(3).hangs_up()) as (house, _):
        path = f"/calls/{sid(1)}/say"
        got = [(await house.post(path, {"text": "More."})).status for _ in range(12)]
        assert set(got[-3:]) == {503}
        assert got[0] == 200


async def test_a_cold_transfer_ends_the_stream_and_is_one(autojump_clock: MockClock) -> None:
    async with talking(ScriptedCaller().pauses(60), transfers="sales=+390612345678") as (
        house,
        talk,
    ):
        path = f"/calls/{sid(1)}/transfer"
        call = house.calls.find(sid(1)).call
        for _ in range(2):
            answer = await house.post(path, {"name": "sales"})
            assert (answer.status, decoded(answer)) == (200, {"status": "transferring"})
        await talk.ended()
        assert (call.ended_by, call.transfer) == ("transfer", Transfer("+390612345678"))
        again = await house.post(path, {"to": "+390612345678"})
        assert (again.status, decoded(again)) == (200, {"status": "transferring"})
        other = await house.post(path, {"to": HUMAN})
        assert (other.status, decoded(other)["status"]) == (409, "ended")
        detail = decoded(await house.get(f"/calls/{sid(1)}"))
        assert (detail["ended_by"], detail["transfer"]) == ("transfer", "given to +390612345678")


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({}, 400),
        ({"to": HUMAN, "name": "sales"}, 400),
        ({"name": "nobody"}, 400),
        ({"to": "5550001"}, 400),
        ({"to": "+390612345679"}, 403),
        ({"to": HUMAN, "briefing": "x"}, 400),
        ({"to": HUMAN, "mode": "hot"}, 400),
        ({"to": HUMAN, "mode": "warm", "briefing": "x\0"}, 400),
        ({"to": HUMAN, "mode": "warm", "briefing": "x" * 601}, 400),
        ({"to": HUMAN, "whom": "x"}, 400),
    ],
)
async def test_a_transfer_goes_only_where_it_may(
    order: dict[str, Any], status: int, autojump_clock: MockClock
) -> None:
    given = {"transfers": "sales=+390612345678"}
    async with talking(ScriptedCaller().pauses(2).hangs_up(), **given) as (house, talk):
        answer = await house.post(f"/calls/{sid(1)}/transfer", order)
        assert answer.status == status
        assert decoded(answer)["error"]
        assert (await talk.ended()).seconds > 1.5  # unharmed


async def test_a_call_that_still_rings_is_hung_up_through_rest(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(twilio=twilio) as house:
        assert (await house.post("/calls", {"to": CALLED})).status == 201
        answer = await house.post(f"/calls/{sid(1)}/transfer", {"to": HUMAN})
        assert (answer.status, decoded(answer)["error"]) == (
            409, "the call has not been answered yet"
        )  # fmt: skip
        for _ in range(2):
            answer = await house.post(f"/calls/{sid(1)}/hangup")
            assert decoded(answer) == {"status": "ended"}
            twilio.plans = [twilio_error(400, 21220, "Call is not in-progress")]
        assert twilio.updates == [(sid(1), {"Status": ["completed"]})] * 2
        twilio.plans = [twilio_error(500, 0, "")] * 3
        assert decoded(await house.get(f"/calls/{sid(1)}"))["state"] == "dialling"


def begin_recording(house: ControlHouse, call_sid: str) -> None:
    who = {"from": "+15550009999", "to": "+15550001111"}
    house.observe(call_sid, "recording flow started", 0.0, who)


async def test_a_call_of_recordings_is_controlled_through_rest(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(twilio=twilio) as house:
        begin_recording(house, sid(1))
        house.observe(sid(1), "user said", 1.0, {"text": "hello"})
        house.observe(sid(1), "agent said", 2.0, {"turn": "t1", "text": "Yes?"})
        house.observe(sid(1), "turn done", 2.0, {"turn": "t1", "gap": 2.5, "fetch": 0.3})
        [line] = decoded(await house.get("/calls"))["calls"]
        assert (line["flow"], line["from"], line["turns"]) == ("recording", "+15550009999", 1)
        [turn] = decoded(await house.get(f"/calls/{sid(1)}"))["turns"]
        assert (turn["caller"], turn["agent"], turn["stages"]) == ("hello", "Yes?", {"fetch": 0.3})
        path = f"/calls/{sid(1)}"
        assert (await house.post(f"{path}/say", {"text": "x"})).status == 409
        warm = await house.post(f"{path}/transfer", {"to": HUMAN, "mode": "warm"})
        assert warm.status == 409
        for _ in range(2):
            answer = await house.post(f"{path}/transfer", {"to": HUMAN})
            assert (answer.status, decoded(answer)) == (200, {"status": "transferring"})
        [(called, form)] = twilio.updates
        assert (called, list(form)) == (sid(1), ["Twiml"])
        dialled = ElementTree.fromstring(form["Twiml"][0]).find("Dial")
        assert dialled is not None
        assert dialled.findtext("Number") == HUMAN
        assert dialled.get("action") == f"{PUBLIC}/voice-stream/dialled"  # nobody may answer
        begin_recording(house, sid(2))
        twilio.plans = [twilio_error(429, 20429, "", **{"retry-after": "60"})]
        assert (await house.post(f"/calls/{sid(2)}/hangup")).status == 503
        twilio.plans = [twilio_error(401, 20003, "Authenticate")]
        answer = await house.post(f"/calls/{sid(2)}/hangup")
        assert (answer.status, decoded(answer)["code"]) == (502, 20003)
        twilio.plans = [twilio_error(404, 20404, "gone")]
        answer = await house.post(f"/calls/{sid(2)}/transfer", {"to": HUMAN})
        assert (answer.status, decoded(answer)["status"]) == (409, "ended")
        assert (await house.post(f"/calls/{sid(2)}/hangup")).status == 200


async def test_without_credentials_a_call_of_recordings_cannot_be_controlled(
    autojump_clock: MockClock,
) -> None:
    async with control_house(twilio_account_sid=None) as house:
        begin_recording(house, "v3:T02/é")
        answer = await house.post("/calls/v3%3AT02%2F%C3%A9/hangup")
        assert answer.status == 409
        assert "TWILIO_ACCOUNT_SID" in decoded(answer)["error"]
        answer = await house.post(
            "/calls/v3%3AT02%2F%C3%A9/transfer", {"to": HUMAN, "mode": "warm"}
        )
        assert decoded(answer)["error"] == "a warm transfer needs TWILIO_ACCOUNT_SID"


def test_calls_are_forgotten_in_time_and_number() -> None:
    now = [1000.0]
    calls = LiveCalls(lambda: now[0])
    for number in range(ENDED_KEPT + 10):
        calls.observe(sid(number), "stream started", 0.0, {})
        calls.observe(sid(number), "call ended", 1.0, {"reason": "caller"})
    assert calls.find(sid(9)) is None
    assert calls.find(sid(10)) is not None
    calls.observe(sid(1), "recording flow started", 0.0, {})
    assert [line.sid for line in calls.lines()] == [sid(1)]
    now[0] += ENDED_S
    assert calls.find(sid(ENDED_KEPT)) is None
    now[0] += SILENT_S
    assert calls.lines() == []
    calls.observe(sid(2), "speech started", 0.0, {})
    assert calls.find(sid(2)) is None


def test_ended_calls_have_so_many_turns_together() -> None:
    calls = LiveCalls(lambda: 1000.0)
    for number in range(ENDED_TURNS // TURNS_KEPT + 5):
        calls.observe(sid(number), "stream started", 0.0, {})
        for turn in range(TURNS_KEPT):
            said = {"turn": f"t{turn}", "text": "x" * 9999}
            calls.observe(sid(number), "agent said", 1.0, said)
        calls.observe(sid(number), "call ended", 2.0, {"reason": "caller"})
    assert calls.find(sid(4)) is None
    known = calls.find(sid(5))
    assert known is not None
    assert len(known.statistics.turns[0].agent) == TEXT_CHARS


def test_a_call_that_falls_back_to_recordings_is_one() -> None:
    calls = LiveCalls(lambda: 1000.0)
    calls.observe(sid(1), "stream started", 0.0, {})
    calls.observe(sid(1), "user said", 1.0, {"text": "hello", "turn": "t1"})
    calls.observe(sid(1), "call ended", 2.0, {"reason": "carrier"})
    assert calls.lines() == []
    calls.observe(sid(1), "recording flow started", 0.0, {"from": "+1", "to": "+2"})
    [line] = calls.lines()
    assert (line.flow, line.state, line.ended_by) == ("recording", "live", "")
    known = calls.find(sid(1))
    assert known is not None
    assert calls.detail(known).turns[0].caller == "hello"


async def test_a_stream_is_not_over_because_the_one_before_it_is(
    autojump_clock: MockClock,
) -> None:
    """TwiML may connect a call again before we notice that its first stream is dead."""
    async with control_house() as house, trio.open_nursery() as nursery:
        first, second = ScriptedCaller().pauses(5).hangs_up(), ScriptedCaller().pauses(20)
        nursery.start_soon(partial(house.answer, first, CallSid=sid(1)))
        await trio.sleep(2)
        nursery.start_soon(partial(house.answer, second, CallSid=sid(1)))
        await trio.sleep(8)
        [line] = decoded(await house.get("/calls"))["calls"]
        assert (line["sid"], line["state"], line["ended_by"]) == (sid(1), "live", "")
        answer = await house.post(f"/calls/{sid(1)}/hangup")
        assert (answer.status, decoded(answer)) == (200, {"status": "ended"})
        await house.streams.wait_empty()
        assert decoded(await house.get("/calls"))["calls"] == []
        assert decoded(await house.get(f"/calls/{sid(1)}"))["ended_by"] == "admin"
        nursery.cancel_scope.cancel()


def test_turns_are_put_together_whatever_comes_and_bounded() -> None:
    statistics = CallStatistics()
    statistics.observe("user said", 1, {"text": "unanswered"})
    statistics.observe("user said", 2, {"text": "hello"})
    assert [turn.caller for turn in statistics.turns] == ["unanswered", "hello"]
    statistics.observe("agent said", 3, {"turn": "t1", "text": "Yes", "interrupted": True})
    statistics.observe("agent said", 4, {"turn": "t1", "text": "Yes, please."})
    statistics.observe("user said", 5, {"text": "late words", "turn": "t2"})
    statistics.observe("provider failed", 6, {"turn": "t2", "provider": "llm", "fault": "busy"})
    statistics.observe("something new", 7, {"turn": object()})
    unanswered, first, second = statistics.turns
    assert (unanswered.turn, first.caller, first.agent) == ("", "hello", "Yes, please.")
    assert (first.interrupted, second.caller, second.failed) == (False, "late words", "llm: busy")
    for number in range(2 * TURNS_KEPT):
        statistics.observe("turn done", 8, {"turn": f"x{number}", "gap": 0.5, "prompt_tokens": 2})
    assert len(statistics.turns) == TURNS_KEPT
    assert statistics.numbers.answered == 2 * TURNS_KEPT
    assert statistics.numbers.tokens == {"prompt_tokens": 4 * TURNS_KEPT}


async def test_unsigned_webhooks_of_a_transfer_are_refused(autojump_clock: MockClock) -> None:
    async with control_house() as house:
        for path in ("/transfer/x", "/transfer/x/answer", "/transfer/x/status"):
            assert (await house.raw(path, b"")).status == 403
            answer = await house.webhook(f"{PUBLIC}{path}", CallStatus="completed")
            assert answer.status == (204 if path.endswith("status") else 200)
        assert (await house.get("/transfer/x/briefing.wav")).status == 404


def test_every_route_is_on_the_page() -> None:
    pages = [(ROOT / "docs" / name).read_text() for name in ("control.md", "operating.md")]
    for pattern in NAMED_ROUTES:
        names = {"transfer": "ID", "calls": "SID", "voice": "<id>"}
        written = pattern.replace("{}", names[pattern.split("/")[1]])
        assert any(written in page for page in pages)
    for path in ("/calls", "/status/amd", "/transfer/ID"):
        assert all(path in page for page in pages)
