"""A caller who follows a script, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from ..audio import FRAME_MS, SILENCE_FRAME
from ..call.agent import Agent
from ..call.call import Call
from ..contracts import Message
from ..phone.stream import CallIdentity, CarrierStream
from . import audible
from .network import Answered, answer_on

FRAME_S = FRAME_MS / 1000
LISTEN_LIMIT_S = 60.0
QUIET_S = 0.4


@dataclass
class Transcript:
    """What came of a scripted call.  Times are seconds since `start`."""

    words: list[tuple[float, str]] = field(default_factory=list)
    """Each word that the caller heard, and when."""
    audio: bytearray = field(default_factory=bytearray)
    """Everything that the caller's ear was given, silence included."""
    gaps: list[float] = field(default_factory=list)
    """From the caller's last voiced frame to the first frame of the answer, on the wire."""
    spoke: list[tuple[float, float]] = field(default_factory=list)
    """When the caller spoke: from, to."""
    clears: list[float] = field(default_factory=list)
    frames_after_clear: int = 0
    warnings: list[str] = field(default_factory=list)
    history: tuple[Message, ...] = ()
    ended_by: str | None = None
    close_code: int | None = None
    seconds: float = 0.0

    @property
    def heard(self) -> list[str]:
        """The words that the caller heard, in order."""
        return [word for _, word in self.words]


@dataclass(frozen=True, slots=True)
class _Step:
    frames: list[bytes]
    until_quiet: bool = False
    digit: str = ""
    end: str = ""


