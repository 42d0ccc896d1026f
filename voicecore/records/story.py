"""Milestones into what is worth keeping: transcript lines, turns, counts.  Pure.

One story is one segment of a call: a stream from its start to its end, or one webhook's work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..call.timeline import STAGES, TOKENS
from .database import COUNTS, TURN_COLUMNS

MOST_TURNS = 10_000
"""Of one segment: three a second, for an hour."""

_FIGURES = ("gap", "speculations", *STAGES, *TOKENS)


@dataclass(frozen=True, slots=True)
class Milestone:
    """One milestone: seconds since the segment began, the event, its fields."""

    at: float
    event: str
    fields: Mapping[str, Any]


Line = dict[str, Any]
"""A line of the transcript: at, who, text, interrupted, turn."""


class Story:
    """What one segment's milestones say."""

    def __init__(self, flow: str) -> None:
        self.turns: dict[str, dict[str, Any]] = {}
        """By their names: `TURN_COLUMNS`."""
        self.changed: set[str] = set()
        """Turns that have news since somebody cleared this."""
        self.counts = dict.fromkeys(COUNTS, 0)
        self.ended_by: str | None = None
        self._flow = flow
        self._spoken: set[int] = set()

    def __repr__(self) -> str:
        return f"<Story of {len(self.turns)} turns, ended_by={self.ended_by}>"

    def take(self, milestone: Milestone) -> Line | None:
        """Take the next milestone; return what it adds to the transcript."""
        take: Callable[[Milestone], Line | None] | None = getattr(
            self, f"_take_{milestone.event.replace(' ', '_')}", None
        )
        return None if take is None else take(milestone)

    def _take_user_said(self, milestone: Milestone) -> Line | None:
        turn = self._turn(milestone)
        if id(turn) not in self._spoken:
            self._spoken.add(id(turn))
            self.counts["turns"] += 1
        turn["caller_text"] = milestone.fields.get("text")
        turn["stt"] = _number(milestone.fields.get("stt"))
        return _line(milestone, "caller")

    def _take_agent_said(self, milestone: Milestone) -> Line | None:
        turn = self._turn(milestone)
        turn["agent_text"] = milestone.fields.get("text")
        turn["interrupted"] = int(bool(milestone.fields.get("interrupted")))
        turn["heard_s"] = _number(milestone.fields.get("heard_s"))
        return _line(milestone, "agent")

    def _take_interrupted(self, milestone: Milestone) -> None:
        self.counts["barge_ins"] += 1
        turn = self._turn(milestone)
        turn["interrupted"] = 1
        turn["reaction_ms"] = _number(milestone.fields.get("reaction_ms"))

    def _take_turn_done(self, milestone: Milestone) -> None:
        turn = self._turn(milestone)
        for name in _FIGURES:
            if name in milestone.fields:
                turn[name] = _number(milestone.fields[name])
        turn["speculated"] = int(bool(milestone.fields.get("speculated")))

    def _take_speculation_lost(self, milestone: Milestone) -> None:
        self.counts["lost_speculations"] += 1

    def _take_provider_failed(self, milestone: Milestone) -> None:
        self.counts["failures"] += 1

    def _take_digit(self, milestone: Milestone) -> Line | None:
        return _line(milestone, "digit")

    def _take_tool_called(self, milestone: Milestone) -> Line | None:
        return _line(milestone, "tool")

    def _take_tool_done(self, milestone: Milestone) -> Line | None:
        return _line(milestone, "tool")

    def _take_call_ended(self, milestone: Milestone) -> None:
        fields = milestone.fields
        self.ended_by = str(fields.get("reason") or "server")
        for name in ("turns", "underruns", "starved", "dropped_frames", "inbound_gaps"):
            number = _number(fields.get(name))
            if number is not None:
                self.counts[name] = int(number)

    def _turn(self, milestone: Milestone) -> dict[str, Any]:
        """Return the turn that a milestone is about."""
        name = str(milestone.fields.get("turn") or "-")[:64]
        if name not in self.turns:
            if len(self.turns) >= MOST_TURNS:
                name = "-"
            self.turns.setdefault(name, dict.fromkeys(TURN_COLUMNS))
            self.turns[name] |= {"flow": self._flow, "at": milestone.at}
        self.changed.add(name)
        return self.turns[name]


def _line(milestone: Milestone, who: str) -> Line | None:
    """Return a transcript line, if there are words: without them it would say nothing."""
    fields = milestone.fields
    text = fields.get("text")
    if text is None:
        return None
    line: Line = {
        "at": milestone.at,
        "who": who,
        "text": text,
        "interrupted": bool(fields.get("interrupted")),
        "turn": fields.get("turn"),
    }
    if who == "tool":
        line |= {"tool": fields.get("name"), "event": milestone.event.removeprefix("tool ")}
    return line


def _number(value: object) -> float | int | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
