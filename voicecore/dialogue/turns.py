"""Whose turn it is, from the caller's own 20 ms frames: no timer, no clock, no race.

The table below is the whole behaviour.  Each frame raises some signals, in a fixed order; what a
signal does depends on the state, and what the table does not name it does not do:

    ONSET    enough voiced frames in the last few: somebody speaks
    CONFIRM  it lasts: this is speech, not a cough (the barge-in threshold)
    DOUBT    half a second on, still not confirmed
    EAGER    a recogniser that hears words takes the turn for probably over
    ENDED    it takes the turn for over
    RESUMED  it takes that back: it has heard more words
    SILENCE  silence, counted from the real end of speech: the turn is over
    PAUSE    a shorter silence: the turn may be over, speculation may start
    CAP      the turn has lasted as long as a turn may

Silence is counted from the last voiced frame and from the last *faint* one: a gate over the noise
floor finds the end sooner than the classifier's hangover, but alone would cut soft word ends
(`audio.vad`).

What a recogniser concludes (`TurnHint`) comes late and over a network, so it counts only while the
caller's own frames agree with it, and is dropped, not kept, where they do not: EAGER and ENDED if
the caller is speaking, RESUMED if these frames have told the same since.

How long a silence ends the turn depends on what was said.  If the words look unfinished
(`endpointing`), the detector is told to be `patient`; if a recogniser has taken its conclusion
back, it is so by itself, and begins no speculation before the recogniser concludes again.  Either
lasts until speech resumes: then there will be new words.  And each pause that was only a pause
makes the next speculation of the turn wait longer for its pause: who stops often to think will
stop again.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from dataclasses import dataclass

from ..audio.voicing import Voicing

FRAME_MS = 20


class TurnState(enum.Enum):
    """What the caller is doing."""

    QUIET = enum.auto()
    TALKING = enum.auto()
    PAUSED = enum.auto()


class Signal(enum.Enum):
    """What one frame can bring about."""

    ONSET = enum.auto()
    CONFIRM = enum.auto()
    DOUBT = enum.auto()
    EAGER = enum.auto()
    ENDED = enum.auto()
    RESUMED = enum.auto()
    SILENCE = enum.auto()
    PAUSE = enum.auto()
    CAP = enum.auto()


class TurnHint(enum.Enum):
    """What a recogniser that hears words has concluded about the turn."""

    EAGER = enum.auto()
    """The turn is probably over."""
    RESUMED = enum.auto()
    """It was not over after all."""
    ENDED = enum.auto()
    """The turn is over."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody speaks, since `since_ms` ago.

    `confidence` is the voiced share of the speech window, 0 to 1.
    """

    confidence: float
    since_ms: int


@dataclass(frozen=True, slots=True)
class SpeechConfirmed:
    """It is speech that has lasted for the barge-in time."""


@dataclass(frozen=True, slots=True)
class SpeechDoubted:
    """Half a second after the onset there is still too little of it to be speech."""


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """The turn may be over.  `utterance` is all of it so far, with pre-roll, as mu-law."""

    utterance: bytes


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """It was only a pause."""


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The caller has finished.  `confirmed` is false for a sound too short to interrupt with.

    `patient` says that the silence had to be long, because more was to be expected.
    """

    utterance: bytes
    silence_frames: int
    confirmed: bool
    patient: bool = False


TurnEvent = (
    SpeechStarted | SpeechConfirmed | SpeechDoubted | SpeechPaused | SpeechResumed | TurnEnded
)

_S, _I = TurnState, Signal