class ScriptedCaller:
    """Says, pauses, listens, hangs up, 20 ms at a time.  Every method returns the caller."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def says(self, text: str, seconds: float | None = None) -> ScriptedCaller:
        """Say `text`; a word takes 0.3 s unless `seconds` says how long all of it takes."""
        length = seconds if seconds is not None else 0.3 * len(text.split())
        return self._add(_Step(audible.say(text, round(length / FRAME_S))))

    def coughs(self, seconds: float = 0.24) -> ScriptedCaller:
        """Make a noise without words."""
        return self._add(_Step([audible.LOUD_FRAME] * round(seconds / FRAME_S)))

    def pauses(self, seconds: float) -> ScriptedCaller:
        """Say nothing for so long."""
        return self._add(_Step([SILENCE_FRAME] * round(seconds / FRAME_S)))

    def listens(self) -> ScriptedCaller:
        """Say nothing until the agent has begun to speak and has fallen silent again."""
        return self._add(_Step([], until_quiet=True))

    def presses(self, digit: str) -> ScriptedCaller:
        """Press a key."""
        return self._add(_Step([], digit=digit))

    def hangs_up(self) -> ScriptedCaller:
        """Hang up: `stop`, then close."""
        return self._add(_Step([], end="stop"))

    def drops(self) -> ScriptedCaller:
        """Vanish without a word, as a lost connection does."""
        return self._add(_Step([], end="drop"))

    async def call(
        self, agent: Agent, meanwhile: Callable[[Call], Awaitable[None]] | None = None
    ) -> Transcript:
        """Call `agent` over WebSocket bytes in memory; return when the call is over.

        `meanwhile` runs beside the call once it has started.
        """
        answered = Answered(meanwhile=meanwhile)
        async with trio.open_nursery() as nursery:
            stream = await nursery.start(answer_on, agent, answered)
            websocket = await wrap_client_stream(nursery, stream, "agent.test", "/media-stream")
            transcript = await self.talk(websocket)
            await answered.over.wait()
            nursery.cancel_scope.cancel()
        if answered.call is not None:
            transcript.history = answered.call.history.messages
            transcript.ended_by = answered.call.ended_by
        return transcript

    async def talk(
        self, websocket: WebSocketConnection, identity: CallIdentity | None = None
    ) -> Transcript:
        """Follow the script on an open WebSocket; return when it, or the call, has ended.

        `identity` is whose call it is, and with which parameters.
        """
        ear = _Ear(websocket, identity or CallIdentity("CA" + "1" * 32, "MZ" + "1" * 32))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ear.listen, nursery.cancel_scope)
            await self._follow(ear, websocket)
            nursery.cancel_scope.cancel()
        ear.finish()
        return ear.transcript

    async def _follow(self, ear: _Ear, websocket: WebSocketConnection) -> None:
        try:
            await ear.open()
            for step in self._steps:
                if step.end:
                    await self._end(step.end, ear, websocket)
                    return
                if step.digit:
                    await websocket.send_message(ear.stream.dtmf(step.digit))
                for frame in step.frames:
                    await ear.tick(frame)
                if step.until_quiet:
                    await ear.until_quiet()
            while True:  # the script is over, the agent decides
                await ear.tick(SILENCE_FRAME)
        except ConnectionClosed:
            return

    async def _end(self, how: str, ear: _Ear, websocket: WebSocketConnection) -> None:
        if how == "stop":
            await websocket.send_message(ear.stream.stop())
            with trio.move_on_after(2):
                await websocket.aclose()
        else:
            await trio.aclose_forcefully(websocket)

    def _add(self, step: _Step) -> ScriptedCaller:
        self._steps.append(step)
        return self


class _Ear:
    """The carrier's side while the script runs: ticks, plays, echoes, and writes it all down."""

    def __init__(self, websocket: WebSocketConnection, identity: CallIdentity) -> None:
        self.transcript = Transcript()
        self.stream = CarrierStream(identity)
        self._websocket = websocket
        self._began = self._next = trio.current_time()
        self._last_voiced: float | None = None
        self._speaking_since: float | None = None
        self._quiet_since = self._began
        self._has_heard = trio.Event()

    async def open(self) -> None:
        """Say `connected` and `start`."""
        for message in self.stream.open():
            await self._websocket.send_message(message)
        self._began = self._next = trio.current_time()

    async def tick(self, frame: bytes) -> None:
        """Send 20 ms, hear 20 ms, and wait until they are over."""
        now = trio.current_time()
        await self._websocket.send_message(self.stream.media(frame))
        self._note_speech(frame, now)
        # The ear ticks half-way between: whether something sent at the very moment of a tick is
        # heard in it would be the scheduler's choice.
        await trio.sleep_until(self._next + FRAME_S / 2)
        played, echoes = self.stream.play()
        for echo in echoes:
            await self._websocket.send_message(echo)
        if played.queued:
            self._quiet_since = now
            self._has_heard.set()
        self.transcript.audio += played.audio
        for word in audible.words_in_frame(played.audio):
            self.transcript.words.append((now - self._began, word))
        self._next += FRAME_S
        await trio.sleep_until(self._next)

    async def until_quiet(self) -> None:
        """Stay silent until the agent has spoken and is silent again."""
        self._has_heard = trio.Event()
        give_up = trio.current_time() + LISTEN_LIMIT_S
        while trio.current_time() < give_up:
            await self.tick(SILENCE_FRAME)
            silent_for = trio.current_time() - self._quiet_since
            if self._has_heard.is_set() and silent_for > QUIET_S:
                return

    async def listen(self, scope: trio.CancelScope) -> None:
        """Take the server's messages until it closes."""
        transcript = self.transcript
        try:
            while True:
                message = await self._websocket.get_message()
                media, clears = self.stream.media_messages, self.stream.clears
                echoes = self.stream.receive(message)
                now = trio.current_time()
                if self.stream.media_messages > media and self._last_voiced is not None:
                    transcript.gaps.append(now - self._last_voiced)
                    self._last_voiced = None
                if self.stream.clears > clears:
                    transcript.clears.append(now - self._began)
                for echo in echoes:
                    await self._websocket.send_message(echo)
        except ConnectionClosed as closed:
            if closed.reason is not None:
                transcript.close_code = closed.reason.code
            scope.cancel()

    def finish(self) -> None:
        """Fill in what is known only at the end."""
        self.transcript.warnings = self.stream.warnings
        self.transcript.seconds = trio.current_time() - self._began

    def _note_speech(self, frame: bytes, now: float) -> None:
        if audible.is_loud(frame):
            self._last_voiced = now
            if self._speaking_since is None:
                self._speaking_since = now
        elif self._speaking_since is not None:
            spoke = (self._speaking_since - self._began, now - self._began)
            self.transcript.spoke.append(spoke)
            self._speaking_since = None
