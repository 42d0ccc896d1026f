"""Upgrade requests: what a plain WebSocket server would die of, and what must pass."""

from __future__ import annotations

import pytest
import trio.testing
from server_house import KEY, UPGRADE, ask, get, memory_server, post


def upgrade(**changes: bytes | None) -> bytes:
    """The upgrade request with headers replaced (``None``: left out)."""
    headers: dict[bytes, bytes | None] = {
        b"Host": b"example.com",
        b"Connection": b"Upgrade",
        b"Upgrade": b"websocket",
        b"Sec-WebSocket-Version": b"13",
        b"Sec-WebSocket-Key": KEY.encode(),
    }
    headers |= {name.replace("_", "-").encode(): value for name, value in changes.items()}
    lines = [name + b": " + value for name, value in headers.items() if value is not None]
    return b"\r\n".join([b"GET /media-stream HTTP/1.1", *lines, b"", b""])


HOSTILE = {
    "host xn--0": upgrade(Host=b"xn--0"),
    "host xn--ab-": upgrade(Host=b"xn--ab-"),
    "host byte": upgrade(Host=b"\xff"),
    "host with userinfo": upgrade(Host=b"a@b"),
    "connection byte": upgrade(Connection=b"Upgrade, \xff"),
    "upgrade byte": upgrade(Upgrade=b"websocket\xff"),
    "version byte": upgrade(Sec_WebSocket_Version=b"13\xff"),
    "protocol byte": upgrade(Sec_WebSocket_Protocol=b"\xff"),
    "extensions byte": upgrade(Sec_WebSocket_Extensions=b"\xff"),
    "no key": upgrade(Sec_WebSocket_Key=None),
    "key not base64": upgrade(Sec_WebSocket_Key=b"!" * 24),
    "key of 15 bytes": upgrade(Sec_WebSocket_Key=b"AAAAAAAAAAAAAAAAAAAA"),
    "key byte": upgrade(Sec_WebSocket_Key=b"\xff" * 24),
    "two keys": upgrade(sec_websocket_key=KEY.encode()),
    "two upgrades": upgrade(upgrade=b"websocket"),
    "with a body": upgrade(Content_Length=b"5") + b"hello",
    "chunked body": upgrade(Transfer_Encoding=b"chunked") + b"0\r\n\r\n",
    "HTTP/1.0": UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_handshakes_are_400_and_nobody_notices(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with memory_server() as house:
        bystander = house.connect()
        assert (await ask(bystander, get("/healthz"))).status == 200
        hostile = house.connect()
        answer = await ask(hostile, HOSTILE[name])
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        await hostile.send_eof()
        assert await hostile.receive_some(1) == b""
        assert (await ask(bystander, get("/healthz"))).status == 200
        assert await accepted(house.connect(), UPGRADE)


@pytest.mark.parametrize(
    "request_bytes",
    [
        UPGRADE,
        upgrade(Connection=b"keep-alive, upgrade", Upgrade=b"WebSocket"),
        upgrade(Host=b"[::1]:8000"),
        upgrade(Host=b"my_host.internal:8000"),
        upgrade(Sec_WebSocket_Protocol=b"a, b", Sec_WebSocket_Extensions=b"permessage-deflate"),
        upgrade(Origin=b"https://\xff", User_Agent=b"Twilio.TmeWs/1.0", Accept_Encoding=b"gzip"),
    ],
)
async def test_good_handshakes_pass_and_nothing_is_negotiated(request_bytes: bytes) -> None:
    async with memory_server() as house:
        assert await accepted(house.connect(), request_bytes)


@pytest.mark.parametrize(
    "request_bytes",
    [upgrade(Sec_WebSocket_Version=b"12"), upgrade(Sec_WebSocket_Version=None)],
)
async def test_another_version_is_told_ours(request_bytes: bytes) -> None:
    async with memory_server() as house:
        answer = await ask(house.connect(), request_bytes)
        assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
        assert "close" in answer.headers["connection"]


async def test_a_plain_get_is_told_to_upgrade_and_a_post_not_allowed() -> None:
    async with memory_server() as house:
        answer = await ask(house.connect(), get("/media-stream"))
        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")
        assert answer.headers["connection"] == "close, upgrade"
        answer = await ask(house.connect(), post("/media-stream"))
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_an_unsigned_upgrade_is_403_before_101() -> None:
    async with memory_server(twilio_auth_token="secret") as house:
        answer = await ask(house.connect(), UPGRADE)
        assert (answer.status, answer.body) == (403, b"")


async def test_an_upgrade_while_draining_is_503() -> None:
    async with memory_server() as house:
        assert await accepted(house.connect(), UPGRADE)  # or it would be gone at once
        house.server.drain()
        assert (await ask(house.connect(), UPGRADE)).status == 503


async def accepted(stream: trio.testing.MemoryReceiveStream, request: bytes) -> bool:
    await stream.send_all(request)
    head = bytes(await stream.receive_some()).lower()
    assert b"sec-websocket-extensions" not in head
    assert b"sec-websocket-protocol" not in head
    # The accept value of this key is in RFC 6455, section 1.3.
    return head.startswith(b"http/1.1 101 ") and b"s3pplmbitxaq9kygzzhzrbk+xoo=" in head
