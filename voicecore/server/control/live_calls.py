"""The calls of this worker: those that are up, and for some minutes those that were.

A call of a stream is here with its `Call`, and can be told things.  A call of the recording flow is
known by its milestones only: what is done to it goes through the carrier.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
import trio

from ...call.call import Call
from ...call.transfer import Operator, Transfer
from ..port.boundary import contain
from ..store import Clock
from .call_report import CallNumbers, CallStatistics, TurnReport

ENDED_KEPT = 500
ENDED_S = 600.0
"""Calls that are over, and for how long they are told of."""

ENDED_TURNS = 10_000
"""And so many turns of all of them: some megabytes."""

SILENT_S = 900.0
"""A call of the recording flow of which nothing was heard for so long is over, or elsewhere."""

LEAVE_S = 10.0
"""How long a call may take to be able to say its last word; then it is hung up without."""
LEAVE_AGAIN_S = 0.05

KEYS_KEPT = 100
"""Idempotency keys of one call's sentences."""

BEGINNINGS = {"stream started": "stream", "recording flow started": "recording"}

TALK = frozenset({"user said", "agent said", "turn done"})
"""Of a call that is not up here these are the recording flow's: its next webhook came to us."""

Verdicts = Callable[[Call], Awaitable[str | None]]
"""Says what is left on the machine that answers a call: None, it is no machine; empty: nothing."""


class CallFacts(msgspec.Struct, kw_only=True, rename={"from_": "from"}):
    """What is told of every call.  `state` is live, ended, or the carrier's before it is answered.

    `began` is ISO 8601, UTC.
    """

    sid: str
    state: str
    flow: str = "stream"
    from_: str = ""
    to: str = ""
    began: str = ""
    seconds: float = 0.0
    ended_by: str = ""
    worker: int = 0


class CallLine(CallFacts, kw_only=True):
    """A call among others."""

    turns: int = 0


class CallDetail(CallFacts, kw_only=True):
    """A call by itself."""

    transfer: str = ""
    """What becomes, or became, of giving it to somebody."""
    turns: list[TurnReport] = []
    numbers: CallNumbers = msgspec.field(default_factory=CallNumbers)


class KnownCall:
    """One call.  `call` is its stream's, while that is up."""

    def __init__(self, sid: str, flow: str, began: float) -> None:
        self.sid = sid
        self.flow = flow
        self.began = began
        """On the workers' common clock."""
        self.parties = ("", "")
        """From and To."""
        self.call: Call | None = None
        self.given_to: Transfer | None = None
        self.can_meet = True
        """Whether somebody else can meet the caller in a conference."""
        self.transfer = ""
        self.statistics = CallStatistics()
        self.heard_at = began
        self._said: OrderedDict[str, str] = OrderedDict()
        self._parting: str | None = None
        self._wants_to_leave = trio.Event()

    def __repr__(self) -> str:
        return f"<KnownCall {self.sid} {self.flow} {self.call!r}>"

    @property
    def is_live(self) -> bool:
        """Whether the call is up, and not about to end."""
        if self.flow == "stream":
            return self.call is not None and self.call.ended_by is None
        return not self.statistics.ended_by

    def say(self, text: str, key: str) -> bool:
        """Have the agent say a sentence, under one key once; false: it cannot now."""
        if key in self._said:
            return True
        if self.call is None or not self.call.say(text):
            return False
        if key:
            self._said[key] = text
            if len(self._said) > KEYS_KEPT:
                self._said.popitem(last=False)
        return True

    def said_under(self, key: str) -> str | None:
        """Return the sentence that was asked for under a key, if any was."""
        return self._said.get(key)

    def give(self, transfer: Transfer) -> bool:
        """Let the call go on with somebody else; return whether it does, now or since before."""
        if self.call is not None:
            self.call.transfer_to(transfer)
            self.given_to = self.call.transfer
        return self.given_to == transfer

    def leave(self, text: str) -> None:
        """Say a last thing, or nothing, and hang up.  The first counts."""
        if self._parting is None:
            self._parting = text
            self._wants_to_leave.set()

    async def take_leave(self, call: Call) -> None:
        """Wait for `leave`, then do it: the agent may only just be coming to the phone."""
        await self._wants_to_leave.wait()
        with trio.move_on_after(LEAVE_S):
            while self._parting and call.ended_by is None:
                if call.take_leave(self._parting):
                    return
                await trio.sleep(LEAVE_AGAIN_S)
        call.hang_up("admin")


