"""WebSockets to a vendor: whatever the other side does, one kind of error, nothing left open."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from voicecore.errors import ProviderError
from voicecore.providers.websocket import (
    Closed,
    Endpoint,
    Refusal,
    WebSocket,
    connect_tcp,
    open_websocket,
)

from .fake_deepgram import Wrapped

ENDPOINT = Endpoint(
    "vendor", "ws://vendor.test/v1/listen?a=b", (("Authorization", "Token SECRET"),), "bye"
)

Serve = Callable[[trio.abc.Stream], Awaitable[None]]


class Network:
    """Hands out connections in memory; `serve` is the other side."""

    def __init__(self, nursery: trio.Nursery, serve: Serve) -> None:
        self.nursery = nursery
        self.serve = serve
        self.server: trio.abc.Stream | None = None

    async def connect(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, self.server = memory_stream_pair()
        self.nursery.start_soon(self._serve, self.server)
        return ours

    async def _serve(self, stream: trio.abc.Stream) -> None:
        try:
            await self.serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def read_head(stream: trio.abc.Stream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    return head


async def upgrade(stream: trio.abc.Stream, behind: bytes = b"", **headers: bytes) -> None:
    head = await read_head(stream)
    key = next(
        line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    magic = key.partition(b": ")[2] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(magic).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines.append(b"Sec-WebSocket-Accept: " + accept)
    lines += [name.replace("_", "-").encode() + b": " + value for name, value in headers.items()]
    await stream.send_all(b"\r\n".join(lines) + b"\r\n\r\n" + behind)


async def failure(serve: Serve, use: Callable[[WebSocket], Awaitable[object]]) -> ProviderError:
    """Return what an attempt to use a connection comes to."""
    async with trio.open_nursery() as nursery:
        network = Network(nursery, serve)
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(ENDPOINT, network.connect) as socket:
                await use(socket)
        assert "SECRET" not in str(caught.value)
        assert "\n" not in str(caught.value)
        nursery.cancel_scope.cancel()
    return caught.value


async def receive(socket: WebSocket) -> None:
    while True:
        await socket.receive()


def says(raw: bytes, then_closes: bool = True) -> Serve:
    async def serve(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(raw)
        if then_closes:
            await stream.aclose()

    return serve


def upgrades(behind: bytes, **headers: bytes) -> Serve:
    async def serve(stream: trio.abc.Stream) -> None:
        await upgrade(stream, behind, **headers)
        await trio.sleep(1)
        await stream.aclose()

    return serve


NO_UPGRADE = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "cut"),
        (b"HTTP/1.1 101", "cut"),
        (b"\x00\xff garbage \r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "status"),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
            "status",
        ),
        (NO_UPGRADE + b"\r\n", "garbage"),
        (NO_UPGRADE + b"Sec-WebSocket-Accept: wrong\r\n\r\n", "garbage"),
        (NO_UPGRADE + b"Sec-WebSocket-Protocol: \xff\r\n\r\n", "garbage"),
        (NO_UPGRADE.replace(b": Upgrade", b": Upgrade, \xff") + b"\r\n", "garbage"),
    ],
)
async def test_answers_that_are_no_upgrade(
    raw: bytes, fault: str, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    error = await failure(says(raw), receive)
    assert error.fault == fault
    assert trio.current_time() == began


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 101"])
async def test_a_server_that_never_ends_its_answer(raw: bytes, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert (await failure(says(raw, then_closes=False), receive)).fault == "timeout"
    assert trio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize(
    ("status", "fault", "is_refusal"),
    [
        (401, "refused", True),
        (402, "refused", True),
        (403, "refused", True),
        (429, "busy", True),
        (404, "status", True),
        (500, "status", False),
    ],
)
async def test_answers_with_an_error(
    status: int, fault: str, is_refusal: bool, autojump_clock: MockClock
) -> None:
    body = b'{"err_code":"BAD_KEY","err_msg":"SECRET is wrong"}'
    head = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n"
    error = await failure(says(head.encode() + body), receive)
    assert str(error) == f"vendor: {fault}: HTTP {status} BAD_KEY"
    assert isinstance(error, Refusal) == is_refusal


@pytest.mark.parametrize(
    ("frames", "detail"),
    [
        (b"", "the connection broke"),
        (b"\x81\x05hel", "the connection broke"),
        (b"\x88\x0a\x03\xf3NET-0001", "closed with 1011 NET-0001"),
        (b"\x88\x0c\x03\xf0SECRET bad", "closed with 1008"),
        (b"\x88\x00", "closed with 1005"),
        (b"\xf1\x02hi", "closed with 1002"),
        (b"\x81\x02\xff\xfe", "closed with 1007"),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01" + b"x" * 1048577, "closed with 1009"),
    ],
)
async def test_connections_that_end(frames: bytes, detail: str, autojump_clock: MockClock) -> None:
    error = await failure(upgrades(frames), receive)
    assert isinstance(error, Closed)
    assert error.fault == "cut"
    assert str(error).removeprefix("vendor: cut: ") == detail
    code = detail.partition("with ")[2][:4]
    assert error.code == (int(code) if code else None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=80), st.booleans())
@example(b"\x89\x00\x88\x02\x03\xe8\x89\x00", True)
@example(b"\x88\x02\x03\xe8\x88\x02\x03\xe8", True)
@example(b"\x80\x01a", True)
def test_no_bytes_raise_anything_else(raw: bytes, is_upgraded: bool) -> None:
    serve = upgrades(raw) if is_upgraded else says(raw)
    error = trio.run(failure, serve, receive, clock=MockClock(autojump_threshold=0))
    assert error.fault in ("cut", "garbage", "status")


@pytest.mark.parametrize("error", [OSError, ValueError, UnicodeError, trio.BrokenResourceError])
async def test_no_connection(error: type[Exception]) -> None:
    async def connect(host: str, port: int, tls: bool) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(ProviderError) as caught:
        async with open_websocket(ENDPOINT, connect):
            raise AssertionError
    assert str(caught.value) == "vendor: connect: no connection"


@pytest.mark.parametrize("url", ["ws://a..b/x", "ws://[::bad/x", "ws:///x", "ws://h:99999/"])
async def test_hosts_that_can_be_none(url: str) -> None:
    with pytest.raises(ProviderError) as caught:
        async with open_websocket(Endpoint("vendor", url)):
            raise AssertionError
    assert caught.value.fault == "connect"


async def test_a_server_that_speaks_no_tls() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"this is no TLS")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(Endpoint("vendor", f"wss://127.0.0.1:{port}/")):
                raise AssertionError
        assert caught.value.fault == "connect"
        nursery.cancel_scope.cancel()


class Halving(Wrapped):
    """A stream that takes what is sent in two halves, a while apart."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        half = len(data) // 2
        await super().send_all(data[:half])
        await trio.sleep(0.1)
        await super().send_all(data[half:])


