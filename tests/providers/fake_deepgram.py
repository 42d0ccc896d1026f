"""A server that speaks Deepgram's live API, nova's and Flux's, and can misbehave as vendors do.

    async with open_fake(Behaviour(cut_after_s=1.5)) as fake:
        settings = load(deepgram_base_url="http://deepgram.test", deepgram_api_key="k")
        async with opened(settings, fake.connect) as deepgram: ...

What it understands is in `fake_deepgram_models`.  `behaviours` are those of its first connection,
its second, and so on; those after the last behave well.  `sessions` is the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, wrap_server_stream

from .fake_deepgram_models import Behaviour as Behaviour
from .fake_deepgram_models import FakeSession as FakeSession
from .fake_deepgram_models import Flux, Nova


@dataclass
class FakeDeepgram:
    """All connections to one fake."""

    nursery: trio.Nursery
    behaviours: Sequence[Behaviour] = ()
    key: str = "k"
    sessions: list[FakeSession] = field(default_factory=list)
    attempts: int = 0

    @property
    def open_sessions(self) -> list[FakeSession]:
        """Those that their client has not left."""
        return [session for session in self.sessions if session.left is None]

    async def connect(self, host: str, port: int, tls: bool) -> trio.abc.Stream:
        """What the client calls in place of connecting to a network."""
        await trio.lowlevel.checkpoint()
        behaviour = self._next()
        if behaviour.refuses:
            raise ConnectionRefusedError
        ours, theirs = memory_stream_pair()
        session = self._begin()
        self.nursery.start_soon(self._serve, ours, behaviour, session)
        return ClientEnd(theirs, session)

    async def accept(self, stream: trio.abc.Stream) -> None:
        """Serve a connection from a network."""
        await self._serve(stream, self._next(), self._begin())

    def _begin(self) -> FakeSession:
        session = FakeSession(opened=trio.current_time())
        self.sessions.append(session)
        return session

    def _next(self) -> Behaviour:
        self.attempts += 1
        at = self.attempts - 1
        return self.behaviours[at] if at < len(self.behaviours) else Behaviour()

    async def _serve(
        self, stream: trio.abc.Stream, behaviour: Behaviour, session: FakeSession
    ) -> None:
        try:
            if behaviour.raw is not None:
                await stream.send_all(behaviour.raw)
                await trio.sleep(60)
            elif behaviour.hangs == "before":
                await trio.sleep_forever()
            else:
                await self._upgrade(stream, behaviour, session)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            pass
        finally:
            session.closed = trio.current_time()
            await trio.aclose_forcefully(stream)

    async def _upgrade(
        self, stream: trio.abc.Stream, behaviour: Behaviour, session: FakeSession
    ) -> None:
        async with trio.open_nursery() as nursery:
            transport = Bytewise(stream) if behaviour.bytewise else stream
            request = await wrap_server_stream(nursery, transport)  # type: ignore[arg-type]
            session.path = request.path
            session.headers = {name.decode(): value.decode() for name, value in request.headers}
            await trio.sleep(behaviour.wait_s)
            status, body = behaviour.status, behaviour.body
            if session.headers.get("authorization") != f"Token {self.key}":
                status = 401
                body = (
                    b'{"err_code":"INVALID_AUTH","err_msg":"Invalid credentials.","request_id":"r"}'
                )
            if status != 101:
                await request.reject(status, extra_headers=list(behaviour.headers), body=body)
                await trio.sleep(1)
            else:
                socket = await request.accept(extra_headers=[(b"dg-request-id", b"r")])
                kind = Flux if urlsplit(session.path).path == "/v2/listen" else Nova
                await kind(socket, behaviour, session).run()
            nursery.cancel_scope.cancel()


class Wrapped(trio.abc.Stream):
    """A stream like the one inside."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class ClientEnd(Wrapped):
    """The client's end of a connection: notes when it is closed."""

    def __init__(self, stream: trio.abc.Stream, session: FakeSession) -> None:
        super().__init__(stream)
        self._session = session

    async def aclose(self) -> None:
        self._session.left = trio.current_time()
        await super().aclose()


class Bytewise(Wrapped):
    """The server's end of a connection on which every byte comes alone.

    The upgrade and the first messages do; what follows comes in pieces of seven bytes.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self._alone = 3000

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        at = 0
        while at < len(data):
            size = 1 if self._alone > 0 else 7
            await super().send_all(bytes(data[at : at + size]))
            self._alone -= size
            at += size


@asynccontextmanager
async def open_fake(*behaviours: Behaviour) -> AsyncIterator[FakeDeepgram]:
    """Open a fake in memory; leaving cuts what is still connected."""
    async with trio.open_nursery() as nursery:
        yield FakeDeepgram(nursery, behaviours)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_fake_on_loopback(*behaviours: Behaviour) -> AsyncIterator[tuple[FakeDeepgram, int]]:
    """Open a fake on a port of the loopback interface."""
    async with trio.open_nursery() as nursery:
        fake = FakeDeepgram(nursery, behaviours)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, fake.accept, listeners)
        yield fake, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
