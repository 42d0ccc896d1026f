"""One call on an open media stream: say, listen, play, in real (or virtual) time.

One nursery, four tasks: pace (a tick each 20 ms on absolute deadlines), write (the only writer to
the link), receive, and deliver, which takes what was received when the network lets it through.

    from -> to          bound   when full
    pace -> write        1500   the newest is dropped and counted (Twilio's 31930)
    receive -> deliver    256   wait: the server's TCP connection fills up
    server -> ear      10 min   the call ends
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import trio

from ..errors import LineClosed
from .buffer import Played
from .handset import Conditions, Ear, Handset
from .link import Link
from .network import Network
from .script import Voice
from .stream import CallIdentity, CarrierStream

OUTBOX_MESSAGES = 1500
INBOX_MESSAGES = 256
MAX_QUEUED_BYTES = 8000 * 600
HANG_UP_S = 5.0


class Caller:
    """One stream's caller.  `run` it once; `log`, `stream` and `ended` can be read all the time."""

    def __init__(
        self,
        link: Link,
        identity: CallIdentity,
        voice: Voice,
        conditions: Conditions | None = None,
        ears: Sequence[Ear] = (),
        began: float | None = None,
    ) -> None:
        """Prepare a stream; `began` is when its call did, on trio's clock, if that was earlier."""
        conditions = conditions or Conditions()
        self.stream = CarrierStream(identity)
        self.handset = Handset(voice, conditions, ears)
        self.log = self.handset.log
        self.ended: str | None = None
        """Why the call ended, once it has."""
        self.hung_up = False
        """Whether it was the caller who ended it, not the server."""
        self.dropped = 0
        """Messages that the server was too slow to take."""
        self._link = link
        self._began = began
        self._up, self._down = (
            Network(conditions.jitter_s, conditions.stalls, conditions.chance) for _ in range(2)
        )
        self._epoch = 0.0
        self._outbox, self._to_write = trio.open_memory_channel[tuple[float, str]](OUTBOX_MESSAGES)
        self._pacing = trio.CancelScope()
        self._written = trio.Event()
        self._closed = LineClosed("closed")

    def __repr__(self) -> str:
        return f"<Caller {self.stream.identity.call_sid} {self.ended or self.log}>"

    def hang_up(self, why: str = "hung up") -> None:
        """Have the call end now: `stop`, then close."""
        if self.ended is None:
            self.ended, self.hung_up = why, True
        self._pacing.cancel()

    async def run(self) -> None:
        """Take the call from `connected` to its end.  Raises nothing of the network's making."""
        self._epoch = trio.current_time()
        async with trio.open_nursery() as nursery:
            inbox, to_deliver = trio.open_memory_channel[tuple[float, str | bytes]](INBOX_MESSAGES)
            self._post(self.stream.open())
            nursery.start_soon(self._write)
            nursery.start_soon(self._receive, inbox)
            nursery.start_soon(self._deliver, to_deliver)
            with self._pacing:
                self.hang_up(await self.handset.pace(self._exchange, self._began))
            if self.hung_up:
                with trio.move_on_after(HANG_UP_S):
                    await self._stop()
            await self._link.aclose()
            nursery.cancel_scope.cancel()

    @property
    def late_s(self) -> float:
        """The phone's own worst lateness: above 20 ms its numbers are not to be trusted."""
        return self.handset.late_s

    @property
    def _now(self) -> float:
        return trio.current_time() - self._epoch

    def _exchange(self, frame: bytes, voiced: bool, keys: str) -> tuple[Played, int]:
        """Let 20 ms pass: say a frame, hear a frame."""
        self._post([self.stream.media(frame), *map(self.stream.dtmf, keys)])
        played, echoes = self.stream.play()
        self._post(echoes)
        return played, self.stream.buffer.pending_marks

    def _post(self, texts: Iterable[str]) -> None:
        for text in texts:
            try:
                self._outbox.send_nowait((self._up.arrival(self._now), text))
            except trio.WouldBlock:
                self.dropped += 1
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _write(self) -> None:
        try:
            async with self._to_write:
                async for at, text in self._to_write:
                    await trio.sleep_until(self._epoch + at)
                    await self._link.send(text)
        except LineClosed as closed:
            self._lost(closed)
        finally:
            self._written.set()

    async def _receive(self, inbox: trio.MemorySendChannel[tuple[float, str | bytes]]) -> None:
        async with inbox:
            try:
                while True:
                    text = await self._link.receive()
                    await inbox.send((self._down.arrival(self._now), text))
            except LineClosed as closed:
                self._closed = closed

    async def _deliver(
        self, to_deliver: trio.MemoryReceiveChannel[tuple[float, str | bytes]]
    ) -> None:
        async with to_deliver:
            async for at, text in to_deliver:
                await trio.sleep_until(self._epoch + at)
                self._take(text)
        # What came before the server's close has been heard; only now is the call over.
        self._lost(self._closed)

    def _take(self, text: str | bytes) -> None:
        clears = self.stream.clears
        echoes = self.stream.receive(text)
        if self.stream.clears > clears:
            self.log.clear(len(echoes))
        elif self.log.reply is not None:
            self.log.reply.marks += len(echoes)
        self._post(echoes)
        if self.stream.buffer.queued_bytes > MAX_QUEUED_BYTES:
            self.hang_up("hung up: more than ten minutes of audio are queued")

    def _lost(self, reason: LineClosed) -> None:
        if self.ended is None:
            self.ended = f"the server closed ({reason})"
        self._pacing.cancel()

    async def _stop(self) -> None:
        """Send `stop` behind everything else and wait until it is out."""
        try:
            await self._outbox.send((self._up.arrival(self._now), self.stream.stop()))
        except trio.BrokenResourceError:
            return
        self._outbox.close()
        await self._written.wait()