TABLE: dict[tuple[TurnState, Signal], tuple[TurnState, type[TurnEvent]]] = {
    (_S.QUIET, _I.ONSET): (_S.TALKING, SpeechStarted),
    (_S.TALKING, _I.CONFIRM): (_S.TALKING, SpeechConfirmed),
    (_S.TALKING, _I.DOUBT): (_S.TALKING, SpeechDoubted),
    (_S.TALKING, _I.EAGER): (_S.PAUSED, SpeechPaused),
    (_S.TALKING, _I.ENDED): (_S.QUIET, TurnEnded),
    (_S.TALKING, _I.SILENCE): (_S.QUIET, TurnEnded),
    (_S.TALKING, _I.PAUSE): (_S.PAUSED, SpeechPaused),
    (_S.TALKING, _I.CAP): (_S.QUIET, TurnEnded),
    (_S.PAUSED, _I.ONSET): (_S.TALKING, SpeechResumed),
    (_S.PAUSED, _I.CONFIRM): (_S.PAUSED, SpeechConfirmed),
    (_S.PAUSED, _I.DOUBT): (_S.PAUSED, SpeechDoubted),
    (_S.PAUSED, _I.RESUMED): (_S.TALKING, SpeechResumed),
    (_S.PAUSED, _I.ENDED): (_S.QUIET, TurnEnded),
    (_S.PAUSED, _I.SILENCE): (_S.QUIET, TurnEnded),
    (_S.PAUSED, _I.CAP): (_S.QUIET, TurnEnded),
}
"""(state, signal) -> (next state, event)."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """The numbers of the table.  Times are milliseconds of the caller's sound."""

    window_ms: int = 600
    """The smoothing window; its voiced share is the confidence."""
    end_silence_ms: int = 300
    long_silence_ms: int = 1200
    """Ends a turn from which more is to be expected.  0, or less than `end_silence_ms`: no turn
    waits longer than others."""
    pause_ms: int = 100
    """0 turns speculation off: no `SpeechPaused` comes."""
    pause_growth_ms: int = 40
    """How much longer the pause is after each that was only a pause, in one turn; it stays shorter
    than `end_silence_ms`.  In a monologue 30 % of the speculations begun at 100 ms are kept, at
    160 ms half, at 200 ms three quarters."""
    barge_in_ms: int = 160
    """0 turns barge-in off: no `SpeechConfirmed` comes, nothing is doubted."""
    barge_in_key: str = ""
    """A key that interrupts as speech does, and is nothing else; empty: there is none."""
    doubt_ms: int = 500
    onset_frames: int = 5
    """This many voiced frames of the newest `onset_window_frames` are an onset: a door, a tap or
    a breath voices fewer than the 80 ms under which a sound is a click."""
    onset_window_frames: int = 10
    resume_frames: int = 2
    """Voiced frames of the newest three that end a pause."""
    faint_hold_ms: int = 0
    """How much sooner than `end_silence_ms` faint sound may have ended: for a detector whose faint
    sound contains the classifier's hangover (webrtcvad's is 70 to 100 ms).  Ours does not."""
    preroll_ms: int = 300
    cap_ms: int = 60_000


