"""The phone's REST API: recordings to fetch, calls to order, to move and to end."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
import trio
from flow_fakes import SERVER, TOKEN, Asked, TwimlServer, certificates, sound
from hypothesis import given
from hypothesis import strategies as st
from phone_fakes import Carried, Server, socket_server, tone, utterance
from phone_fakes import http as respond
from trio.testing import MockClock

from voicecore.audio import wav
from voicecore.errors import CannotListen
from voicecore.phone import account as accounts
from voicecore.phone import http
from voicecore.phone.account import Account, CallOrder, RestError
from voicecore.phone.call import Call, Number
from voicecore.phone.capture import VoiceCapture
from voicecore.phone.handset import Callee, Conditions
from voicecore.phone.http import Request, Response
from voicecore.phone.loudness import frames_of
from voicecore.phone.rest import RestApi
from voicecore.phone.script import Script, Utterance
from voicecore.phone.signing import form_signature
from voicecore.phone.verbs import Record

PIECES = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\n",
    b"Expect: 100-continue\r\n",
    b"Content-Length: 3\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n",
    b"abc",
]
ROOT = f"/2010-04-01/Accounts/{Account().sid}"
TO = {"To": "+15550002222", "From": "+15550001111"}


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def captured(seconds: float) -> VoiceCapture:
    capture = VoiceCapture(Record("/heard"))
    for frame in frames_of(tone(seconds)):
        capture.take(frame, True, "")
    return capture


def now() -> float:
    return trio.current_time() if trio.lowlevel.in_trio_run() else 0.0


class Rest:
    """An account, and requests to it."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._api = RestApi(account, now)

    def ask(self, method: str, path: str, authorization: str = "", **form: Any) -> Response:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        if authorization:
            headers["authorization"] = authorization
        body = urlencode(form, doseq=True).encode()
        return self._api.answer(Request(method, ROOT + path, headers, body))

    def refused(self, method: str, path: str, **form: Any) -> tuple[int, int]:
        response = self.ask(method, path, **form)
        error = msgspec.json.decode(response.body)
        assert error["status"] == response.status
        assert error["more_info"] == f"https://www.twilio.com/docs/errors/{error['code']}"
        return response.status, error["code"]


async def test_a_recording_can_be_had_after_a_while(autojump_clock: MockClock) -> None:
    rest = Rest(Account(recording_delay_s=0.5))
    kept = rest.account.keep("RE1", "CA1", captured(1.0), trio.current_time())
    path = f"/Recordings/{kept.sid}"
    await trio.sleep(0.4)
    assert rest.refused("GET", f"{path}.wav") == (404, 20404)
    await trio.sleep(0.1)
    for suffix in ("", ".wav"):
        response = rest.ask("GET", path + suffix)
        assert (response.status, response.content_type) == (200, "audio/x-wav")
        heard = wav.read(response.body)
        assert (heard.rate, heard.channels, heard.seconds) == (8000, 1, 1.0)
    shown = msgspec.json.decode(rest.ask("GET", f"{path}.json").body)
    assert (shown["status"], shown["duration"], shown["call_sid"]) == ("completed", "1", "CA1")
    assert rest.ask("DELETE", f"{path}.json").status == 204
    assert rest.refused("GET", path) == (404, 20404)


