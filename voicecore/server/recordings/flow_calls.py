"""The calls that are in the recording flow: who is, since when, and who has hung up without a word.

The truth is a call's state in the store; what is here is how many calls this worker has seen and
must not leave alone when it goes down.  A caller who hangs up while something is played costs the
carrier no webhook: a call whose next one is overdue is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from ...call.call import EndedBy
from ...call.timeline import CallLog
from ..call_state import CallState, CallStates
from .flow_records import FlowRecords

PATIENCE_S = 30.0
"""How much later than it should a call's next webhook may come."""

SWEEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One webhook of a call: whose it is, and how its carrier knows us."""

    call_sid: str
    base: str
    """Our origin."""
    parameters: Mapping[str, str]
    """Of the call, for whoever picks its agent."""


class FlowCalls:
    """One worker's view.  `most` is how many calls it takes."""

    def __init__(self, states: CallStates, most: int, records: FlowRecords | None = None) -> None:
        self.states = states
        self.records = records or FlowRecords()
        self._most = most
        self._due: dict[str, float] = {}
        """When the carrier must have come back, on this process's clock."""
        self._last_words: dict[str, float] = {}
        """Calls that are over once these have been heard, and until when that takes."""
        self._one_less = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<FlowCalls {len(self)} of {self._most}>"

    def __len__(self) -> int:
        return len(self._due) + len(self._last_words)

    async def wait_empty(self) -> None:
        """Wait until no call is left."""
        while len(self):
            await self._one_less.park()

    async def admit(self, visit: Visit) -> CallState | None:
        """Return a call's state, a new one if it is unknown; None if there is no room for that."""
        state = await self.states.load(visit.call_sid)
        if state is None and len(self) >= self._most:
            return None
        state = state or self.states.new(visit.parameters)
        self.records.open(visit.call_sid, state.parameters)
        is_new, state.flow = state.flow != "recording", "recording"
        state.webhooks += 1
        await self.save(visit.call_sid, state, 0)
        if is_new:
            known = len(state.messages)
            log = self.log(visit.call_sid, state)
            parties = {name.lower(): state.parameters.get(name, "") for name in ("From", "To")}
            log.milestone(
                "recording flow started", flow="recording", known_messages=known, **parties
            )
        return state

    async def save(self, call_sid: str, state: CallState, seconds: float) -> None:
        """Keep a call's state; its carrier should come back within so many seconds."""
        state.due = self.states.clock() + seconds + PATIENCE_S
        self._due[call_sid] = trio.current_time() + seconds + PATIENCE_S
        await self.states.save(call_sid, state)

    async def close(
        self, call_sid: str, ended_by: EndedBy, seconds: float = 0, turns: int = 0
    ) -> None:
        """A call is over when what is left to play has been played, in so many seconds.

        Of several workers that learn it, the one that gets the state logs it.  `turns` are those
        so far, where the last of them is what ends the call: its state was written before.
        """
        state = await self.states.pop(call_sid)
        if state is not None and state.flow == "recording":
            lasted = round(self.states.clock() - state.began, 1)
            told = {"reason": ended_by, "seconds": lasted, "turns": max(turns, state.turns)}
            self.records.open(call_sid, state.parameters)
            self.log(call_sid, state).milestone("call ended", flow="recording", **told)
        if seconds and call_sid in self._due:
            self._last_words[call_sid] = trio.current_time() + seconds
        self._leave(call_sid)

    def log(self, call_sid: str, state: CallState) -> CallLog:
        """Return the log of a call that may have begun in another process."""
        log = CallLog(call_sid, self.records.observe)
        log.began -= self.states.clock() - state.began
        return log

    async def sweep(self, is_over: Callable[[str], bool]) -> list[str]:
        """Return the calls for which nobody came, neither here nor to another worker.

        `is_over` says whether another worker has seen a call end.
        """
        gone, now = [], trio.current_time()
        for call_sid, due in tuple(self._due.items()):
            await trio.lowlevel.checkpoint()
            if is_over(call_sid):
                self._leave(call_sid)
            elif due <= now and not await self._is_elsewhere(call_sid):
                gone.append(call_sid)
        for call_sid in [sid for sid, until in self._last_words.items() if until <= now]:
            del self._last_words[call_sid]
        self._one_less.unpark_all()
        return gone

    async def _is_elsewhere(self, call_sid: str) -> bool:
        """Whether a call's carrier went to another worker, or the call is no more."""
        state = await self.states.load(call_sid)
        if state is None or state.flow != "recording":
            self._leave(call_sid)
            return True
        rest = state.due - self.states.clock()
        if rest > 0:
            self._due[call_sid] = trio.current_time() + rest
        return rest > 0

    def _leave(self, call_sid: str) -> None:
        self._due.pop(call_sid, None)
        self._one_less.unpark_all()
