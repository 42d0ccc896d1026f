"""The gate, its floor, and what the turn detector makes of it on recorded speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import FRAME_BYTES, SILENCE_FRAME, mulaw, wav
from voicecore.audio.vad import (
    GatedVad,
    GateRules,
    NoiseFloor,
    SpeechLevel,
    WebrtcVad,
    energy,
    from_dbfs,
)
from voicecore.audio.voicing import Voicing
from voicecore.contracts import VAD
from voicecore.dialogue.turns import Detector, SpeechPaused, SpeechStarted, TurnEnded, TurnRules

AUDIO = Path(__file__).parent / "audio"
PHRASES = {
    "hello": ("hello_world", 0.20, 1.02),
    "weather": ("weather_question", 0.40, 1.70),
    "my fellow Americans": ("jfk", 0.30, 2.20),
    "what your country can do": ("jfk", 5.36, 7.70),
    "what you can do": ("jfk", 8.12, 10.50),
}
LAST_LOUD = {"weather_question": 81, "hello_world": 47}
"""The last 20 ms within 34 dB of a recording's loudest; what follows nobody hears as speech."""
RULES = TurnRules(end_silence_ms=300, pause_ms=100, faint_hold_ms=0)
Samples = npt.NDArray[np.float64]


def recording(name: str) -> Samples:
    """All of a recording that is whole frames."""
    pcm = np.frombuffer(wav.read(AUDIO / f"{name}.wav").pcm, "<i2").astype(np.float64)
    return pcm[: len(pcm) // 160 * 160]


def phrase(name: str) -> Samples:
    """From the first to the last 20 ms within 25 dB of the loudest."""
    source, start, end = PHRASES[name]
    part = recording(source)[int(start * 8000) : int(end * 8000)]
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


def pauses(heard: list[bytes], vad: VAD) -> list[int]:
    """Where the detector's pauses are, in ms."""
    detector = Detector(RULES)
    return [
        20 * count
        for count, frame in enumerate(heard, 1)
        for event in detector.hear(frame, vad.hear(frame))
        if isinstance(event, SpeechPaused)
    ]


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


@pytest.mark.parametrize("name", LAST_LOUD)
@pytest.mark.parametrize(
    ("decibels", "line_dbfs"), [(0, None), (0, -60), (0, -50), (-6, None), (-6, -60)]
)
def test_the_tail_behind_a_word_is_no_part_of_it(
    name: str, decibels: float, line_dbfs: float | None
) -> None:
    """A recording as it is; where the line is silent, mu-law's silence on both sides of it."""
    end = 20 * (50 + LAST_LOUD[name] + 1)
    speech = recording(name) * 10 ** (decibels / 20)
    if line_dbfs is None:
        lines = [[*[SILENCE_FRAME] * 50, *frames(speech), *[SILENCE_FRAME] * 50]]
    else:
        signal = np.concatenate([np.zeros(8000), speech, np.zeros(8000)])
        lines = [frames(signal + hiss(len(signal) / 8000, line_dbfs, s)) for s in range(1, 6)]
    for heard in lines:
        ((_, ended),) = turns(heard, GatedVad())
        assert abs(ended - end - 300) <= 20
        assert abs(pauses(heard, GatedVad())[-1] - end - 100) <= 20


@pytest.mark.parametrize("name", LAST_LOUD)
def test_without_a_level_of_speech_the_tail_holds_the_turn(name: str) -> None:
    heard = [*[SILENCE_FRAME] * 50, *frames(recording(name)), *[SILENCE_FRAME] * 50]
    ((_, ended),) = turns(heard, GatedVad(rules=GateRules(speech_range=200)))
    assert ended - 20 * (50 + LAST_LOUD[name] + 1) > 340


def test_a_word_end_that_the_classifier_misses_counts() -> None:
    """The weather, asked 8 dB more softly: webrtcvad drops its last syllable."""
    speech = recording("weather_question") * 10 ** (-8 / 20)
    signal = np.concatenate([np.zeros(8000), speech, np.zeros(8000)])
    heard, end = frames(signal + hiss(len(signal) / 8000, -65)), 20 * (50 + 82)
    ((_, ended),) = turns(heard, GatedVad())
    ((_, early),) = turns(heard, GatedVad(rules=GateRules(unclassified_margin=200)))
    assert abs(ended - end - 300) <= 20
    assert early - end - 300 <= -60


@pytest.mark.parametrize("first", PHRASES)
@pytest.mark.parametrize("second", PHRASES)
def test_a_softer_sentence_after_a_loud_one_is_heard_in_full(first: str, second: str) -> None:
    """15 dB softer, half a second later: what it loses to the level are its own dips."""
    loud, soft = phrase(first), phrase(second) * 10 ** (-15 / 20)
    heard = frames(np.zeros(24000), loud, np.zeros(4000), soft, np.zeros(8000))
    begin, length = 3500 + len(loud) // 8, len(soft) // 8
    rangeless = GateRules(speech_range=200)
    (_, (began, ended)) = turns(heard, GatedVad())
    assert began == turns(heard, GatedVad(rules=rangeless))[1][0]
    assert abs(ended - begin - length - 300) <= 40
    spoken = slice(begin // 20, (begin + length) // 20)
    lost = [
        at
        for at, (gated, without) in enumerate(
            zip(
                voicings(GatedVad(), heard)[spoken],
                voicings(GatedVad(rules=rangeless), heard)[spoken],
                strict=True,
            )
        )
        if without is Voicing.VOICED and gated is Voicing.SILENT
    ]
    assert len(lost) <= 3
    assert not lost or lost[0] >= 10


@pytest.mark.parametrize("slam_ms", [20, 60, 200])
def test_a_slammed_door_does_not_mute_who_speaks_softly(slam_ms: int) -> None:
    """At -9 dBFS, half a second before a sentence of -37."""
    speech = phrase("weather") * 10 ** (-15 / 20)
    slam = hiss(slam_ms / 1000, -9, seed=5)
    before = np.concatenate([np.zeros(24000), slam, np.zeros(4000)])
    heard = frames(before, speech, np.zeros(8000))
    begin = len(before) // 8
    began, ended = turns(heard, GatedVad())[-1]
    assert began - begin <= 200
    assert abs(ended - begin - len(speech) // 8 - 300) <= 40


def test_the_level_of_speech_is_what_three_frames_reached() -> None:
    level = SpeechLevel(GateRules(speech_range=20, voiced_fade=0, silent_fade=0))
    heard = []
    for loudness in (500, 900, 700, 800, 100):
        level.hear(loudness, voiced=True)
        heard.append(level.audible)
    assert heard == pytest.approx([0, 0, 5, 7, 7])


@pytest.mark.parametrize(("voiced", "decibels"), [(True, 10), (False, 30)])
def test_the_level_of_speech_fades(voiced: bool, decibels: float) -> None:
    level = SpeechLevel(GateRules(voiced_fade=10, silent_fade=30))
    for _ in range(3):
        level.hear(1_000_000, voiced=True)
    peak = level.audible
    for _ in range(50):
        level.hear(0, voiced)
    assert 10 * np.log10(peak / level.audible) == pytest.approx(decibels)


def test_a_click_sets_no_level() -> None:
    level = SpeechLevel(GateRules())
    for loudness in (0, 1 << 31, 1 << 31, 0, 0):
        level.hear(loudness, voiced=True)
    assert level.audible == 0


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
    heard = frames(recording("jfk"), np.zeros(8000))
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