def test_only_who_knows_the_token_gets_in() -> None:
    account = Account(token=TOKEN)
    rest = Rest(account)
    sid = account.keep("RE1", "CA1", captured(0.1), -1.0).sid
    api = RestApi(account, lambda: 0.0)
    for credentials in (
        "",
        "Basic ?",
        basic(account.sid, "wrong"),
        basic("AC2", TOKEN),
        "Bearer " + TOKEN,
    ):
        headers = {"authorization": credentials}
        response = api.answer(Request("GET", f"{ROOT}/Recordings/{sid}", headers, b""))
        assert response.status == 401
        assert msgspec.json.decode(response.body)["code"] == 20003
        assert response.headers["WWW-Authenticate"].startswith("Basic")
    headers = {"authorization": basic(account.sid, TOKEN)}
    assert api.answer(Request("GET", f"{ROOT}/Recordings/{sid}", headers, b"")).status == 200
    assert rest.ask("GET", "/Calls.json").status == 401


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/Recordings/RE1", 404, 20404),
        ("GET", "/Recordings/../RE1", 404, 20404),
        ("GET", "/Calls/CA1.json", 404, 20404),
        ("POST", "/Calls/CA1.json", 404, 20404),
        ("GET", "/Calls.json", 405, 20004),
        ("PUT", "/Recordings/RE1", 405, 20004),
        ("GET", "", 404, 20404),
    ],
)
def test_what_is_not_there(method: str, path: str, status: int, code: int) -> None:
    assert Rest(Account()).refused(method, path) == (status, code)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({}, 21201),
        ({"To": "5550002222"}, 21211),
        ({"To": "+15550002222"}, 21213),
        ({"To": "+15550002222", "From": "me"}, 21212),
        (TO, 21205),
        ({**TO, "Url": "ftp://h/"}, 21205),
        ({**TO, "Url": "http://[x"}, 21205),
        ({**TO, "Twiml": "<Say/>"}, 12100),
        ({**TO, "Twiml": "<Response>" + " " * 4000 + "</Response>"}, 21605),
        ({**TO, "Twiml": "<Response><Record/></Response>"}, 12100),
        ({**TO, "Url": f"{SERVER}/x", "StatusCallback": "nowhere"}, 21609),
        ({**TO, "Url": f"{SERVER}/x"}, 21219),
        ({f"X{n}": "1" for n in range(300)}, 20001),
    ],
)
def test_calls_that_cannot_be_ordered(form: dict[str, str], code: int) -> None:
    assert Rest(Account()).refused("POST", "/Calls.json", **form) == (400, code)


def test_an_account_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_RECORDINGS", 3)
    monkeypatch.setattr(accounts, "MAX_RECORDED_BYTES", 1000)
    monkeypatch.setattr(accounts, "MAX_CALLS", 2)
    account = Account()
    sids = [account.keep(f"RE{n}", "CA1", captured(0.06), 0).sid for n in range(4)]

    def kept(sid: str) -> bool:
        try:
            return bool(account.recording(sid, 9))
        except RestError:
            return False

    assert [kept(sid) for sid in sids] == [False, False, True, True]
    calls = [Call(Number("http://h/"), Script([])) for _ in range(3)]
    calls[1].progress.reach("failed")
    for call in calls:
        account.add(call)
    assert account.call(calls[0].call_sid) is calls[0]
    with pytest.raises(RestError, match="20404"):
        account.call(calls[1].call_sid)


class Carrier(Rest):
    """An account whose calls are taken, in virtual time, by one who calls a scripted server."""

    def __init__(
        self, server: TwimlServer, nursery: trio.Nursery, callee: Callee, *said: Utterance
    ) -> None:
        super().__init__(Account())
        self.calls: list[Call] = []

        def take(order: CallOrder) -> Call:
            number = Number("", TOKEN).ordered(order)
            script, conditions = Script(said), Conditions(callee=callee)
            call = Call(number, script, conditions, account=self.account)
            self.calls.append(call)
            nursery.start_soon(call.place, certificates(), server.transport)
            return call

        self.account.place = take

    def order(self, **form: Any) -> dict[str, Any]:
        response = self.ask("POST", "/Calls.json", **TO, **form)
        assert response.status == 201, response.body
        shown: dict[str, Any] = msgspec.json.decode(response.body)
        return shown


EVENTS = ["initiated", "ringing", "answered", "completed"]


