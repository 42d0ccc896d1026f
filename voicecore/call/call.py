"""One call: a line, a wire machine, and a nursery of four tasks.

    receive    line → wire → frames, marks, stop        never waits for anything but the line
    vad        frames → turn events
    pipeline   turn events → turns
    playback   speech → line                            the sole writer

Hang-up, in whatever way: `ended_by` is set, the nursery is cancelled, every ``finally`` runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import trio

from ..audio.framing import Framer
from ..contracts import Dialogue, Line, Transcription
from ..dialogue.history import History
from ..errors import CallRefused, LineClosed, RemoteProtocolError
from ..wire.dialects import TWILIO, Dialect
from ..wire.events import Command, Dtmf, Ignored, MarkReached, Media, Started, Stopped
from .agent import Agent
from .hearing import Hearing
from .pipeline import Pipeline
from .playback import PlaybackStatistics, Player
from .tape import Tap
from .timeline import CallLog, Observer
from .tools import END_CALL
from .turn import Conversation

START_S = 10.0
"""From the upgrade to `start`: a socket that does not become a call is closed."""

FRAMES_WAITING = 50
"""One second of the caller's sound between receive and vad.  Full: the newest is dropped and
counted; receive must not wait, or nobody answers pings any more."""

OVERTIME_S = 20.0
"""How long the goodbye at the maximum length may take."""

EndedBy = Literal["caller", "agent", "carrier", "silence", "length", "server"]
"""Who or what ended a call: the caller hung up; the agent did; the carrier broke the protocol; no
media came; the maximum length was reached; we went down."""


class Call:
    """One call.  Made by `open_call`; `converse` with an agent until it ends."""

    def __init__(self, line: Line, dialect: Dialect = TWILIO) -> None:
        self.started = Started("", "")
        self.ended_by: EndedBy | None = None
        self.close_code = 1000
        """The WebSocket code with which the line should be closed."""
        self.history = History()
        self.tap: Tap | None = None
        """Is told what both sides sound like: to be set before `converse`."""
        self.dropped_frames = self.inbound_gaps = 0
        self._line = line
        self._stream = dialect.machine()
        self._abilities = dialect.abilities
        self._framer = Framer()
        self._player: Player | None = None
        self._pipeline: Pipeline | None = None
        self._hearing: Hearing | None = None
        self._ended = trio.Event()
        self._send_frame, self._frames = trio.open_memory_channel[bytes](FRAMES_WAITING)
        self.log = CallLog("")

    def __repr__(self) -> str:
        return f"<Call {self.sid or 'before start'} ended_by={self.ended_by}>"

    @property
    def sid(self) -> str:
        """The carrier's name of the call."""
        return self.started.call_sid

    @property
    def parameters(self) -> Mapping[str, str]:
        """The strings that the webhook's answer gave the stream: From, To, language …

        Without its one-time token, which is used up and nobody's business.
        """
        given = self.started.parameters
        return {name: value for name, value in given.items() if name != "token"}

    @property
    def turns(self) -> int:
        """Turns of the caller that were answered."""
        return 0 if self._pipeline is None else self._pipeline.answers

    @property
    def playback(self) -> PlaybackStatistics:
        """How playback went so far."""
        return PlaybackStatistics() if self._player is None else self._player.statistics

    async def converse(self, agent: Agent) -> None:
        """Let `agent` talk with the caller until one of them, or time, ends the call."""
        lead_s = agent.limits.lead_s
        self._player = player = Player(self._say, lead_s, self._abilities, self.tap)
        async with _listener(agent) as listener:
            talk = Conversation(agent, player, listener, self.history, self.log, self._note_words)
            self._pipeline = pipeline = Pipeline(talk, self.hang_up)
            hearing = Hearing(agent, listener, pipeline.post, agent.persona.language)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(player.run, name="playback")
                nursery.start_soon(pipeline.run, name="pipeline")
                nursery.start_soon(self._listen_with, hearing, name="vad")
                with trio.move_on_after(agent.limits.max_call_s + OVERTIME_S) as limit:
                    await self._ended.wait()
                if limit.cancelled_caught:
                    self.hang_up("length")
                nursery.cancel_scope.cancel()

    def hang_up(self, reason: EndedBy, close_code: int = 1000) -> None:
        """End the call.  Idempotent: the first reason counts."""
        if self.ended_by is None:
            self.ended_by, self.close_code = reason, close_code
            self._ended.set()

    def log_end(self) -> None:
        """Log who ended the call, and what it was like."""
        played = self.playback
        self.log.milestone(
            "call ended",
            reason=self.ended_by,
            seconds=round(trio.current_time() - self.log.began, 1),
            turns=self.turns,
            dropped_frames=self.dropped_frames,
            inbound_gaps=self.inbound_gaps,
            underruns=played.underruns,
            starved=played.starved,
            late_ms=round(played.lateness_max_s * 1000, 1),
            mark_ms=round(played.mark_round_trip_s * 1000, 1),
        )

    async def wait_ended(self) -> None:
        """Wait until somebody has ended the call."""
        await self._ended.wait()

    async def _listen_with(self, hearing: Hearing) -> None:
        self._hearing = hearing
        try:
            await hearing.run(self._frames)
        finally:
            self._hearing = None
            self.inbound_gaps = hearing.gaps
        self.hang_up("silence")

    def _note_words(self, words: str) -> None:
        if self._hearing is not None:
            self._hearing.note_words(words)

    async def receive(self) -> None:
        """Read the line until it ends.  The first task of a call, started by `open_call`."""
        try:
            while self.ended_by is None:
                self._take(await self._line.receive())
        except LineClosed:
            self.hang_up("caller")
        except RemoteProtocolError as error:
            self.log.milestone("protocol error", reason=str(error))
            self.hang_up("carrier", error.close_code)

    def _take(self, message: str | bytes) -> None:
        event = self._stream.receive(message)
        if type(event) is Media:  # forty-nine of fifty: before the slower match
            if self.tap is not None:
                self.tap.received(event.audio, event.at_ms)
            self._hear(self._framer.feed(event.audio))
            return
        match event:
            case MarkReached(name):
                if self._player is not None:
                    self._player.mark_reached(name)
            case Started():
                self.started = event
            case Stopped():
                self.hang_up("caller")
            case Ignored(reason):
                if self._stream.ignored == 1:
                    self.log.milestone("ignored a message", reason=reason)
            case Dtmf(digit):
                self.log.milestone("digit", text=digit)

    def _hear(self, frames: list[bytes]) -> None:
        """Judge a frame that comes alone at once; what comes in a burst waits for the vad task.

        Waking a task costs more than judging a frame does.
        """
        if len(frames) == 1 and self._hearing is not None and not self._is_behind():
            self._hearing.hear(frames[0])
            return
        for frame in frames:
            try:
                self._send_frame.send_nowait(frame)
            except trio.WouldBlock:
                if not self.dropped_frames:
                    self.log.milestone("dropping frames", waiting=FRAMES_WAITING)
                self.dropped_frames += 1

    def _is_behind(self) -> bool:
        return self._frames.statistics().current_buffer_used > 0

    async def _say(self, commands: Sequence[Command]) -> None:
        """What the player writes with.  A line that is gone ends the call, politely."""
        if self.ended_by is not None:
            await trio.sleep_forever()  # until the call's nursery is cancelled, a moment from now
        try:
            await self._line.send(*map(self._stream.send, commands))
        except LineClosed:
            self.hang_up("caller")
            await trio.sleep_forever()

    async def wait_started(self) -> None:
        """Wait for the carrier's `start`.

        Raises:
            CallRefused: it did not come in time, or something else did.
        """
        with trio.move_on_after(START_S):
            while not self.sid and self.ended_by is None:
                try:
                    self._take(await self._line.receive())
                except RemoteProtocolError as error:
                    raise CallRefused(str(error), error.close_code) from None
            if self.ended_by is not None:
                raise LineClosed("stopped before it started")
            return
        raise CallRefused(f"no start within {START_S:.0f} s", 1008)


