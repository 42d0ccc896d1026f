"""Whole calls of every carrier over the real server: from its webhook to its last document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from xml.etree import ElementTree

import httpx
import pytest
import trio
from carrier_desk import (
    CALL_SIDS,
    FIELDS,
    NAMES,
    SECRET,
    Ordered,
    asks,
    asks_json,
    basic,
    opening,
    path_of,
    read,
)
from dialect_phone import QUIET, Phone
from dialect_transcripts import named
from server_house import AUTH_TOKEN, MemoryServer, ask, echo, memory_server, port_server
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from voicecore.audio import SILENCE_FRAME
from voicecore.call.call import Call
from voicecore.call.transfer import Transfer
from voicecore.contracts import Message
from voicecore.server.conversing import converse_with
from voicecore.testing import audible, fake_agent
from voicecore.twilio.signature import parse_form

PUBLIC = "https://agent.example.com"
TEN = "one two three four five six seven eight nine ten"

each_carrier = pytest.mark.parametrize("name", NAMES)


async def ordered(house: MemoryServer, name: str) -> Ordered:
    """Ask the webhook; read the document; see that the secret is not in it."""
    answer = await ask(house.connect(), asks(name))
    assert answer.status == 200
    assert SECRET.encode() not in answer.body
    return read(name, answer.body)


@asynccontextmanager
async def dialled(house: MemoryServer, ordered: Ordered) -> AsyncIterator[WebSocketConnection]:
    """Open the stream that a document asks for."""
    assert ordered.media_url.startswith("wss://agent.example.com/")
    async with trio.open_nursery() as nursery:
        target = path_of(ordered.media_url)
        yield await wrap_client_stream(nursery, house.connect(), "agent.example.com", target)
        nursery.cancel_scope.cancel()


class Talk:
    """An agent that answers, and what became of its call."""

    def __init__(self, greeting: str = "Good day.") -> None:
        self.greeting = greeting
        self.history: list[Message] = []
        self.milestones: list[tuple[str, Mapping[str, object]]] = []
        self.converse = converse_with(self._answer, self._observe)

    async def _answer(self, call: Call) -> None:
        try:
            await call.converse(fake_agent(greeting=self.greeting))
        finally:
            self.history.extend(call.history.messages)

    def _observe(self, sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        self.milestones.append((event, {"sid": sid, **fields}))

    def of(self, event: str) -> list[Mapping[str, object]]:
        return [fields for name, fields in self.milestones if name == event]


@each_carrier
async def test_a_whole_call(name: str, autojump_clock: MockClock) -> None:
    carrier, talk = named(name), Talk()
    (key,) = (m for m in carrier.heard if "dtmf" in m)
    given = {"carrier_secret": SECRET, "twilio_auth_token": AUTH_TOKEN, "public_url": PUBLIC}
    async with memory_server(talk.converse, **given) as house:
        order = await ordered(house, name)
        async with dialled(house, order) as websocket, trio.open_nursery() as nursery:
            phone = Phone(carrier, websocket, opening(carrier, order))
            nursery.start_soon(phone.listen)
            await phone.open()
            script = QUIET * 80 + audible.say(TEN, 120) + QUIET * 100
            for frame in script + audible.say("wait", 40) + QUIET * 120:
                await phone.tick(frame)
            await websocket.send_message(key)
            assert house.ledger.calls == 1
            if carrier.stop is not None:
                await websocket.send_message(carrier.stop)
            else:
                await websocket.aclose()
            await house.streams.wait_empty()
            nursery.cancel_scope.cancel()
        assert house.ledger.calls == 0
        if order.ended_url:
            target = path_of(order.ended_url)
            assert SECRET not in target
            ended = await ask(house.connect(), ends(name, target))
            assert (ended.status, read(name, ended.body).words) == (200, "")
    greeting, ten, interrupted, wait, answer = talk.history
    assert greeting.text == "Good day."
    assert ten.text == TEN
    assert interrupted.interrupted
    assert (wait.text, answer.text) == ("wait", "You said wait.")
    assert phone.clears == 1
    assert phone.words[:2] == ["Good", "day."]
    assert phone.words[-3:] == ["You", "said", "wait."]
    (started,) = talk.of("stream started")
    assert (started["sid"], started["carrier"]) == (CALL_SIDS[name], name)
    # Said only where an interruption is less than it should be.
    assert ("200 ms" in str(started.get("barge_in"))) == (name == "exotel")
    assert [dict(fields)["text"] for fields in talk.of("digit")] == ["5"]
    assert [fields["reason"] for fields in talk.of("call ended")] == ["caller"]


def ends(name: str, target: str, status: str = "disconnected") -> bytes:
    """The request with which a carrier asks how a call goes on, once its stream is over."""
    if name == "vonage":  # names the leg of the stream, not the call
        event = {"uuid": "the-leg", "to": "wss://…", "status": status, "headers": {}}
        return asks_json(target, event)
    return asks(name, target)


@each_carrier
@pytest.mark.parametrize(
    ("ended_by", "is_told"),
    [("agent", False), ("silence", False), ("length", False), ("server", True), ("", True)],
)
async def test_after_the_stream_never_dead_air(name: str, ended_by: str, is_told: bool) -> None:
    async with memory_server(carrier_secret=SECRET, public_url=PUBLIC) as house:
        if ended_by:
            house.ledger.note_ending(CALL_SIDS[name], ended_by)
        order = await ordered(house, name)
        target = path_of(order.ended_url) or f"/voice-stream/{name}/ended?secret={SECRET}"
        answer = await ask(house.connect(), ends(name, target))
    assert answer.status == 200
    assert bool(read(name, answer.body).words) == (is_told and name != "exotel")
    assert b"Connect" not in answer.body


@each_carrier
async def test_a_call_that_is_given_away_is_dialled(name: str) -> None:
    async with memory_server(carrier_secret=SECRET, public_url=PUBLIC) as house:
        order = await ordered(house, name)
        states = house.server._house.states
        assert states is not None
        state = states.new({})
        state.transfer = Transfer("+13125550100")
        await states.save(CALL_SIDS[name], state)
        house.ledger.note_ending(CALL_SIDS[name], "transfer")
        target = path_of(order.ended_url) or f"/voice-stream/{name}/ended?secret={SECRET}"
        answer = await ask(house.connect(), ends(name, target))
    if name == "exotel":  # the applet behind ours
        assert answer.body == b"{}"
    elif name == "vonage":
        [connect] = json.loads(answer.body)
        assert connect["endpoint"] == [{"type": "phone", "number": "13125550100"}]
    else:
        root = ElementTree.fromstring(answer.body)
        assert [verb.tag for verb in root] == ["Dial", "Hangup"]
        assert root.findtext("Dial/Number") == "+13125550100"


@pytest.mark.parametrize("status", ["started", "ringing", "answered", "completed", ""])
async def test_vonages_states_of_a_stream_are_no_ends_of_it(status: str) -> None:
    """An NCCO in answer to "answered" would replace the stream that has just begun."""
    async with memory_server(carrier_secret=SECRET, public_url=PUBLIC) as house:
        target = path_of((await ordered(house, "vonage")).ended_url)
        answer = await ask(house.connect(), ends("vonage", target, status))
    assert (answer.status, answer.body) == (204, b"")


@each_carrier
async def test_full_is_said_and_hung_up(name: str) -> None:
    async with memory_server(carrier_secret=SECRET, public_url=PUBLIC, max_calls=1) as house:
        house.ledger.call_began()
        order = await ordered(house, name)
        assert not order.media_url
        assert bool(order.words) == (name != "exotel")  # its flow has words for that
        upgrade = f"GET /media-stream/{name} HTTP/1.1"
        assert (await ask(house.connect(), with_upgrade(upgrade))).status == 503


def with_upgrade(request_line: str) -> bytes:
    lines = ["Host: example.com", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    return "\r\n".join([request_line, *lines, "", ""]).encode()


@each_carrier
async def test_a_token_is_good_once_and_for_its_call(name: str, autojump_clock: MockClock) -> None:
    carrier = named(name)
    async with memory_server(carrier_secret=SECRET, public_url=PUBLIC) as house:
        order = await ordered(house, name)
        async with dialled(house, order) as first:
            for message in opening(carrier, order):
                await first.send_message(message)
            await first.send_message("hello")
            assert await first.get_message() == "hello"
            assert await closed_with(house, order, opening(carrier, order)) == 1008
            assert house.ledger.calls == 1
        fresh = await ordered(house, name)
        other = [m.replace(CALL_SIDS[name], "another-call") for m in opening(carrier, fresh)]
        assert await closed_with(house, fresh, other) == 1008
        assert await closed_with(house, fresh, carrier.opening) == 1008  # with no token of ours
        await house.streams.wait_empty()
        assert house.ledger.calls == 0


async def closed_with(house: MemoryServer, order: Ordered, messages: list[str | bytes]) -> int:
    """Send messages on a new stream; return the code with which the server closes it."""
    async with dialled(house, order) as websocket:
        with pytest.raises(ConnectionClosed) as closed:
            await say_and_listen(websocket, messages)
    reason = closed.value.reason
    return reason.code if reason is not None else 1006


@pytest.mark.parametrize(
    ("target", "password", "is_call"),
    [
        ("/media-stream/exotel", SECRET, True),
        ("/media-stream/exotel", "wrong", False),
        (f"/media-stream/exotel?secret={SECRET}", "", False),  # the agent would be told it
    ],
)
async def test_a_streams_own_url_may_have_the_password(
    target: str, password: str, is_call: bool, autojump_clock: MockClock
) -> None:
    async with memory_server(carrier_secret=SECRET) as house, trio.open_nursery() as nursery:
        name, _, value = basic(password).partition(": ")
        websocket = await wrap_client_stream(
            nursery,
            house.connect(),
            "agent.example.com",
            target,
            extra_headers=[(name.encode(), value.encode())],
        )
        for message in named("exotel").opening:
            await websocket.send_message(message)
        await websocket.send_message("hello")
        if is_call:
            assert await websocket.get_message() == "hello"
        else:
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1008
        assert house.ledger.calls == int(is_call)
        nursery.cancel_scope.cancel()


async def say_and_listen(websocket: WebSocketConnection, messages: list[str | bytes]) -> None:
    for message in messages:
        await websocket.send_message(message)
    while True:
        await websocket.get_message()


TWILIOS = [
    '{"event":"connected","protocol":"Call","version":"1.0.0"}',
    json.dumps(
        {
            "event": "start",
            "streamSid": "MZ1",
            "start": {
                "callSid": "CA1",
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            },
        }
    ),
    *['{"event":"media","streamSid":"MZ1","media":{"payload":"//8="}}'] * 10,
]


@pytest.mark.parametrize("name", ["telnyx", "plivo", "exotel", "vonage"])
async def test_twilios_messages_on_anothers_path_are_no_call(
    name: str, autojump_clock: MockClock
) -> None:
    async with memory_server(Talk().converse, public_url=PUBLIC) as house:
        order = await ordered(house, name)
        began = trio.current_time()
        assert await closed_with(house, order, list(TWILIOS)) in (1003, 1008)
        assert trio.current_time() - began <= 10.5
        await house.streams.wait_empty()
        assert house.ledger.calls == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vonage"])
@pytest.mark.parametrize("started", [False, True])
async def test_a_flood_of_binary_is_not_listened_to(
    name: str, started: bool, autojump_clock: MockClock
) -> None:
    talk = Talk()
    async with memory_server(talk.converse, carrier_secret=SECRET, public_url=PUBLIC) as house:
        order = await ordered(house, name)
        begin: list[str | bytes] = list(opening(named(name), order)) if started else []
        flood = [SILENCE_FRAME * 2, b"\x00" * 20] * 200
        assert await closed_with(house, order, begin + flood) == 1008
        await house.streams.wait_empty()
        assert house.ledger.calls == 0
        if started:
            assert house.ledger.ending(CALL_SIDS[name]) == "carrier"


async def test_messages_of_every_shape_keep_their_order(autojump_clock: MockClock) -> None:
    """Plain ones go past the library, all others through it, text or binary."""
    sizes = [320, 10, 320, 0, 125, 126, 640, 65_535, 320, 3]
    sent: list[str | bytes] = [
        bytes([i]) * size if i % 3 else chr(97 + i % 26) * size for i, size in enumerate(sizes * 6)
    ]
    async with memory_server(public_url=PUBLIC) as house:
        order = await ordered(house, "vonage")
        async with dialled(house, order) as websocket:
            for message in [*opening(named("vonage"), order), *sent]:
                await websocket.send_message(message)
            assert [await websocket.get_message() for _ in sent] == sent


async def test_vonage_over_real_sockets() -> None:
    async with port_server(echo, carrier_secret=SECRET) as server:
        base = f"http://127.0.0.1:{server.port}"
        asked = {**FIELDS["vonage"], "secret": SECRET}
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{base}/voice-stream/vonage", params=asked)
            assert answer.headers["content-type"] == "application/json"
            order = read("vonage", answer.content)
            tcp = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with tcp, trio.open_nursery() as nursery:
                target = path_of(order.media_url)
                websocket = await wrap_client_stream(nursery, tcp, "127.0.0.1", target)
                for message in opening(named("vonage"), order):
                    await websocket.send_message(message)
                for frame in (bytes(range(160)) * 2, b"\x01" * 20, bytes(640)):
                    await websocket.send_message(frame)
                    assert await websocket.get_message() == frame
                await websocket.send_message("bye")
                with pytest.raises(ConnectionClosed):
                    await websocket.get_message()
            ended = await client.post(order.ended_url, json={"status": "disconnected"})
        assert (ended.status_code, ended.json()) == (200, [])
        query = parse_form(order.ended_url.partition("?")[2].encode(), 10)
        assert query.first("call") == CALL_SIDS["vonage"]
