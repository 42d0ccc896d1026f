"""What the server's tests share: a server on memory streams or on a port, and small peers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import h11
import trio
import trio.testing

from voicecore.contracts import Line
from voicecore.errors import LineClosed
from voicecore.server.admission import Admission, Admit
from voicecore.server.call_state import CallStates
from voicecore.server.house import House
from voicecore.server.ledger import Ledger
from voicecore.server.media import Converse, Ending, MediaStreams
from voicecore.server.serve import Server, serve_lines
from voicecore.server.store import MemoryStore
from voicecore.settings import Settings
from voicecore.wire.dialects import Dialect
from voicecore.wire.events import Started

AUTH_TOKEN = "test_auth_token_0123456789abcdef"
CALL_SID = "CA" + "1" * 32
STREAM_SID = "MZ" + "2" * 32
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "GET /media-stream HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\n"
    f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()


def settings(**given: object) -> Settings:
    return Settings(_env_file=None, **{"host": "127.0.0.1", "port": 0, **given})


async def echo(line: Line, admit: Admit, dialect: Dialect) -> Ending:
    """A call that waits for `start`, then sends back whatever comes; "bye" ends it."""
    stream, sid = dialect.machine(), ""
    try:
        while True:
            text = await line.receive()
            if text == "bye":
                return Ending(sid, "agent")
            if text == "crash":
                raise ZeroDivisionError("a bug in the agent")
            if sid:
                await line.send(text)
                continue
            event = stream.receive(text)
            if isinstance(event, Started):
                admit(event)
                sid = event.call_sid
    except LineClosed:
        return Ending(sid, "caller")


class MemoryServer:
    """A server whose connections are pairs of memory streams."""

    def __init__(
        self, converse: Converse, given: dict[str, object], ledger: Ledger | None = None
    ) -> None:
        self.ledger = ledger or Ledger()
        self.settings = settings(**given)
        self.admission = Admission(self.settings, self.ledger, trio.current_time)
        self.streams = MediaStreams(converse, self.admission, self.ledger)
        self.store = MemoryStore(trio.current_time)
        states = CallStates(self.store, trio.current_time, self.settings.max_call_s)
        house = House(self.settings, self.admission, self.ledger, self.store, states=states)
        self.server = Server(house, self.streams, [("127.0.0.1", 0)])
        self._dial, calls = trio.open_memory_channel[trio.StapledStream](100)
        self.listener = MemoryListener(calls)

    def connect(
        self, pair: Callable[[], tuple[trio.StapledStream, ...]] = trio.testing.memory_stream_pair
    ) -> trio.StapledStream:
        ours, theirs = pair()
        self._dial.send_nowait(theirs)
        return ours


class MemoryListener(trio.abc.Listener[trio.StapledStream]):
    """Accepts what `MemoryServer.connect` made."""

    def __init__(self, calls: trio.MemoryReceiveChannel[trio.StapledStream]) -> None:
        self._calls = calls

    async def accept(self) -> trio.StapledStream:
        return await self._calls.receive()

    async def aclose(self) -> None:
        await self._calls.aclose()


@asynccontextmanager
async def memory_server(converse: Converse = echo, **given: object) -> AsyncIterator[MemoryServer]:
    async with trio.open_nursery() as nursery:
        house = MemoryServer(converse, given)
        nursery.start_soon(house.server.run, [house.listener])
        yield house
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def port_server(converse: Converse = echo, **given: object) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(serve_lines, converse, settings(**given)))
        nursery.cancel_scope.cancel()


class Answer:
    def __init__(self, response: h11.Response, body: bytes) -> None:
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        self.body = body


class Client:
    """Reads responses with h11, so that what is not a valid response fails the test."""

    def __init__(self, stream: trio.abc.Stream, method: str = "GET") -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.CLIENT)
        self._method = method

    async def answer(self) -> Answer:
        """Read one response; any request of ours went out by hand."""
        connection = self._h11
        connection.send(h11.Request(method=self._method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        head, body = None, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await self.stream.receive_some(65536)))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                assert isinstance(event, h11.InformationalResponse), event
        assert head is not None
        if connection.their_state is h11.DONE and connection.our_state is h11.DONE:
            connection.start_next_cycle()
        return Answer(head, bytes(body))

    async def closed(self) -> bool:
        """Wait for the end of the stream; nothing more may come."""
        return await self.stream.receive_some(1) == b""


async def ask(stream: trio.abc.Stream, data: bytes, method: str = "GET") -> Answer:
    await stream.send_all(data)
    return await Client(stream, method).answer()


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: example.com", f"Content-Length: {len(body)}"]
    if not any(header.lower().startswith("content-type") for header in headers):
        lines.append("Content-Type: application/x-www-form-urlencoded")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: example.com", *headers, "", ""]).encode()
