"""POST /calls: who may be called, once a key, and what comes of it until the call is over."""

from __future__ import annotations

import errno
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
import trio
from control_house import (
    BEARER,
    CALLED,
    HUMAN,
    OUTBOUND,
    PUBLIC,
    ControlHouse,
    FakeTwilio,
    control_house,
    decoded,
    sid,
    twilio_error,
)
from server_house import AUTH_TOKEN, ask, memory_server, settings
from trio.testing import MockClock

from voicecore.phone.twiml import Connect
from voicecore.server.control.numbers import described, missing_for_outbound
from voicecore.server.control.outbound import MESSAGE_CHARS, VALUE_CHARS
from voicecore.server.store import MemoryStore
from voicecore.testing import ScriptedCaller

TEN = "one two three four five six seven eight nine ten."
MESSAGE = "Please call us back today."


async def test_a_call_is_placed(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with control_house(twilio=twilio) as house:
        answer = await house.post("/calls", {"to": CALLED, "parameters": {"name": "Ann"}})
        assert answer.status == 201
        assert decoded(answer) == {"call_sid": sid(1), "status": "queued", "to": CALLED}
        assert answer.headers["location"] == f"/calls/{sid(1)}"
        detail = decoded(await house.get(f"/calls/{sid(1)}"))
    assert (detail["sid"], detail["state"], detail["to"]) == (sid(1), "queued", CALLED)
    [form] = twilio.created
    url = form.pop("Url")[0]
    assert form == {
        "To": [CALLED],
        "From": ["+15550001111"],
        "StatusCallback": [f"{PUBLIC}/status/call"],
        "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
    }
    assert urlsplit(url).path == "/voice-stream"
    assert len(parse_qs(urlsplit(url).query)["order"][0]) >= 22


@pytest.mark.parametrize(
    ("value", "status", "names"),
    [
        ({}, 400, "`to`"),
        ([], 400, "object"),
        (None, 400, "truncated"),
        ({"to": 15550002222}, 400, "$.to"),
        ({"to": CALLED, "form": "+1"}, 400, "`form`"),
        ({"to": CALLED, "parameters": {"a": 1}}, 400, "$.parameters"),
        ({"to": CALLED, "parameters": {"a": {"b": "c"}}}, 400, "$.parameters"),
        ({"to": CALLED, "machine_detection": "on"}, 400, "$.machine_detection"),
        ({"to": CALLED, "machine_detection": "message"}, 400, "message"),
        ({"to": CALLED, "machine_detection": "hang_up", "message": "x"}, 400, "message"),
        ({"to": CALLED, "machine_detection": "message", "message": "x\0"}, 400, "message"),
        ({"to": CALLED, "machine_detection": "message", "message": "x" * (MESSAGE_CHARS + 1)},
         400, "message"),
        ({"to": CALLED, "agent": "x\n"}, 400, "agent"),
        ({"to": CALLED, "parameters": {"token": "x"}}, 400, "token"),
        ({"to": CALLED, "parameters": {"From": "x"}}, 400, "From"),
        ({"to": CALLED, "parameters": {"agent": "x"}}, 400, "agent"),
        ({"to": CALLED, "parameters": {"": "x"}}, 400, "name"),
        ({"to": CALLED, "parameters": {"a b": "x"}}, 400, "name"),
        ({"to": CALLED, "parameters": {"a": "\0"}}, 400, "parameters.a"),
        ({"to": CALLED, "parameters": {"a": "x" * (VALUE_CHARS + 1)}}, 400, "parameters.a"),
        ({"to": CALLED, "parameters": {f"p{n}": "" for n in range(33)}}, 400, "parameters"),
        ({"to": "15550002222"}, 400, "E.164"),
        ({"to": "+1555000222x"}, 400, "E.164"),
        ({"to": "+0555000222"}, 400, "E.164"),
        ({"to": "+1555000222२"}, 400, "E.164"),
        ({"to": CALLED + "\n"}, 400, "E.164"),
        ({"to": f"{CALLED}\0"}, 400, "E.164"),
        ({"to": "sip:a@b.c"}, 400, "E.164"),
        ({"to": "client:ann"}, 400, "E.164"),
        ({"to": "+1900555000222"}, 403, "VOICECORE_OUTBOUND_PREFIXES"),
        ({"to": "+4955500022"}, 403, "VOICECORE_OUTBOUND_PREFIXES"),
    ],
)  # fmt: skip
async def test_what_is_no_order_is_told_why(
    value: Any, status: int, names: str, autojump_clock: MockClock
) -> None:
    twilio = FakeTwilio()
    async with control_house(twilio=twilio) as house:
        answer = await house.post("/calls", value)
        assert answer.status == status
        assert names in decoded(answer)["error"]
        assert not twilio.asked


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"to": "+15550002222"}', "text/plain", 415),
        (b"to=%2B15550002222", "application/x-www-form-urlencoded", 415),
        (b'{"to": "+15550002222"}', "", 415),
        (b"[" * 60000, "application/json", 400),
        (b'{"parameters":' + b'{"a":' * 9000, "application/json", 400),
        (b'{"to": "\xff"}', "application/json", 400),
        (b'{"to": "\\ud800"}', "application/json", 400),
        (b'{"to": "+15550002222", "' + b"x" * 60000 + b'": 1}', "application/json", 400),
        (b" " * 65537, "application/json", 413),
        (b"\0", "application/json; charset=utf-8", 400),
        (b'{"to": 1e999999}', "application/json", 400),
    ],
)
async def test_hostile_bodies_are_refused_whole(
    body: bytes, kind: str, status: int, autojump_clock: MockClock
) -> None:
    async with control_house() as house:
        headers = [BEARER, *([f"Content-Type: {kind}"] if kind else [])]
        answer = await house.raw("/calls", body, *headers)
        assert answer.status == status
        assert len(answer.body) < 500
        assert (await house.post("/calls", {"to": CALLED})).status == 201


