"""What is told of a call while it is up, and for some minutes after: its turns and its figures.

Made of the call's milestones (`call.timeline`), as the metrics are: the same numbers, of one call.
Bounded: the oldest turns go first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ...call.timeline import STAGES, TOKENS

TURNS_KEPT = 200
"""An hour of quick talk, as much as a history holds."""

TEXT_CHARS = 1000
"""Of what one side said in a turn; two minutes of speech."""

PLAYED = ("dropped_frames", "inbound_gaps", "underruns", "starved", "late_ms", "mark_ms")


class TurnReport(msgspec.Struct, omit_defaults=True):
    """One turn: who said what, and what it took.  Seconds; `at` is since the call began."""

    turn: str = ""
    at: float = 0.0
    caller: str = ""
    agent: str = ""
    interrupted: bool = False
    gap: float | None = None
    stages: dict[str, float] = {}
    speculated: bool = False
    speculations: int = 0
    tokens: dict[str, int] = {}
    reaction_ms: int | None = None
    failed: str = ""
    """The provider that did, and how."""


class CallNumbers(msgspec.Struct):
    """The figures of a call, so far."""

    answered: int = 0
    """Turns with a response gap."""
    gap_mean: float | None = None
    gap_max: float | None = None
    interruptions: int = 0
    speculations_kept: int = 0
    speculations_lost: int = 0
    tokens: dict[str, int] = {}
    provider_failures: int = 0
    playback: dict[str, float] = {}


def summed(parts: Sequence[CallNumbers]) -> CallNumbers:
    """Return the figures of a call of which several workers have seen a part; the last is last."""
    whole = CallNumbers(playback=parts[-1].playback)
    gaps = 0.0
    for part in parts:
        whole.answered += part.answered
        whole.interruptions += part.interruptions
        whole.speculations_kept += part.speculations_kept
        whole.speculations_lost += part.speculations_lost
        whole.provider_failures += part.provider_failures
        gaps += part.answered * (part.gap_mean or 0.0)
        if part.gap_max is not None:
            whole.gap_max = max(whole.gap_max or 0.0, part.gap_max)
        for name, count in part.tokens.items():
            whole.tokens[name] = whole.tokens.get(name, 0) + count
    if whole.answered:
        whole.gap_mean = round(gaps / whole.answered, 3)
    return whole


class CallStatistics:
    """Collects one call's milestones."""

    def __init__(self) -> None:
        self.numbers = CallNumbers()
        self.ended_by = ""
        """Who ended the call; empty while it is up."""
        self.seconds = 0.0
        """How long the call was, once it has ended."""
        self._turns: deque[TurnReport] = deque(maxlen=TURNS_KEPT)
        self._said: TurnReport | None = None
        """What the caller has said last, while nobody knows of which turn it is."""
        self._gaps = 0.0

    def __repr__(self) -> str:
        return f"<CallStatistics of {len(self._turns)} turns>"

    @property
    def turns(self) -> list[TurnReport]:
        """What was said, oldest first."""
        return [*self._turns, *([self._said] if self._said is not None else [])]

    def observe(self, event: str, at: float, fields: Mapping[str, Any]) -> None:
        """Take one milestone."""
        take: Callable[[float, Mapping[str, Any]], None] | None = getattr(
            self, f"_take_{event.replace(' ', '_')}", None
        )
        if take is not None:
            take(at, fields)

    def _take_user_said(self, at: float, fields: Mapping[str, Any]) -> None:
        text, name = _text(fields), str(fields.get("turn", ""))
        if name:
            self._turn(at, name).caller = text
            return
        if self._said is not None:
            self._turns.append(self._said)  # nothing was heard between
        self._said = TurnReport(at=at, caller=text)

    def _take_agent_said(self, at: float, fields: Mapping[str, Any]) -> None:
        turn = self._turn(at, str(fields.get("turn", "")))
        turn.agent = _text(fields)
        turn.interrupted = bool(fields.get("interrupted"))

    def _take_turn_done(self, at: float, fields: Mapping[str, Any]) -> None:
        turn, numbers = self._turn(at, str(fields.get("turn", ""))), self.numbers
        turn.gap = float(fields.get("gap", 0.0))
        turn.stages = {name: fields[name] for name in STAGES if name in fields}
        turn.speculated = bool(fields.get("speculated"))
        turn.speculations = int(fields.get("speculations", 0))
        turn.tokens = {name: fields[name] for name in TOKENS if name in fields}
        numbers.answered += 1
        self._gaps += turn.gap
        numbers.gap_mean = round(self._gaps / numbers.answered, 3)
        numbers.gap_max = max(numbers.gap_max or 0.0, turn.gap)
        numbers.speculations_kept += turn.speculated
        for name, count in turn.tokens.items():
            numbers.tokens[name] = numbers.tokens.get(name, 0) + count

    def _take_interrupted(self, at: float, fields: Mapping[str, Any]) -> None:
        self.numbers.interruptions += 1
        self._turn(at, str(fields.get("turn", ""))).reaction_ms = int(fields["reaction_ms"])

    def _take_speculation_lost(self, at: float, fields: Mapping[str, Any]) -> None:
        self.numbers.speculations_lost += 1

    def _take_provider_failed(self, at: float, fields: Mapping[str, Any]) -> None:
        self.numbers.provider_failures += 1
        turn = self._turn(at, str(fields.get("turn", "")))
        turn.failed = f"{fields['provider']}: {fields['fault']}"

    def _take_call_ended(self, at: float, fields: Mapping[str, Any]) -> None:
        self.ended_by = str(fields.get("reason") or "server")
        self.seconds = at
        self.numbers.playback = {name: fields[name] for name in PLAYED if name in fields}

    def _turn(self, at: float, name: str) -> TurnReport:
        """Return the turn of this name, a new one if need be: what was said last belongs to it."""
        for turn in reversed(self._turns):
            if turn.turn == name:
                return turn
        turn, self._said = self._said or TurnReport(at=at), None
        turn.turn = name
        self._turns.append(turn)
        return turn


def _text(fields: Mapping[str, Any]) -> str:
    return str(fields.get("text", ""))[:TEXT_CHARS]
