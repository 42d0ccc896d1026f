"""Media streams: real WebSocket bytes over memory streams, in virtual time."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import wsproto
import wsproto.events as ws
from server_house import (
    AUTH_TOKEN,
    CALL_SID,
    STREAM_SID,
    UPGRADE,
    MemoryServer,
    get,
    memory_server,
    port_server,
)
from server_house import ask as ask_http
from wsproto.frame_protocol import Opcode

from voicecore.call.line import SEND_S
from voicecore.contracts import Line
from voicecore.errors import CallRefused, RemoteProtocolError
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.server.admission import Admit
from voicecore.server.media import Ending
from voicecore.server.port import transport
from voicecore.server.port.limits import (
    FRAME_BURST,
    FRAME_RATE,
    MESSAGE_BYTES,
    PING_S,
    PONG_S,
    THROTTLED_S,
)
from voicecore.server.port.peer import Peer as Connection
from voicecore.server.port.upgrade import Upgrade
from voicecore.wire.dialects import Dialect


class Peer:
    """A WebSocket client without manners: frames by hand, events read by wsproto."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._events = wsproto.connection.Connection(wsproto.connection.CLIENT)

    async def send(self, text: str) -> None:
        await self.frame(text.encode())

    async def frame(self, payload: bytes, opcode: int = Opcode.TEXT, final: bool = True) -> None:
        await self.stream.send_all(masked(payload, opcode, final))

    async def start(self, token: str = "") -> None:
        parameters = {"token": token} if token else {}
        identity = CallIdentity(CALL_SID, STREAM_SID, parameters=parameters)
        for message in CarrierStream(identity).open():
            await self.send(message)

    async def event(self) -> ws.Event:
        """Return the next thing the server says; `ConnectionClosed` as code 1006."""
        while True:
            for event in self._events.events():
                return event
            data = bytes(await self.stream.receive_some())
            self._events.receive_data(data or None)

    async def close_code(self) -> int:
        """Read to the close frame; answer it; see the connection end."""
        return (await self.closed()).code

    async def closed(self) -> ws.CloseConnection:
        """Do what `close_code` does; return the close frame."""
        while not isinstance(event := await self.event(), ws.CloseConnection):
            pass
        await self.frame(struct.pack("!H", event.code), Opcode.CLOSE)
        assert await self.stream.receive_some(1) == b""
        return event


