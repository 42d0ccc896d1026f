"""The gate, its floor, and what the turn detector makes of it on recorded speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import FRAME_BYTES, SILENCE_FRAME, mulaw, wav
from voicecore.audio.vad import GatedVad, GateRules, NoiseFloor, WebrtcVad, energy, from_dbfs
from voicecore.audio.voicing import Voicing
from voicecore.contracts import VAD
from voicecore.dialogue.turns import Detector, SpeechStarted, TurnEnded, TurnRules

AUDIO = Path(__file__).parent / "audio"
PHRASES = {
    "hello": ("hello_world", 0.20, 1.02),
    "weather": ("weather_question", 0.40, 1.70),
    "my fellow Americans": ("jfk", 0.30, 2.20),
    "what your country can do": ("jfk", 5.36, 7.70),
    "what you can do": ("jfk", 8.12, 10.50),
}
RULES = TurnRules(end_silence_ms=300, pause_ms=100, faint_hold_ms=0)
Samples = npt.NDArray[np.float64]


def phrase(name: str) -> Samples:
    """From the first to the last 20 ms within 25 dB of the loudest."""
    recording, start, end = PHRASES[name]
    pcm = np.frombuffer(wav.read(AUDIO / f"{recording}.wav").pcm, "<i2").astype(np.float64)
    part = pcm[int(start * 8000) : int(end * 8000)]
    rows = part[: len(part) // 160 * 160].reshape(-1, 160)
    power = (rows**2).mean(axis=1)
    loud = np.nonzero(power > power.max() / 10**2.5)[0]
    return rows[loud[0] : loud[-1] + 1].ravel()


def hiss(seconds: float, dbfs: float, seed: int = 1) -> Samples:
    noise = np.random.default_rng(seed).standard_normal(int(seconds * 8000))
    return noise * 32768 * 10 ** (dbfs / 20)


def frames(*parts: Samples) -> list[bytes]:
    pcm = np.clip(np.rint(np.concatenate(parts)), -32768, 32767).astype("<i2")
    audio = mulaw.encode(pcm.tobytes())
    return [audio[at : at + 160] for at in range(0, len(audio) - 159, 160)]


def voicings(vad: VAD, heard: list[bytes]) -> list[Voicing]:
    return [vad.hear(frame) for frame in heard]


def turns(heard: list[bytes], vad: VAD) -> list[tuple[int, int]]:
    """Where the detector's turns begin and end, in ms."""
    detector, begun, ended = Detector(RULES), [], []
    for count, frame in enumerate(heard, 1):
        for event in detector.hear(frame, vad.hear(frame)):
            if isinstance(event, SpeechStarted):
                begun.append(20 * count)
            elif isinstance(event, TurnEnded):
                ended.append(20 * count)
    return list(zip(begun, ended, strict=True))


