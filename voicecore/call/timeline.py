"""What happened in a call, and when: one line per milestone, one time line a turn.

Times are seconds of ``trio.current_time()``.  Spoken text and phone numbers appear only as tagged
fields (``text``, ``heard``), which one setting removes from the logs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from ..contracts import Usage

_logger = logging.getLogger("voicecore.call")


STAGES = ("endpoint", "fetch", "stt", "llm", "clause", "tts")
"""Where the response gap goes, in seconds: fields of "turn done".  `fetch`: of recordings only."""

TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
"""What a reply cost, if its model says so: fields of the same."""

Observer = Callable[[str, str, float, Mapping[str, object]], None]
"""Is told each milestone of a call: its SID, the event, seconds since the call began, the fields.
Must be quick, and must not raise."""


class CallLog:
    """One call's milestones, as log records with ``call``, ``at`` and ``fields``."""

    def __init__(self, call_sid: str, observe: Observer | None = None) -> None:
        self.call_sid = call_sid
        self.began = trio.current_time()
        self._observe = observe

    def milestone(self, event: str, **fields: object) -> None:
        """Log `event` now."""
        self._tell(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log `event` now, as something that an operator should look at."""
        self._tell(logging.WARNING, event, fields)

    def _tell(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        at = round(trio.current_time() - self.began, 3)
        _logger.log(level, event, extra={"call": self.call_sid, "at": at, "fields": fields})
        if self._observe is not None:
            self._observe(self.call_sid, event, at, fields)


@dataclass(slots=True)
class TurnTimeline:
    """When one turn's milestones were reached; None: not reached.

    `log` keeps what happens before the turn is committed to itself: a lost speculation is one line
    in the log, not a conversation that never was.
    """

    log: CallLog
    name: str
    last_voiced: float | None = None
    ended: float | None = None
    began: float | None = None
    transcribed: float | None = None
    first_token: float | None = None
    first_clause: float | None = None
    first_audio: float | None = None
    committed: float | None = None
    first_sent: float | None = None
    speculations: int = 0
    usage: Usage | None = None
    _unsaid: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def milestone(self, event: str, **fields: object) -> None:
        """Log `event` of this turn now, or when the turn is committed."""
        fields = {"turn": self.name, **fields}
        if self.committed is None:
            self._unsaid.append((event, fields))
        else:
            self.log.milestone(event, **fields)

    def begin_again(self) -> None:
        """What was begun for other words counts for nothing."""
        self.first_token = self.first_clause = self.first_audio = self.usage = None
        self._unsaid.clear()

    def commit(self) -> None:
        """The turn is real: say what was kept back."""
        self.committed = trio.current_time()
        for event, fields in self._unsaid:
            self.log.milestone(event, **fields)
        self._unsaid.clear()

    @property
    def gap(self) -> float | None:
        """The response gap: last voiced caller frame to first reply frame on the wire, seconds."""
        return _between(self.last_voiced, self.first_sent)

    @property
    def speculated(self) -> bool:
        """Whether the reply was begun before the end of the turn was certain."""
        return self.began is not None and self.ended is not None and self.began < self.ended

    def cost(self) -> dict[str, int]:
        """What the LLM says that the reply cost, in tokens."""
        if self.usage is None:
            return {}
        usage = self.usage
        return dict(zip(TOKENS, (usage.prompt, usage.cached, usage.completion), strict=True))

    def breakdown(self) -> dict[str, float]:
        """Seconds that each stage took: where the gap went.  Stages overlap under speculation."""
        stages = {
            "endpoint": _between(self.last_voiced, self.ended),
            "stt": _between(self.began, self.transcribed),
            "llm": _between(self.transcribed, self.first_token),
            "clause": _between(self.first_token, self.first_clause),
            "tts": _between(self.first_clause, self.first_audio),
        }
        return {name: round(value, 3) for name, value in stages.items() if value is not None}


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start
