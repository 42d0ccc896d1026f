"""The load: N callers in one process on one core, by raw sockets and one epoll.

Each caller has its own phase within 20 ms and follows the same script: hear the greeting out; say a
recorded utterance; wait for the answer; hear it out, or (every third) speak into it; think for a
moment; again.  Between the words there is line noise, not digital silence.

Run by the other benches.  On stdout: JSON lines, ``{"event": "up" | "window" | "progress" | "over"
| "result", …}``; what was measured is in the last.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import socket
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import measure
import numpy as np
from client import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    BadStream,
    CountedBuffer,
    FrameReader,
    Stream,
    frame,
    is_audible,
    payload_of,
    payloads,
)

from voicecore.audio import FRAME_MS, mulaw, wav

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

CLEAR_S = 2.0
MAX_CALLS = 2000
MAX_SECONDS = 600
CONNECT_EVERY_S = 0.01
SLOT_S = 0.001
SLOTS = FRAME_MS


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
class Plan:
    """What a run is.  `reply_bytes`: how long a whole reply is, 0 if nobody knows."""

    host: str = "127.0.0.1"
    port: int = 8000
    path: str = "/media-stream"
    calls: int = 10
    seconds: float = 20
    interrupt_every: int = 3
    seed: int = 1
    lead_ms: float = 0
    reply_bytes: int = 0
    warm_s: float = 1
    """From the last caller's connection to the window."""
    think_s: float = 1.5
    """At most so long between a reply and the next utterance."""
    core: int = -1


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


