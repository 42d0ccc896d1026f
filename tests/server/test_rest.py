"""Twilio's REST API: what is asked, what is asked again and when, and what every answer becomes."""

from __future__ import annotations

import json
from base64 import b64encode

import httpx
import pytest
import trio
from control_house import ACCOUNT, FakeTwilio, Plan, fake_rest, resource, sid, twilio_error
from trio.testing import MockClock

from voicecore.errors import RestError
from voicecore.twilio.rest import BODY_BYTES, TOTAL_S, WAIT_S

ORDER = {"To": "+15550002222", "From": "+15550001111", "StatusCallbackEvent": ("a", "b")}
BUSY = {"code": 20429, "message": "Too Many Requests", "status": 429}


def busy(**headers: str) -> httpx.Response:
    return httpx.Response(429, json=BUSY, headers=headers)


async def failing(*plans: Plan, update: bool = False) -> tuple[FakeTwilio, RestError]:
    twilio = FakeTwilio([*plans])
    async with fake_rest(twilio) as rest:
        with pytest.raises(RestError) as caught:
            await (rest.hang_up(sid(1)) if update else rest.create_call(ORDER))
    return twilio, caught.value


async def test_a_call_is_created_as_the_page_says() -> None:
    twilio = FakeTwilio()
    async with fake_rest(twilio, "new, old") as rest:
        call = await rest.create_call(ORDER)
    assert (call.sid, call.status, call.is_over) == (sid(1), "queued", False)
    [(what, form)] = twilio.asked
    assert what == f"POST {ACCOUNT}/Calls.json"
    assert form == {"To": ["+15550002222"], "From": ["+15550001111"],
                    "StatusCallbackEvent": ["a", "b"]}  # fmt: skip
    [headers] = twilio.headers
    assert headers["authorization"] == f"Basic {b64encode(f'{ACCOUNT}:new'.encode()).decode()}"
    assert headers["content-type"] == "application/x-www-form-urlencoded"


async def test_a_name_from_outside_stays_one_segment() -> None:
    twilio = FakeTwilio()
    async with fake_rest(twilio) as rest:
        assert await rest.update_call("../../x?y#z", {"Status": "completed"})
    assert twilio.asked[0][0] == f"POST {ACCOUNT}/Calls/..%2F..%2Fx%3Fy%23z.json"


