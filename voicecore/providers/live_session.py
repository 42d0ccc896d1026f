"""One session with a live recogniser: audio out, events in, until it ends.

Two tasks: the one that sends (audio, the question for words, the sign of life) and the one that
receives.  What outlives a session is in the `Ear`, which all sessions of a call share.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import trio

from ..audio import SAMPLE_RATE, SILENCE_FRAME
from ..contracts import TurnHint
from ..errors import ProviderError, leaves
from .live_audio import HeldAudio, StreamClock
from .live_dialect import Dialect, Failed, Finalized, Hint, Rules, Words
from .live_words import Ask, PlacedWord, Understanding
from .websocket import Closed, Refusal, WebSocket

RECENT = 10 * SAMPLE_RATE
"""Audio that is worth sending late when nobody has asked for its words."""

QUIET = SAMPLE_RATE // 10
"""Silence that an utterance ends with at least, for words are asked for at a pause."""

AFTERWARDS = SAMPLE_RATE // 2
"""Silence behind an utterance that was never fed: as much as vendors need to be done with it."""

ONSET = SAMPLE_RATE
"""How long before its first word an utterance may begin."""

LONGEST = 64 * SAMPLE_RATE
"""A minute's utterance, and what is fed while its words are waited for."""

HINTS = 8


@dataclass(eq=False, slots=True)
class Question:
    """A wait for an utterance's words, since `began`."""

    ask: Ask
    began: float

    @property
    def target(self) -> int:
        """How far words must be known."""
        return self.ask.end - QUIET


@dataclass(eq=False)
class Ear:
    """What a call's sessions share: its audio, its words, and who waits for them."""

    held: HeldAudio = field(default_factory=HeldAudio)
    words: Understanding = field(default_factory=Understanding)
    question: Question | None = None
    hints: deque[TurnHint] = field(default_factory=lambda: deque(maxlen=HINTS))
    more: trio.Event = field(default_factory=trio.Event)
    """Set when there may be something to send."""
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    """Everybody who waits for words, or for the end of a session."""
    unheard_until: int = 0
    """Some audio before this was let go of although no session understood it."""
    sent: int = 0
    """How far any session has got, or none ever will."""
    dropped: int = 0
    """Bytes that were let go of before they were sent."""

    @property
    def known(self) -> int:
        """How far the line is understood, or nobody wants to know."""
        return max(self.words.covered, self.words.floor)

    def oldest_needed(self) -> int:
        """From where on audio may have to be sent, again or for the first time."""
        end = self.held.end
        recent = end - RECENT
        if self.question is not None:
            recent = min(recent, self.question.ask.start)
        if self.words.interim_start is not None:
            recent = min(recent, self.words.interim_start - ONSET)
        return max(self.known, recent, end - LONGEST, 0)

    def forget(self) -> None:
        """Let go of audio that nobody needs, or that is too much to keep."""
        self.held.forget(self.oldest_needed())
        self.dropped += max(0, self.held.start - max(self.sent, self.known))
        self.sent = max(self.sent, self.held.start)

    def lacks(self, ask: Ask) -> bool:
        """Whether a part of an utterance was let go of, and not understood before."""
        return self.unheard_until > max(ask.start, self.words.floor)

    def feed_again(self, utterance: bytes) -> Ask:
        """Put an utterance on the line as if it were said now; ask for it."""
        self.words.give_up(self.held.end)
        self.held.append(utterance + SILENCE_FRAME[:1] * AFTERWARDS)
        return self.words.ask(utterance, self.held.end - AFTERWARDS + QUIET)

    def begin(self, speed: float) -> int:
        """Return from where on a new session is to hear the line.

        Where audio is taken hardly faster than it comes, what is late stays late: not much is.
        """
        self.held.forget(self.oldest_needed())
        if speed < math.inf:
            start = self.held.end - 2 * ONSET
            if self.question is not None:
                start = self.question.ask.start
            if self.words.interim_start is not None:
                start = min(start, self.words.interim_start)
            self.held.forget(start - ONSET)
        self.note_gap(self.held.start)
        question = self.question
        if question is not None and self.lacks(question.ask):
            question.ask = self.feed_again(question.ask.utterance)
            self.forget()
        return self.held.start

    def note_gap(self, end: int) -> None:
        """Sending goes on at a position, whatever lies before it."""
        if end > self.known:
            self.unheard_until = end


