"""Cutting streamed text: early, and never inside a number, an address or an abbreviation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.dialogue.sentences import MAX_CLAUSE, Clause, Splitter


def split(text: str, size: int = 1) -> list[Clause]:
    splitter = Splitter()
    clauses: list[Clause] = []
    for start in range(0, len(text), size):
        clauses += splitter.feed(text[start : start + size])
    return clauses + splitter.flush()


def texts(text: str) -> list[str]:
    return [clause.text for clause in split(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It is sunny. Take a hat!", ["It is sunny.", "Take a hat!"]),
        ("Really? Yes. Good", ["Really?", "Yes.", "Good"]),
        ("Wait... what?! No.", ["Wait...", "what?!", "No."]),
        (
            "It costs 3.50 euros. Or 1,000.25 dollars.",
            ["It costs 3.50 euros.", "Or 1,000.25 dollars."],
        ),
        ("Mail anna.b@example.com. Thanks.", ["Mail anna.b@example.com.", "Thanks."]),
        ("See www.example.com/a.html. Bye.", ["See www.example.com/a.html.", "Bye."]),
        ("Dr. Smith is in. Mr. J. R. Ray too.", ["Dr. Smith is in.", "Mr. J. R. Ray too."]),
        ("Come at 5 p.m. tomorrow. Or not.", ["Come at 5 p.m. tomorrow.", "Or not."]),
        ("Come at 5 p.m. We wait.", ["Come at 5 p.m.", "We wait."]),
        ("Some, e.g. this one. Fine.", ["Some, e.g. this one.", "Fine."]),
        ("No. I won't. Room No. 5 is it.", ["No.", "I won't.", "Room No. 5 is it."]),
        ("It was I. He knew.", ["It was I.", "He knew."]),
        ("1. Take the train. 2. Walk.", ["1. Take the train.", "2. Walk."]),
        ('He said "Go." Then left.', ['He said "Go."', "Then left."]),
        ("नमस्ते। आप कैसे हैं? अच्छा।", ["नमस्ते।", "आप कैसे हैं?", "अच्छा।"]),
        ("रुपये 3.50 है। ठीक॥", ["रुपये 3.50 है।", "ठीक॥"]),
        ("राम आया। सीता गई॥ इति॥", ["राम आया।", "सीता गई॥", "इति॥"]),
        ("समय १०.३० है। या ₹१,२३४.५० हैं।", ["समय १०.३० है।", "या ₹१,२३४.५० हैं।"]),
        ("डॉ. शर्मा हैं। श्री. राव भी।", ["डॉ. शर्मा हैं।", "श्री. राव भी।"]),
        ("पं. राम और प्रो. गुप्ता (स्व. नहीं) आए।", ["पं. राम और प्रो. गुप्ता (स्व. नहीं) आए।"]),
        ("रु. 500 या Rs. 600 दें। नं. 5 पर।", ["रु. 500 या Rs. 600 दें।", "नं. 5 पर।"]),
        ("एस. के. वर्मा बी. ए. हैं।", ["एस. के. वर्मा बी. ए. हैं।"]),
        ("5 कि.मी. दूर है। एम.ए. पास।", ["5 कि.मी. दूर है।", "एम.ए. पास।"]),
        ("वह आई. फिर गई. हाँ जी. ठीक.", ["वह आई.", "फिर गई.", "हाँ जी.", "ठीक."]),
        ("१. पहला काम। २. दूसरा।", ["१. पहला काम।", "२. दूसरा।"]),
        (
            "आपका order 42 ready है. Please wait. ठीक है!",
            ["आपका order 42 ready है.", "Please wait.", "ठीक है!"],
        ),
        ("उसने कहा “चलो।” फिर “रुको।” (सच।) बस।", ["उसने कहा “चलो।", "फिर “रुको।", "(सच।", "बस।"]),
        ('ठीक। "चलो।" "रुको।"', ["ठीक।", '"चलो।', '"रुको।']),
        ('ठीक।\n"चलो"', ["ठीक।", '"चलो"']),
        ("सच।। है ना।? हाँ", ["सच।", "है ना।", "हाँ"]),
        ("Great! 😀 🎉 — …\n* Yes.", ["Great!", "* Yes."]),
        ("今日は。元気？はい！", ["今日は。", "元気？", "はい！"]),
        ("First line\nSecond line", ["First line", "Second line"]),
        ("Well", ["Well"]),
        ("...", []),
        ("  ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert texts(text) == sentences


def test_the_first_clause_may_end_at_a_comma_the_second_may_not() -> None:
    assert split("Well I can look that up, if you want, of course. Or not, as you like.") == [
        Clause("Well I can look that up,", False),
        Clause("if you want, of course.", True),
        Clause("Or not, as you like.", True),
    ]


def test_a_short_opening_is_no_clause_of_its_own() -> None:
    assert texts("Yes, sure. Of course.") == ["Yes, sure.", "Of course."]


def test_a_number_is_not_cut_at_its_comma() -> None:
    assert texts("The whole price is 1,000,000 dollars.") == [
        "The whole price is 1,000,000 dollars."
    ]


def test_without_hurry_the_first_piece_is_a_whole_sentence() -> None:
    text = "Good question, let me look. Here, I see."
    assert texts(text)[0] == "Good question,"
    unhurried = Splitter(is_hurried=False)
    clauses = unhurried.feed(text) + unhurried.flush()
    assert clauses == [Clause("Good question, let me look.", True), Clause("Here, I see.", True)]


def test_a_sentence_is_out_as_soon_as_it_certainly_stands() -> None:
    splitter = Splitter()
    assert splitter.feed("It is sunny.") == []
    assert splitter.feed(" T") == [Clause("It is sunny.", True)]
    assert splitter.feed("ake it।") == [Clause("Take it।", True)]


def test_text_without_an_end_is_cut_at_a_space() -> None:
    clauses = split("word " * 200)
    assert all(len(clause.text) <= MAX_CLAUSE for clause in clauses)
    assert " ".join(clause.text for clause in clauses) == ("word " * 200).strip()


def test_a_hindi_sentence_is_out_with_its_danda() -> None:
    splitter = Splitter()
    assert splitter.feed("मैं देखता हूँ।") == [Clause("मैं देखता हूँ।", True)]
    assert splitter.feed("” ") == []
    assert splitter.feed("डॉ. शर्मा") == []
    assert splitter.flush() == [Clause("डॉ. शर्मा", True)]


@given(
    st.text(alphabet="ab1 .,?!।。\n\"'-@D", max_size=120)
    | st.text(alphabet='डॉकि१1 .,?।॥\n"”)(😀', max_size=120)
    | st.lists(st.sampled_from(["डॉ", "कि.मी", ".", "। ", "।", "” ", "(", "राम", " "])).map(
        "".join
    ),
    st.integers(1, 9),
)
def test_pieces_do_not_matter_and_nothing_is_lost(text: str, size: int) -> None:
    whole = split(text, len(text) or 1)
    assert split(text, size) == whole
    letters = [c for c in text if c.isalnum()]
    assert [c for clause in whole for c in clause.text if c.isalnum()] == letters