async def test_too_many_requests_are_repeated_with_backoff(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio([busy(), busy(), busy()])
    async with fake_rest(twilio) as rest:
        assert (await rest.create_call(ORDER)).sid == sid(4)
    waits = [b - a for a, b in zip(twilio.times, twilio.times[1:], strict=False)]
    for wait, most in zip(waits, (0.5, 1.0, 2.0), strict=True):
        assert most / 2 <= wait <= most


async def test_retry_after_is_honoured_if_it_is_short(autojump_clock: MockClock) -> None:
    date = {"date": "Fri, 27 Nov 2026 10:00:00 GMT", "retry-after": "Fri, 27 Nov 2026 10:00:04 GMT"}
    twilio = FakeTwilio([busy(**{"retry-after": "2"}), busy(**date)])
    async with fake_rest(twilio) as rest:
        await rest.create_call(ORDER)
    assert twilio.times == [0.0, 2.0, 6.0]
    for seconds in ("3600", "99999999999999999999"):
        twilio, error = await failing(busy(**{"retry-after": seconds}))
        assert len(twilio.asked) == 1
        assert (error.fault, error.code, error.was_ignored) == ("busy", 20429, True)
        assert error.retry_after_s is not None
        assert error.retry_after_s >= 3600


async def test_all_waiting_is_bounded(autojump_clock: MockClock) -> None:
    twilio, error = await failing(*[busy()] * 20)
    assert error.fault == "busy"
    assert 4 <= len(twilio.asked) <= 6
    assert trio.current_time() <= WAIT_S
    began = trio.current_time()
    twilio, _ = await failing(*[busy(**{"retry-after": "0"})] * 5, *[busy()] * 20)
    assert trio.current_time() - began <= WAIT_S


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_error_never_dials_twice_but_may_hang_up_twice(
    status: int, autojump_clock: MockClock
) -> None:
    twilio, error = await failing(httpx.Response(status, text="<html>"))
    assert (len(twilio.asked), error.status, error.fault) == (1, status, "status")
    assert not error.was_ignored
    twilio = FakeTwilio([httpx.Response(status)])
    async with fake_rest(twilio) as rest:
        assert await rest.hang_up(sid(1))
    assert len(twilio.asked) == 2
    twilio, error = await failing(*[httpx.Response(status)] * 3, update=True)
    assert (len(twilio.asked), error.status) == (2, status)


async def test_silence_has_an_end(autojump_clock: MockClock) -> None:
    twilio, error = await failing(3600.0)
    assert (len(twilio.asked), error.fault, error.was_ignored) == (1, "timeout", False)
    assert trio.current_time() == TOTAL_S


@pytest.mark.parametrize(
    ("plan", "fault", "tries"),
    [
        (httpx.ConnectError("secret"), "connect", 2),
        (httpx.ConnectTimeout("secret"), "connect", 2),
        (httpx.ReadError("secret"), "cut", 1),
        (httpx.RemoteProtocolError("secret"), "cut", 1),
    ],
)
async def test_what_cannot_have_been_heard_is_said_again(
    plan: Exception, fault: str, tries: int, autojump_clock: MockClock
) -> None:
    twilio, error = await failing(plan, plan, plan)
    assert (error.fault, len(twilio.asked)) == (fault, tries)
    assert error.was_ignored is (fault == "connect")
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "over",
    [
        twilio_error(404, 20404, "The requested resource was not found"),
        twilio_error(400, 21220, "Call is not in-progress. Cannot redirect."),
    ],
)
async def test_what_has_ended_already_is_no_error(over: httpx.Response) -> None:
    async with fake_rest(FakeTwilio([over])) as rest:
        assert await rest.hang_up(sid(1)) is False


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (twilio_error(400, 21211, "Invalid 'To' Phone Number: +1"), 21211,
         "Invalid 'To' Phone Number: +1"),
        (httpx.Response(400, json={"type": "https://…", "title": "Bad", "status": 400,
                                   "code": 21201, "detail": "No 'To'\r\n\x1b[1mnumber"}),
         21201, "No 'To' [1mnumber"),
        (httpx.Response(400, json={"code": "21212", "message": "x" * 5000}), 21212, "x" * 200),
        (httpx.Response(400, json={"code": True, "message": ["?"]}), 0, "HTTP 400"),
        (httpx.Response(400, json=["no", "object"]), 0, "HTTP 400"),
        (httpx.Response(400, content=b"\xff\xfe"), 0, "HTTP 400"),
        (httpx.Response(400, content=b"[" * 5000), 0, "HTTP 400"),
        (httpx.Response(302, headers={"location": "http://127.0.0.1/"}), 0, "HTTP 302"),
        (httpx.Response(401, json={"code": 20003, "message": "Authenticate"}), 20003,
         "Authenticate"),
    ],
)  # fmt: skip
async def test_an_error_is_one_line(answer: httpx.Response, code: int, message: str) -> None:
    twilio, error = await failing(answer)
    assert (error.code, error.message, len(twilio.asked)) == (code, message, 1)
    assert error.fault == ("refused" if error.status == 401 else "status")


@pytest.mark.parametrize(
    "body", [b"", b"OK", b"{}", b'{"sid": 7}', b"[" * 9999, json.dumps([1]).encode(), b"\xff"]
)
async def test_garbage_is_no_call(body: bytes) -> None:
    _, error = await failing(httpx.Response(201, content=body))
    assert error.fault == "garbage"
    assert not error.was_ignored


async def test_an_endless_answer_is_not_kept() -> None:
    big = json.dumps(resource(sid(1), subresource_uris={"x": "y" * 3 * BODY_BYTES})).encode()
    _, error = await failing(httpx.Response(201, content=big))
    assert error.fault == "garbage"


async def test_a_404_of_somebody_else_is_no_success() -> None:
    _, error = await failing(httpx.Response(404, text="nothing here"), update=True)
    assert (error.status, error.code) == (404, 0)


async def test_a_call_is_asked_about() -> None:
    done = httpx.Response(200, json=resource(sid(1), status="completed", duration="41"))
    twilio = FakeTwilio([done])
    async with fake_rest(twilio) as rest:
        call = await rest.fetch_call(sid(1))
    assert (call.status, call.is_over, call.duration) == ("completed", True, "41")
    assert twilio.asked == [(f"GET {ACCOUNT}/Calls/{sid(1)}.json", {})]


async def test_failures_are_counted_each(autojump_clock: MockClock) -> None:
    faults: list[str] = []
    async with fake_rest(FakeTwilio([busy(), busy()]), note=faults.append) as rest:
        await rest.create_call(ORDER)
    assert faults == ["busy", "busy"]
