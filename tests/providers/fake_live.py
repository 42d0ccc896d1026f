"""What fakes of live recognisers share beyond Deepgram's: other keys, other spellings.

The connection, its faults and the words in the audio are `fake_deepgram`'s.  A vendor is a
`LiveFake`, which knows keys, and a `LiveRecogniser`, which knows messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import trio
from trio_websocket import WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from .fake_deepgram import Behaviour, Bytewise, FakeDeepgram, FakeSession
from .fake_deepgram_models import Recogniser, Spoken


@dataclass(frozen=True)
class Manners(Behaviour):
    """How one connection goes, with what only these vendors do."""

    error: dict[str, Any] | None = None  # said after the upgrade, in place of a greeting
    close: int = 0  # closed with, after the upgrade and any error
    answers_silence: bool = False  # whether there is a final of no words
    twice: bool = False  # finals come once more
    untimed: bool = False  # words or utterances without times
    final_after_s: float = 0.0  # what a final takes longer than other messages


class LiveRecogniser(Recogniser):
    """A session of a vendor.  `behaviour` is `Manners`."""

    behaviour: Manners

    def greet(self) -> None:
        if self.behaviour.error is not None:
            self.say(self.behaviour.error)

    def decode(self, message: str | bytes) -> bytes | dict[str, Any]:
        """Return the audio in a message, or what else it says."""
        raise NotImplementedError

    def hear(self) -> None:
        """React to new audio."""

    def last_words(self) -> str:
        """What a client says that wants to leave."""
        raise NotImplementedError

    async def _listen(self) -> None:
        if self.behaviour.close:
            await trio.sleep(2 * self.behaviour.latency_s)
            await self.socket.aclose(self.behaviour.close, "See Error message for details")
            return
        while True:
            said = self.decode(await self.socket.get_message())
            if self.behaviour.hangs == "after":
                continue
            if isinstance(said, bytes):
                self.session.messages.append(len(said))
                self.session.audio += said
                self._scan()
                self.hear()
                await self._misbehave()
                continue
            self.session.texts.append(said)
            kind = said.get("type") or said.get("event", "")
            if kind == self.last_words():
                self.finish()
                self.say(None)
                await trio.sleep_forever()
            if not self.obey(kind):
                self.session.violations.append(f"a message of kind {kind}")

    def between(self, start: float, end: float) -> list[Spoken]:
        """The words that ended in a stretch of the stream."""
        return [word for word in self.words if start < word.end <= end]


@dataclass
class LiveFake(FakeDeepgram):
    """All connections to one fake."""

    behaviours: Sequence[Behaviour] = ()
    key: str = "k"
    sessions: list[FakeSession] = field(default_factory=list)
    attempts: int = 0

    header: ClassVar[str]
    kind: ClassVar[type[LiveRecogniser]]
    bad_key: ClassVar[Manners]

    def _next(self) -> Behaviour:
        self.attempts += 1
        at = self.attempts - 1
        return self.behaviours[at] if at < len(self.behaviours) else Manners()

    async def _upgrade(
        self, stream: trio.abc.Stream, behaviour: Behaviour, session: FakeSession
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                transport = Bytewise(stream) if behaviour.bytewise else stream
                request = await wrap_server_stream(nursery, transport)  # type: ignore[arg-type]
                session.path = request.path
                session.headers = {name.decode(): value.decode() for name, value in request.headers}
                await trio.sleep(behaviour.wait_s)
                if behaviour.status != 101:
                    await request.reject(
                        behaviour.status, extra_headers=list(behaviour.headers), body=behaviour.body
                    )
                    await trio.sleep(1)
                else:
                    if session.headers.get(self.header) != self.key:
                        behaviour = self.bad_key
                    socket: WebSocketConnection = await request.accept()
                    await self.kind(socket, behaviour, session).run()
                nursery.cancel_scope.cancel()
        except* LocalProtocolError:
            pass  # the library answers pings while it closes, and may not


@asynccontextmanager
async def open_live_fake(kind: type[LiveFake], *manners: Manners) -> AsyncIterator[LiveFake]:
    """Open a fake in memory; leaving cuts what is still connected."""
    async with trio.open_nursery() as nursery:
        yield kind(nursery, manners)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_on_loopback(
    kind: type[LiveFake], *manners: Manners
) -> AsyncIterator[tuple[LiveFake, int]]:
    """Open a fake on a port of the loopback interface."""
    async with trio.open_nursery() as nursery:
        fake = kind(nursery, manners)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, fake.accept, listeners)
        yield fake, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()
