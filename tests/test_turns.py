"""The turn detector: its table, its clock of frames, and what no sequence of frames can break."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turn_runs import F, S, V, frame, kinds, number, run

from voicecore.audio import FRAME_BYTES
from voicecore.audio.voicing import Voicing
from voicecore.dialogue.turns import (
    TABLE,
    Detector,
    Signal,
    SpeechConfirmed,
    SpeechDoubted,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    TurnEnded,
    TurnEvent,
    TurnHint,
    TurnRules,
    TurnState,
)


def test_a_turn_from_onset_to_end() -> None:
    events = run(Detector(), (S, 50), (V, 50), (S, 20))
    assert [(at, type(event)) for at, event in events] == [
        (54, SpeechStarted),
        (57, SpeechConfirmed),
        (104, SpeechPaused),
        (114, TurnEnded),
    ]


def test_the_end_counts_from_the_last_voiced_frame_not_from_the_window() -> None:
    ((at, ended),) = [e for e in run(Detector(), (V, 100), (S, 30)) if isinstance(e[1], TurnEnded)]
    assert (at - 99) * 20 == 300
    assert isinstance(ended, TurnEnded)
    assert ended.silence_frames == 15


def test_the_utterance_has_its_preroll_and_all_of_its_frames() -> None:
    events = run(Detector(), (S, 50), (V, 30), (S, 15))
    ended = events[-1][1]
    assert isinstance(ended, TurnEnded)
    assert number(ended.utterance, 0) == 50 - 15
    assert number(ended.utterance, len(ended.utterance) // FRAME_BYTES - 1) == 94
    assert len(ended.utterance) == (15 + 30 + 15) * FRAME_BYTES


def test_a_turn_at_the_very_start_has_what_preroll_there_is() -> None:
    ended = run(Detector(), (S, 3), (V, 30), (S, 15))[-1][1]
    assert isinstance(ended, TurnEnded)
    assert number(ended.utterance, 0) == 0


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_click_is_ignored(frames: int) -> None:
    assert run(Detector(), (S, 20), (V, frames), (S, 60)) == []


def test_clicks_far_apart_are_no_speech() -> None:
    clicks = [(V, 3), (S, 12)] * 20
    assert run(Detector(), *clicks) == []


def test_a_pause_that_was_only_a_pause() -> None:
    events = run(Detector(), (V, 20), (S, 8), (V, 20), (S, 20))
    assert kinds(events) == [
        SpeechStarted, SpeechConfirmed, SpeechPaused, SpeechResumed, SpeechPaused, TurnEnded,
    ]  # fmt: skip


def test_a_blip_in_a_pause_puts_off_the_end_but_loses_no_speculation() -> None:
    events = run(Detector(), (V, 20), (S, 8), (V, 1), (S, 20))
    assert kinds(events) == [SpeechStarted, SpeechConfirmed, SpeechPaused, TurnEnded]
    assert events[-1][0] == 20 + 8 + 15


@pytest.mark.parametrize(
    ("hold_ms", "ends"), [(0, {0: 15, 4: 19, 8: 23}), (80, {0: 15, 4: 15, 8: 19})]
)
def test_faint_sound_holds_the_end(hold_ms: int, ends: dict[int, int]) -> None:
    rules = TurnRules(faint_hold_ms=hold_ms)
    for faint, frames in ends.items():
        at, _ = run(Detector(rules), (V, 20), (F, faint), (S, 30))[-1]
        assert at - 19 == frames


def test_faint_sound_alone_is_no_speech() -> None:
    assert run(Detector(), (F, 500)) == []


def test_pause_zero_turns_speculation_off() -> None:
    events = run(Detector(TurnRules(pause_ms=0)), (V, 20), (S, 20))
    assert kinds(events) == [SpeechStarted, SpeechConfirmed, TurnEnded]


def test_barge_in_zero_confirms_nothing_and_doubts_nothing() -> None:
    events = run(Detector(TurnRules(barge_in_ms=0)), (V, 5), (S, 3), (V, 2), (S, 30))
    assert SpeechConfirmed not in kinds(events)
    assert SpeechDoubted not in kinds(events)
    ended = events[-1][1]
    assert isinstance(ended, TurnEnded)
    assert ended.confirmed


def test_a_short_sound_ends_unconfirmed() -> None:
    ended = run(Detector(), (V, 6), (S, 15))[-1][1]
    assert isinstance(ended, TurnEnded)
    assert not ended.confirmed


def test_sparse_sound_is_doubted_half_a_second_after_its_start() -> None:
    events = run(Detector(), (V, 5), *[(S, 13), (V, 1)] * 2)
    assert (24, SpeechDoubted()) in events


def test_a_turn_is_capped() -> None:
    events = run(Detector(TurnRules(cap_ms=2000)), (V, 400))
    ends = [at for at, event in events if isinstance(event, TurnEnded)]
    assert ends
    assert ends[0] == 99


def test_confidence_is_the_voiced_share_of_the_window() -> None:
    detector = Detector()
    started = run(detector, (S, 40), (V, 5))[0][1]
    assert started == SpeechStarted(pytest.approx(5 / 30), 100)
    run(detector, (V, 40))
    assert detector.confidence == 1.0


def test_the_table_is_closed() -> None:
    assert {state for state, _ in TABLE} == set(TurnState)
    assert {signal for _, signal in TABLE} == set(Signal)
    assert all(following in TurnState for following, _ in TABLE.values())


LEGAL_NEXT: dict[type[TurnEvent] | None, set[type[TurnEvent]]] = {
    None: {SpeechStarted},
    SpeechStarted: {SpeechConfirmed, SpeechDoubted, SpeechPaused, TurnEnded},
    SpeechConfirmed: {SpeechPaused, SpeechResumed, TurnEnded},
    SpeechDoubted: {SpeechConfirmed, SpeechPaused, SpeechResumed, TurnEnded},
    SpeechPaused: {SpeechResumed, SpeechConfirmed, SpeechDoubted, TurnEnded},
    SpeechResumed: {SpeechConfirmed, SpeechDoubted, SpeechPaused, TurnEnded},
    TurnEnded: {SpeechStarted},
}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([V, F, S]), st.integers(1, 40)), max_size=40),
    st.dictionaries(st.integers(0, 800), st.sampled_from(TurnHint), max_size=40),
    st.sets(st.integers(0, 800), max_size=10),
)
def test_whatever_is_heard_the_events_make_sense(
    runs: list[tuple[Voicing, int]], hints: dict[int, TurnHint], flips: set[int]
) -> None:
    detector = Detector()
    before: type[TurnEvent] | None = None
    heard = []
    voicings = itertools.chain.from_iterable([v] * n for v, n in [*runs, (S, 60)])
    for at, voicing in enumerate(voicings):
        if at in flips:
            detector.patient = not detector.patient
        heard += detector.hear(frame(at), voicing, hints.get(at))
    for event in heard:
        assert type(event) in LEGAL_NEXT[before], (before, event)
        before = type(event)
        if isinstance(event, SpeechPaused | TurnEnded):
            assert len(event.utterance) % FRAME_BYTES == 0
            frames = len(event.utterance) // FRAME_BYTES
            numbers = [number(event.utterance, at) for at in range(frames)]
            assert numbers == list(range(numbers[0], numbers[0] + frames))
    assert detector.state is TurnState.QUIET
