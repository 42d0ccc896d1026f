"""Calls over real sockets, and the command line."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import pytest
import trio
from phone_fakes import Agent, Carried, Server, http, polite_agent, socket_server, tone, utterance

from voicecore.audio import wav
from voicecore.phone import __main__ as command
from voicecore.phone.call import Call, Number
from voicecore.phone.flow import MAX_DOCUMENTS
from voicecore.phone.script import Manners, Script
from voicecore.phone.signing import form_signature, upgrade_signature

TOKEN = "test_auth_token_0123456789abcdef"
AUDIO = Path(__file__).parent.parent / "audio"
certificates = cache(ssl.create_default_context)  # thirty milliseconds to read
Answer = Callable[[Carried, bytes], bytes]


def connect(carried: Carried, request: bytes) -> bytes:
    """Answer with a stream, and hang up after it."""
    if b"POST /after" in request:
        return http("<Response><Say>Goodbye</Say><Hangup/></Response>")
    return http(
        f'<Response><Connect action="/after"><Stream url="ws://127.0.0.1:{carried.media_port}/m">'
        '<Parameter name="token" value="t-9"/></Stream></Connect></Response>'
    )


async def place(
    answer: Answer, agent: Agent = polite_agent, files: int = 0, status: int = 101
) -> tuple[Call, Carried]:
    """Place one quick call to a server on real sockets."""
    async with socket_server(agent, answer, status) as carried:
        number = Number(f"http://127.0.0.1:{carried.http_port}/voice-stream?tenant=7", TOKEN)
        script = Script([utterance(0.2)] * files, Manners(0.5, 2.0))
        call = Call(number, script)
        with trio.fail_after(30):
            await call.place(certificates())
    return call, carried


async def closing_agent(server: Server) -> None:
    """Say goodbye and close the stream."""
    await server.until("start")
    await server.say(tone(0.1), "bye")
    await server.until("mark")


async def test_a_call_over_sockets_from_webhook_to_stop() -> None:
    call, carried = await place(connect, files=1)
    assert call.error is None
    assert call.got_replies(1)
    assert call.callers[0].ended == "hung up"
    head, _, body = carried.requests[0].decode().partition("\r\n\r\n")
    form = dict(parse_qsl(body, strict_parsing=True))
    assert form["CallStatus"] == "ringing"
    assert form["Direction"] == "inbound"
    assert form["CallSid"] == call.call_sid
    url = f"http://127.0.0.1:{carried.http_port}/voice-stream?tenant=7"
    assert f"X-Twilio-Signature: {form_signature(TOKEN, url, form)}" in head
    (upgrade,) = carried.upgrades
    expected = upgrade_signature(TOKEN, f"wss://127.0.0.1:{carried.media_port}/m")
    assert upgrade["x-twilio-signature"] == expected
    assert upgrade["user-agent"] == "Twilio.TmeWs/1.0"
    assert not {"sec-websocket-extensions", "sec-websocket-protocol", "origin"} & set(upgrade)
    # A caller who hung up hears no more TwiML.
    assert len(carried.requests) == 1


async def test_after_the_servers_close_the_action_is_asked_and_followed() -> None:
    call, carried = await place(connect, closing_agent)
    assert call.error is None
    assert "the server closed (1000)" in str(call.callers[0].ended)
    assert len(carried.requests) == 2
    assert b"CallStatus=in-progress" in carried.requests[1]
    assert call.steps[-2:] == ["TwiML said: Goodbye", "TwiML: hangup"]


async def test_without_an_action_the_next_verb_follows() -> None:
    def answer(carried: Carried, request: bytes) -> bytes:
        stream = f'<Connect><Stream url="ws://127.0.0.1:{carried.media_port}/m"/></Connect>'
        return http(f"<Response>{stream}<Say>Sorry</Say></Response>")

    call, _ = await place(answer, closing_agent)
    assert call.steps[-1] == "TwiML said: Sorry"


async def test_streams_that_close_at_once_and_come_again_are_a_loop() -> None:
    async def agent(server: Server) -> None:
        await server.until("start")

    def answer(carried: Carried, request: bytes) -> bytes:
        stream = f'<Stream url="ws://127.0.0.1:{carried.media_port}/m"/>'
        return http(f'<Response><Connect action="/voice">{stream}</Connect></Response>')

    call, carried = await place(answer, agent)
    assert f"{MAX_DOCUMENTS} documents" in str(call.error)
    assert len(carried.upgrades) == MAX_DOCUMENTS


async def test_an_abrupt_end_of_the_connection_is_an_end_of_the_call() -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        socket = server._link._socket  # type: ignore[attr-defined]
        await socket._stream.aclose()

    call, _ = await place(connect, agent)
    assert call.error is None
    assert "1006" in str(call.callers[0].ended)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda c, r: http("no", "500 Oops"), "answered 500"),
        (lambda c, r: http("no", "403 Forbidden"), "refused the signature"),
        (lambda c, r: http("<Response>"), "not TwiML"),
        (lambda c, r: http("{}", kind="application/json"), "12300"),
        (lambda c, r: http("<Response>" + " " * 70000), "at most"),
        (lambda c, r: b"garbage\r\n\r\n", "cannot reach"),
        (lambda c, r: b"", "cannot reach"),
        (lambda c, r: http("<Response><Redirect/></Response>"), f"{MAX_DOCUMENTS} documents"),
        (lambda c, r: http("<Response><Redirect>ftp://h/</Redirect></Response>"), "cannot reach"),
    ],
)
async def test_an_answer_that_is_no_twiml_fails_the_call_in_one_line(
    answer: Answer, error: str
) -> None:
    call, _ = await place(answer)
    assert call.error is not None
    assert error in call.error
    assert "\n" not in call.error
    assert not call.got_replies(0)


async def test_a_refused_upgrade_fails_the_call_with_its_status() -> None:
    call, _ = await place(connect, status=403)
    assert call.error is not None
    assert "31920" in call.error
    assert "403" in call.error


async def test_a_server_without_tls_is_not_called_with_it() -> None:
    async def plain(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(4096)
            await stream.send_all(http("", "400 Bad Request"))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, plain, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        call = Call(Number(f"wss://127.0.0.1:{port}/m"), Script([]))
        await call.place(ssl.create_default_context())
        nursery.cancel_scope.cancel()
    assert call.error is not None
    assert "31910" in call.error


async def test_twiml_that_only_speaks_is_a_greeting() -> None:
    call, _ = await place(lambda c, r: http("<Response><Say>Closed</Say><Reject/></Response>"))
    assert call.steps == ["TwiML said: Closed", "TwiML: reject"]
    assert call.got_replies(0)
    assert not call.got_replies(1)


async def run_command(*arguments: str) -> tuple[int, str, str]:
    """Run the command line; return its exit status, its output and its errors."""
    with trio.fail_after(60):
        done = await trio.run_process(
            [sys.executable, "-m", "voicecore.phone", *arguments],
            capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_the_command_line_places_several_calls(tmp_path: Path) -> None:
    async with socket_server(polite_agent, connect) as carried:
        report, record = tmp_path / "report.json", tmp_path / "call.wav"
        status, shown, _ = await run_command(
            f"ws://127.0.0.1:{carried.media_port}/m", "--calls", "2", "--jitter", "10",
            "--say", str(AUDIO / "hello_world.wav"), "--parameter", "token=t-9",
            "--json", str(report), "--record", str(record),
        )  # fmt: skip
    assert status == 0
    assert "2 calls" in shown
    measured = json.loads(report.read_text())
    assert measured["ok"]
    for call in measured["calls"]:
        greeting, turn = call["streams"][0]["turns"]
        assert greeting["replies"][0]["heard"] == pytest.approx(0.8, abs=0.02)
        assert turn["said"] == "hello_world.wav"
        assert turn["gap"] > 0.3
    assert wav.read(record.with_stem("call-1")).channels == 2
    assert wav.read(record.with_stem("call-2")).seconds > 2


async def test_the_command_line_draws_one_calls_turns() -> None:
    async with socket_server(polite_agent, connect) as carried:
        status, shown, _ = await run_command(
            f"http://127.0.0.1:{carried.http_port}/voice-stream", "--interrupt-at", "0.2",
            "--say", str(AUDIO / "hello_world.wav"),
        )  # fmt: skip
    assert status == 0
    assert "turn 1  hello_world.wav" in shown
    assert "gap " in shown
    assert "interrupted: heard" in shown


async def test_the_command_line_takes_a_call_that_was_ordered(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    def answer(carried: Carried, request: bytes) -> bytes:
        if b"POST /heard" in request:
            return http("<Response><Say>I see</Say></Response>")
        return http('<Response><Say>Hello</Say><Record action="/heard" timeout="1"/></Response>')

    async def order(carried: Carried, process: trio.Process) -> None:
        assert process.stdout is not None
        shown = b""
        while b"TWILIO_BASE_URL=" not in shown or not shown.endswith(b"\n"):
            shown += await process.stdout.receive_some()
        words = dict(word.split("=") for word in shown.decode().split() if "=" in word)
        account = words["TWILIO_ACCOUNT_SID"]
        url = f"{words['TWILIO_BASE_URL']}/2010-04-01/Accounts/{account}/Calls.json"
        form = {"To": "+15550002222", "From": "+15550001111"}
        form["Url"] = f"http://127.0.0.1:{carried.http_port}/voice"
        async with httpx.AsyncClient(auth=(account, TOKEN)) as client:
            assert (await client.post(url, data=form)).status_code == 201
        async for _ in process.stdout:
            pass

    arguments = ["--callee", "--ring", "0.1", "--auth-token", TOKEN, "--json", str(report)]
    arguments += ["--say", str(AUDIO / "hello_world.wav")]
    async with socket_server(polite_agent, answer) as carried, trio.open_nursery() as nursery:
        run = partial(trio.run_process, [sys.executable, "-m", "voicecore.phone", *arguments],
                      stdout=subprocess.PIPE)  # fmt: skip
        with trio.fail_after(60):
            process = await nursery.start(run)
            await order(carried, process)
    (call,) = json.loads(report.read_text())["calls"]
    assert call["ok"]
    assert (call["flow"], call["direction"], call["documents"]) == ("recording", "outbound-api", 2)
    assert len(call["recordings"]) == 1
    greeting, turn = call["line"]["turns"]
    assert greeting["replies"][0]["heard"] == pytest.approx(5 / 15, abs=0.03)
    assert turn["gap"] >= 1.0


async def test_ctrl_c_hangs_up_as_a_caller_does(tmp_path: Path) -> None:
    record, stopped = tmp_path / "call.wav", []
    talking = trio.Event()

    async def agent(server: Server) -> None:
        await server.speech(frames=5)
        talking.set()
        stopped.append(await server.until("stop"))

    async with socket_server(agent, connect) as carried, trio.open_nursery() as nursery:
        arguments = [f"ws://127.0.0.1:{carried.media_port}/m", "--greeting-wait", "0"]
        arguments += ["--say", str(AUDIO / "jfk.wav"), "--record", str(record)]
        run = partial(trio.run_process, [sys.executable, "-m", "voicecore.phone", *arguments],
                      check=False, capture_stdout=True)  # fmt: skip
        process = await nursery.start(run)
        with trio.fail_after(30):
            await talking.wait()
            process.send_signal(signal.SIGINT)
            await process.wait()
    assert process.returncode == 1
    assert len(stopped) == 1
    assert wav.read(record).seconds > 0.1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/voice-stream", "ws://127.0.0.1:1/media"])
def test_nobody_there_is_one_line_that_says_what_to_do(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([url]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "start the server (python server.py)" in shown.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--say", str(AUDIO / "hello_world.wav")],
        ["--callee", "--rest-port", "70000"],
        ["--callee", "--callee-status", "asleep"],
        ["nonsense"],
        ["ftp://host/"],
        ["http://[x"],
        ["http://h/", "--say", "nowhere.wav"],
        ["http://h/", "--say", __file__],
        ["http://h/", "--calls", "0"],
        ["http://h/", "--calls", "many"],
        ["http://h/", "--interrupt-at", "-1"],
        ["http://h/", "--jitter", "nan"],
        ["http://h/", "--stall", "5"],
        ["http://h/", "--dtmf", "A@1"],
        ["http://h/", "--parameter", "=x"],
        ["http://h/", "--mic", "--calls", "2"],
        ["http://h/", "--unknown"],
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