class Detector:
    """One caller's turns.  `hear` every frame, in order; a few microseconds each.

    `patient` is for whoever knows the words: set it when they look unfinished, unset it when they
    do not any more.  It ends by itself when speech resumes, and with the turn.
    """

    def __init__(self, rules: TurnRules | None = None) -> None:
        self.rules = rules = rules or TurnRules()
        self.state = TurnState.QUIET
        self._window = (1 << (rules.window_ms // FRAME_MS)) - 1
        self._onset_window = (1 << rules.onset_window_frames) - 1
        self._end = rules.end_silence_ms // FRAME_MS
        self._long_end = max(self._end, rules.long_silence_ms // FRAME_MS)
        self._hold = rules.faint_hold_ms // FRAME_MS
        before_onset = rules.preroll_ms // FRAME_MS + rules.onset_window_frames
        self._preroll: deque[bytes] = deque(maxlen=before_onset)
        self._utterance: list[bytes] = []
        self._recent = self._frames = self._voiced = self._silence = self._faint = 0
        self._confirmed = self._withdrawn = self.patient = False
        self._pause, self._concluded_at = 0, 0
        """Silent frames that make a pause; the frame of the recogniser's last conclusion."""
        self._begin_quiet()

    def __repr__(self) -> str:
        return f"<Detector {self.state.name} voiced={self._voiced} silence={self._silence}>"

    @property
    def confidence(self) -> float:
        """The voiced share of the speech window, 0 to 1."""
        return (self._recent & self._window).bit_count() / self._window.bit_count()

    def hear(self, frame: bytes, voicing: Voicing, hint: TurnHint | None = None) -> list[TurnEvent]:
        """Take the next 20 ms and say what it changes: nothing, most of the time.

        `hint` is what a recogniser has newly concluded, if there is one that does.
        """
        voiced = voicing is Voicing.VOICED
        self._recent = ((self._recent << 1) | voiced) & self._window
        if self.state is TurnState.QUIET:
            self._preroll.append(frame)
            if voiced and self._onset_count() >= self.rules.onset_frames:
                return self._raise(Signal.ONSET)
            return []
        self._utterance.append(frame)
        self._frames += 1
        self._voiced += voiced
        self._silence = 0 if voiced else self._silence + 1
        self._faint = 0 if voicing else self._faint + 1
        events: list[TurnEvent] = []
        for signal in self._signals(voiced, hint):
            events += self._raise(signal)
            if events and isinstance(events[-1], TurnEnded):
                break
        return events

    def _signals(self, voiced: bool, hint: TurnHint | None) -> list[Signal]:
        """Which signals this frame raises, in the order in which they count."""
        rules, signals = self.rules, []
        paused = self.state is TurnState.PAUSED
        if voiced and (self._recent & 0b111).bit_count() >= rules.resume_frames:
            self.patient = self._withdrawn = False
            if paused:
                signals.append(Signal.ONSET)
        if not self._confirmed and rules.barge_in_ms:
            if self._voiced * FRAME_MS >= rules.barge_in_ms:
                signals.append(Signal.CONFIRM)
            elif self._frames * FRAME_MS == rules.doubt_ms:
                signals.append(Signal.DOUBT)
        if hint is not None:
            signals += self._believe(hint, voiced)
        if not voiced:
            if self._is_silent_for(self._long_end if self._is_patient else self._end):
                signals.append(Signal.SILENCE)
            elif self._may_pause and not paused and self._is_silent_for(self._pause):
                signals.append(Signal.PAUSE)
        if len(self._utterance) * FRAME_MS >= rules.cap_ms:
            signals.append(Signal.CAP)
        return signals

    def _believe(self, hint: TurnHint, voiced: bool) -> list[Signal]:
        """What a hint brings about: nothing, if this frame or those since tell otherwise."""
        if hint is TurnHint.RESUMED:
            # If speech has resumed in these frames since, this is that, told once more.
            if voiced or self._frames - self._silence > self._concluded_at:
                return []
            self._withdrawn = True
            return [Signal.RESUMED]
        self._concluded_at = self._frames - voiced
        if voiced:
            return []
        if hint is TurnHint.EAGER:
            return [Signal.EAGER] if self._pause else []
        # Words that look unfinished outweigh it: it may have been concluded from silence alone.
        return [Signal.ENDED] if self._silence >= 2 and not self.patient else []

    @property
    def _is_patient(self) -> bool:
        return self.patient or self._withdrawn

    @property
    def _may_pause(self) -> bool:
        return self._pause > 0 and not self._withdrawn

    def _is_silent_for(self, frames: int) -> bool:
        return self._silence >= frames and self._faint >= frames - self._hold

    def _raise(self, signal: Signal) -> list[TurnEvent]:
        row = TABLE.get((self.state, signal))
        if row is None:
            return []
        self.state, kind = row
        return [self._make(kind)]

    def _make(self, kind: type[TurnEvent]) -> TurnEvent:
        """Do what belongs to an event, and fill it in."""
        if kind is SpeechStarted:
            self._begin_talking()
            return SpeechStarted(self.confidence, self._frames * FRAME_MS)
        if kind is SpeechConfirmed:
            self._confirmed = True
            return SpeechConfirmed()
        if kind is SpeechPaused:
            return SpeechPaused(b"".join(self._utterance))
        if kind is SpeechResumed:
            longer = self._pause + self.rules.pause_growth_ms // FRAME_MS
            self._pause = max(self._pause, min(longer, self._end - 1))
            return SpeechResumed()
        if kind is TurnEnded:
            ended = TurnEnded(
                b"".join(self._utterance), self._silence, self._confirmed, self._is_patient
            )
            self._begin_quiet()
            return ended
        return SpeechDoubted()

    def _onset_count(self) -> int:
        return (self._recent & self._onset_window).bit_count()

    def _begin_talking(self) -> None:
        """The utterance starts `preroll_ms` before the first voiced frame of the onset."""
        voiced_for = (self._recent & self._onset_window).bit_length()
        keep = voiced_for + self.rules.preroll_ms // FRAME_MS
        self._utterance = list(self._preroll)[-keep:]
        self._preroll.clear()
        self._frames = voiced_for
        self._voiced = self._onset_count()
        self._silence = self._faint = 0
        # Without barge-in every turn counts as meant.
        self._confirmed = not self.rules.barge_in_ms

    def _begin_quiet(self) -> None:
        """Forget the turn."""
        self._utterance = []
        self._recent = self._frames = self._voiced = self._silence = self._faint = 0
        self._confirmed = self._withdrawn = self.patient = False
        self._pause = self.rules.pause_ms // FRAME_MS
        self._concluded_at = sys.maxsize
