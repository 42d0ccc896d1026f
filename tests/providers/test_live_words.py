"""Which words belong to an utterance, and which audio is kept, without any network."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from voicecore.providers.live_audio import HeldAudio, StreamClock
from voicecore.providers.live_words import (
    REMEMBERED,
    SLACK,
    PlacedWord,
    Understanding,
    confidence,
    joined,
)

SECOND = 8000


def noise(seconds: float, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(round(seconds * SECOND))


def word(text: str, start_s: float, end_s: float) -> PlacedWord:
    return PlacedWord(text, round(start_s * SECOND), round(end_s * SECOND))


def learn(known: Understanding, *words: PlacedWord, final: bool = True) -> None:
    """One stretch around the words."""
    known.note(words, words[0].start, words[-1].end, final)


def test_interim_words_replace_each_other_and_final_ones_stay() -> None:
    known = Understanding()
    ask = known.ask(noise(2), 2 * SECOND)
    learn(known, word("book", 0.5, 0.8), final=False)
    learn(known, word("look", 0.5, 0.8), word("at", 0.8, 1.0), final=False)
    assert joined(known.words_of(ask)) == "look at"
    learn(known, word("book", 0.5, 0.8), word("a", 0.8, 1.0))
    learn(known, word("a", 0.9, 0.99), word("table", 1.1, 1.5), final=False)
    assert joined(known.words_of(ask)) == "book a table"
    assert known.covered == SECOND
    assert known.reached == 1.5 * SECOND


def test_a_final_stretch_may_come_twice() -> None:
    known = Understanding()
    ask = known.ask(noise(2), 2 * SECOND)
    learn(known, word("where", 0.5, 0.8), word("is", 0.9, 1.0))
    learn(known, word("Where", 0.5, 0.8), word("is?", 0.9, 1.0))
    known.note((), 0, SECOND, True)  # nothing more to say about it
    assert joined(known.words_of(ask)) == "Where is?"


def test_words_that_were_answered_never_come_again() -> None:
    known = Understanding()
    first = known.ask(noise(1, 1), 2 * SECOND)
    learn(known, word("one", 1.2, 1.6), final=False)
    assert joined(known.words_of(first)) == "one"
    first.answered = True
    second = known.ask(noise(1.4, 2), round(3.2 * SECOND))  # its pre-roll begins before 2.0
    learn(known, word("one", 1.2, 1.7), word("two", 2.5, 2.8))
    assert joined(known.words_of(second)) == "two"


def test_an_utterance_that_goes_on_keeps_its_beginning() -> None:
    known = Understanding()
    audio = noise(6)
    first = known.ask(audio[: 2 * SECOND], 3 * SECOND)
    learn(known, word("one", 1.2, 1.6), word("two", 2.0, 2.4))
    first.answered = True
    whole = known.ask(audio[: 4 * SECOND], 5 * SECOND)
    learn(known, word("three", 4.0, 4.4))
    assert joined(known.words_of(whole)) == "one two three"


def test_turns_whose_words_nobody_got_go_on_across_a_gap() -> None:
    known = Understanding()
    one, two = noise(1, 1), noise(1, 2)
    known.ask(one, 2 * SECOND)
    learn(known, word("one", 1.2, 1.6))
    both = known.ask(one + two, 20 * SECOND)
    learn(known, word("two", 19.2, 19.6))
    assert joined(known.words_of(both)) == "one two"


def test_a_minute_whose_front_was_let_go_of_goes_on_too() -> None:
    known = Understanding()
    one, two = noise(40, 1), noise(40, 2)
    known.ask(one, 50 * SECOND)
    learn(known, word("one", 12, 13))
    both = known.ask((one + two)[-60 * SECOND :], 130 * SECOND)
    learn(known, word("two", 129, 129.5))
    assert joined(known.words_of(both)) == "one two"


def test_the_same_bytes_later_are_another_utterance() -> None:
    known = Understanding()
    audio = noise(1)
    first = known.ask(audio, 2 * SECOND)
    learn(known, word("yes", 1.2, 1.6))
    first.answered = True
    second = known.ask(audio, 8 * SECOND)
    learn(known, word("yes", 7.2, 7.6))
    assert joined(known.words_of(second)) == "yes"


def test_what_is_being_said_now_is_not_what_was_said_before() -> None:
    known = Understanding()
    first = known.ask(noise(2), 2 * SECOND)
    learn(known, word("one", 1.2, 1.6))
    first.answered = True
    learn(known, word("and", 2.4, 2.6), final=False)
    assert joined(known.present) == "one and"  # may be the same utterance
    learn(known, word("two", 5.0, 5.4), final=False)
    assert joined(known.present) == "two"


def test_confidence_is_the_mean() -> None:
    assert confidence([]) == 1.0
    assert confidence([PlacedWord("a", 0, 1, 0.5), PlacedWord("b", 1, 2, 0.7)]) == 0.6


@given(
    st.lists(
        st.tuples(
            st.floats(0.7, 6),  # silence before the utterance
            st.floats(0.3, 4),  # its length
            st.integers(1, 6),  # its words
            st.booleans(),  # whether its final words come only after it was answered
        ),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
def test_each_word_is_returned_once_with_its_utterance(
    turns: list[tuple[float, float, int, bool]], data: st.DataObject
) -> None:
    """Whatever the order of interim and late final words, and however inexact their times."""
    known = Understanding()
    now, late = 0, []
    for number, (silence, length, count, is_late) in enumerate(turns):
        start = now + round(silence * SECOND)
        end = start + round(length * SECOND)
        jitter = data.draw(st.integers(-SLACK // 3, SLACK // 3))
        step = (end - start) // count
        said = [
            PlacedWord(
                f"{number}.{at}", start + at * step + jitter, start + (at + 1) * step + jitter
            )
            for at in range(count)
        ]
        pause = SLACK // 3 + SECOND // 10
        for words in late:
            known.note(words, words[0].start, words[-1].end, True)
        late = [said] if is_late else []
        now = end + pause
        known.note(said, start, now, not is_late)
        ask = known.ask(noise((now - start) / SECOND + 0.3, number), now)
        assert joined(known.words_of(ask)) == " ".join(w.text for w in said)
        ask.answered = True


def test_words_that_nobody_asks_for_are_forgotten() -> None:
    known = Understanding()
    for at in range(0, 3600, 2):
        learn(known, word("babble", at, at + 1))
    assert len(known.present) <= REMEMBERED / SECOND / 2 + 1


def test_held_audio_knows_where_it_is() -> None:
    held, audio = HeldAudio(), noise(3)
    held.append(audio)
    held.forget(SECOND)
    assert (held.start, held.end) == (SECOND, 3 * SECOND)
    assert held.read(SECOND + 5, 100) == audio[SECOND + 5 : SECOND + 105]
    held.forget(10 * SECOND)
    assert (held.start, held.end) == (3 * SECOND, 3 * SECOND)


@given(st.integers(1, 60), st.integers(0, 50))
def test_an_utterance_is_found_although_more_was_fed_behind_it(length: int, behind: int) -> None:
    held, audio = HeldAudio(), noise(4)
    held.append(audio)
    end = len(audio) - 160 * behind
    assert held.end_of(audio[max(0, end - 160 * length) : end]) == end


def test_an_utterance_with_frames_that_were_never_fed_ends_now() -> None:
    held = HeldAudio()
    held.append(noise(4))
    assert held.end_of(noise(1, 7)) == 4 * SECOND


@given(
    st.lists(
        st.tuples(st.sampled_from(["audio", "drop", "silence"]), st.integers(1, 9)), max_size=60
    )
)
def test_the_clock_finds_every_byte_again(steps: list[tuple[str, int]]) -> None:
    clock, position, truth = StreamClock(), 800, []
    for kind, tenths in steps:
        size = tenths * SECOND // 10
        if kind == "audio":
            clock.note_audio(position, size)
            truth += [position + at for at in range(0, size, 400)]
        elif kind == "silence":
            clock.note_silence(size)
            truth += [None] * (size // 400)
        if kind != "silence":
            position += size
    for at, expected in enumerate(truth):
        found = clock.position(at * 400 / SECOND)
        if expected is not None:
            assert found == expected
    for wild in (-1.0, 1e300, float("inf")):
        assert 0 <= clock.position(wild) <= position


def test_words_stand_once_they_are_known_to_the_pause() -> None:
    known, utterance = Understanding(), b"\x10" * 8000
    known.note([PlacedWord("book", 1000, 3000)], 0, 6000, is_final=False)
    assert known.standing(utterance, 8000, slack=1280) == []
    known.note(
        [PlacedWord("book", 1000, 3000), PlacedWord("it", 4000, 6000)], 0, 6720, is_final=False
    )
    assert [w.text for w in known.standing(utterance, 8000, slack=1280)] == ["book", "it"]
    assert known.ask(utterance, 8000).start == 0


def test_words_of_the_turn_before_do_not_stand_for_this_one() -> None:
    known, first, second = Understanding(), b"\x10" * 8000, b"\x20" * 8000
    known.note([PlacedWord("hello", 1000, 7000)], 0, 8000, is_final=True)
    known.ask(first, 8000).answered = True
    known.note([], 8000, 16000, is_final=False)
    assert known.standing(second, 16000, slack=1280) == []
    known.note([PlacedWord("table", 9000, 15000)], 8000, 16000, is_final=False)
    assert [w.text for w in known.standing(second, 16000, slack=1280)] == ["table"]
