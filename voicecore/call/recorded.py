"""One turn without a line: what the caller said is a recording, the answer is played as a file.

It is the same turn as a stream's, with the same stages, deadlines, apologies and milestones; only
its player is a tape.  Nobody can interrupt here: the history holds what was made to be heard.

The carrier's part comes in and goes out as values: a `Recording`, and a `RecordedAnswer` with what
the call does next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from ..audio import FRAME_BYTES, SAMPLE_RATE
from ..dialogue.history import History
from ..dialogue.spoken import Pace
from .agent import Agent
from .call import EndedBy, open_listener
from .hands import Desk, Gather
from .live_turns import new_turn, report
from .speech import Alarm, Speech
from .timeline import CallLog
from .toolbox import CallInfo
from .transfer import Transfer
from .turn import Conversation, Turn
from .writing import FIRST_S

TAPE_BYTES = 10 * FRAME_BYTES
"""What a tape takes at once: it hurries nobody, and nobody waits for its frames."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance of the caller, in mu-law.  Times are of ``trio.current_time()``."""

    name: str
    """The turn's, unique in its call."""
    utterance: bytes
    arrived: float
    """When the carrier said that the caller has finished."""
    fetched: float
    """When we had it."""
    words: str | None = None
    """What it means, if that is known: nothing was recorded, keys were typed.  Empty: what the
    history ends with is to be answered."""


@dataclass(frozen=True, slots=True)
class Record:
    """The caller is listened to again."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """The call ends, and who ended it."""

    ended_by: EndedBy = "agent"


@dataclass(frozen=True, slots=True)
class Dial:
    """The call goes on with somebody else."""

    transfer: Transfer


Next = Record | HangUp | Dial | Gather
"""What a call does when an answer has been played."""


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What came of a turn: `words` of the caller, `text` and `audio` in answer, what is `next`."""

    words: str = ""
    text: str = ""
    audio: bytes = b""
    next: Next = Record()
    has_failed: bool = False
    """Whether a provider has: the audio ends in an apology."""


class Tape:
    """A player that takes a speech as fast as it is made."""

    def __init__(self) -> None:
        self.audio = bytearray()
        self._alarm = Alarm()

    def __repr__(self) -> str:
        return f"<Tape of {len(self.audio) / SAMPLE_RATE:.1f} s>"

    def new_speech(self, name: str) -> Speech:
        """Return an empty speech that can be taken."""
        return Speech(name, self._alarm, Pace(), TAPE_BYTES, is_live=False)

    async def play(self, speech: Speech) -> None:
        """Take a speech to its end: it will be heard whole."""
        while not speech.is_all_sent:
            while speech.has_frame:
                self.audio += speech.take_frame()
            if not speech.is_all_sent:
                await self._alarm.sleep_until(math.inf)
        if speech.end:
            speech.first_sent_at = trio.current_time()  # nothing is sent before all is there
        speech.confirmed = speech.end
        speech.done.set()

    def heard(self, speech: Speech) -> int:
        """All of it will be."""
        return speech.end

    def hold(self) -> None:
        """Do nothing: nobody is heard while something is played."""

    def release(self) -> None:
        """Do nothing."""


async def answer_recording(
    agent: Agent,
    history: History,
    log: CallLog,
    recording: Recording,
    parameters: Mapping[str, str],
) -> RecordedAnswer:
    """Let `agent` answer a recording; `history` holds both sides afterwards.

    `parameters` are the call's.  A provider's failure is an apology in the answer, and no error.
    """
    tape = Tape()
    log.milestone("processing", bytes=len(recording.utterance))
    # Some recognisers take audio little faster than it was spoken, and here it comes all at once.
    words_s = FIRST_S + len(recording.utterance) / SAMPLE_RATE

    def info() -> CallInfo:
        return CallInfo(log.call_sid, parameters, history.messages)

    async with open_listener(agent) as listener, trio.open_nursery() as nursery:
        desk = Desk(info, nursery, history.tool_done)
        talk = Conversation(agent, tape, listener, history, log, desk, words_s=words_s)
        turn = new_turn(talk, recording.name)
        turn.timeline.last_voiced = recording.arrived
        turn.gate.set()
        if recording.words is None:
            # Not fed: it is the recogniser's to take what it was never fed (`contracts`).
            await turn.answer(recording.utterance)
        else:
            await turn.answer_words(recording.words)
    fetch = round(recording.fetched - recording.arrived, 3)
    report(turn, log, fetch=fetch, flow="recording")
    text = turn.reply.speech.spoken.text
    return RecordedAnswer(turn.words or "", text, bytes(tape.audio), _next(turn), turn.has_failed)


def _next(turn: Turn) -> Next:
    """Return what the call does when the turn was heard: what its tools wanted."""
    if turn.transfer is not None:
        return Dial(turn.transfer)
    if turn.reply.hands.gather is not None:
        return turn.reply.hands.gather
    return HangUp("agent") if turn.ends_call_by else Record()