class LiveCalls:
    """The calls of one worker, by their SIDs."""

    def __init__(self, clock: Clock, worker: int = 0) -> None:
        self.clock = clock
        self._worker = worker
        self._calls: OrderedDict[str, KnownCall] = OrderedDict()
        self._ended: OrderedDict[str, KnownCall] = OrderedDict()
        self._operator: Operator | None = None
        self._verdicts: Verdicts | None = None

    def __repr__(self) -> str:
        return f"<LiveCalls {len(self._calls)} up, {len(self._ended)} ended>"

    def join(self, operator: Operator, verdicts: Verdicts) -> None:
        """From now on calls have an operator, and whether a machine has them is looked up."""
        self._operator, self._verdicts = operator, verdicts

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, Any]) -> None:
        """Take a milestone (see `call.timeline.Observer`)."""
        known = self._calls.get(call_sid)
        flow = BEGINNINGS.get(event, "recording" if known is None and event in TALK else "")
        if flow and (known is None or known.call is None):
            # One that fell back from its stream to recordings goes on being one call.
            known = known or self._ended.pop(call_sid, None)
            known = known or KnownCall(call_sid, "", self.clock() - at)
            known.flow, known.statistics.ended_by = flow, ""
            caller, called = (str(fields.get(name) or "") for name in ("from", "to"))
            known.parties = (caller or known.parties[0], called or known.parties[1])
            self._calls[call_sid] = known
        if known is None or (event == "call ended" and known.call is not None):
            return  # of a call that is up, an earlier stream has ended
        known.heard_at = self.clock()
        known.statistics.observe(event, at, fields)
        if event == "call ended":
            self._end(known)

    @asynccontextmanager
    async def hosting(self, call: Call, can_meet: bool = True) -> AsyncIterator[None]:
        """Know a stream's call for as long as the context is open.

        `can_meet`: its carrier is the one whose conferences our REST API can make.
        """
        known = self._calls.get(call.sid) or KnownCall(call.sid, "stream", self.clock())
        known.call, known.flow = call, "stream"
        known.parties = (call.parameters.get("From", ""), call.parameters.get("To", ""))
        self._calls[call.sid] = known
        known.can_meet = can_meet
        call.operator = self._operator if can_meet else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(known.take_leave, call, name="take leave")
            nursery.start_soon(self._ask_verdict, known, call, name="verdict")
            try:
                yield
            finally:
                if known.call is call:
                    known.given_to = call.transfer or known.given_to
                    known.call = None
            nursery.cancel_scope.cancel()

    def find(self, call_sid: str) -> KnownCall | None:
        """Return a call that is up, or was some minutes ago."""
        self._prune()
        return self._calls.get(call_sid) or self._ended.get(call_sid)

    def heard(self) -> dict[str, float]:
        """Return when calls that others may know better were last heard of: all but our streams."""
        self._prune()
        known = (*self._calls.values(), *self._ended.values())
        return {each.sid: each.heard_at for each in known if each.call is None}

    def lines(self) -> list[CallLine]:
        """Return the calls that are up, oldest first."""
        self._prune()
        up = [known for known in self._calls.values() if known.is_live]
        return [CallLine(**self._facts(known), turns=_answered(known)) for known in up]

    def detail(self, known: KnownCall) -> CallDetail:
        """Return everything about a call."""
        given = known.given_to
        transfer = known.transfer
        if not transfer and given is not None:
            transfer = f"given to {given.number or given.conference}"
        numbers = known.statistics.numbers
        if known.call is not None:
            numbers = msgspec.structs.replace(numbers, playback=_played(known.call))
        return CallDetail(
            **self._facts(known),
            transfer=transfer,
            turns=known.statistics.turns,
            numbers=numbers,
        )

    def _facts(self, known: KnownCall) -> dict[str, Any]:
        statistics = known.statistics
        ended_by = statistics.ended_by or ("" if known.is_live else _ended_by(known))
        seconds = statistics.seconds if statistics.ended_by else self.clock() - known.began
        return {
            "sid": known.sid,
            "state": "live" if known.is_live else "ended",
            "flow": known.flow,
            "from_": known.parties[0],
            "to": known.parties[1],
            "began": datetime.fromtimestamp(known.began, UTC).isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 1),
            "ended_by": ended_by,
            "worker": self._worker,
        }

    async def _ask_verdict(self, known: KnownCall, call: Call) -> None:
        # Only a call that was ordered can have one; all others cost nothing.
        if self._verdicts is not None and "order" in call.parameters:
            await contain("verdict", partial(_leave, known, call, self._verdicts), lambda: call.sid)

    def _end(self, known: KnownCall) -> None:
        if self._calls.get(known.sid) is known:
            del self._calls[known.sid]
        self._ended[known.sid] = known
        self._ended.move_to_end(known.sid)
        turns = sum(len(each.statistics.turns) for each in self._ended.values())
        while turns > ENDED_TURNS and len(self._ended) > 1:
            turns -= len(self._ended.popitem(last=False)[1].statistics.turns)
        self._prune()

    def _prune(self) -> None:
        """Forget what is over for long, or too much."""
        now = self.clock()
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if len(self._ended) <= ENDED_KEPT and now - oldest.heard_at < ENDED_S:
                break
            del self._ended[oldest.sid]
        for known in [*self._calls.values()]:
            if known.flow == "recording" and now - known.heard_at > SILENT_S:
                del self._calls[known.sid]


async def _leave(known: KnownCall, call: Call, verdicts: Verdicts) -> None:
    parting = await verdicts(call)
    if parting is not None:
        known.leave(parting)


def _ended_by(known: KnownCall) -> str:
    return "" if known.call is None else known.call.ended_by or ""


def _answered(known: KnownCall) -> int:
    return known.call.turns if known.call is not None else known.statistics.numbers.answered


def _played(call: Call) -> dict[str, float]:
    """Return how playback goes so far, by the names that it has when a call ends."""
    played = call.playback
    return {
        "underruns": played.underruns,
        "starved": played.starved,
        "late_ms": round(played.lateness_max_s * 1000, 1),
        "mark_ms": round(played.mark_round_trip_s * 1000, 1),
    }
