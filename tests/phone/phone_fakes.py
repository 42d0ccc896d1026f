"""A small Media Streams server to try the phone against, over memory or over real sockets."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket

from voicecore.audio import mulaw
from voicecore.errors import LineClosed
from voicecore.phone.caller import Caller
from voicecore.phone.loudness import is_audible
from voicecore.phone.script import Manners, Script, Utterance
from voicecore.phone.stream import CallIdentity

IDENTITY = CallIdentity("CA" + "1" * 32, "MZ" + "2" * 32, parameters={"token": "t-9"})
END_FRAMES = 15


def tone(seconds: float, level: int = 8000) -> bytes:
    """Return a loud square wave as mu-law."""
    wave = [level if n // 10 % 2 else -level for n in range(round(8000 * seconds))]
    return mulaw.encode(b"".join(value.to_bytes(2, "little", signed=True) for value in wave))


def utterance(seconds: float = 1.0, tail: float = 0.0, name: str = "a.wav") -> Utterance:
    """Return `seconds` of sound followed by `tail` seconds of silence."""
    return Utterance(name, tone(seconds) + b"\xff" * round(8000 * tail))


class MemoryLink:
    """A `Link` whose other end is `server_send` and `server_receive`."""

    def __init__(self) -> None:
        self._to_server, self.server_receive = trio.open_memory_channel[str](10000)
        self.server_send, self._from_server = trio.open_memory_channel[Any](10000)
        self.closed = False

    async def send(self, text: str) -> None:
        try:
            await self._to_server.send(text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LineClosed("1006") from None

    async def receive(self) -> str | bytes:
        try:
            return await self._from_server.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LineClosed("1000") from None

    async def aclose(self) -> None:
        self.closed = True
        self._to_server.close()
        await trio.lowlevel.checkpoint()


class Server:
    """The server's end of one stream."""

    def __init__(self, link: MemoryLink) -> None:
        self._link = link
        self.stream_sid = ""
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._link.server_receive.receive())
        self.messages.append(message)
        self.times.append(trio.current_time())
        self.stream_sid = message.get("streamSid", self.stream_sid)
        return message

    async def until(self, event: str) -> dict[str, Any]:
        while True:
            message = await self.receive()
            if message["event"] == event:
                return message

    async def rest(self) -> None:
        """Take messages until the phone closes."""
        try:
            while True:
                await self.receive()
        except trio.EndOfChannel:
            pass

    async def speech_end(self) -> None:
        """Wait for speech and then 300 ms without."""
        silent = None
        while silent is None or silent < END_FRAMES:
            media = (await self.until("media"))["media"]
            if is_audible(b64decode(media["payload"])):
                silent = 0
            elif silent is not None:
                silent += 1

    async def speech(self, frames: int) -> None:
        """Wait for so many voiced frames in a row."""
        voiced = 0
        while voiced < frames:
            media = (await self.until("media"))["media"]
            voiced = voiced + 1 if is_audible(b64decode(media["payload"])) else 0

    async def raw(self, text: str | bytes) -> None:
        await self._link.server_send.send(text)

    async def send(self, event: str, **body: Any) -> None:
        await self.raw(json.dumps({"event": event, "streamSid": self.stream_sid, **body}))

    async def say(self, audio: bytes, mark: str | None = None) -> None:
        for at in range(0, len(audio), 1600):
            payload = b64encode(audio[at : at + 1600]).decode()
            await self.send("media", media={"payload": payload})
        if mark is not None:
            await self.send("mark", mark={"name": mark})

    def close(self) -> None:
        self._link.server_send.close()

    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]


Agent = Callable[[Server], Awaitable[None]]


async def polite_agent(server: Server) -> None:
    """Greet, and answer each utterance 100 ms after its end was certain."""
    await server.until("start")
    await server.say(tone(0.8), "greeting")
    try:
        turn = 0
        while True:
            turn += 1
            await server.speech_end()
            await trio.sleep(0.1)
            await server.say(tone(1.0), f"turn-{turn}")
    except trio.EndOfChannel:
        pass


async def greeting_agent(server: Server) -> None:
    """Greet, then only listen."""
    await server.until("start")
    await server.say(tone(0.8), "greeting")
    await server.rest()


async def converse(
    agent: Agent, *said: Utterance, manners: Manners | None = None, **more: Any
) -> tuple[Caller, Server]:
    """Run a call over memory to its end."""
    link = MemoryLink()
    server = Server(link)
    caller = Caller(link, IDENTITY, Script(said, manners), **more)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent, server)
        await caller.run()
    return caller, server


class SocketServer:
    """A `Server`'s link over a trio-websocket connection."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket
        self.server_receive = self.server_send = self

    async def receive(self) -> Any:
        try:
            return await self._socket.get_message()
        except trio_websocket.ConnectionClosed:
            raise trio.EndOfChannel from None

    async def send(self, text: Any) -> None:
        try:
            await self._socket.send_message(text)
        except trio_websocket.ConnectionClosed:
            raise trio.EndOfChannel from None


class Carried:
    """What a real-socket server saw, and where it is."""

    def __init__(self) -> None:
        self.http_port = self.media_port = 0
        self.requests: list[bytes] = []
        self.upgrades: list[dict[str, str]] = []


@asynccontextmanager
async def socket_server(
    agent: Agent, answer: Callable[[Carried, bytes], bytes], status: int = 101
) -> AsyncIterator[Carried]:
    """Serve a webhook (`answer` makes the whole HTTP response) and a media stream."""
    carried = Carried()

    async def media(request: trio_websocket.WebSocketRequest) -> None:
        carried.upgrades.append({k.decode(): v.decode() for k, v in request.headers})
        if status != 101:
            await request.reject(status)
            return
        socket = await request.accept()
        try:
            await agent(Server(SocketServer(socket)))  # type: ignore[arg-type]
        except trio.EndOfChannel:
            pass
        await socket.aclose()

    async def webhook(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while not _complete(request):
                piece = await stream.receive_some(4096)
                if not piece:
                    return
                request += piece
            carried.requests.append(request)
            await stream.send_all(answer(carried, request))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(_serve_http, webhook)
        carried.http_port = listeners[0].socket.getsockname()[1]
        server = await nursery.start(_serve_media, media)
        carried.media_port = server.port
        yield carried
        nursery.cancel_scope.cancel()


def _complete(request: bytes) -> bool:
    head, found, body = request.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return bool(found) and len(body) >= length


async def _serve_http(
    webhook: Any, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
) -> None:
    await trio.serve_tcp(webhook, 0, host="127.0.0.1", task_status=task_status)


async def _serve_media(
    media: Any, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
) -> None:
    await trio_websocket.serve_websocket(media, "127.0.0.1", 0, None, task_status=task_status)


def http(body: str, status: str = "200 OK", kind: str = "text/xml") -> bytes:
    """Return a whole HTTP response."""
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}"
    return f"{head}\r\nConnection: close\r\n\r\n".encode() + content
