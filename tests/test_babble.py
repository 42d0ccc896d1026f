"""What the gate makes of a room full of voices, on the lines of ``bench/endpointing.py``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import mulaw
from voicecore.audio.vad import GatedVad, GateRules, NoisePeaks
from voicecore.audio.voicing import Voicing
from voicecore.dialogue.turns import TurnRules

BENCH = Path(__file__).resolve().parent.parent / "bench"
FLOOR_ONLY = GateRules(onset_prominence=-200, voice_prominence=-200)
"""A gate that knows the noise's floor, and not its peaks."""
LOUD_ROOMS = (110, 115, 116, 126, 131, 143)
"""Seeds of babble that rises over 11 dB above its floor three times and more."""
Samples = npt.NDArray[np.float64]
Line = tuple[list[bytes], list[tuple[int, int]]]
"""Its frames of mu-law, and where in it somebody speaks, in ms."""


def module(name: str) -> ModuleType:
    """Import a module of the benches, which are scripts and no package."""
    sys.path.insert(0, str(BENCH))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCH))


endpointing = module("endpointing")


def voicings(rules: GateRules, frames: list[bytes]) -> list[Voicing]:
    vad = GatedVad(rules=rules)
    return [vad.hear(frame) for frame in frames]


def score(rules: GateRules, *lines: Line) -> Any:
    """What the bench says of a gate on these lines."""
    who = endpointing.Contestant("", lambda: GatedVad(rules=rules), TurnRules())
    total = endpointing.Score("", "", "")
    for frames, spans in lines:
        endpointing.judge(total, spans, *endpointing.heard(who, frames))
    return total


def softened(line: Line) -> Line:
    """A line as a caller is heard on it who speaks 15 dB more softly, in a room as much quieter."""
    pcm = np.frombuffer(mulaw.decode(b"".join(line[0])), "<i2") * 10 ** (-15 / 20)
    return endpointing.encoded(pcm), line[1]


def soft_line(before: Samples, speech: Samples, hiss_dbfs: float) -> Line:
    """Speech 15 dB softer than recorded, on a line that hisses."""
    signal = np.concatenate([before, speech * 10 ** (-15 / 20), np.zeros(16000)])
    hiss = np.random.default_rng(1).standard_normal(len(signal)) * 32768 * 10 ** (hiss_dbfs / 20)
    begin = len(before) // 8
    return endpointing.encoded(signal + hiss), [(begin, begin + len(speech) // 8)]


@pytest.mark.parametrize("deviation_db", [1, 3, 6])
def test_the_peaks_are_what_nine_tenths_stay_under(deviation_db: float) -> None:
    peaks = NoisePeaks(GateRules(highest_peak=100))
    above = []
    for decibels in np.random.default_rng(1).normal(50, deviation_db, 4000):
        loudness = int(10 ** (decibels / 10))
        above.append(loudness > peaks.level)
        peaks.hear(loudness, floor=1.0)
    assert np.mean(above[1000:]) == pytest.approx(0.1, abs=0.02)


@given(st.lists(st.tuples(st.integers(0, 1 << 31), st.floats(1, 1e9)), min_size=1))
def test_the_peaks_stay_near_the_floor(heard: list[tuple[int, float]]) -> None:
    peaks = NoisePeaks(GateRules(highest_peak=10))
    for loudness, floor in heard:
        peaks.hear(loudness, floor)
        assert floor <= peaks.level <= 10 * floor


def test_a_slammed_door_is_a_step_for_each_of_its_frames() -> None:
    peaks = NoisePeaks(GateRules(peak_step=0.5))
    peaks.hear(1000, floor=1000.0)
    for _ in range(3):
        peaks.hear(1 << 31, floor=1000.0)
    assert 10 * np.log10(peaks.level / 1000) == pytest.approx(1.5)


@pytest.mark.parametrize("snr_db", [20, 15])
def test_of_a_room_full_of_voices_at_most_one_is_taken_for_the_caller(snr_db: int) -> None:
    lines = [endpointing.line("babble", snr_db, seed) for seed in LOUD_ROOMS]
    ours = score(GateRules(), *lines)
    assert ours.worst <= 1
    assert ours.miss == ours.cuts == 0
    assert score(FLOOR_ONLY, *lines).false >= 3 * len(LOUD_ROOMS)


def test_a_voice_in_babble_carries_on_more_easily_than_it_begins() -> None:
    """Were all of it held to the margin of an onset, more soft callers would be missed."""
    lines = [softened(endpointing.line("babble", 10, seed)) for seed in range(1, 9)]
    strict = GateRules(voice_prominence=GateRules().onset_prominence)
    assert score(GateRules(), *lines).miss < score(strict, *lines).miss


@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("snr_db", [30, 20, 15])
def test_a_line_that_only_hisses_keeps_its_gate(kind: str, snr_db: int) -> None:
    """So that soft callers are heard; with a gate of 13 dB some are not, at 15 dB."""
    line = softened(endpointing.line(kind, snr_db, 1))
    assert voicings(GateRules(), line[0]) == voicings(FLOOR_ONLY, line[0])
    assert score(GateRules(), line).miss == 0
    high = score(GateRules(voiced_margin=13), line).miss
    assert bool(high) is (snr_db == 15)


def test_a_soft_sentence_does_not_raise_the_gate_against_itself() -> None:
    """Its dips lie over the line's noise, and are no noise for as long as it goes on."""
    speech = np.tile(endpointing.recording("jfk"), 2)
    frames, _ = soft_line(np.zeros(24000), speech, -56)
    patient, hasty, unraised = (
        voicings(rules, frames).count(Voicing.VOICED)
        for rules in (GateRules(), GateRules(quiet_frames=0), FLOOR_ONLY)
    )
    assert patient == unraised
    assert hasty < 0.9 * unraised


def test_a_soft_caller_is_heard_half_a_second_after_the_room_falls_silent() -> None:
    phrases = endpointing.phrases()
    speech = phrases[1]
    room = endpointing.noise_of("babble", 80000, phrases, 3) * np.sqrt((speech**2).mean() / 30)
    line = soft_line(np.concatenate([room, np.zeros(4000)]), speech, -60)
    heard = score(GateRules(), line)
    assert heard.miss == heard.cuts == 0
    assert heard.on[0] <= 200
    assert abs(heard.off[0] - 300) <= 40