def masked(payload: bytes, opcode: int = Opcode.TEXT, final: bool = True) -> bytes:
    size = len(payload)
    head = bytes([opcode | (0x80 if final else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += b"\xfe" + size.to_bytes(2)
    else:
        head += b"\xff" + size.to_bytes(8)
    return head + bytes(4) + payload  # a mask of zeros changes nothing


async def upgraded(house: MemoryServer, early: bytes = b"") -> Peer:
    stream = house.connect()
    await stream.send_all(UPGRADE + early)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += bytes(await stream.receive_some(1))
    assert head.startswith(b"HTTP/1.1 101 ")
    return Peer(stream)


@asynccontextmanager
async def peer(**given: object) -> AsyncIterator[tuple[Peer, MemoryServer]]:
    async with memory_server(**given) as house:
        yield await upgraded(house), house


async def says(other: Peer, text: str) -> bool:
    """Whether the server still echoes: the call is alive."""
    await other.send(text)
    while not isinstance(event := await other.event(), ws.TextMessage):
        if isinstance(event, ws.CloseConnection):
            return False
    return event.data == text


async def test_a_call_counts_from_start_to_close(autojump_clock: trio.testing.MockClock) -> None:
    async with peer(max_calls=1) as (caller, house):
        await trio.testing.wait_all_tasks_blocked()
        assert (house.ledger.calls, len(house.streams)) == (0, 1)
        await caller.start()
        assert await says(caller, "hello")
        assert house.ledger.calls == 1
        assert (await ask_http(house.connect(), get("/readyz"))).status == 503
        assert (await ask_http(house.connect(), UPGRADE)).status == 503
        await caller.send("bye")
        assert await caller.close_code() == 1000
        await house.streams.wait_empty()
        assert house.ledger.calls == 0
        assert house.ledger.ending(CALL_SID) == "agent"


async def test_bytes_behind_the_request_are_not_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    messages = CarrierStream(CallIdentity(CALL_SID, STREAM_SID)).open()
    early = b"".join(masked(text.encode()) for text in [*messages, "hello"])
    async with memory_server() as house:
        for cut in (0, 1, 7, len(early) - 1, len(early)):
            caller = await upgraded(house, early[:cut])
            await caller.stream.send_all(early[cut:])
            event = await caller.event()
            assert isinstance(event, ws.TextMessage)
            assert event.data == "hello"


async def test_a_place_is_only_for_who_has_a_token() -> None:
    async with memory_server(twilio_auth_token=AUTH_TOKEN, public_url="http://x") as house:
        codes = []
        for token in (house.admission.token(CALL_SID), "", house.admission.token("CA2")):
            async with trio.open_nursery() as nursery:
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(
                    house.streams.run, theirs, Upgrade("AAAAAAAAAAAAAAAAAAAAAA=="), b""
                )
                while b"\r\n\r\n" not in await ours.receive_some():
                    pass
                caller = Peer(ours)
                await caller.start(token)
                await caller.send("bye")
                codes.append(await caller.close_code())
        assert codes == [1000, 1008, 1008]
        assert house.ledger.calls == 0


async def test_the_place_after_the_last_is_refused() -> None:
    async with memory_server(max_calls=1) as house:
        first, second = await upgraded(house), await upgraded(house)
        await first.start()
        assert await says(first, "hello")
        await second.start()
        assert await second.close_code() == 1013
        assert await says(first, "still here")


async def test_a_bug_in_one_call_is_1011_and_no_other_calls_business(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with memory_server() as house:
        first, second = await upgraded(house), await upgraded(house)
        for caller in (first, second):
            await caller.start()
            assert await says(caller, "hello")
        await first.send("crash")
        assert await first.close_code() == 1011
        assert await says(second, "hello again")
        assert house.ledger.calls == 1
    failures = [record for record in caplog.records if record.getMessage() == "call failed"]
    assert len(failures) == 1
    assert "ZeroDivisionError" in failures[0].fields["error"]
    assert failures[0].call == CALL_SID


@pytest.mark.parametrize("refusal", [CallRefused, RemoteProtocolError])
@pytest.mark.parametrize("reason", ["not our format", "नमस्ते " * 40])
async def test_a_refusal_closes_with_its_code_and_reason(
    refusal: type[CallRefused] | type[RemoteProtocolError], reason: str
) -> None:
    async def refuse(line: Line, admit: Admit, dialect: Dialect) -> Ending:
        raise refusal(reason, 1003)

    async with peer(converse=refuse) as (caller, _):
        closed = await caller.closed()
    assert closed.code == 1003
    assert closed.reason
    assert reason.startswith(closed.reason)
    assert closed.reason == reason or 110 < len(closed.reason.encode()) <= 120


async def test_a_media_format_that_is_not_ours_is_1003_with_a_reason() -> None:
    async with peer() as (caller, _):
        connected, start = CarrierStream(CallIdentity(CALL_SID, STREAM_SID)).open()
        await caller.send(connected)
        await caller.send(start.replace("mediaFormat", "noFormat"))
        closed = await caller.closed()
    assert closed.code == 1003
    assert "audio/x-mulaw" in closed.reason


async def test_our_own_bugs_are_not_told_to_the_peer() -> None:
    async with peer() as (caller, _):
        await caller.start()
        await caller.send("crash")
        closed = await caller.closed()
    assert (closed.code, closed.reason or "") == (1011, "")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(b"a" * (MESSAGE_BYTES + 1), Opcode.TEXT, True)], 1009),
        ([("é".encode() * MESSAGE_BYTES, Opcode.TEXT, True)], 1009),
        (
            [(b"a" * 40_000, Opcode.TEXT, False), (b"a" * 40_000, Opcode.CONTINUATION, True)],
            1009,
        ),
        ([(b"", Opcode.TEXT, False)] + [(b"", Opcode.CONTINUATION, False)] * 5000, 1009),
        ([(b"\xff\xfe", Opcode.TEXT, True)], 1007),
        ([(b"", 0x3, True)], 1002),
        ([(b"a" * 126, Opcode.PING, True)], 1002),
        ([(b"", Opcode.CONTINUATION, True)], 1002),
    ],
)
async def test_a_broken_limit_or_frame_closes_with_its_code(
    frames: list[tuple[bytes, int, bool]], code: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with peer() as (caller, house):
        await caller.start()
        assert await says(caller, "hello")
        for payload, opcode, final in frames:
            await caller.frame(payload, opcode, final)
        assert await caller.close_code() == code
        await house.streams.wait_empty()
        assert house.ledger.calls == 0


async def test_a_connection_that_we_have_closed_has_nothing_more_to_read() -> None:
    ours, theirs = trio.socket.socketpair()
    with theirs:
        connection = Connection(trio.SocketStream(ours), b"")
        await connection.close()
        assert await connection.read() == b""


async def test_the_largest_message_passes_whole_or_in_pieces() -> None:
    async with peer() as (caller, _):
        await caller.start()
        assert await says(caller, "hello")
        largest = b"a" * MESSAGE_BYTES
        await caller.frame(largest)
        await caller.frame(largest[:100], Opcode.TEXT, final=False)
        await caller.frame(b"between", Opcode.PING)
        await caller.frame(largest[100:], Opcode.CONTINUATION)
        echoed = ""
        while len(echoed) < 2 * MESSAGE_BYTES:
            event = await caller.event()
            if isinstance(event, ws.TextMessage):
                echoed += event.data
        assert echoed.encode() == 2 * largest


async def test_a_binary_message_stays_one() -> None:
    async with peer() as (caller, _):
        await caller.start()
        assert await says(caller, "hello")
        await caller.frame(b"\x00\x01", Opcode.BINARY)
        event = await caller.event()
        assert isinstance(event, ws.BytesMessage)
        assert event.data == b"\x00\x01"


async def test_a_flood_is_read_at_a_bounded_rate_and_closed_when_it_lasts(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_s = THROTTLED_S / 4
    monkeypatch.setattr(transport, "THROTTLED_S", patience_s)
    read: list[float] = []

    async def count(line: Line, admit: Admit, dialect: Dialect) -> Ending:
        while True:
            await line.receive()
            read.append(trio.current_time())

    async with memory_server(count) as house:
        stream = house.connect()
        await stream.send_all(UPGRADE)
        caller = Peer(stream)
        while b"\r\n\r\n" not in await stream.receive_some():
            pass
        await stream.send_all(masked(b"x") * int(FRAME_BURST + FRAME_RATE * (patience_s + 20)))
        began = trio.current_time()
        await trio.sleep(10)
        assert len(read) == pytest.approx(FRAME_BURST + 10 * FRAME_RATE, abs=FRAME_RATE)
        assert await caller.close_code() == 1008
        assert trio.current_time() - began == pytest.approx(patience_s, abs=1)


async def test_who_reads_nothing_is_dropped(autojump_clock: trio.testing.MockClock) -> None:
    async with memory_server() as house:
        stream = house.connect(trio.testing.lockstep_stream_pair)
        await stream.send_all(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += bytes(await stream.receive_some(1))
        caller = Peer(stream)
        await caller.start()
        await caller.send("hello")
        began = trio.current_time()
        await house.streams.wait_empty()
        assert trio.current_time() - began == pytest.approx(SEND_S, abs=0.1)
        assert house.ledger.calls == 0


async def test_who_does_not_answer_pings_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with peer() as (caller, house):
        await house.streams.wait_empty()
        assert trio.current_time() == pytest.approx(PING_S + PONG_S, abs=3)
        assert isinstance(await caller.event(), ws.Ping)


async def test_any_sign_of_life_answers_a_ping(autojump_clock: trio.testing.MockClock) -> None:
    async with peer() as (caller, house):
        await caller.start()
        for _ in range(30):
            await trio.sleep(10)
            assert await says(caller, "still here")
        assert len(house.streams) == 1


async def test_a_send_is_whole_even_when_its_caller_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def interrupted(line: Line, admit: Admit, dialect: Dialect) -> Ending:
        with trio.move_on_after(1):
            await line.send("x" * 10_000)
        with trio.CancelScope() as scope:
            scope.cancel()
            await line.send("clear")
        await line.receive()
        raise AssertionError

    async with memory_server(interrupted) as house:
        stream = house.connect(trio.testing.lockstep_stream_pair)
        await stream.send_all(UPGRADE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += bytes(await stream.receive_some(1))
        caller, texts = Peer(stream), []
        for _ in range(4):
            await trio.sleep(3)  # the first send is under way when its caller gives up
            event = await caller.event()
            if isinstance(event, ws.TextMessage):
                texts.append(event.data)
            if len(texts) == 2:
                break
        assert texts == ["x" * 10_000, "clear"]


async def test_drain_lets_calls_end_and_then_tells_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with peer(drain_s=30) as (caller, house):
        await caller.start()
        assert await says(caller, "hello")
        kept_alive = house.connect()
        assert (await ask_http(kept_alive, get("/readyz"))).status == 200
        house.server.drain()
        assert (await ask_http(kept_alive, get("/readyz"))).status == 503
        assert (await ask_http(house.connect(), get("/healthz"))).status == 200
        await trio.sleep(29)
        assert await says(caller, "still here")
        assert await caller.close_code() == 1001
        assert trio.current_time() == pytest.approx(30, abs=1)
        assert await kept_alive.receive_some(1) == b""


async def test_a_server_with_no_call_drains_at_once() -> None:
    async with port_server() as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            assert (await ask_http(stream, get("/readyz"))).status == 200
            server.drain()
            assert await stream.receive_some(1) == b""
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
