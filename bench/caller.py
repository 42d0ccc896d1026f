"""What a caller says and listens for: the script of one call, and what is noted on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import measure
import numpy as np
from client import is_audible, payload_of, payloads
from connection import Connection

from voicecore.audio import mulaw, wav

RECORDINGS = Path(__file__).resolve().parent.parent / "tests" / "audio"
UTTERANCES = (
    ("hello_world", 0.20, 1.03),
    ("weather_question", 0.40, 1.75),
    ("jfk", 0.30, 2.20),
)
"""Recording, and the seconds between which a phrase of it lies."""

SPEECH_DB = 25
"""A frame belongs to an utterance while it is less than this below the loudest."""

NOISE_DBFS = -60
QUIET_FRAMES = 20
"""So long nothing left to play, and a reply is over."""

REPLY_S = 5.0
"""No answer within this: it is missed."""


@dataclass(frozen=True)
class Utterance:
    """A phrase as base64 frames, and which of them are its first and last voiced ones."""

    frames: list[bytes]
    first: int
    last: int


@dataclass
class Tally:
    """What happened in the window.  Times are milliseconds, one entry an event."""

    gaps: list[float] = field(default_factory=list)
    gap_turns: list[tuple[int, int]] = field(default_factory=list)
    """Whose each gap is: the call's number, and which utterance of that call, from 1 on."""
    clears: list[float] = field(default_factory=list)
    turns: int = 0
    heard_out: int = 0
    missed_replies: int = 0
    missed_clears: int = 0
    torn_replies: int = 0
    early_replies: int = 0
    """Frames of a reply before the caller had finished: the caller was cut off."""
    leaked_frames: int = 0
    """Frames after `clear` and before the next reply."""
    early_closes: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass
class Rules:
    """What all callers share: the script's numbers, the sound, and where they note what happens.

    Nothing is noted while `is_counting` is false.  `reply_bytes`: how long a whole reply is, 0 if
    nobody knows.
    """

    place: tuple[str, int, str]
    interrupt_every: int
    seed: int
    think_s: float
    reply_bytes: int
    utterances: list[Utterance]
    noise: list[bytes]
    tally: Tally = field(default_factory=Tally)
    is_counting: bool = False


def utterances() -> list[Utterance]:
    """Cut the recordings to their phrases."""
    found = []
    for name, begin, end in UTTERANCES:
        audio = wav.read_telephone(RECORDINGS / f"{name}.wav")[int(begin * 8000) : int(end * 8000)]
        audio = audio[: len(audio) - len(audio) % 160]
        samples = np.frombuffer(mulaw.decode(audio), dtype="<i2").reshape(-1, 160)
        level = 10 * np.log10(np.square(samples.astype(float)).mean(axis=1) + 1)
        voiced = np.flatnonzero(level > level.max() - SPEECH_DB)
        first, last = int(voiced[0]), int(voiced[-1])
        found.append(Utterance(payloads(audio)[: last + 1], first, last))
    return found


def with_pause(before: Utterance, after: Utterance, silence: list[bytes]) -> Utterance:
    """Return two phrases as one utterance, with so much line noise between them."""
    frames = before.frames + silence
    return Utterance(frames + after.frames, before.first, len(frames) + after.last)