class Stuck(Wrapped):
    """A stream that takes the upgrade's request, and no byte more."""

    is_stuck = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_stuck:
            await trio.sleep_forever()
        self.is_stuck = True
        await super().send_all(data)


async def test_what_is_sent_is_whole_although_its_sender_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    got: list[int] = []

    async def serve(stream: trio.abc.Stream) -> None:
        await upgrade(stream)
        while data := await stream.receive_some():
            got.append(len(data))

    async with trio.open_nursery() as nursery:
        network = Network(nursery, serve)

        async def connect(host: str, port: int, tls: bool) -> trio.abc.Stream:
            return Halving(await network.connect(host, port, tls))

        async with open_websocket(ENDPOINT, connect) as socket:
            with trio.move_on_after(0.05):
                await socket.send(b"x" * 1000)
            await trio.testing.wait_all_tasks_blocked()
            assert got[-2:] == [504, 504]
        nursery.cancel_scope.cancel()


async def test_a_vendor_that_takes_nothing(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = Network(nursery, upgrades(b""))

        async def connect(host: str, port: int, tls: bool) -> trio.abc.Stream:
            return Stuck(await network.connect(host, port, tls))

        began = trio.current_time()
        with pytest.raises(ProviderError) as caught:
            async with open_websocket(ENDPOINT, connect) as socket:
                await socket.send(b"x")
        assert caught.value.fault == "timeout"
        assert trio.current_time() - began < 6
        nursery.cancel_scope.cancel()


async def test_leaving_says_goodbye_and_waits_for_nobody(autojump_clock: MockClock) -> None:
    received = bytearray()

    async def serve(stream: trio.abc.Stream) -> None:
        await upgrade(stream)
        while data := await stream.receive_some():
            received.extend(data)

    async with trio.open_nursery() as nursery:
        network = Network(nursery, serve)
        began = trio.current_time()
        with trio.move_on_after(2):
            async with open_websocket(ENDPOINT, network.connect):
                await trio.sleep_forever()
        assert trio.current_time() - began == pytest.approx(2.5)  # nobody closed on the other side
        await trio.testing.wait_all_tasks_blocked()
        assert received[:2] == b"\x81\x83"  # "bye", masked
        assert received[9:11] == b"\x88\x82"
        assert not nursery.child_tasks  # it saw the end
        nursery.cancel_scope.cancel()


async def test_real_sockets() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        await upgrade(stream, b"\x81\x05hello")
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]
        url = f"ws://127.0.0.1:{port}/x"
        async with open_websocket(Endpoint("vendor", url), connect_tcp) as socket:
            assert await socket.receive() == "hello"
            await socket.send("hi")
        nursery.cancel_scope.cancel()


def test_nothing_shows_a_key() -> None:
    assert "SECRET" not in repr(ENDPOINT)