def test_energy_is_exact() -> None:
    for code in range(256):
        (sample,) = memoryview(mulaw.decode(bytes([code]))).cast("h")
        assert energy(bytes([code]) * FRAME_BYTES) == FRAME_BYTES * (sample**2 // 64)


@pytest.mark.parametrize("dbfs", [-10, -20, -40])
def test_energy_has_the_scale_of_levels(dbfs: int) -> None:
    loudness = np.mean([energy(frame) for frame in frames(hiss(1, dbfs))])
    assert 10 * np.log10(loudness / from_dbfs(dbfs)) == pytest.approx(0, abs=0.3)


def test_the_floor_is_what_nine_tenths_exceed() -> None:
    floor = NoiseFloor(GateRules(lowest=-100, learning_frames=0))
    levels = [floor.hear(1000 * count) for count in range(1, 151)]
    assert levels[:9] == [1000] * 9
    assert levels[-1] == 16_000
    assert floor.hear(1000 * 151) == 17_000


@given(st.lists(st.integers(0, 1 << 31), min_size=1, max_size=60))
def test_the_floor_equals_its_definition(loudnesses: list[int]) -> None:
    rules = GateRules(window_frames=20, lowest=-100, learning_frames=0)
    floor = NoiseFloor(rules)
    for count, loudness in enumerate(loudnesses, 1):
        recent = sorted(loudnesses[max(0, count - 20) : count])
        assert floor.hear(loudness) == max(recent[len(recent) // 10], from_dbfs(-100))


def test_the_floor_lies_within_reason() -> None:
    floor = NoiseFloor(GateRules())
    assert floor.hear(0) == from_dbfs(-66)
    loud = int(from_dbfs(-10))
    learning = NoiseFloor(GateRules())
    heard = [learning.hear(loud) for _ in range(51)]
    assert set(heard[:50]) == {from_dbfs(-30)}
    assert heard[50] == loud


@pytest.mark.parametrize("name", PHRASES)
@pytest.mark.parametrize("line_dbfs", [-90, -60, -50])
def test_on_a_quiet_line_the_wait_is_300_ms(name: str, line_dbfs: float) -> None:
    speech = phrase(name)
    end = 3000 + len(speech) // 8
    signal = np.concatenate([np.zeros(24000), speech, np.zeros(16000)])
    heard = frames(signal + hiss(len(signal) / 8000, line_dbfs))
    ((began, ended),) = turns(heard, GatedVad())
    assert 80 <= began - 3000 <= 160
    assert abs(ended - end - 300) <= 20


def test_the_classifier_alone_waits_for_its_hangover() -> None:
    speech = phrase("weather")
    heard = frames(np.zeros(24000), speech, np.zeros(16000))
    ((_, ended),) = turns(heard, WebrtcVad())
    assert ended - 3000 - len(speech) // 8 >= 380


@pytest.mark.parametrize("name", PHRASES)
def test_in_a_noisy_room_no_turn_is_lost_or_cut(name: str) -> None:
    speech = phrase(name)
    signal = np.concatenate([np.zeros(40000), speech, np.zeros(16000)])
    noise = hiss(len(signal) / 8000, 10 * np.log10((speech**2).mean()) - 90.3 - 20)
    ((began, ended),) = turns(frames(signal + noise), GatedVad())
    assert 80 <= began - 5000 <= 200
    assert 0 < ended - 5000 - len(speech) // 8 <= 340


@pytest.mark.parametrize("name", PHRASES)
@pytest.mark.parametrize("decibels", [0, -10])
def test_who_speaks_from_the_first_frame_is_heard(name: str, decibels: float) -> None:
    heard = frames(phrase(name) * 10 ** (decibels / 20), np.zeros(8000))
    found = turns(heard, GatedVad())
    assert found
    assert found[0][0] <= 400


def test_real_pauses_over_real_room_noise_end_turns() -> None:
    """A recording with a room of its own, at -41 dBFS, that the classifier takes for speech."""
    pcm = np.frombuffer(wav.read(AUDIO / "jfk.wav").pcm, "<i2").astype(np.float64)
    heard = frames(pcm, np.zeros(8000))
    assert len(turns(heard, GatedVad())) == 4
    assert len(turns(heard, WebrtcVad())) == 2


@pytest.mark.parametrize("dbfs", [-60, -40, -30, -25])
def test_steady_noise_is_nobody(dbfs: float) -> None:
    assert turns(frames(hiss(10, dbfs)), GatedVad()) == []


@pytest.mark.parametrize(("before", "after"), [(-70, -40), (-70, -20), (-30, -60), (-20, -70)])
def test_the_gate_follows_a_line_that_changes(before: float, after: float) -> None:
    change = np.concatenate([hiss(6, before), hiss(6, after, seed=2)])
    vad = GatedVad()
    voicings(vad, frames(change))
    settled = voicings(vad, frames(hiss(2, after, seed=3)))
    assert Voicing.VOICED not in settled
    loud = phrase("hello") * (1 if after < -30 else 4)
    assert Voicing.VOICED in voicings(vad, frames(loud + hiss(len(loud) / 8000, after, seed=4)))


def test_faint_is_only_what_follows_a_voice_closely() -> None:
    """A second voice in the room neither begins a turn nor holds one open."""
    speech, room = phrase("weather"), np.tile(phrase("what you can do"), 4) / 40
    signal = np.concatenate([room, room[: len(speech)] + speech, room])
    heard = voicings(GatedVad(), frames(signal + hiss(len(signal) / 8000, -56)))
    assert Voicing.FAINT in heard
    since = GateRules().faint_frames + 1
    for voicing in heard:
        since = 0 if voicing is Voicing.VOICED else since + 1
        if voicing is Voicing.FAINT:
            assert since <= GateRules().faint_frames


def test_a_tone_is_learned_within_a_second() -> None:
    tone = 32767 * np.sin(np.arange(80000) * 2 * np.pi * 440 / 8000)
    found = turns(frames(tone), GatedVad())
    assert len(found) <= 1
    assert all(ended <= 1500 for _, ended in found)


@pytest.mark.parametrize(
    "heard",
    [
        [SILENCE_FRAME] * 500,
        [b"\x7f" * 160] * 500,
        [*([SILENCE_FRAME] * 200), b"\x80" * 160, *([SILENCE_FRAME] * 200)],
    ],
    ids=["silence", "minus zero", "full-scale click"],
)
def test_what_is_no_voice(heard: list[bytes]) -> None:
    assert turns(heard, GatedVad()) == []


@given(st.lists(st.binary(min_size=160, max_size=160), max_size=8), st.integers(0, 3))
def test_any_bytes_are_judged(heard: list[bytes], mode: int) -> None:
    assert set(voicings(GatedVad(mode), heard)) <= set(Voicing)
    assert set(voicings(WebrtcVad(mode), heard)) <= {Voicing.SILENT, Voicing.VOICED}


def test_the_same_line_twice_is_heard_the_same_twice() -> None:
    heard = frames(hiss(1, -50), phrase("weather"), hiss(1, -50))
    assert voicings(GatedVad(), heard) == voicings(GatedVad(), heard)
