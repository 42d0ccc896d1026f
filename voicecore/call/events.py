"""What a pipeline reacts to, whoever it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from ..dialogue.turns import TurnEvent
from .turn import Turn


@dataclass(frozen=True, slots=True)
class Heard:
    """A turn event, and when its last voiced frame and its first came from the line."""

    event: TurnEvent
    last_voiced: float
    onset: float


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """A turn's task has come to its end."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Typed:
    """The caller has typed keys that nobody collects."""

    keys: str


PipelineEvent = Heard | TurnFinished | Typed