async def test_an_ordered_call_rings_is_taken_and_reports_itself(
    autojump_clock: MockClock,
) -> None:
    async def started(asked: Asked) -> str:
        await trio.sleep(0.25)
        return "<Say>fifteen letters</Say>"

    server = TwimlServer({"/hello": started, "/status": ""})
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        carrier = Carrier(server, nursery, Callee(ring_s=3.0))
        shown = carrier.order(
            Url=f"{SERVER}/hello", StatusCallback=f"{SERVER}/status", StatusCallbackEvent=EVENTS
        )
        assert (shown["status"], shown["direction"]) == ("queued", "outbound-api")
        assert (shown["to"], shown["from"]) == ("+15550002222", "+15550001111")
        assert shown["to_formatted"] == "(555) 000-2222"
    (hello,) = server.to("/hello")
    assert hello.at - began == pytest.approx(3.0)
    assert hello.form["Direction"] == "outbound-api"
    assert hello.form["CallStatus"] == "in-progress"
    assert hello.form["CallSid"] == shown["sid"]
    reports = sorted(server.to("/status"), key=lambda asked: asked.form["SequenceNumber"])
    assert [r.form["SequenceNumber"] for r in reports] == ["0", "1", "2", "3"]
    statuses = [r.form["CallStatus"] for r in reports]
    assert statuses == ["initiated", "ringing", "in-progress", "completed"]
    assert {r.form["CallbackSource"] for r in reports} == {"call-progress-events"}
    assert reports[3].form["CallDuration"] == "1"
    assert reports[3].form["Timestamp"].endswith("+0000")
    signature = form_signature(TOKEN, f"{SERVER}/status", reports[0].form)
    assert reports[0].signature == signature
    over = msgspec.json.decode(carrier.ask("GET", f"/Calls/{shown['sid']}.json").body)
    assert (over["status"], over["duration"]) == ("completed", "1")
    assert carrier.calls[0].greeted


@pytest.mark.parametrize(
    ("callee", "form", "status", "seconds"),
    [
        (Callee(status="busy"), {}, "busy", 1),
        (Callee(status="no-answer", ring_s=9), {}, "no-answer", 9),
        (Callee(status="failed"), {}, "failed", 1),
        (Callee(ring_s=30), {"Timeout": "5"}, "no-answer", 5),
    ],
)
async def test_a_call_that_nobody_takes(
    autojump_clock: MockClock, callee: Callee, form: dict[str, str], status: str, seconds: float
) -> None:
    server = TwimlServer({"/status": ""})
    async with trio.open_nursery() as nursery:
        carrier = Carrier(server, nursery, callee)
        carrier.order(Url=f"{SERVER}/hello", StatusCallback=f"{SERVER}/status", **form)
    (report,) = server.asked
    assert report.path == "/status"
    assert (report.form["CallStatus"], report.form["CallDuration"]) == (status, "0")
    assert report.at == pytest.approx(seconds)
    assert carrier.calls[0].error is None


async def test_machine_detection_in_the_webhook_and_beside_it(autojump_clock: MockClock) -> None:
    server = TwimlServer({"/hello": '<Pause length="5"/>', "/amd": ""})
    callee = Callee(ring_s=1.0, answered_by="machine_end_beep")
    async with trio.open_nursery() as nursery:
        carrier = Carrier(server, nursery, callee)
        carrier.order(Url=f"{SERVER}/hello", MachineDetection="DetectMessageEnd")
        await trio.sleep(10)
        amd = {"AsyncAmd": "true", "AsyncAmdStatusCallback": f"{SERVER}/amd"}
        carrier.order(Url=f"{SERVER}/hello", MachineDetection="Enable", **amd)
        carrier.order(Url=f"{SERVER}/hello")
    first, *others = server.to("/hello")
    assert (first.at, first.form["AnsweredBy"]) == (pytest.approx(2.0), "machine_end_beep")
    assert [(o.at, o.form.get("AnsweredBy")) for o in others] == [(pytest.approx(11.0), None)] * 2
    (verdict,) = server.to("/amd")
    assert verdict.at == pytest.approx(12.0)
    assert verdict.form["AnsweredBy"] == "machine_end_beep"
    assert verdict.form["MachineDetectionDuration"] == "1000"
    assert verdict.form["CallSid"] == carrier.calls[1].call_sid


