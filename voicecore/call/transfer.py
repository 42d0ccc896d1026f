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

    async def connect(self, call_sid: str, number: str, briefing: str) -> Transfer | None:
        """Call `number`, say `briefing`, and return where the two meet; None: nobody took it.

        Cancelled, it hangs up on whoever it has called.
        """
