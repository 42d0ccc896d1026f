"""One call: a line, a wire machine, and a nursery of four tasks, and those of its turns.

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

from ..contracts import Dialogue, Line, Transcription
from ..dialogue.history import History
from ..errors import CallRefused, LineClosed, RemoteProtocolError
from ..wire.dialects import TWILIO, Dialect
from ..wire.events import Command, Dtmf, Ignored, MarkReached, Media, Started, Stopped
from .agent import Agent
from .hands import Desk, LiveLine
from .hearing import Hearing
from .inbound import Inbound
from .keypad import Keypad
from .pipeline import Pipeline
from .playback import PlaybackStatistics, Player
from .tape import Tap
from .timeline import CallLog, Observer
from .toolbox import CallInfo
from .tools import offered, tools_of
from .transfer import Operator, Transfer
from .turn import Conversation

START_S = 10.0
"""From the upgrade to `start`: a socket that does not become a call is closed."""

OVERTIME_S = 20.0
"""How long the goodbye at the maximum length may take."""

EndedBy = Literal["caller", "agent", "carrier", "silence", "length", "server", "transfer", "admin"]
"""Who or what ended a call: the caller hung up; the agent did; the carrier broke the protocol; no
media came; the maximum length was reached; we went down; it goes on with somebody else; an operator
hung up."""


class Call:
    """One call.  Made by `open_call`; `converse` with an agent until it ends."""

    def __init__(self, line: Line, dialect: Dialect = TWILIO) -> None:
        self.started = Started("", "")
        self.ended_by: EndedBy | None = None
        self.transfer: Transfer | None = None
        """With whom the call goes on, once `ended_by` is "transfer"."""
        self.close_code = 1000
        """The WebSocket code with which the line should be closed."""
        self.was_cut = False
        """Whether the line went without the carrier's `stop`: the caller may still be there."""
        self.operator: Operator | None = None
        """Whoever can call somebody else for this call, before it is given to them."""
        self.history = History()
        self.tap: Tap | None = None
        """Is told what both sides sound like: to be set before `converse`."""
        self._line = line
        self._stream = dialect.machine()
        self._abilities = dialect.abilities
        self.inbound = Inbound()
        self._player: Player | None = None
        self._pipeline: Pipeline | None = None
        self._keypad = Keypad()
        self._ended = trio.Event()
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
        async with open_listener(agent) as listener:
            async with trio.open_nursery() as nursery:
                desk = self._desk(nursery, player, listener)
                note_words = self.inbound.note_words
                talk = Conversation(
                    agent, player, listener, self.history, self.log, desk, note_words
                )
                self._pipeline = pipeline = Pipeline(talk, self.hang_up, self.transfer_to)
                hearing = Hearing(agent, listener, pipeline.post, agent.persona.language)
                nursery.start_soon(player.run, name="playback")
                nursery.start_soon(pipeline.run, name="pipeline")
                nursery.start_soon(self._listen_with, hearing, name="vad")
                self._keypad.barge_in_key = agent.rules.barge_in_key
                self._keypad.barge_in = pipeline.press_barge_in
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

    def transfer_to(self, transfer: Transfer) -> None:
        """End the stream; the call goes on with somebody else.  The first to end it counts."""
        if self.ended_by is None:
            self.transfer = transfer
            self.hang_up("transfer")

    def say(self, text: str) -> bool:
        """Have the agent say a sentence, when neither side is speaking.

        False: the agent is not talking with anybody, or too much waits to be said.
        """
        return self._pipeline is not None and self._pipeline.say(text)

    def take_leave(self, text: str) -> bool:
        """Have the agent break off, say a last thing that cannot be interrupted, and hang up.

        What is left on an answering machine.  False: the agent is not talking with anybody.
        """
        if self._pipeline is None:
            return False
        self._pipeline.take_leave(text)
        return True

    def begin_log(self, observe: Observer | None, carrier: str) -> None:
        """The call is admitted: from now on its milestones are its own."""
        self.log = self.inbound.log = CallLog(self.sid, observe)
        told = {"stream": self.started.stream_sid, "carrier": carrier}
        if limits := self._abilities.barge_in:
            told["barge_in"] = limits
        self.log.milestone("stream started", **told)

    async def wait_ended(self) -> None:
        """Wait until somebody has ended the call."""
        await self._ended.wait()

    def _desk(
        self, nursery: trio.Nursery, player: Player, listener: Transcription | Dialogue
    ) -> Desk:
        """Return what the tools of this call work with."""

        def info() -> CallInfo:
            return CallInfo(self.sid, self.parameters, self.history.messages)

        line = LiveLine(player, self._keypad)
        tool_done = _results_to(self.history, listener)
        return Desk(info, nursery, tool_done, line, lambda: self.operator)

    async def _listen_with(self, hearing: Hearing) -> None:
        await self.inbound.listen_with(hearing)
        self.hang_up("silence")

    async def receive(self) -> None:
        """Read the line until it ends.  The first task of a call, started by `open_call`."""
        try:
            while self.ended_by is None:
                self._take(await self._line.receive())
        except LineClosed:
            self._lose_line()
        except RemoteProtocolError as error:
            self.log.milestone("protocol error", reason=str(error))
            self.hang_up("carrier", error.close_code)

    def _take(self, message: str | bytes) -> None:
        event = self._stream.receive(message)
        if type(event) is Media:  # forty-nine of fifty: before the slower match
            if self.tap is not None:
                self.tap.received(event.audio, event.at_ms)
            self.inbound.take(event.audio)
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
                self._keypad.press(digit)

    async def _say(self, commands: Sequence[Command]) -> None:
        """What the player writes with.  A line that is gone ends the call, politely."""
        if self.ended_by is not None:
            await trio.sleep_forever()  # until the call's nursery is cancelled, a moment from now
        try:
            await self._line.send(*map(self._stream.send, commands))
        except LineClosed:
            self._lose_line()
            await trio.sleep_forever()

    def _lose_line(self) -> None:
        self.was_cut = self.was_cut or self.ended_by is None
        self.hang_up("caller")

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


def _log_end(call: Call) -> None:
    """Log who ended a call, and what it was like."""
    played = call.playback
    call.log.milestone(
        "call ended",
        reason=call.ended_by,
        seconds=round(trio.current_time() - call.log.began, 1),
        turns=call.turns,
        dropped_frames=call.inbound.dropped_frames,
        inbound_gaps=call.inbound.gaps,
        underruns=played.underruns,
        starved=played.starved,
        late_ms=round(played.lateness_max_s * 1000, 1),
        mark_ms=round(played.mark_round_trip_s * 1000, 1),
    )


def _results_to(history: History, listener: Transcription | Dialogue) -> Callable[[str, str], None]:
    """Return what takes a tool's late result: a model with a memory of its own wants it, too."""

    def tool_done(call_id: str, result: str) -> None:
        history.tool_done(call_id, result)
        if isinstance(listener, Dialogue):
            listener.tool_done(call_id, result)

    return tool_done


@asynccontextmanager
async def open_listener(agent: Agent) -> AsyncIterator[Transcription | Dialogue]:
    """Open who listens to a call: a recogniser, or a model that speaks as well."""
    persona = agent.persona
    if agent.model is None:
        async with agent.stt.listen(persona.language) as transcription:
            yield transcription
        return
    tools = offered(tools_of(agent))
    opened = agent.model.converse(persona.prompt, tools, persona.voice, persona.language)
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
    call.begin_log(observe, dialect.name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.receive, name="receive")
        try:
            yield call
        finally:
            call.hang_up("server")
            _log_end(call)
        nursery.cancel_scope.cancel()