@pytest.mark.parametrize("without", ["outbound_from", "outbound_prefixes", "twilio_account_sid",
                                     "public_url"])  # fmt: skip
async def test_it_is_off_until_everything_is_there(without: str, autojump_clock: MockClock) -> None:
    async with control_house(**{without: "" if without == "outbound_prefixes" else None}) as house:
        answer = await house.post("/calls", {"to": CALLED})
        assert answer.status == 403
        prefix = "" if without.startswith("twilio") else "VOICECORE_"
        assert decoded(answer)["error"] == f"outbound calls are off: set {prefix}{without.upper()}"


def test_the_check_says_whether_it_is_on() -> None:
    bare, full = settings(), settings(**OUTBOUND)
    assert missing_for_outbound(bare) == [
        "VOICECORE_OUTBOUND_FROM", "VOICECORE_OUTBOUND_PREFIXES", "TWILIO_ACCOUNT_SID",
        "TWILIO_AUTH_TOKEN", "VOICECORE_PUBLIC_URL",
    ]  # fmt: skip
    assert next(described(bare)).startswith("outbound calls: off, for want of VOICECORE_OUTBOUND")
    on, control = described(full)
    assert on == "outbound calls: from +15550001111 to +1555, +4930…, at most 60 an hour"
    assert control == "control of calls: whoever has VOICECORE_ADMIN_TOKEN"
    assert "this machine only" in list(described(bare))[1]


UNSURE = "Twilio's answer says nothing: the call may have been placed"