async def test_a_live_call_is_moved_and_ended_by_rest(autojump_clock: MockClock) -> None:
    server = TwimlServer({"/hello": "<Say>" + "x" * 600 + "</Say>", "/b": "<Dial><Conference>C"
                          "</Conference></Dial>", "/a.wav": sound(1.0)})  # fmt: skip
    async with trio.open_nursery() as nursery:
        carrier = Carrier(server, nursery, Callee(ring_s=0.5))
        path = f"/Calls/{carrier.order(Url=f'{SERVER}/hello')['sid']}.json"
        await trio.sleep(1.0)
        assert carrier.refused("POST", path) == (400, 21205)
        assert carrier.refused("POST", path, Status="paused") == (400, 20001)
        assert carrier.refused("POST", path, Status="canceled") == (400, 21220)
        twiml = f"<Response><Play>{SERVER}/a.wav</Play><Pause length='9'/></Response>"
        assert carrier.ask("POST", path, Twiml=twiml).status == 200
        await trio.sleep(2.0)
        assert carrier.ask("POST", path, Url=f"{SERVER}/b", Method="GET").status == 200
        await trio.sleep(2.0)
        shown = msgspec.json.decode(carrier.ask("POST", path, Status="completed").body)
        assert shown["status"] == "in-progress"
    (call,) = carrier.calls
    assert call.error is None
    assert call.steps[1:] == [
        "the REST API had the call go on elsewhere",
        f"TwiML played: {SERVER}/a.wav",
        "TwiML paused 9 s",
        "the REST API had the call go on elsewhere",
        "TwiML joined conference C",
    ]
    assert server.to("/b")[0].method == "GET"
    assert call.progress.seconds == pytest.approx(4.5, abs=0.021)
    assert call.flow.ended == "completed by the REST API"
    for form in ({"Status": "completed"}, {"Url": f"{SERVER}/b"}):
        assert carrier.refused("POST", path, **form) == (400, 21220)


async def test_a_ringing_call_is_canceled_or_sent_elsewhere(autojump_clock: MockClock) -> None:
    server = TwimlServer({"/hello": "<Say>A</Say>", "/other": "<Say>B</Say>", "/status": ""})
    async with trio.open_nursery() as nursery:
        carrier = Carrier(server, nursery, Callee(ring_s=5.0))
        order = {"Url": f"{SERVER}/hello", "StatusCallback": f"{SERVER}/status"}
        first, second = (carrier.order(**order)["sid"] for _ in range(2))
        await trio.sleep(1.0)
        assert carrier.ask("POST", f"/Calls/{first}.json", Status="canceled").status == 200
        assert carrier.ask("POST", f"/Calls/{second}.json", Url=f"{SERVER}/other").status == 200
    assert [(a.path, a.form["CallSid"], a.form["CallStatus"]) for a in server.asked] == [
        ("/status", first, "canceled"),
        ("/other", second, "in-progress"),
        ("/status", second, "completed"),
    ]
    assert [call.error for call in carrier.calls] == [None, None]


async def test_a_status_callback_that_nobody_takes_is_said_and_harms_nothing(
    autojump_clock: MockClock,
) -> None:
    server = TwimlServer({"/hello": "<Say>Hi</Say>"})
    async with trio.open_nursery() as nursery:
        carrier = Carrier(server, nursery, Callee())
        carrier.order(Url=f"{SERVER}/hello", StatusCallback=f"{SERVER}/gone")
    (call,) = carrier.calls
    assert call.error is None
    assert "answered 404" in call.callbacks.problems[0]


