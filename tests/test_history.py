"""History is what was heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.dialogue.history import MAX_MESSAGES, History, Message
from voicecore.dialogue.spoken import Pace, Spoken


def test_turns_alternate() -> None:
    history = History()
    history.caller_said("hello")
    history.agent_said("t1", "hi there", interrupted=False)
    assert history.messages == (Message("user", "hello"), Message("assistant", "hi there"))


def test_a_reply_of_which_nothing_was_heard_never_happened() -> None:
    history = History()
    history.caller_said("book a table")
    history.agent_said("t1", "", interrupted=True)
    history.caller_said("for two")
    assert history.messages == (Message("user", "book a table for two"),)


def test_what_the_caller_will_have_said_changes_nothing_yet() -> None:
    history = History()
    history.caller_said("book")
    assert history.with_caller("a table") == (Message("user", "book a table"),)
    assert history.messages == (Message("user", "book"),)


def test_a_reply_that_goes_on_is_one_message() -> None:
    history = History()
    history.caller_said("count")
    history.agent_said("t1", "one two", interrupted=True)
    history.agent_said("t1", "one two three", interrupted=False)
    history.agent_said("t2", "are you there?", interrupted=False)
    assert [m.text for m in history.messages] == ["count", "one two three", "are you there?"]
    assert not history.messages[1].interrupted


def test_a_long_history_forgets_its_oldest_and_begins_with_the_caller() -> None:
    history = History()
    for number in range(MAX_MESSAGES):
        history.caller_said(f"question {number}")
        history.agent_said(f"t{number}", f"answer {number}", interrupted=False)
    assert len(history.messages) <= MAX_MESSAGES
    assert history.messages[0].role == "user"
    assert history.messages[-1].text == f"answer {MAX_MESSAGES - 1}"


def test_a_long_monologue_of_the_agent_is_bounded_too() -> None:
    history = History()
    for number in range(2 * MAX_MESSAGES):
        history.agent_said(f"t{number}", "are you there?", interrupted=False)
    assert len(history.messages) <= MAX_MESSAGES


def spoken(*clauses: tuple[str, int]) -> Spoken:
    result, position = Spoken(), 0
    for text, size in clauses:
        result.begin(text, position)
        position += size
        result.extend(position)
        result.complete()
    return result


def test_heard_is_cut_after_the_last_whole_word() -> None:
    said = spoken(("one two three four", 1800), ("five six", 800))
    assert said.heard(0) == ""
    assert said.heard(250) == ""
    assert said.heard(300) == "one"
    assert said.heard(1000) == "one two"
    assert said.heard(1800) == "one two three four"
    assert said.heard(1800 + 400) == "one two three four five"
    assert said.heard(9999) == said.text == "one two three four five six"


def test_a_clause_whose_audio_is_still_coming_is_as_long_as_its_text() -> None:
    pace = Pace()
    said = Spoken(pace)
    said.begin("one two three four", 0)
    said.extend(2000)  # at fifteen characters a second, a fifth of it
    assert said.heard(1500) == ""
    assert said.heard(2000) == "one"
    said.extend(18000)
    said.complete()
    assert said.heard(9000) == "one two"
    assert said.heard(18000) == "one two three four"


def test_the_pace_is_learned() -> None:
    pace = Pace()
    for _ in range(50):
        pace.learn("ten chars.", 10_000)
    assert pace.bytes_per_character == pytest.approx(1000, rel=0.05)


def test_a_script_without_spaces_is_cut_by_the_character() -> None:
    assert spoken(("今日は元気です", 700)).heard(300) == "今日は"


def test_a_single_word_is_heard_whole_or_not() -> None:
    assert spoken(("Goodbye.", 800)).heard(700) == ""


@given(
    st.lists(st.tuples(st.text("ab c", min_size=1, max_size=20), st.integers(1, 5000)), max_size=5),
    st.integers(0, 20000),
    st.integers(0, 20000),
)
def test_heard_grows_and_is_a_prefix_of_what_was_said(
    clauses: list[tuple[str, int]], first: int, second: int
) -> None:
    said = spoken(*clauses)
    earlier, later = sorted((first, second))
    words = [word for text, _ in clauses for word in text.split()]
    for position in (earlier, later):
        heard = said.heard(position).split()
        assert heard == words[: len(heard)]
    assert len(said.heard(earlier).split()) <= len(said.heard(later).split())
