"""With whom a call goes on when its agent has nothing more to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Transfer:
    """With whom a call goes on: a number is dialled, or a conference is joined."""

    number: str = ""
    conference: str = ""


class Operator(Protocol):
    """Whoever can call somebody, and ask them to take a call."""

    def ask(self, call_sid: str, number: str, briefing: str) -> bool:
        """Begin to call `number`, and to say `briefing` there; false: not now.

        Whoever takes the call gets the caller at once; if nobody does, the caller is told.
        """
