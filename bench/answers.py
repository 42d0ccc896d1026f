"""From gaps at the caller and log lines of the server to answers: where each millisecond went.

    answers = matched(result, program.lines)

A turn of a caller that was answered is one `Answer`.  Its stages are the server's own figures
(``turn done``); its gap was measured at the caller.  What no stage accounts for is the cost of the
server, the adapters, the sockets, and of the vendors' timers.

In the recording flow the server knows a turn from the webhook on; what lies before it is what the
carrier's part was told to take.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from delays import CARRIER, Delays

from voicecore.dialogue.turns import TurnRules

RULES = TurnRules()
SAME_MS = 100
"""What the caller calls a gap and what the server does differ by less, if nothing was held up."""

STAGES = ("pause", "carrier", "stt", "llm", "clause", "tts", "whole", "gate", "rest")


@dataclass(frozen=True)
class Way:
    """How a turn is made.  `speculation` is the setting; `is_cached`: the voice has said it;
    `is_recorded`: by the recording flow, which has neither of them."""

    delays: Delays
    is_live: bool
    speculation: str
    is_cached: bool = False
    is_recorded: bool = False

    def due_ms(self, lost: int = 0) -> float:
        """Return the gap that end silence, pause and vendors' delays make by themselves.

        `lost` is how many speculations the caller's own pauses have cost before: each makes the
        next one wait longer.
        """
        delays = self.delays
        if self.is_recorded:
            return CARRIER.total_ms + delays.stt_ms + delays.reply_ms + delays.speech_ms
        words = (delays.live_ms if self.is_live else delays.stt_ms) + delays.clause_ms
        speech = 0 if self.is_cached else delays.tts_ms
        if self.speculation == "off":
            return RULES.end_silence_ms + words + speech
        pause = pause_ms(lost)
        if self.speculation == "llm":
            return max(RULES.end_silence_ms, pause + words) + speech
        return max(RULES.end_silence_ms, pause + words + speech)


def pause_ms(lost: int) -> int:
    """Return the silence after which a turn is begun, so many speculations of it being lost."""
    return min(RULES.pause_ms + lost * RULES.pause_growth_ms, RULES.end_silence_ms - 20)


@dataclass(frozen=True)
class Answer:
    """One answered turn.  Milliseconds."""

    gap: float
    server_gap: float
    """What the server takes it for."""
    due: float
    lost: int
    pause: float
    """From the last speech to the beginning of the turn, or to the recording's end."""
    stt: float
    llm: float
    clause: float
    tts: float
    gate: float
    """From the first audio until the turn was certain: the pipeline was hidden."""
    rest: float
    carrier: float = 0
    """From the recording's end until the server has it."""
    whole: float = 0
    """From the first audio until all of it is there, to be played as a file."""

    @property
    def excess(self) -> float:
        """How much the gap is above what it has to be."""
        return self.gap - self.due


def matched(
    result: Mapping[str, Any], lines: Iterable[Mapping[str, Any]], way: Way
) -> list[Answer]:
    """Return the answers of which caller and server know: a call's last may be unfinished."""
    done = _turns_done(lines)
    answers = []
    for gap, (number, nth) in zip(result["gaps"], result["gap_turns"], strict=True):
        turn = done.get((f"CA{number:032x}", nth))
        if turn is not None:
            answers.append((_recorded if way.is_recorded else _answer)(gap, turn, way))
    return answers


def _turns_done(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return the lines that say what became of each utterance of each call, from 1 on."""
    utterances: dict[str, int] = defaultdict(int)
    done = {}
    for line in lines:
        if line["message"] == "processing":
            utterances[line["call"]] += 1
        elif line["message"] == "turn done":
            done[line["call"], utterances[line["call"]]] = line
    return done


def _answer(gap: float, turn: Mapping[str, Any], way: Way) -> Answer:
    lost = max(0, turn["speculations"] - 1)
    stages = {name: turn.get(name, 0) * 1000 for name in ("stt", "llm", "clause", "tts")}
    end = turn["endpoint"] * 1000
    pause = pause_ms(lost) if turn["speculated"] else end
    ready = pause + sum(stages.values())
    gate = max(0.0, end - ready)
    rest = gap - ready - gate
    times = {"gap": gap, "server_gap": turn["gap"] * 1000, "due": way.due_ms(lost)}
    return Answer(**times, lost=lost, pause=pause, **stages, gate=gate, rest=rest)


def _recorded(gap: float, turn: Mapping[str, Any], way: Way) -> Answer:
    stages = {name: turn.get(name, 0) * 1000 for name in ("stt", "llm", "clause", "tts")}
    server_ms, fetch_ms = turn["gap"] * 1000, turn["fetch"] * 1000
    return Answer(
        gap=gap,
        server_gap=CARRIER.early_ms + server_ms,
        due=way.due_ms(),
        lost=0,
        pause=CARRIER.silence_ms,
        **stages,
        gate=0.0,
        rest=gap - CARRIER.early_ms - server_ms,
        carrier=CARRIER.early_ms - CARRIER.silence_ms + fetch_ms,
        whole=server_ms - fetch_ms - sum(stages.values()),
    )


def strays(answers: Iterable[Answer]) -> int:
    """Return of how many gaps caller and server disagree."""
    return sum(abs(answer.gap - answer.server_gap) >= SAME_MS for answer in answers)


def shares(answers: Iterable[Answer]) -> dict[str, float]:
    """Return the mean of each stage: together they are the mean gap."""
    rows = [asdict(answer) for answer in answers]
    return {stage: sum(row[stage] for row in rows) / len(rows) for stage in STAGES}


def speculations(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many were kept, how many lost, and the tokens that were written for the lost."""
    found = {"kept": 0, "lost": 0, "lost_tokens": 0}
    for line in lines:
        if line["message"] == "speculation lost":
            found["lost"] += 1
            found["lost_tokens"] += line["tokens"]
        elif line["message"] == "turn done":
            found["kept"] += line["speculated"]
    return found


UNSIGNED = "TWILIO_AUTH_TOKEN is not set"
"""As it is said at start: these callers sign nothing."""


def faults(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what the server had to complain about."""
    return [
        line["message"]
        for line in lines
        if line["level"] != "info" and not line["message"].startswith(UNSIGNED)
    ]


def outlived(way: Way, vendors: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> int:
    """Return how many requests outlived their turn.

    Those that are open when all calls have ended; and the replies that the LLM has written to their
    end, as far as they are more than the turns that ended: a lost speculation's was to be stopped.
    That says something only if the LLM is too slow to be through within a caller's pause.
    """
    still_open = sum(vendors["open"].values())
    if way.delays.llm_ms < RULES.end_silence_ms - RULES.pause_ms:
        return still_open
    ended = sum(line["message"] == "processing" for line in lines)
    return still_open + max(0, vendors["ended"].get("llm", 0) - ended)
