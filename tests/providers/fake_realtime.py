"""A server that speaks OpenAI's Realtime API, and can misbehave as vendors do.

    async with open_fake(Behaviour(cut_after_s=1.5)) as fake:
        settings = load(openai_base_url="http://openai.test/v1", openai_api_key="k")
        async with opened(settings, fake.connect) as vendor: ...

What it hears and remembers is in `fake_realtime_conversation`, what it says in
`fake_realtime_model`.  `behaviours` are those of its first
connection, its second, and so on; those after the last are `lasting`.  `sessions` is the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import memory_stream_pair
from trio_websocket import wrap_server_stream

from .fake_deepgram import Bytewise, Wrapped
from .fake_realtime_conversation import Behaviour as Behaviour
from .fake_realtime_conversation import FakeSession as FakeSession
from .fake_realtime_model import Model

UNAUTHORISED = b'{"error":{"message":"bad key sk-SECRET","code":"invalid_api_key","type":"t"}}'


@dataclass
class FakeRealtime:
    """All connections to one fake."""

    nursery: trio.Nursery
    behaviours: Sequence[Behaviour] = ()
    lasting: Behaviour = field(default_factory=Behaviour)
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
        return self.behaviours[at] if at < len(self.behaviours) else self.lasting

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
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            session.closed = trio.current_time()
            await trio.aclose_forcefully(stream)

    async def _upgrade(
        self, stream: trio.abc.Stream, behaviour: Behaviour, session: FakeSession
    ) -> None:
        async with trio.open_nursery() as nursery:
            transport = Bytewise(stream) if behaviour.bytewise else stream
            request = await wrap_server_stream(nursery, transport)
            session.path = request.path
            session.headers = {name.decode(): value.decode() for name, value in request.headers}
            await trio.sleep(behaviour.wait_s)
            status, body = behaviour.status, behaviour.body
            if session.headers.get("authorization") != f"Bearer {self.key}":
                status, body = 401, UNAUTHORISED
            if status != 101:
                await request.reject(status, body=body)
                await trio.sleep(1)
            else:
                await Model(await request.accept(), behaviour, session).run()
            nursery.cancel_scope.cancel()


class ClientEnd(Wrapped):
    """The client's end of a connection: notes when it is closed."""

    def __init__(self, stream: trio.abc.Stream, session: FakeSession) -> None:
        super().__init__(stream)
        self._session = session

    async def aclose(self) -> None:
        self._session.left = trio.current_time()
        await super().aclose()


@asynccontextmanager
async def open_fake(
    *behaviours: Behaviour, lasting: Behaviour | None = None
) -> AsyncIterator[FakeRealtime]:
    """Open a fake in memory; leaving cuts what is still connected."""
    async with trio.open_nursery() as nursery:
        yield FakeRealtime(nursery, behaviours, lasting or Behaviour())
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_fake_on_loopback(*behaviours: Behaviour) -> AsyncIterator[tuple[FakeRealtime, int]]:
    """Open a fake on a port of the loopback interface."""
    async with trio.open_nursery() as nursery:
        fake = FakeRealtime(nursery, behaviours)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, fake.accept, listeners)
        yield fake, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
