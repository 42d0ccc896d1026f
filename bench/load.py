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
import select
import socket
import time
from array import array
from dataclasses import asdict, dataclass

import measure
import numpy as np
from caller import Caller, Rules, Utterance, line_noise, utterances, with_pause

from voicecore.audio import FRAME_MS

MAX_CALLS = 2000
MAX_SECONDS = 600
CONNECT_EVERY_S = 0.01
SLOT_S = 0.001
SLOTS = FRAME_MS


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
    pause_ms: float = 0
    """There is also an utterance with such a pause inside; 0: there is not."""
    core: int = -1


class Load:
    """All callers, and the clock that drives them: a wheel of twenty slots of a millisecond."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._rules = Rules(
            place=(plan.host, plan.port, plan.path),
            interrupt_every=plan.interrupt_every,
            seed=plan.seed,
            think_s=plan.think_s,
            reply_bytes=plan.reply_bytes,
            utterances=utterances_of(plan),
            noise=line_noise(plan.seed),
        )
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}
        """Those that are connected, by file descriptor."""
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
        self._rules.is_counting = True
        say("window")
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(self.plan.seconds * 2)):
            self._turn_for(0.5)
            say("progress", up=len(self._callers), **self._progress())
        took = time.perf_counter() - began
        cpu_percent = 100 * (time.process_time() - cpu) / took
        self._rules.is_counting = False
        say("over", seconds=took)
        result = self._result(took, cpu_percent)
        self._hang_up()
        return result

    def _connect(self) -> None:
        for number in range(self.plan.calls):
            caller = Caller(self._rules, number)
            fd = caller.connection.fd
            self._all.append(caller)
            self._callers[fd] = caller
            self._epoll.register(fd, select.EPOLLIN)
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
                caller = self._callers[fd]
                caller.connection.ready()
                if caller.connection.is_over:
                    self._forget(caller)
            if (now := clock()) >= due:
                self._tick(now, now - due)

    def _tick(self, now: float, late: float) -> None:
        callers = self._wheel[self._slot % SLOTS]
        self._slot += 1
        if callers and self._rules.is_counting:
            self._late.append(late)
        for caller in tuple(callers):
            if caller.connection.is_over:
                callers.remove(caller)
                self._forget(caller)
            else:
                caller.tick(now)

    def _forget(self, caller: Caller) -> None:
        fd = caller.connection.fd
        if self._callers.get(fd) is caller:
            del self._callers[fd]
            self._epoll.unregister(fd)
            caller.connection.close()

    def _hang_up(self) -> None:
        """Say goodbye, and give the server three seconds to close."""
        self._wheel = [[] for _ in range(SLOTS)]
        for caller in tuple(self._callers.values()):
            caller.connection.hang_up()
        until = time.perf_counter() + 3
        while self._callers and time.perf_counter() < until:
            self._turn_for(0.05)
        for caller in tuple(self._callers.values()):
            self._forget(caller)

    def _progress(self) -> dict[str, int]:
        tally = self._rules.tally
        return {
            "gaps": len(tally.gaps),
            "missed": tally.missed_replies + tally.missed_clears,
            "errors": len(tally.errors),
        }

    def _result(self, seconds: float, cpu_percent: float) -> dict[str, object]:
        tally = self._rules.tally
        replies = [reply for caller in self._all for reply in caller.replies]
        delivery = measure.delivery(replies, self.plan.lead_ms)
        return {
            **asdict(tally),
            "seconds": seconds,
            "delivery": delivery,
            "gap": measure.distribution(tally.gaps),
            "clear": measure.distribution(tally.clears),
            "load_cpu_percent": cpu_percent,
            "load_late": measure.distribution(np.array(self._late) * 1000),
        }


def utterances_of(plan: Plan) -> list[Utterance]:
    """Return what is said, in turn."""
    said = utterances()
    if plan.pause_ms:
        silence = line_noise(plan.seed)[: int(plan.pause_ms / FRAME_MS)]
        said.append(with_pause(said[0], said[1], silence))
    return said


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