async def test_a_server_fetches_its_recording_over_sockets() -> None:
    """Twilio's way, from the server's side: the action, 404 until it is there, then the WAV."""
    account = Account(token=TOKEN, recording_delay_s=1.0)
    listeners = await http.listen(0)
    account.base_url = http.address(listeners)
    fetched: list[int] = []
    heard: list[wav.Wav] = []

    async def recording(asked: Asked) -> str:
        async with httpx.AsyncClient(auth=(account.sid, TOKEN)) as client:
            bare = httpx.AsyncClient()
            async with bare:
                fetched.append((await bare.get(asked.form["RecordingUrl"])).status_code)
            while True:
                response = await client.get(asked.form["RecordingUrl"] + ".wav")
                fetched.append(response.status_code)
                if response.status_code == 200:
                    heard.append(wav.read(response.content))
                    return "<Say>ok</Say>"
                await trio.sleep(0.05)

    server = TwimlServer({"/voice": '<Record timeout="1" action="/r" playBeep="false"/>'})
    server.pages["/r"] = recording
    call = Call(Number(f"{SERVER}/voice", TOKEN), Script([utterance(0.3)]), account=account)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.serve, RestApi(account, trio.current_time).answer, listeners)
        with trio.fail_after(30):
            await call.place(certificates(), server.transport)
        nursery.cancel_scope.cancel()
    assert fetched[:2] == [401, 404]
    assert fetched[-1] == 200
    assert heard[0].seconds == pytest.approx(0.4, abs=0.041)
    assert call.got_replies(1)


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ({"Twiml": "<Response><Say>Bye</Say></Response>"}, "TwiML said: Bye"),
        ({"Status": "completed"}, "stream to"),
    ],
)
async def test_rest_takes_a_call_off_its_stream(form: dict[str, str], step: str) -> None:
    stopped: list[dict[str, Any]] = []
    streaming = trio.Event()

    async def agent(server: Server) -> None:
        await server.until("start")
        await server.say(tone(0.2), "hi")
        streaming.set()
        stopped.append(await server.until("stop"))

    def answer(carried: Carried, request: bytes) -> bytes:
        url = f"ws://127.0.0.1:{carried.media_port}/m"
        return respond(f'<Response><Connect><Stream url="{url}"/></Connect></Response>')

    async with socket_server(agent, answer) as carried, trio.open_nursery() as nursery:
        rest = Rest(Account())
        url = f"http://127.0.0.1:{carried.http_port}/voice"
        call = Call(Number(url), Script([]), account=rest.account)
        rest.account.add(call)
        over = trio.Event()

        async def place() -> None:
            await call.place(certificates())
            over.set()

        with trio.fail_after(30):
            nursery.start_soon(place)
            await streaming.wait()
            response = rest.ask("POST", f"/Calls/{call.call_sid}.json", **form)
            assert response.status == 200
            await over.wait()
    assert len(stopped) == 1
    assert call.steps[-1].startswith(step)
    assert (call.error, call.progress.status) == (None, "completed")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n" + b"a" * 70000, 413),
        (b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n", 404),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 404),
        (b"GET /x HTTP/1.1\r\nHost", 408),
        (b"", None),
    ],
)
async def test_strangers_are_answered_and_shown_out(
    autojump_clock: MockClock, sent: bytes, status: int | None
) -> None:
    client, server = trio.testing.memory_stream_pair()
    answer = RestApi(Account(), trio.current_time).answer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_one, answer), server)
        await client.send_all(sent)
        answered = b"".join([piece async for piece in client])
    found = int(answered.split()[1]) if answered else None
    assert found == status
    if sent.startswith(b"HEAD"):
        assert answered.endswith(b"\r\n\r\n")


@given(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD"]),
    st.sampled_from(["/Calls.json", "/Calls/CA1.json", "/Recordings/RE1", "//[x", "/Calls/?a=1"]),
    st.dictionaries(
        st.sampled_from(["To", "From", "Url", "Twiml", "Status", "StatusCallback", "Timeout"]),
        st.sampled_from(["", "+15550001111", "http://h/", "http://[", "<Response/>", "²", "\ud7ff"])
        | st.text(max_size=9),
    ),
)
def test_any_request_has_an_answer(method: str, path: str, form: dict[str, str]) -> None:
    response = Rest(Account()).ask(method, path, **form)
    assert response.status in (400, 404, 405)
    assert msgspec.json.decode(response.body)["code"] > 0


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=9), max_size=8))
def test_any_bytes_are_answered_and_shown_out(pieces: list[bytes]) -> None:
    async def talk() -> bytes:
        client, server = trio.testing.memory_stream_pair()
        answer = RestApi(Account(), trio.current_time).answer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_one, answer), server)
            with suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await client.send_all(piece)
                await client.send_eof()
            return b"".join([piece async for piece in client])

    answered = trio.run(talk, clock=MockClock(autojump_threshold=0))
    assert not answered or answered.startswith(b"HTTP/1.1 ")


async def serve_one(answer: http.Answer, stream: trio.abc.Stream) -> None:
    async with stream:
        await http.converse(answer, stream)


async def test_a_port_that_is_taken_is_one_line() -> None:
    listeners = await http.listen(0)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}"):
        await http.listen(port)
    for listener in listeners:
        await listener.aclose()
