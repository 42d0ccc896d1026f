"""The recorder of turns, frame by frame, and what it measures with."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phone_fakes import tone, utterance

from voicecore.phone.buffer import PlaybackBuffer
from voicecore.phone.loudness import QUIET_FRAME, frames_of, is_audible, voiced_frames
from voicecore.phone.script import Manners, Script
from voicecore.phone.turns import TICK_S, TurnRecorder

LOUD = tone(0.02)


class Ear:
    """A recorder behind a real playback buffer."""

    def __init__(self) -> None:
        self.log = TurnRecorder()
        self.buffer = PlaybackBuffer()

    def hear(self, ticks: int, audio: bytes = b"", voiced: bool = False) -> None:
        self.buffer.media(audio)
        for _ in range(ticks):
            self.log.tick(voiced, self.buffer.play(), self.buffer.pending_marks)


def test_a_gap_is_counted_from_the_last_voiced_to_the_first_audible_frame() -> None:
    ear = Ear()
    ear.log.begin("a")
    ear.hear(10, voiced=True)
    ear.hear(20)
    ear.hear(5, LOUD * 5)
    turn = ear.log.turns[1]
    assert (turn.speech_start, turn.speech_end) == (0, pytest.approx(0.2))
    assert turn.gap == pytest.approx(21 * TICK_S)
    assert turn.answer is not None
    assert turn.answer.end - turn.answer.start == pytest.approx(0.1)


def test_leading_silence_of_a_reply_is_part_of_the_gap() -> None:
    ear = Ear()
    ear.log.begin("a")
    ear.hear(10, voiced=True)
    ear.hear(12, QUIET_FRAME * 10 + LOUD * 2)
    assert ear.log.turns[1].gap == pytest.approx(11 * TICK_S)


@pytest.mark.parametrize("lingers_s", [0.0, 2.0])
def test_a_machine_hears_a_message_after_the_greeting(lingers_s: float) -> None:
    ear, script = Ear(), Script([], Manners(lingers_s=lingers_s))
    ear.buffer.media(LOUD * 20 + QUIET_FRAME * 60 + LOUD * 50)
    while script.frame(ear.log) is not None:
        ear.hear(1)
    heard = 1.0 if not lingers_s else 0.02 * 130 + 0.6 + lingers_s
    assert ear.log.now == pytest.approx(heard, abs=0.1)


def test_a_stream_of_silence_is_no_reply() -> None:
    ear = Ear()
    ear.hear(200, QUIET_FRAME * 200)
    assert ear.log.turns[0].replies == []
    assert ear.log.reply is None


def test_a_reply_ends_after_its_silence_but_not_while_a_mark_is_pending() -> None:
    ear = Ear()
    ear.buffer.media(LOUD + QUIET_FRAME * 60)
    ear.buffer.mark("end")
    ear.hear(60)
    assert ear.log.reply is not None
    ear.hear(1)
    assert ear.log.reply is None
    assert ear.log.turns[0].replies[0].marks == 1


@pytest.mark.parametrize(("silent_ticks", "replies"), [(29, 1), (30, 2)])
def test_six_tenths_of_silence_part_two_replies(silent_ticks: int, replies: int) -> None:
    ear = Ear()
    ear.hear(5, LOUD * 5)
    ear.hear(silent_ticks)
    ear.hear(5, LOUD * 5)
    assert len(ear.log.turns[0].replies) == replies


def test_silence_that_the_server_sent_is_no_underrun_and_a_dry_buffer_is() -> None:
    ear = Ear()
    ear.hear(15, LOUD * 5 + QUIET_FRAME * 5 + LOUD * 5)
    ear.hear(3)
    ear.hear(5, LOUD * 5)
    (reply,) = ear.log.turns[0].replies
    (dry,) = reply.underruns
    assert dry.seconds == pytest.approx(3 * TICK_S)
    assert dry.at == pytest.approx(reply.start + 15 * TICK_S)


def test_a_torn_frame_in_mid_reply_is_an_underrun_of_its_missing_part() -> None:
    ear = Ear()
    ear.hear(1, LOUD[:120])
    ear.hear(1, LOUD)
    (dry,) = ear.log.turns[0].replies[0].underruns
    assert dry.seconds == pytest.approx(0.005)


def test_the_end_of_a_reply_is_no_underrun() -> None:
    ear = Ear()
    ear.hear(5, LOUD * 4 + LOUD[:40])
    ear.hear(100)
    assert ear.log.turns[0].replies[0].underruns == []


def test_a_reply_resumed_after_a_cough_counts_no_underrun() -> None:
    ear = Ear()
    ear.hear(5, LOUD * 5)
    ear.log.begin("cough")
    ear.hear(3, LOUD, voiced=True)
    ear.hear(2, LOUD * 2)
    greeting, cough = ear.log.turns
    assert greeting.replies[0].underruns == []
    assert greeting.replies[0].interrupted_at == pytest.approx(5 * TICK_S)
    assert cough.replies == []


def test_what_comes_after_a_clear_belongs_to_the_new_turn() -> None:
    ear = Ear()
    ear.hear(5, LOUD * 50)
    ear.log.begin("wait")
    ear.hear(8, voiced=True)
    ear.buffer.clear()
    ear.log.clear(2)
    ear.hear(2)
    ear.hear(3, LOUD * 3)
    greeting, wait = ear.log.turns
    cut = greeting.replies[0]
    assert cut.marks == 2
    assert cut.clear_s == pytest.approx(8 * TICK_S)
    assert cut.yield_s == pytest.approx(9 * TICK_S)
    assert wait.gap == pytest.approx(3 * TICK_S)


def test_an_agent_that_talks_into_a_pause_of_the_caller_has_a_negative_gap() -> None:
    ear = Ear()
    ear.log.begin("long")
    ear.hear(10, voiced=True)
    ear.hear(10)
    ear.hear(5, LOUD * 20)
    ear.hear(5, voiced=True)
    ear.hear(10)
    gap = ear.log.turns[1].gap
    assert gap == pytest.approx(-9 * TICK_S)


def test_a_premature_reply_that_was_taken_back_is_not_the_answer() -> None:
    ear = Ear()
    ear.log.begin("long")
    ear.hear(10, voiced=True)
    ear.hear(5, LOUD * 50)
    ear.buffer.clear()
    ear.log.clear()
    ear.hear(20, voiced=True)
    ear.hear(10)
    ear.hear(5, LOUD * 5)
    turn = ear.log.turns[1]
    assert len(turn.replies) == 2
    assert turn.gap == pytest.approx(11 * TICK_S)


def test_a_payload_is_played_in_order_however_it_was_cut() -> None:
    audio = bytes(n % 251 for n in range(16000))
    buffer = PlaybackBuffer()
    for start, end in ((0, 1), (1, 9000), (9000, 9160), (9160, 16000)):
        buffer.media(audio[start:end])
    assert b"".join(buffer.play().audio for _ in range(100)) == audio
    assert buffer.queued_bytes == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.booleans()),
        st.tuples(st.just("media"), st.integers(0, 900)),
        st.tuples(st.just("hush"), st.integers(0, 9)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("begin"), st.just(0)),
    ),
    max_size=300,
)


@given(steps)
def test_whatever_happens_the_books_balance(happenings: list[tuple[str, int]]) -> None:
    ear, sent, heard = Ear(), 0, 0
    for what, how in happenings:
        match what:
            case "tick":
                before = ear.buffer.queued_bytes
                ear.hear(1, voiced=bool(how))
                heard += before - ear.buffer.queued_bytes
            case "media":
                ear.buffer.media((LOUD * 6)[:how])
                sent += how
            case "hush":
                ear.buffer.media(QUIET_FRAME * how)
                sent += 160 * how
            case "mark":
                ear.buffer.mark("m")
            case "clear":
                ear.buffer.clear()
                ear.log.clear()
            case _:
                ear.log.begin("x")
    replies = [reply for turn in ear.log.turns for reply in turn.replies]
    assert sum(reply.heard_s for reply in replies) <= heard / 8000 + 1e-9
    assert heard <= sent
    assert ear.buffer.pending_marks >= 0
    for reply in replies:
        assert 0 <= reply.start < reply.end <= ear.log.now + TICK_S + 1e-9
        assert all(dry.seconds > 0 for dry in reply.underruns)
    for before, after in pairwise(replies):
        assert before.end <= after.start + 1e-9


def test_loudness_knows_a_tone_from_line_noise() -> None:
    assert is_audible(LOUD)
    assert not is_audible(QUIET_FRAME)
    assert not is_audible(tone(0.02, level=60))
    assert not is_audible(LOUD[:4] + QUIET_FRAME[4:])


def test_voiced_frames_are_relative_to_the_recording() -> None:
    soft, noise = tone(0.1, level=600), tone(0.1, level=12)
    assert voiced_frames(frames_of(noise + soft + noise)) == [False] * 5 + [True] * 5 + [False] * 5
    loud_room = tone(0.1, level=300)
    assert voiced_frames(frames_of(tone(0.1, level=16000) + loud_room)) == [True] * 5 + [False] * 5
    assert voiced_frames([]) == []


def test_an_utterance_is_whole_frames() -> None:
    said = utterance(0.205)
    assert [len(frame) for frame in said.frames] == [160] * 11
    assert said.frames[-1].endswith(b"\xff" * 120)


def test_a_tick_is_cheap_enough_for_hundreds_of_calls() -> None:
    ear = Ear()
    ear.buffer.media(LOUD * 2000)
    began = time.perf_counter()
    ear.hear(2000, voiced=True)
    # Measured at 4 microseconds; the bound is what a busy machine still keeps.
    assert (time.perf_counter() - began) / 2000 < 100e-6