@asynccontextmanager
async def _listener(agent: Agent) -> AsyncIterator[Transcription | Dialogue]:
    """Open who listens to a call: a recogniser, or a model that speaks as well."""
    persona = agent.persona
    if agent.model is None:
        async with agent.stt.listen(persona.language) as transcription:
            yield transcription
        return
    opened = agent.model.converse(persona.prompt, (END_CALL,), persona.voice, persona.language)
    async with opened as dialogue:
        yield dialogue


@asynccontextmanager
async def open_call(
    line: Line,
    admit: Callable[[Started], None] | None = None,
    observe: Observer | None = None,
    dialect: Dialect = TWILIO,
) -> AsyncIterator[Call]:
    """Wait for `start` on `line`, and receive for as long as the context is open.

    `admit` sees who it is before anything else is done, and may raise `CallRefused`.  `observe` is
    told the call's milestones.  `dialect` is what the line's carrier speaks, and what it can do.

    What is raised in its body comes out in an ExceptionGroup, as from any nursery.

    Raises:
        CallRefused: the stream did not start in time, or was not admitted.
        LineClosed: the line went before the call began.
    """
    call = Call(line, dialect)
    await call.wait_started()
    if admit is not None:
        admit(call.started)
    call.log = CallLog(call.sid, observe)
    call.log.milestone("stream started", stream=call.started.stream_sid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.receive, name="receive")
        try:
            yield call
        finally:
            call.hang_up("server")
            call.log_end()
        nursery.cancel_scope.cancel()
