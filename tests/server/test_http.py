"""Requests under every limit, over memory streams, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from server_house import Client, ask, get, memory_server, post

from voicecore.server.port.limits import BODY_BYTES, HEAD_BYTES, HEADER_COUNT, IDLE_S, REQUEST_S


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/healthz"), 200),
        (get("/healthz?verbose=1"), 200),
        (b"GET http://example.com/healthz HTTP/1.1\r\nHost: example.com\r\n\r\n", 200),
        (get("/"), 404),
        (get("/healthz/"), 404),
        (get("/%68ealthz"), 404),
        (post("/healthz"), 405),
        (get("/voice-stream"), 405),
        (b"DELETE /voice-stream HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"TRACE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ],
)
async def test_routes_answer_by_path_and_method(request_bytes: bytes, status: int) -> None:
    async with memory_server() as house:
        answer = await ask(house.connect(), request_bytes)
        assert answer.status == status
        assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\r\n" * 100, 400),
        (b" \r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (get("/healthz", "Connection: keep-alive, \xff"), 400),
        (get("/healthz", "Expect: the-unexpected"), 417),
        (post("/voice-stream", b"CallSid=CA1", "Expect: 100-continue, more"), 417),
        (post("/voice-stream", b"From=%2B1555"), 400),
        (post("/voice-stream", b"CallSid="), 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nName : y\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (post("/voice-stream", b"", "Transfer-Encoding: chunked"), 400),
        (b"POST /voice-stream HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /voice-stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /voice-stream HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"POST /voice-stream HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
        ),
        (
            b"POST /voice-stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (get("/" + "a" * 8 * 1024), 414),
        (get("/healthz", *[f"X-{n}: y" for n in range(HEADER_COUNT)]), 431),
        (get("/healthz", "X: " + "y" * HEAD_BYTES), 431),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 4 * HEAD_BYTES, 431),
        (post("/voice-stream", b"a=" + b"b" * BODY_BYTES), 413),
    ],
)
async def test_what_is_wrong_is_answered_and_then_closed(
    request_bytes: bytes, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(request_bytes)
        client = Client(stream)
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert await client.closed()


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n", b"\n"])
@pytest.mark.parametrize("apart", [False, True])
async def test_empty_lines_before_a_request_are_no_matter(
    blank: bytes, apart: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """RFC 9112, section 2.2; old clients send one behind a body."""
    async with memory_server() as house:
        stream = house.connect()
        client = Client(stream)
        form = post("/voice-stream", b"CallSid=CA1")
        if apart:
            for byte in blank + form + blank + get("/healthz"):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.01)
        else:
            await stream.send_all(blank + form + blank + get("/healthz"))
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_empty_lines_alone_are_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(b"\r\n")
        assert await Client(stream).closed()
        assert trio.current_time() == pytest.approx(REQUEST_S, abs=0.01)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(get("/healthz") + get("/nope") + post("/voice-stream/ended"))
        client = Client(stream)
        assert [(await client.answer()).status for _ in range(3)] == [200, 404, 200]


async def test_head_is_get_without_a_body() -> None:
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await Client(stream, "HEAD").answer()
        assert (answer.status, answer.headers["content-length"], answer.body) == (200, "3", b"")
        assert (await ask(stream, get("/healthz"))).body == b"ok\n"


async def test_http_1_0_is_answered_and_closed(autojump_clock: trio.testing.MockClock) -> None:
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        client = Client(stream)
        assert (await client.answer()).status == 200
        assert await client.closed()


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(get("/healthz"))
        await stream.send_eof()
        assert (await Client(stream).answer()).status == 200


@pytest.mark.parametrize("part", [1, 20, 60])
async def test_a_request_that_trickles_is_408_after_ten_seconds(
    part: int, autojump_clock: trio.testing.MockClock
) -> None:
    request = post("/voice-stream", b"CallSid=CA1", "X-Filler: " + "y" * 50)
    async with memory_server() as house:
        stream = house.connect()

        async def trickle() -> None:
            for at in range(len(request[:-part])):
                await stream.send_all(request[at : at + 1])
                await trio.sleep(0.9)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            client = Client(stream)
            assert (await client.answer()).status == 408
            assert trio.current_time() == pytest.approx(REQUEST_S, abs=0.01)
            assert await client.closed()
            nursery.cancel_scope.cancel()


async def test_a_body_that_does_not_come_is_408(autojump_clock: trio.testing.MockClock) -> None:
    async with memory_server() as house:
        answer = await ask(house.connect(), post("/voice-stream", b"CallSid=CA1")[:-3])
        assert answer.status == 408
        assert trio.current_time() == pytest.approx(REQUEST_S, abs=0.01)


async def test_idle_connections_close(autojump_clock: trio.testing.MockClock) -> None:
    async with memory_server() as house:
        silent, used = house.connect(), house.connect()
        await ask(used, get("/healthz"))
        assert await Client(silent).closed()
        assert trio.current_time() == pytest.approx(REQUEST_S, abs=0.01)
        assert await Client(used).closed()
        assert trio.current_time() == pytest.approx(IDLE_S, abs=0.01)


async def test_expect_100_continue_comes_after_the_checks() -> None:
    expect = "Expect: 100-continue"
    async with memory_server() as house:
        stream = house.connect()
        await stream.send_all(post("/voice-stream", b"CallSid=CA1", expect)[: -len("CallSid=CA1")])
        client = Client(stream)
        going_on = await stream.receive_some()
        assert going_on.startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"CallSid=CA1")
        assert (await client.answer()).status == 200

        refused = house.connect()
        large = (
            f"POST /voice-stream HTTP/1.1\r\nHost: x\r\n{expect}\r\nContent-Length: 99999\r\n\r\n"
        )
        await refused.send_all(large.encode())
        assert (await refused.receive_some()).startswith(b"HTTP/1.1 413 ")


async def test_a_chunked_body_is_read_and_bounded() -> None:
    head = (
        b"POST /voice-stream HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    async with memory_server() as house:
        answer = await ask(
            house.connect(), head + b"14\r\nCallSid=CA1&From=%2B\r\n3\r\n155\r\n0\r\n\r\n"
        )
        assert b'value="+155"' in answer.body
        flood = head + b"1\r\na\r\n" * (2 * BODY_BYTES // 6 + 1000)
        assert (await ask(house.connect(), flood)).status == 413


async def test_a_peer_that_reads_nothing_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with memory_server() as house:
        stream = house.connect(trio.testing.lockstep_stream_pair)
        await stream.send_all(get("/healthz"))
        await trio.sleep(20)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(get("/healthz"))