def line_noise(seed: int) -> list[bytes]:
    """One second of the noise of a quiet line, as base64 frames."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 32768 * 10 ** (NOISE_DBFS / 20), 8000)
    return payloads(mulaw.encode(np.rint(noise).astype("<i2").tobytes()))


class Caller:
    """One call: its socket, its buffer, its script.  `tick` every 20 ms, `ready` when readable."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._random = random.Random(f"{load.plan.seed}:{number}")
        self._stream = Stream(number)
        self._reader = FrameReader()
        self._buffer = CountedBuffer()
        self._noise_at = self._random.randrange(50)
        self._replies: list[measure.Reply] = []
        self._reply: measure.Reply | None = None
        """The reply that is being heard and recorded."""
        self._utterance = load.utterances[0]
        self._at = 0
        self._turns = number
        self._quiet = 0
        self._is_counted = False
        self._is_interrupting = self._is_cleared = False
        self._first_sent = self._last_sent = self._deadline = 0.0
        self._act: Callable[[float], bytes] = self._hear_greeting
        self._handshake = b""
        self.is_open = False
        self.is_over = False
        plan = load.plan
        self.sock = socket.create_connection((plan.host, plan.port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = UPGRADE.format(path=plan.path, host=plan.host, port=plan.port)
        self.sock.sendall(request.encode())
        self.sock.setblocking(False)

    # -- the network

    def ready(self) -> None:
        """Take what the server has sent."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(f"receive: {error}")
            return
        if not data:
            self._end_early("the server closed")
            return
        try:
            self._take(data, time.perf_counter())
        except BadStream as error:
            self._fail(str(error))

    def _take(self, data: bytes, now: float) -> None:
        if not self.is_open:
            data = self._take_handshake(data, now)
        for head, payload in self._reader.feed(data):
            if head == TEXT:
                self._understand(payload, now)
            elif head == PING:
                self._send(frame(payload, PONG))
            elif head == CLOSE:
                self._end_early(f"close {int.from_bytes(payload[:2])} {payload[2:]!r}")
                return

    def _take_handshake(self, data: bytes, now: float) -> bytes:
        self._handshake += data
        head, end, rest = self._handshake.partition(b"\r\n\r\n")
        if not end:
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            raise BadStream(f"not upgraded: {head[:60]!r}")
        self.is_open = True
        self._deadline = now + REPLY_S
        self._send(self._stream.opening())
        return rest

    def _understand(self, message: bytes, now: float) -> None:
        event, value = self._stream.understand(message)
        if event == "media":
            assert isinstance(value, int)
            self._buffer.media(value)
            self._hear(message, value, now)
        elif event == "mark":
            for name in self._buffer.mark(str(value)):
                self._send(self._stream.mark(name))
        else:
            for name in self._buffer.clear():
                self._send(self._stream.mark(name))
            self._note_clear(now)

    def _send(self, data: bytes) -> None:
        try:
            if self.sock.send(data) != len(data):
                self._fail("the server reads too slowly")
        except OSError as error:
            self._fail(f"send: {error}")

    def _fail(self, why: str) -> None:
        if not self.is_over:
            self._load.tally.errors.append(why)
            self.close()

    def _end_early(self, why: str) -> None:
        if not self._load.is_over and not self.is_over:
            self._load.tally.early_closes += 1
            self._load.tally.errors.append(why)
        self.close()

    def hang_up(self) -> None:
        """Say `stop`, and close."""
        if not self.is_over:
            self._send(self._stream.stop() + frame(b"\x03\xe8", CLOSE))

    def close(self) -> None:
        """Let go of the socket."""
        if not self.is_over:
            self.is_over = True
            self._load.forget(self)
            self.sock.close()

    # -- the script: each act returns the base64 of the next 20 ms

    def tick(self, now: float) -> None:
        """Say 20 ms, hear 20 ms."""
        self._send(self._stream.media(self._act(now)))
        for name in self._buffer.play():
            self._send(self._stream.mark(name))

    def _noise(self) -> bytes:
        self._noise_at = (self._noise_at + 1) % 50
        return self._load.noise[self._noise_at]

    def _hear_greeting(self, now: float) -> bytes:
        if self._heard_out() or now > self._deadline:
            if now > self._deadline:
                self._load.tally.errors.append("no greeting")
            self._think(now)
        return self._noise()

    def _heard_out(self) -> bool:
        self._quiet = self._quiet + 1 if self._buffer.is_empty else 0
        return self._reply is not None and self._quiet >= QUIET_FRAMES

    def _think(self, now: float) -> None:
        self._reply = None
        self._deadline = now + self._random.uniform(0.2, self._load.plan.think_s)
        self._act = self._be_silent

    def _be_silent(self, now: float) -> bytes:
        if now >= self._deadline:
            self._begin_turn()
        return self._noise()

    def _begin_turn(self) -> None:
        self._turns += 1
        self._utterance = self._load.utterances[self._turns % len(self._load.utterances)]
        self._is_interrupting = self._reply is not None
        self._is_cleared = False
        self._reply = None
        self._is_counted = self._load.is_counting
        self._load.tally.turns += self._is_counted
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
                self._load.tally.missed_clears += 1
            self._deadline = now + REPLY_S
            self._act = self._await_reply
        return utterance.frames[at]

    def _await_reply(self, now: float) -> bytes:
        if now > self._deadline:
            self._load.tally.missed_replies += self._is_counted
            self._think(now)
        return self._noise()

    def _listen(self, now: float) -> bytes:
        if now > self._deadline:
            self._begin_turn()
        elif self._heard_out():
            self._note_heard_out()
            self._think(now)
        return self._noise()

    # -- what is heard

    def _hear(self, message: bytes, size: int, now: float) -> None:
        if self._reply is not None:
            self._reply.note(now, size)
        elif self._act == self._await_reply:
            self._hear_first(message, size, now)
        elif self._act == self._hear_greeting:
            self._reply = measure.Reply()
        elif self._is_counted:
            if not self._is_interrupting:
                self._load.tally.early_replies += 1
            elif self._is_cleared:
                self._load.tally.leaked_frames += 1

    def _hear_first(self, message: bytes, size: int, now: float) -> None:
        if not is_audible(payload_of(message)):
            return
        reply = self._reply = measure.Reply()
        reply.note(now, size)
        self._quiet = 0
        if self._is_counted:
            self._load.tally.gaps.append((now - self._last_sent) * 1000)
            self._replies.append(reply)
        every = self._load.plan.interrupt_every
        is_to_be_cut = every and self._turns % every == 0
        self._deadline = now + (self._random.uniform(1.0, 3.0) if is_to_be_cut else 60)
        self._act = self._listen

    def _note_heard_out(self) -> None:
        tally, reply, whole = self._load.tally, self._reply, self._load.plan.reply_bytes
        if self._is_counted and reply is not None:
            tally.heard_out += 1
            tally.torn_replies += bool(whole) and sum(reply.sizes) != whole

    def _note_clear(self, now: float) -> None:
        if self._is_interrupting and not self._is_cleared and self._is_counted:
            self._load.tally.clears.append((now - self._first_sent) * 1000)
        self._is_cleared = True

    @property
    def replies(self) -> list[measure.Reply]:
        """The replies of the window."""
        return self._replies


class Load:
    """All callers, and the clock that drives them: a wheel of twenty slots of a millisecond."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.utterances = utterances()
        self.noise = line_noise(plan.seed)
        self.tally = Tally()
        self.is_counting = self.is_over = False
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}
        self._all: list[Caller] = []
        self._wheel: list[list[Caller]] = [[] for _ in range(SLOTS)]
        self._late = array("d")
        self._slot = 0
        self._origin = time.perf_counter()

    def run(self) -> dict[str, object]:
        """Connect everybody, count for the plan's seconds, hang up; return what was measured."""
        self._connect()
        say("up", calls=len(self._callers))
        self._turn_for(self.plan.warm_s)
        self.is_counting = True
        say("window")
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(self.plan.seconds * 2)):
            self._turn_for(0.5)
            say("progress", up=len(self._callers), **self._progress())
        took = time.perf_counter() - began
        cpu_percent = 100 * (time.process_time() - cpu) / took
        self.is_counting, self.is_over = False, True
        say("over", seconds=took)
        self._hang_up()
        return self._result(took, cpu_percent)

    def forget(self, caller: Caller) -> None:
        """A caller has gone."""
        fd = caller.sock.fileno()
        if fd in self._callers:
            self._epoll.unregister(fd)
            del self._callers[fd]
        for slot in self._wheel:
            if caller in slot:
                slot.remove(caller)

    def _connect(self) -> None:
        for number in range(self.plan.calls):
            caller = Caller(self, number)
            self._all.append(caller)
            self._callers[caller.sock.fileno()] = caller
            self._epoll.register(caller.sock.fileno(), select.EPOLLIN)
            # The golden ratio spreads any number of phases evenly.
            self._wheel[int(number * 0.618034 % 1 * SLOTS)].append(caller)
            self._turn_for(CONNECT_EVERY_S)

    def _turn_for(self, seconds: float) -> None:
        """Serve sockets and slots for a while."""
        until = time.perf_counter() + seconds
        clock, poll = time.perf_counter, self._epoll.poll
        while (now := clock()) < until:
            due = self._origin + self._slot * SLOT_S
            for fd, _ in poll(max(0.0, due - now)):
                if (caller := self._callers.get(fd)) is not None:
                    caller.ready()
            if (now := clock()) >= due:
                self._tick(now, now - due)

    def _tick(self, now: float, late: float) -> None:
        callers = self._wheel[self._slot % SLOTS]
        self._slot += 1
        if callers and self.is_counting:
            self._late.append(late)
        for caller in tuple(callers):
            if caller.is_open:
                caller.tick(now)

    def _hang_up(self) -> None:
        for caller in tuple(self._callers.values()):
            caller.hang_up()
        self._wheel = [[] for _ in range(SLOTS)]
        until = time.perf_counter() + 3
        while self._callers and time.perf_counter() < until:
            self._turn_for(0.05)
        for caller in tuple(self._callers.values()):
            caller.close()

    def _progress(self) -> dict[str, int]:
        tally = self.tally
        return {
            "gaps": len(tally.gaps),
            "missed": tally.missed_replies + tally.missed_clears,
            "errors": len(tally.errors),
        }

    def _result(self, seconds: float, cpu_percent: float) -> dict[str, object]:
        replies = [reply for caller in self._all for reply in caller.replies]
        delivery = measure.delivery(replies, self.plan.lead_ms)
        return {
            **asdict(self.tally),
            "seconds": seconds,
            "delivery": delivery,
            "gap": measure.distribution(self.tally.gaps),
            "clear": measure.distribution(self.tally.clears),
            "load_cpu_percent": cpu_percent,
            "load_late": measure.distribution(np.array(self._late) * 1000),
        }


def say(event: str, **figures: object) -> None:
    """Print one JSON line."""
    print(json.dumps({"event": event, **figures}), flush=True)


def main() -> None:
    """Read the plan, run it, print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=json.loads, help="JSON object with the fields of `Plan`")
    plan = Plan(**parser.parse_args().plan)
    if not (1 <= plan.calls <= MAX_CALLS and 0 < plan.seconds <= MAX_SECONDS):
        parser.error(f"1 to {MAX_CALLS} calls, at most {MAX_SECONDS} s")
    if not socket.gethostbyname(plan.host).startswith("127."):
        parser.error("this load goes to this machine only")
    if plan.core >= 0:
        os.sched_setaffinity(0, {plan.core})
    load = Load(plan)
    gc.collect()
    gc.disable()
    say("result", **load.run())


if __name__ == "__main__":
    main()
