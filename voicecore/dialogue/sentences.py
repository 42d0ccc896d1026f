"""Cut a stream of text into what TTS is given: the first clause early, then whole sentences.

The sooner TTS has something to say, the sooner the caller hears it; but a voice needs a whole
sentence to sound right.  So the very first piece may end at a comma, if there is any hurry, all
others end where a sentence does: at ``. ? !``, at a danda ``। ॥``, at an ideographic ``。？！``, or
at a new line.

A full stop ends a sentence only if what follows shows that it does: not inside numbers (3.50),
addresses (a.b@example.com), after abbreviations (Dr., e.g.) or initials (J. Smith).  Text arrives
in pieces of any size, and the pieces' borders change nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MIN_FIRST_CLAUSE = 12
"""Characters before a first clause may end at a comma: "Yes," alone sounds like a hiccup."""

MAX_CLAUSE = 240
"""Characters after which text without any end is cut at a space: a poem must not wait for ever."""

_CLOSERS = "\"'”’»)]}"
_MARKS = "।॥。？！"
_ALWAYS = _MARKS + "\n"
_CLAUSE_ENDS = ",;:，、；：—–"
_NEVER_LAST = frozenset({
    "dr", "mr", "mrs", "ms", "prof", "rev", "hon", "gen", "col", "lt", "sgt", "st", "mt",
    "vs", "e.g", "i.e", "cf", "nr", "approx", "ext", "tel", "fig", "rs", "shri", "smt",
    "डॉ", "डा", "श्री", "श्रीमती", "सुश्री", "कु", "पं", "प्रो", "मि", "स्व", "मो", "रु", "रू", "नं",
    "सं", "क्र", "पृ",
    "ए", "बी", "सी", "डी", "ई", "एफ", "एच", "जे", "एल", "एम", "एन", "आर", "एस", "टी", "यू", "वी",
    "के", "ओ", "पी", "क्यू", "डब्ल्यू", "एक्स", "वाई", "वि", "पू",
})  # fmt: skip
"""Abbreviations that something always follows (lower case, without the last full stop); in Hindi
also initials, which are spelled as they sound (but not आई and जी, which are words too)."""
_DOTTED_HINDI = re.compile(r"[\u0900-\u0963]{1,4}(\.[\u0900-\u0963]{1,4})+")
"""Such as कि.मी and एम.ए: as a full stop ends no sentence in Hindi, it can only go on."""
_MAYBE_LAST = frozenset({
    "a.m", "p.m", "u.s", "u.k", "u.n", "etc", "ph.d", "b.a", "m.a",
    "inc", "ltd", "co", "corp", "jr", "sr", "ave", "blvd", "rd", "dept",
})  # fmt: skip
"""Abbreviations that may end a sentence: they do unless a small letter or a digit follows."""
_WORD_BEFORE = re.compile(r"(\S+)$")


@dataclass(frozen=True, slots=True)
class Clause:
    """A piece for TTS.  `ends_sentence` is false for a first clause that was cut at a comma.

    `step` counts how often the model was asked before it, in the same reply.
    """

    text: str
    ends_sentence: bool
    step: int = 0


class Splitter:
    """One reply's text, as it streams in.  `is_hurried`: its beginning is heard before its end is
    written."""

    def __init__(self, is_hurried: bool = True) -> None:
        self._text = ""
        self._may_be_short = is_hurried
        """Whether the next piece may end at a comma."""
        self._may_close = False
        """Whether a sentence has just ended at a mark that is not waited behind: what closes with
        it may still come."""

    def feed(self, text: str) -> list[Clause]:
        """Add text; return the clauses that now stand."""
        self._text += text
        self._drop_closers()
        clauses = []
        while (cut := self._find_cut()) is not None:
            end, ends_sentence = cut
            clause, self._text = self._text[:end].strip(), self._text[end:]
            self._may_close = clause.endswith(tuple(_MARKS))
            self._drop_closers()
            if any(character.isalnum() for character in clause):  # else there is nothing to say
                clauses.append(Clause(clause, ends_sentence))
                self._may_be_short = False
        return clauses

    def flush(self) -> list[Clause]:
        """The text is complete: return what is left."""
        clauses = self.feed("\n") if self._text.strip() else []
        self._text = ""
        return clauses

    def _drop_closers(self) -> None:
        """Let go of quotes and brackets that close behind a sentence which is spoken already."""
        if self._may_close and self._text:
            self._text = self._text.lstrip(_CLOSERS + _MARKS)
            self._may_close = not self._text

    def _find_cut(self) -> tuple[int, bool] | None:
        """Where the text so far can be cut: (position, whether a sentence ends there)."""
        text = self._text
        for at, character in enumerate(text):
            if character in _ALWAYS:
                return at + 1, True
            if character in ".?!":
                ends = self._ends_sentence(at)
                if ends is None:
                    return None
                if ends:
                    return self._after_mark(at), True
            elif character in _CLAUSE_ENDS and self._may_be_short and at >= MIN_FIRST_CLAUSE:
                if at + 1 == len(text):
                    return None
                if text[at + 1].isspace() or character not in ",:":
                    return at + 1, False
        if len(text) > MAX_CLAUSE:
            space = text.rfind(" ", 0, MAX_CLAUSE)
            return (space if space > 0 else MAX_CLAUSE), False
        return None

    def _after_mark(self, at: int) -> int:
        """The position behind the mark at `at`, the marks that follow it, and closing quotes."""
        at += 1
        while at < len(self._text) and self._text[at] in ".?!" + _CLOSERS:
            at += 1
        return at

    def _ends_sentence(self, at: int) -> bool | None:
        """Whether the mark at `at` ends a sentence; None: that depends on what comes next."""
        text = self._text
        after = self._after_mark(at)
        if after == len(text):
            return None
        if not text[after].isspace():
            return False  # 3.5, example.com, e.g. the middle of something
        if text[at] != "." or (at + 1 < len(text) and text[at + 1] in ".?!"):
            return True
        word = _word_before(text[:at])
        if word in _NEVER_LAST or _DOTTED_HINDI.fullmatch(word):
            return False
        if _is_initial(text[:at]) or _is_list_number(text[:at]):
            return False
        if word in _MAYBE_LAST or word == "no":  # "No. 5" is a number, "No. I won't." is not
            rest = text[after:].lstrip(" ")
            if not rest:
                return None
            return not (rest[0].islower() or rest[0].isdigit())
        return True


def _word_before(text: str) -> str:
    match = _WORD_BEFORE.search(text)
    return match.group(1).lstrip("\"'“‘(").lower() if match else ""


def _is_initial(text: str) -> bool:
    """Whether a single capital other than I stands before: the J of J. Smith."""
    word = _WORD_BEFORE.search(text)
    return bool(word and len(word[1]) == 1 and word[1].isupper() and word[1] != "I")


def _is_list_number(text: str) -> bool:
    """Whether nothing but a number stands before: the 1 of "1. Take the train"."""
    return text.strip().isdigit()