@pytest.mark.parametrize(
    ("plan", "status", "said"),
    [
        (twilio_error(400, 21211, "Invalid 'To'"), 400, {"code": 21211, "message": "Invalid 'To'"}),
        (twilio_error(400, 21215, "Geo"), 403, {"code": 21215}),
        (twilio_error(400, 21219, "Trial"), 403, {"code": 21219}),
        (twilio_error(400, 21212, "Invalid 'From'"), 502, {"code": 21212}),
        (twilio_error(401, 20003, "Authenticate"), 502, {"code": 20003}),
        (twilio_error(404, 20404, "Account"), 502, {"code": 20404}),
        (twilio_error(500, 20500, "Oops"), 502, {"code": 20500, "error": UNSURE}),
        (httpx.Response(201, content=b"garbage"), 502, {"code": 0, "error": UNSURE}),
        (httpx.Response(201, json={"sid": ""}), 502, {"code": 0, "error": UNSURE}),
        (httpx.ReadError(""), 504, {"code": 0}),
        (3600.0, 504, {"code": 0}),
        (httpx.Response(429, json={"code": 20429}, headers={"retry-after": "3600"}), 503,
         {"code": 20429}),
    ],
)  # fmt: skip
async def test_what_twilio_says_is_passed_on(
    plan: Any, status: int, said: dict[str, object], autojump_clock: MockClock
) -> None:
    async with control_house(twilio=FakeTwilio([plan])) as house:
        answer = await house.post("/calls", {"to": CALLED})
        assert answer.status == status
        value = decoded(answer)
        assert said.items() <= value.items()
        assert AUTH_TOKEN not in str(value)
        assert answer.headers.get("retry-after") == ("3600" if status == 503 else None)
        [(_, _, fields)] = [each for each in house.milestones if each[1] == "call placed"]
        assert fields["outcome"] != "placed"


async def test_calls_of_an_hour_are_counted_exactly(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio([twilio_error(400, 21211, "Invalid")])
    async with control_house(twilio=twilio, outbound_per_hour=2) as house:
        assert (await house.post("/calls", {"to": CALLED})).status == 400  # tried: that counts
        await trio.sleep(60)
        assert (await house.post("/calls", {"to": CALLED})).status == 201
        answer = await house.post("/calls", {"to": CALLED})
        assert (answer.status, answer.headers["retry-after"]) == (429, "3540")
        await trio.sleep(3539.5)
        assert (await house.post("/calls", {"to": CALLED})).status == 429
        await trio.sleep(0.5)
        assert (await house.post("/calls", {"to": CALLED})).status == 201
        assert (await house.post("/calls", {"to": CALLED})).status == 429
        assert len(twilio.created) == 3


async def test_a_server_that_goes_down_or_is_full_places_none(autojump_clock: MockClock) -> None:
    async with control_house(max_calls=1) as house:
        house.ledger.call_began()
        answer = await house.post("/calls", {"to": CALLED})
        assert (answer.status, decoded(answer)["error"]) == (503, "full")
        house.ledger.call_over()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.answer, ScriptedCaller().pauses(5).hangs_up())
            await house.until(lambda: bool(house.calls.lines()))
            house.admission.drain()
            answer = await house.post("/calls", {"to": CALLED})
            assert (answer.status, decoded(answer)["error"]) == (503, "draining")


async def test_without_rest_it_is_not_ready() -> None:
    async with memory_server(**OUTBOUND) as house:
        body = msgspec.json.encode({"to": CALLED})
        data = (f"POST /calls HTTP/1.1\r\nHost: x\r\n{BEARER}\r\nContent-Type: application/json"
                f"\r\nContent-Length: {len(body)}\r\n\r\n").encode()  # fmt: skip
        assert (await ask(house.connect(), data + body)).status == 503


async def test_one_key_dials_once_however_many_ask(autojump_clock: MockClock) -> None:
    twilio, answers = FakeTwilio([5.0]), list[tuple[int, bytes]]()
    async with control_house(twilio=twilio) as house:

        async def order(key: str) -> None:
            answer = await house.post("/calls", {"to": CALLED}, f"Idempotency-Key: {key}")
            answers.append((answer.status, answer.body))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(order, "order-7")
        await trio.sleep(3600)
        await order("order-7")
        assert len(set(answers)) == 1
        assert answers[0][0] == 201
        assert len(twilio.created) == 1
        await order("order-8")
        assert len(twilio.created) == 2
        again = await house.post("/calls", {"to": CALLED}, "Idempotency-Key: order-7")
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["location"] == f"/calls/{sid(1)}"
        other = await house.post("/calls", {"to": HUMAN}, "Idempotency-Key: order-7")
        assert other.status == 422
        for bad in ("x" * 256, "a b", "é"):
            answer = await house.post("/calls", {"to": CALLED}, f"Idempotency-Key: {bad}")
            assert answer.status == 400


