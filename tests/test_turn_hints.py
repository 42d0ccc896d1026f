"""What a recogniser concludes, what words look like, and how long the detector waits for it."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from turn_runs import Hints, S, V, kinds, run

from voicecore.dialogue.turns import (
    Detector,
    SpeechConfirmed,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    TurnEnded,
    TurnEvent,
    TurnHint,
    TurnRules,
)

EAGER, RESUMED, ENDED = TurnHint.EAGER, TurnHint.RESUMED, TurnHint.ENDED
SPEECH = 20
"""Voiced frames at the start of the runs below; the last of them is frame 19."""


def after_speech(
    silent: int, hints: Hints = MappingProxyType({}), rules: TurnRules | None = None
) -> list[tuple[int, type[TurnEvent]]]:
    """What comes after speech and its confirmation: the event, and how many frames of silence."""
    shifted = {at + SPEECH - 1: hint for at, hint in hints.items()}
    events = run(Detector(rules), (V, SPEECH), (S, silent), hints=shifted)
    assert kinds(events[:2]) == [SpeechStarted, SpeechConfirmed]
    return [(at - SPEECH + 1, type(event)) for at, event in events[2:]]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_eager_hint_is_a_pause_that_comes_sooner(at: int) -> None:
    assert after_speech(20, {at: EAGER}) == [(at, SpeechPaused), (15, TurnEnded)]


@pytest.mark.parametrize("at", [5, 6, 10, 14])
def test_an_eager_hint_in_a_pause_changes_nothing(at: int) -> None:
    assert after_speech(20, {at: EAGER}) == after_speech(20) == [(5, SpeechPaused), (15, TurnEnded)]


@pytest.mark.parametrize("at", [2, 3, 4])
def test_the_turn_ends_when_the_recogniser_says_so(at: int) -> None:
    assert after_speech(20, {at: ENDED}) == [(at, TurnEnded)]


@pytest.mark.parametrize("at", [5, 6, 10, 14])
def test_the_turn_ends_in_its_pause_when_the_recogniser_says_so(at: int) -> None:
    events = after_speech(20, {at: ENDED})
    assert events in ([(5, SpeechPaused), (at, TurnEnded)], [(5, TurnEnded)])
    assert events[-1] == (at, TurnEnded)


def test_eager_then_ended() -> None:
    assert after_speech(20, {3: EAGER, 8: ENDED}) == [(3, SpeechPaused), (8, TurnEnded)]


@pytest.mark.parametrize("hint", [EAGER, ENDED, RESUMED])
@pytest.mark.parametrize("at", [-10, -5, -1, 0])
def test_a_hint_while_the_caller_speaks_is_stale(hint: TurnHint, at: int) -> None:
    assert after_speech(20, {at: hint}) == after_speech(20)


def test_the_end_of_a_turn_wants_two_silent_frames() -> None:
    assert after_speech(20, {1: ENDED}) == after_speech(20)


@pytest.mark.parametrize("hint", [EAGER, ENDED, RESUMED])
def test_a_hint_in_quiet_is_nothing_and_leaves_nothing(hint: TurnHint) -> None:
    detector = Detector()
    assert run(detector, (S, 30), hints=dict.fromkeys(range(30), hint)) == []
    assert kinds(run(detector, (V, 20), (S, 15)))[-2:] == [SpeechPaused, TurnEnded]


@pytest.mark.parametrize("hint", [EAGER, ENDED, RESUMED])
def test_a_hint_after_the_end_is_nothing(hint: TurnHint) -> None:
    assert after_speech(30, {16: hint}) == after_speech(30)


def test_without_speculation_an_eager_hint_is_nothing() -> None:
    assert after_speech(20, {3: EAGER}, TurnRules(pause_ms=0)) == [(15, TurnEnded)]


def test_without_speculation_the_recogniser_still_ends_the_turn() -> None:
    assert after_speech(20, {3: ENDED}, TurnRules(pause_ms=0)) == [(3, TurnEnded)]


def test_a_pause_that_is_taken_back_loses_the_speculation_and_waits_for_the_long_silence() -> None:
    events = after_speech(70, {3: EAGER, 8: RESUMED})
    assert events == [(3, SpeechPaused), (8, SpeechResumed), (60, TurnEnded)]


def test_the_recogniser_that_took_it_back_may_conclude_again() -> None:
    events = after_speech(70, {3: EAGER, 8: RESUMED, 20: EAGER, 24: ENDED})
    assert events == [
        (3, SpeechPaused), (8, SpeechResumed), (20, SpeechPaused), (24, TurnEnded),
    ]  # fmt: skip


def test_what_speech_has_told_already_is_not_told_again() -> None:
    """The caller has resumed and finished before the recogniser says that it was no end."""
    runs = (V, 20), (S, 6), (V, 10), (S, 20)
    for early in ({22: EAGER}, {22: EAGER, 30: EAGER}):
        events = run(Detector(), *runs, hints={**early, 40: RESUMED})
        assert events[-1][0] == 35 + 15


def test_a_hint_that_came_while_the_caller_spoke_is_not_taken_back_later() -> None:
    events = run(Detector(), (V, 40), (S, 20), hints={30: EAGER, 45: RESUMED})
    assert [(at - 39, type(event)) for at, event in events[2:]] == [
        (5, SpeechPaused), (15, TurnEnded),
    ]  # fmt: skip


def test_what_was_taken_back_is_forgotten_when_speech_resumes() -> None:
    for pause_ms in (0, 100):
        detector = Detector(TurnRules(pause_ms=pause_ms))
        events = run(detector, (V, 20), (S, 20), (V, 10), (S, 20), hints={25: RESUMED})
        assert events[-1][0] == 49 + 15


def ends_after(detector: Detector) -> int:
    """After how many frames of silence the turn ends."""
    (ended,) = [at for at, event in run(detector, (S, 100)) if isinstance(event, TurnEnded)]
    return ended + 1


@pytest.mark.parametrize(
    ("rules", "frames"),
    [
        (TurnRules(), 60),
        (TurnRules(long_silence_ms=800), 40),
        (TurnRules(long_silence_ms=0), 15),
        (TurnRules(long_silence_ms=200), 15),
        (TurnRules(end_silence_ms=1400), 70),
    ],
)
def test_a_patient_detector_waits_for_the_long_silence(rules: TurnRules, frames: int) -> None:
    detector = Detector(rules)
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    assert ends_after(detector) == frames - 6


def test_patience_that_is_taken_back_late_ends_the_turn_at_once() -> None:
    detector = Detector()
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    assert kinds(run(detector, (S, 20))) == []
    detector.patient = False
    assert ends_after(detector) == 1


def test_patience_ends_with_the_turn() -> None:
    detector = Detector()
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    ended = run(detector, (S, 60))[-1][1]
    assert isinstance(ended, TurnEnded)
    assert ended.patient
    assert not detector.patient
    again = run(detector, (V, 20), (S, 15))[-1][1]
    assert isinstance(again, TurnEnded)
    assert not again.patient


@pytest.mark.parametrize("pause_ms", [0, 100])
def test_patience_ends_when_speech_resumes(pause_ms: int) -> None:
    detector = Detector(TurnRules(pause_ms=pause_ms))
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    run(detector, (V, 5))
    assert ends_after(detector) == 15


def test_a_blip_does_not_end_patience() -> None:
    detector = Detector()
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    run(detector, (V, 1))
    assert ends_after(detector) == 60


def test_words_that_look_unfinished_outweigh_the_recognisers_end() -> None:
    detector = Detector()
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    assert run(detector, (S, 10), hints={2: ENDED}) == []
    assert ends_after(detector) == 60 - 16


def test_a_cap_is_a_cap_for_the_patient_too() -> None:
    detector = Detector(TurnRules(cap_ms=1000))
    run(detector, (V, 20), (S, 6))
    detector.patient = True
    assert ends_after(detector) == 1000 // 20 - 26


@pytest.mark.parametrize(
    ("rules", "pauses"),
    [
        (TurnRules(), [5, 7, 9, 11, 13, 14, 14]),
        (TurnRules(pause_growth_ms=60), [5, 8, 11, 14, 14]),
        (TurnRules(pause_growth_ms=0), [5, 5, 5]),
        (TurnRules(pause_ms=280), [14, 14]),
        (TurnRules(end_silence_ms=1000, pause_growth_ms=400), [5, 25, 45, 49, 49]),
    ],
)
def test_a_pause_that_was_only_a_pause_makes_the_next_one_longer(
    rules: TurnRules, pauses: list[int]
) -> None:
    detector = Detector(rules)
    run(detector, (V, 20))
    for frames in pauses:
        heard = run(detector, (S, frames), (V, 20))
        assert [(at + 1, type(e)) for at, e in heard] == [
            (frames, SpeechPaused), (frames + 2, SpeechResumed),
        ]  # fmt: skip


def test_a_pause_is_short_again_in_the_next_turn() -> None:
    detector = Detector()
    run(detector, (V, 20), (S, 6), (V, 20), (S, 8), (V, 20), (S, 15))
    paused = run(detector, (V, 20), (S, 6))[-1]
    assert (paused[0] - 19, type(paused[1])) == (5, SpeechPaused)