class Session:
    """One session.  `sent` is how far on the line it has got."""

    def __init__(self, ear: Ear, dialect: Dialect, socket: WebSocket) -> None:
        self.sent = ear.begin(dialect.rules.speed)
        self.opened_at = self.heard_at = trio.current_time()
        self.has_heard_words = False
        self.finalised_at = math.inf
        """When the vendor was last asked for words."""
        self.settled = -1
        """How far the vendor says that there are no more words."""
        self._asked: Question | None = None
        self._finalised = self._finalised_before = -1
        """How far the line had been sent at that time, and at the time before."""
        self._ear = ear
        self._dialect = dialect
        self._rules: Rules = dialect.rules
        self._socket = socket
        self._clock = StreamClock()
        self._sent_at = self.opened_at
        self._verdict: ProviderError | None = None
        self._scope = trio.CancelScope()
        self._pinged = trio.Event()

    @property
    def rules(self) -> Rules:
        """How the vendor wants to be spoken to."""
        return self._rules

    def wants(self, end: int) -> bool:
        """Whether there is enough audio to be sent, if so much has been on the line."""
        return end - self.sent >= self._rules.least_bytes

    def has_asked(self, question: Question) -> bool:
        """Whether the vendor was asked for the words of an utterance."""
        return self._asked is question

    def give_up(self, error: ProviderError) -> None:
        """End the session from outside."""
        self._verdict = self._verdict or error
        self._scope.cancel()

    async def run(self) -> ProviderError:
        """Talk until it ends; return why."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, name="live send")
                    if self._rules.quiet_s < math.inf:
                        nursery.start_soon(self._ping, name="live ping")
                    await self._receive()
        except* ProviderError as group:
            errors = [error for error in leaves(group) if isinstance(error, ProviderError)]
            self._verdict = self._verdict or errors[0]
        assert self._verdict is not None
        return self._told(self._verdict)

    def _told(self, error: ProviderError) -> ProviderError:
        """Return what the end of a session means to this vendor."""
        code = error.code if isinstance(error, Closed) else None
        fault = self._rules.close_faults.get(code, "cut") if code is not None else "cut"
        if fault == "cut":
            return error
        kind = Refusal if fault in ("refused", "busy") else ProviderError
        return kind(error.provider, fault, f"closed with {code}")

    async def _receive(self) -> None:
        ear, position = self._ear, self._clock.position
        while True:
            message = await self._socket.receive()
            self.heard_at = trio.current_time()
            for event in self._dialect.receive(message):
                match event:
                    case Words(words, start_s, end_s, is_final):
                        self.has_heard_words = True
                        placed = [
                            PlacedWord(w.text, position(w.start_s), position(w.end_s), w.confidence)
                            for w in words
                        ]
                        ear.words.note(placed, position(start_s), position(end_s), is_final)
                        ear.forget()
                    case Finalized():
                        self._settle()
                    case Hint(hint):
                        ear.hints.append(hint)
                    case Failed(error):
                        raise error
            ear.changed.unpark_all()

    def _settle(self) -> None:
        """All words are there that were asked for, unless this answers a question before that."""
        if self._asked is not None and self._ear.words.covered > self._finalised_before:
            self.settled = max(self.settled, self._asked.target)

    async def _send(self) -> None:
        for message in self._rules.opening:
            await self._socket.send(message)
        while True:
            size = self._sendable()
            if size:
                await self._send_audio(size)
            elif trio.current_time() >= self._finalise_at():
                await self._finalise()
            else:
                silent_at = self._sent_at + self._rules.keep_alive_s
                self._ear.more = trio.Event()
                with trio.move_on_at(min(silent_at, self._finalise_at())):
                    await self._ear.more.wait()
                if trio.current_time() >= silent_at:
                    await self._keep_alive()

    def _sendable(self) -> int:
        """Return how much audio may go out now as one message."""
        self._ear.forget()
        self._skip()
        waiting = self._ear.held.end - self.sent
        question = self._ear.question
        is_tail = question is not None and self.sent < question.ask.end and self._rules.sends_tail
        if waiting < self._rules.least_bytes and not is_tail:
            return 0
        return min(waiting, self._rules.most_bytes)

    async def _send_audio(self, size: int) -> None:
        if self._rules.speed < math.inf:
            ahead = self._clock.sent / SAMPLE_RATE / self._rules.speed
            await trio.sleep_until(self.opened_at + ahead)
        self._skip()
        audio = self._ear.held.read(self.sent, size)
        if not audio:
            return
        self._clock.note_audio(self.sent, len(audio))
        self.sent += len(audio)
        self._ear.sent = max(self._ear.sent, self.sent)
        await self._say(self._dialect.audio(audio))

    def _skip(self) -> None:
        """Go on behind what was let go of, because it came faster than it could be sent."""
        if self._ear.held.start > self.sent:
            self.sent = self._ear.held.start
            self._ear.note_gap(self.sent)

    def _finalise_at(self) -> float:
        """When the vendor is to be asked for words; infinity if it need not be."""
        question = self._ear.question
        if question is None or not self._rules.finalise or self.has_asked(question):
            return math.inf
        if self._ear.words.covered >= question.target:
            return math.inf
        return question.began + self._rules.finalise_after_s

    async def _ping(self) -> None:
        """Ask a vendor who need not answer whether he is there, whenever he is asked for words."""
        while True:
            await self._pinged.wait()
            self._pinged = trio.Event()
            await self._socket.ping()
            self.heard_at = trio.current_time()

    async def _finalise(self) -> None:
        self._asked = self._ear.question
        self._finalised_before, self._finalised = self._finalised, self.sent
        self.finalised_at = trio.current_time()
        for message in self._rules.finalise:
            await self._say(message)
        self._pinged.set()
        self._ear.changed.unpark_all()

    async def _keep_alive(self) -> None:
        if self._rules.keep_alive:
            await self._say(self._rules.keep_alive)
            return
        size = round(self._rules.keep_alive_s * SAMPLE_RATE)
        self._clock.note_silence(size)
        await self._say(self._dialect.audio(SILENCE_FRAME[:1] * size))

    async def _say(self, message: str | bytes) -> None:
        await self._socket.send(message)
        self._sent_at = trio.current_time()