async def test_a_key_that_was_not_heard_may_be_used_again_and_others_are_told(
    autojump_clock: MockClock,
) -> None:
    busy = httpx.Response(429, json={"code": 20429}, headers={"retry-after": "60"})
    twilio = FakeTwilio([busy])
    async with control_house(twilio=twilio) as house:
        answer = await house.post("/calls", {"to": CALLED}, "Idempotency-Key: k")
        assert (answer.status, answer.headers["retry-after"]) == (503, "60")
        assert (await house.post("/calls", {"to": CALLED}, "Idempotency-Key: k")).status == 201
        # One in doubt is kept: nobody is called twice because we do not know.
        twilio.plans = [3600.0]
        assert (await house.post("/calls", {"to": CALLED}, "Idempotency-Key: d")).status == 504
        assert (await house.post("/calls", {"to": CALLED}, "Idempotency-Key: d")).status == 504
        assert len(twilio.created) == 3
        # One whose first request is gone without an answer: its worker has died.
        house.ledger.place_call("lost", trio.current_time(), 60)
        assert (await house.post("/calls", {"to": CALLED}, "Idempotency-Key: lost")).status == 409

        async def forget() -> None:
            await trio.sleep(1)
            house.ledger.forget_placed("late")

        house.ledger.place_call("late", trio.current_time(), 60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forget)
            late = await house.post("/calls", {"to": CALLED}, "Idempotency-Key: late")
            assert (late.status, late.headers["retry-after"]) == (503, "1")


class FullStore(MemoryStore):
    """A disk on which there is no room for some things."""

    full: tuple[str, ...] = ()

    async def put(self, kind: str, key: str, value: bytes, lifetime_s: float) -> None:
        if kind in self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        await super().put(kind, key, value, lifetime_s)


async def test_a_full_disk_loses_no_answer_and_dials_nobody_twice(
    autojump_clock: MockClock,
) -> None:
    twilio = FakeTwilio()
    async with control_house(twilio=twilio) as house:
        store = FullStore(trio.current_time)
        house.board.store = store
        store.full = ("order",)
        key = "Idempotency-Key: k"
        assert (await house.post("/calls", {"to": CALLED}, key)).status == 503
        assert not twilio.created
        store.full = ("dialled", "answer")
        assert (await house.post("/calls", {"to": CALLED}, key)).status == 201
        assert (await house.post("/calls", {"to": CALLED}, key)).status == 409
        assert len(twilio.created) == 1


async def ordered(house: ControlHouse, twilio: FakeTwilio, **order: object) -> str:
    """Place a call; return the URL of its webhook."""
    answer = await house.post("/calls", {"to": CALLED, **order})
    assert answer.status == 201
    return twilio.created[-1]["Url"][0]


async def test_an_order_meets_its_call_in_the_streams_parameters(
    autojump_clock: MockClock,
) -> None:
    twilio = FakeTwilio()
    async with control_house(twilio=twilio) as house:
        given = {"name": "Ann", "note": "a < b & c"}
        url = await ordered(house, twilio, agent="sales", parameters=given)
        who = {"CallSid": sid(1), "From": "+15550001111", "To": CALLED}
        for _ in range(2):  # a webhook may be repeated
            [connect] = await house.document(url, **who)
            assert isinstance(connect, Connect)
            parameters = dict(connect.parameters)
            assert next(iter(parameters)) == "token"
            parameters.pop("token")
            order = parameters.pop("order")
            assert url.endswith(order)
            assert parameters == {
                "From": "+15550001111", "To": CALLED, "language": "en-US", "agent": "sales", **given
            }  # fmt: skip
        [connect] = await house.document(f"{PUBLIC}/voice-stream?order=guessed", **who)
        assert set(connect.parameters) == {"token", "From", "To", "language"}
        await trio.sleep(1000)
        [connect] = await house.document(url, **who)
        assert "name" not in connect.parameters
        assert (await house.raw(url.removeprefix(PUBLIC), b"")).status == 403