def line_noise(seed: int) -> list[bytes]:
    """One second of the noise of a quiet line, as base64 frames."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 32768 * 10 ** (NOISE_DBFS / 20), 8000)
    return payloads(mulaw.encode(np.rint(noise).astype("<i2").tobytes()))


class Caller:
    """One call, a `connection.Listener`.  Each act returns the base64 of the next 20 ms."""

    def __init__(self, rules: Rules, number: int) -> None:
        self._rules = rules
        self._tally = rules.tally
        self._number = number
        self._random = random.Random(f"{rules.seed}:{number}")
        self._noise_at = self._random.randrange(50)
        self.replies: list[measure.Reply] = []
        """The replies that were counted."""
        self._reply: measure.Reply | None = None
        """The reply that is being heard."""
        self._utterance = rules.utterances[0]
        self._at = 0
        self._turns = number
        self._quiet = 0
        self._is_counted = False
        self._is_interrupting = self._is_cleared = False
        self._first_sent = self._last_sent = self._deadline = 0.0
        self._act: Callable[[float], bytes] = self._hear_greeting
        self.connection = Connection(rules.place, number, self)

    def tick(self, now: float) -> None:
        """Say 20 ms, hear 20 ms."""
        if self.connection.is_open:
            self.connection.tick(self._act(now))

    def _noise(self) -> bytes:
        self._noise_at = (self._noise_at + 1) % 50
        return self._rules.noise[self._noise_at]

    def _hear_greeting(self, now: float) -> bytes:
        if self._heard_out() or now > self._deadline:
            if now > self._deadline:
                self._tally.errors.append("no greeting")
            self._think(now)
        return self._noise()

    def _heard_out(self) -> bool:
        self._quiet = self._quiet + 1 if self.connection.buffer.is_empty else 0
        return self._reply is not None and self._quiet >= QUIET_FRAMES

    def _think(self, now: float) -> None:
        self._reply = None
        self._deadline = now + self._random.uniform(0.2, self._rules.think_s)
        self._act = self._be_silent

    def _be_silent(self, now: float) -> bytes:
        if now >= self._deadline:
            self._begin_turn()
        return self._noise()

    def _begin_turn(self) -> None:
        self._turns += 1
        self._utterance = self._rules.utterances[self._turns % len(self._rules.utterances)]
        self._is_interrupting = self._reply is not None
        self._is_cleared = False
        self._reply = None
        self._is_counted = self._rules.is_counting
        self._tally.turns += self._is_counted
        self._at = 0
        self._act = self._speak

    def _speak(self, now: float) -> bytes:
        utterance, at = self._utterance, self._at
        self._at += 1
        if at == utterance.first:
            self._first_sent = now
        if at == utterance.last:
            self._last_sent = now
            if self._is_interrupting and not self._is_cleared and self._is_counted:
                self._tally.missed_clears += 1
            self._deadline = now + REPLY_S
            self._act = self._await_reply
        return utterance.frames[at]

    def _await_reply(self, now: float) -> bytes:
        if now > self._deadline:
            self._tally.missed_replies += self._is_counted
            self._think(now)
        return self._noise()

    def _listen(self, now: float) -> bytes:
        if now > self._deadline:
            self._begin_turn()
        elif self._heard_out():
            self._note_heard_out()
            self._think(now)
        return self._noise()

    # -- what comes from the server

    def opened(self, now: float) -> None:
        """The stream has begun: the greeting is due."""
        self._deadline = now + REPLY_S

    def cleared(self, now: float) -> None:
        """`clear` has come."""
        if self._is_interrupting and not self._is_cleared and self._is_counted:
            self._tally.clears.append((now - self._first_sent) * 1000)
        self._is_cleared = True

    def lost(self, why: str, *, broken: bool) -> None:
        """The connection has ended before we hung up."""
        self._tally.errors.append(why)
        self._tally.early_closes += not broken

    def heard(self, message: bytes, size: int, now: float) -> None:
        """A media message has come."""
        if self._reply is not None:
            self._reply.note(now, size)
        elif self._act == self._await_reply:
            self._hear_first(message, size, now)
        elif self._act == self._hear_greeting:
            self._reply = measure.Reply()
        elif self._is_counted:
            if not self._is_interrupting:
                self._tally.early_replies += 1
            elif self._is_cleared:
                self._tally.leaked_frames += 1

    def _hear_first(self, message: bytes, size: int, now: float) -> None:
        if not is_audible(payload_of(message)):
            return
        reply = self._reply = measure.Reply()
        reply.note(now, size)
        self._quiet = 0
        if self._is_counted:
            self._tally.gaps.append((now - self._last_sent) * 1000)
            self._tally.gap_turns.append((self._number, self._turns - self._number))
            self.replies.append(reply)
        every = self._rules.interrupt_every
        is_to_be_cut = every and self._turns % every == 0
        self._deadline = now + (self._random.uniform(1.0, 3.0) if is_to_be_cut else 60)
        self._act = self._listen

    def _note_heard_out(self) -> None:
        tally, reply, whole = self._tally, self._reply, self._rules.reply_bytes
        if self._is_counted and reply is not None:
            tally.heard_out += 1
            tally.torn_replies += bool(whole) and sum(reply.sizes) != whole
