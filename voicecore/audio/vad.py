"""Is there voice in this frame?  webrtcvad, between the line's noise floor and the speech's level.

webrtcvad alone goes on for five frames after the last word and hears every voice in the room; on a
hissing line it may never stop.  So its word counts only above the line's noise, and twice as a
Schmitt trigger would have it: VOICED is 11 dB louder than the floor, and begins and carries speech;
FAINT is 3 dB louder, soon after a voiced frame, and only puts off the end (a soft word end, which
the classifier may miss: from 9 dB on it is not asked).  What is no louder than the line is SILENT,
whatever the classifier says: its hangover on a clean line, the line itself on a noisy one.  A
digital line has next to no floor, and there the breath behind a word is 11 dB over it: so what lies
25 dB below the speech of late is SILENT too.  And a room full of voices rises 5 to 10 dB above its
floor once in ten frames, where a line that only hisses rises 1 to 3: so VOICED is louder than those
peaks as well, by 3 dB, and by 6.5 where nobody has spoken for 400 ms.  Five small machines, one of
each a call:

    energy  of 20 ms of mu-law, by table
    floor   the line's noise: what nine tenths of the last three seconds exceed
    peaks   of that noise: what nine tenths of the frames without a voice stay under
    speech  the level of speech: a peak that three frames reached, fading
    gate    margins over the two and under the third, and how long a faint sound may go on

The margins were chosen on ``bench/endpointing.py``: a single gate would need 13 dB to keep babble
out and less to keep soft word ends and soft callers in; two gates, of which babble alone raises the
one, have all of it.  On a line so noisy that 11 dB over the floor are as loud as the voice itself
(10 dB signal to noise), they fall to 6.  On two recordings as they are, tails and all, over digital
silence and over noise of -60 and -50 dBFS, turns end 300 to 320 ms after the last frame within 34
dB of the loudest; without the level of speech it was 300 to 380.  Of the ranges from 16 to 32 dB,
20 and less lose soft words (jfk.wav is split once more) and 27 and more let tails in.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

import webrtcvad

from . import FRAME_BYTES, SAMPLE_RATE, mulaw
from .voicing import Voicing

_FULL_SCALE = FRAME_BYTES * (1 << 30) / 64
"""`energy` of 20 ms at 0 dBFS: what 160 samples of 32768 have."""


def _square_tables() -> tuple[bytes, bytes, bytes]:
    """Return, for each code, the three bytes of a quarter of its 14-bit magnitude squared.

    Magnitudes are 0, 2, 4 … 8031, so that a quarter of a square fits three bytes to the unit.
    """
    linear = memoryview(mulaw.decode(bytes(range(256)))).cast("h")
    squares = [(value >> 2) ** 2 >> 2 for value in linear]
    return (
        bytes(square & 0xFF for square in squares),
        bytes(square >> 8 & 0xFF for square in squares),
        bytes(square >> 16 for square in squares),
    )


_LOW, _MIDDLE, _HIGH = _square_tables()


def energy(frame: bytes) -> int:
    """Return the energy of a frame of mu-law; its scale is `from_dbfs`'s.

    Three translations and sums take no longer than numpy on 160 bytes, and need no arrays.
    """
    return (
        sum(frame.translate(_LOW))
        + (sum(frame.translate(_MIDDLE)) << 8)
        + (sum(frame.translate(_HIGH)) << 16)
    )


def from_dbfs(level: float) -> float:
    """Return the `energy` of a frame at so many dB below full scale (0 is all samples 32768)."""
    return float(_FULL_SCALE * 10 ** (level / 10))


@dataclass(frozen=True, slots=True)
class GateRules:
    """The numbers of the gate.  Levels are dB below full scale, margins dB over the floor."""

    voiced_margin: float = 11.0
    """At 13, speakers 15 dB softer are missed at 15 dB signal to noise."""
    onset_prominence: float = 6.5
    """So many dB over the peaks of the noise as well, where nobody has spoken of late.  At 5.5 one
    line in a hundred of babble at 20 dB has two false onsets or more, at 6 one in three hundred; at
    8 a caller 15 dB softer is missed in babble at 10 dB more than twice as often."""
    voice_prominence: float = 3.0
    """And in the midst of speech.  At 6, that caller is missed there twice as often; with no such
    margin, babble holds turns open for longer."""
    highest_gate: float = -20.0
    """On a line so noisy that the gate would rise above this, among the loudest of a voice, it
    stays here as long as `noisy_margin` is left."""
    noisy_margin: float = 6.0
    faint_margin: float = 3.0
    unclassified_margin: float = 9.0
    """FAINT even if the classifier hears no speech: it misses the word ends of quiet callers, whose
    turns would end up to 120 ms early."""
    faint_frames: int = 10
    """Longer than this after the last voiced frame nothing is faint: it is the room, not a word
    end.  Without a limit, babble would put off the end of a turn without end."""
    window_frames: int = 150
    """Three seconds: longer than people speak without a gap that shows the floor, short enough to
    follow the line when its noise changes."""
    percentile: float = 0.1
    lowest: float = -66.0
    """A digital line has no noise at all; its dither must not pass for voice."""
    peak_percentile: float = 0.9
    peak_step: float = 0.25
    """Decibels by which the peak rises with every frame above it; it falls by a ninth of that."""
    highest_peak: float = 14.0
    """The peak is not believed to lie further above the floor than this, whatever was slammed or
    played: the gate must not rise above every voice."""
    quiet_frames: int = 20
    """After so many frames without a voice what is heard is noise, and shows its peaks.  At 10 the
    dips in a soft sentence pass for it too: in babble at 10 dB it is cut almost twice as often."""
    learning_frames: int = 50
    prior: float = -30.0
    """In the first second the floor is not believed to lie above this: no telephone line hisses
    so loudly, it must be somebody who speaks from the first frame on."""
    speech_range: float = 25.0
    """So many dB below the level of speech there is none, however quiet the line."""
    voiced_fade: float = 10.0
    """Decibels a second by which that level falls while somebody speaks."""
    silent_fade: float = 30.0
    """And while nobody does: a softer speaker, or one after a slammed door, is soon heard."""


class NoiseFloor:
    """The line's noise, as the energy that all but the quietest tenth of the frames exceed.

    While there are fewer than ten frames it is the quietest one.  It follows the line upwards and
    downwards within a window and is bound to no level, so that the gate cannot latch.
    """

    def __init__(self, rules: GateRules) -> None:
        self._percentile = rules.percentile
        self._lowest = from_dbfs(rules.lowest)
        self._prior = from_dbfs(rules.prior)
        self._learning = rules.learning_frames
        self._recent: deque[int] = deque(maxlen=rules.window_frames)
        self._ranked: list[int] = []

    def hear(self, loudness: int) -> float:
        """Take the `energy` of the next frame; return the floor, in the same scale."""
        ranked = self._ranked
        if len(ranked) == self._recent.maxlen:
            del ranked[bisect_left(ranked, self._recent[0])]
        self._recent.append(loudness)
        insort(ranked, loudness)
        floor = max(ranked[int(len(ranked) * self._percentile)], self._lowest)
        return min(floor, self._prior) if len(ranked) <= self._learning else floor


class NoisePeaks:
    """What the line's noise rises to: all but its loudest tenth of frames stay under `level`.

    Not sorted but followed, up by a step and down by a ninth of one, which comes to rest where a
    tenth of the frames are above it: a door or a click is one step, and not as high as it is loud.
    """

    def __init__(self, rules: GateRules) -> None:
        share = rules.peak_percentile
        self._rise = 10 ** (rules.peak_step / 10)
        self._fall = 10 ** (-rules.peak_step * (1 - share) / share / 10)
        self._highest = 10 ** (rules.highest_peak / 10)
        self.level = 0.0

    def hear(self, loudness: int, floor: float) -> None:
        """Take the `energy` of the next frame that is no voice, and the floor beneath it."""
        level = self.level
        level *= self._rise if loudness > level else self._fall
        highest = floor * self._highest
        self.level = floor if level < floor else highest if level > highest else level


class SpeechLevel:
    """How loud the speech of late was: the peak that three frames in a row reached, fading.

    Three, the last of them voiced: a click or a tap sets no level.  `audible` is the `energy` that
    a frame must have to be speech beside it; 0 before anybody has spoken.
    """

    def __init__(self, rules: GateRules) -> None:
        frames_a_second = SAMPLE_RATE / FRAME_BYTES
        self._ratio = 10 ** (-rules.speech_range / 10)
        self._voiced_fade = 10 ** (-rules.voiced_fade / frames_a_second / 10)
        self._silent_fade = 10 ** (-rules.silent_fade / frames_a_second / 10)
        self._last = self._before = 0
        self.audible = 0.0

    def hear(self, loudness: int, voiced: bool) -> None:
        """Take the `energy` of the next frame, and whether it was judged voiced."""
        if voiced:
            sustained = min(loudness, self._last, self._before) * self._ratio
            self.audible = max(self.audible * self._voiced_fade, sustained)
        else:
            self.audible *= self._silent_fade
        self._before, self._last = self._last, loudness


class WebrtcVad:
    """webrtcvad alone: VOICED or SILENT."""

    def __init__(self, mode: int = 3) -> None:
        self._vad = webrtcvad.Vad(mode)

    def hear(self, frame: bytes) -> Voicing:
        """Judge the next 160 bytes of mu-law."""
        speech = self._vad.is_speech(mulaw.decode(frame), SAMPLE_RATE)
        return Voicing.VOICED if speech else Voicing.SILENT


class GatedVad:
    """webrtcvad, gated by the noise and the level of speech; 7 to 8 microseconds a frame."""

    def __init__(self, mode: int = 3, rules: GateRules | None = None) -> None:
        rules = rules or GateRules()
        self._vad = webrtcvad.Vad(mode)
        self._floor = NoiseFloor(rules)
        self._peaks = NoisePeaks(rules)
        self._speech = SpeechLevel(rules)
        self._voiced_ratio = 10 ** (rules.voiced_margin / 10)
        self._onset_ratio = 10 ** (rules.onset_prominence / 10)
        self._voice_ratio = 10 ** (rules.voice_prominence / 10)
        self._noisy_ratio = 10 ** (rules.noisy_margin / 10)
        self._highest_gate = from_dbfs(rules.highest_gate)
        self._faint_ratio = 10 ** (rules.faint_margin / 10)
        self._unclassified_ratio = 10 ** (rules.unclassified_margin / 10)
        self._faint_frames = rules.faint_frames
        self._quiet_frames = rules.quiet_frames
        self._since_voiced = max(rules.faint_frames, rules.quiet_frames)

    def hear(self, frame: bytes) -> Voicing:
        """Judge the next 160 bytes of mu-law."""
        loudness = energy(frame)
        voicing = self._judge(frame, loudness, self._floor.hear(loudness))
        self._speech.hear(loudness, voicing is Voicing.VOICED)
        return voicing

    def _judge(self, frame: bytes, loudness: int, floor: float) -> Voicing:
        self._since_voiced += 1
        if self._since_voiced > self._quiet_frames:
            self._peaks.hear(loudness, floor)
        # The classifier learns from every frame, so it hears the silent ones too.
        classified = self._vad.is_speech(mulaw.decode(frame), SAMPLE_RATE)
        if loudness < self._speech.audible:
            return Voicing.SILENT
        margin = self._unclassified_ratio
        if classified:
            if loudness > self._gate(floor):
                self._since_voiced = 0
                return Voicing.VOICED
            margin = self._faint_ratio
        if self._since_voiced <= self._faint_frames and loudness > floor * margin:
            return Voicing.FAINT
        return Voicing.SILENT

    def _gate(self, floor: float) -> float:
        """Return the `energy` above which what the classifier hears is VOICED."""
        quiet = self._since_voiced > self._quiet_frames
        peak = self._peaks.level * (self._onset_ratio if quiet else self._voice_ratio)
        gate = min(max(floor * self._voiced_ratio, peak), self._highest_gate)
        return max(gate, floor * self._noisy_ratio)
