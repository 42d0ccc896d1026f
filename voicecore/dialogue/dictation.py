"""Digits, letters and addresses that a caller dictates, and whether more of them will come.

A telephone number, a card, a booking reference or an e-mail address is said in pieces, with pauses
as long as those between sentences.  Recognisers write such things as they like ("four one five",
"415", "4-1-5", "J.O.H.N.", "john at gmail.com"), so all of it is brought to plain tokens first.
Hindi callers dictate half in English, written in Devanagari.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence

MARKS = ".,!?;:\"'“”„«»()[]{}।॥。、،؟¿¡#*"


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text, each in its one spelling."""
    return frozenset(unicodedata.normalize("NFKC", text).split())


def normalised(text: str) -> str:
    """Return a text with one spelling of each character, no capitals, and digits as 0 to 9."""
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
        digits = ((unicodedata.decimal(c, None), c) for c in text)
        text = "".join(c if digit is None else str(digit) for digit, c in digits)
        text = _BEFORE_NUMERAL.sub(" ", text)
    return _AT.sub("@", _E_MAIL.sub("email", text))


def tokens_of(text: str) -> list[str]:
    """Return the words of a normalised text without marks; "j.o.h.n" and "4-1-5" are several."""
    tokens: list[str] = []
    for raw in _HYPHENS.sub(" ", text).split():
        word = raw.strip(MARKS)
        if _INITIALS.fullmatch(word) and word.replace(".", "") not in _ABBREVIATIONS:
            tokens += word.split(".")
        elif word:
            tokens.append(_DEVANAGARI.get(word, word))
    return tokens


_APOSTROPHES = {ord(c): "'" for c in "’‘ʼ`"}
_E_MAIL = re.compile(r"\be[- ]mail")
_AT = re.compile(r"\bat the rate(?: of)?(?!\S)|एट द रेट")
"""How @ is called in India."""
_HYPHENS = re.compile(r"(?<=[^\s-])[-‐‑–—](?=[^\s-])")
_BEFORE_NUMERAL = re.compile(r"(?<=[^\x00-\x7f])(?=\d)")
_INITIALS = re.compile(r"(?:[a-z]\.)+[a-z]")
_DEVANAGARI = {
    unicodedata.normalize("NFKC", devanagari): latin
    for latin, spellings in {
        "0": "शून्य ज़ीरो जीरो", "1": "एक वन", "2": "दो टू", "3": "तीन थ्री", "4": "चार फोर फ़ोर",
        "5": "पांच पाँच फाइव फ़ाइव", "6": "छह छः छे छ सिक्स", "7": "सात सेवन", "8": "आठ एट",
        "9": "नौ नाइन", "double": "डबल", "triple": "ट्रिपल", "dot": "डॉट", "com": "कॉम",
        "underscore": "अंडरस्कोर", "dash": "डैश", "email": "ईमेल इमेल", "gmail": "जीमेल",
        "at": "ऐट", "number": "नंबर नम्बर", "um": "अं उम उम्म अम्म हम्म",
    }.items()
    for devanagari in spellings.split()
}  # fmt: skip

# -- digits

_UNITS = {"o": "0", "oh": "0", "nought": "0", "niner": "9"} | {
    word: str(digit)
    for digit, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    )
}
_TENS = {
    word: str(10 * tens)
    for tens, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2
    )
}
_PAIRS = _TENS | {
    word: str(number)
    for number, word in enumerate(
        ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
         "eighteen", "nineteen"), start=10
    )
}  # fmt: skip
_REPEATS = {"double": 2, "triple": 3}
_SEPARATORS = {"dash", "hyphen"}
HESITATIONS = word_set("um umm uhm uh uhh er erm hm hmm")
_AMONG_DIGITS = HESITATIONS | _REPEATS.keys() | _SEPARATORS
_NAMED_BY_NUMBER = word_set("""
    room flight apartment apt suite route highway gate floor page bus train channel platform
    terminal building unit seat extension version chapter line
""")
_MONTHS = word_set("""
    january february march april may june july august september october november december
""")
_DICTATED = word_set("number numbers code pin zip card account phone cell mobile id")
_GIVES_NUMBER = re.compile(
    r"(?:\bmy|phone|account|card|cell|mobile|contact|security|tracking) number(?: is|'s)$|number है$"
)
_EMERGENCY = ("911", "112")
_BEFORE_TIMES = word_set("at by around about before after until till from to past since")


def digits_go_on(tokens: Sequence[str], is_hindi: bool) -> bool | None:
    """Whether the digits at the end are a part of more; None: there are none, or just a number.

    Whole are telephone numbers (ten digits and more; seven, where such are local ones) and cards.
    """
    groups, run = _digits_at_the_end(tokens)
    if not groups:
        return None
    number, lengths = "".join(groups), [len(group) for group in groups]
    before = tokens[: len(tokens) - len(run)]
    if run[-1] in _REPEATS or run[-1] in _SEPARATORS:
        return True
    is_dictated = lengths.count(1) >= 3 or max(lengths) >= 3 or len(number) >= 5
    if not is_dictated and _REPEATS.keys().isdisjoint(run):
        return True if _GIVES_NUMBER.search(" ".join(before[-4:])) else None
    if _is_plain_number(groups, before):
        return None
    is_local = len(number) == 7 and number[0] != "0" and not is_hindi
    is_most_of_a_card = lengths == [4, 4, 4]
    is_whole = is_local or (len(number) >= 10 and not is_most_of_a_card)
    return not is_whole or run[-1] in HESITATIONS


def _digits_at_the_end(tokens: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """The digits of each number in the run of numbers at the end, and the run itself."""
    start = len(tokens)
    while start and (_digits_of(tokens[start - 1]) or tokens[start - 1] in _AMONG_DIGITS):
        start -= 1
    groups: list[str] = []
    times, last = 1, ""
    for token in (run := tokens[start:]):
        digits = _digits_of(token)
        if last in _TENS and token in _UNITS and digits != "0":
            groups[-1] = groups[-1][0] + digits  # thirty four
        elif digits:
            groups += [digits] * times
        times, last = _REPEATS.get(token, 1), token
    return groups, run


def _digits_of(token: str) -> str:
    """The digits that a word stands for, if it does."""
    written = token.lstrip("+")
    if written.isascii() and written.isdecimal():
        return written
    return _UNITS.get(token) or _PAIRS.get(token) or ""


def _is_plain_number(groups: Sequence[str], before: Sequence[str]) -> bool:
    """Whether digits that could be dictated are a room, a date, a time or an amount."""
    number, last = "".join(groups), groups[-1]
    if len(number) <= 4 and not _NAMED_BY_NUMBER.isdisjoint(before[-2:]):
        return True
    if before and before[-1] in _MONTHS and len(number) <= 6:
        return True
    if not _DICTATED.isdisjoint(before[-4:]):
        return False
    if before and before[-1] in _BEFORE_TIMES and len(number) in (3, 4):
        minutes = int(number[-2:])
        if int(number[:-2]) <= 24 and minutes < 60 and minutes % 5 == 0:
            return True
    is_year = len(last) == 4 and last[:2] in ("19", "20")
    if is_year and all(int(group) <= 31 for group in groups[:-1]):
        return len(groups) <= 3
    is_round = last.endswith("00") and last[0] != "0" and len(last) <= 6
    return (is_round and len(groups) == 1) or number in _EMERGENCY


# -- addresses

_TOP_LEVEL = word_set("""
    com org net edu gov info biz io ai co app dev me tv us uk ca au de fr es it nl ch at in eu
""")
_MAIL_HOSTS = word_set("gmail hotmail icloud outlook protonmail googlemail rediffmail")
_BEFORE_A_DOT = word_set("a an the polka red this that every")
_DOMAIN = re.compile(r"(?:[^@]*@)?(?:[^\s.@]+\.)+([a-z]{2,})")
_MAIL_IS = re.compile(r"\bemail(?: address| id)?(?: is|'s| would be)((?: \S+){1,3})$")
_ABOUT_MAIL = word_set("""
    not wrong right correct broken down working different the same fine good new old on in already
    that it this still no changed full at here there
""")


def address_goes_on(tokens: Sequence[str]) -> bool | None:
    """Whether an e-mail or web address at the end has still no end; None: there is none."""
    *_, before_that, before, last = ["", "", "", *tokens]
    if written := _DOMAIN.fullmatch(last):
        return False if "@" in last or written[1] in _TOP_LEVEL else None
    if "@" in last or "underscore" in (before, last):
        return True
    if before == "dot" and before_that not in _BEFORE_A_DOT:
        return last not in _TOP_LEVEL
    if last == "dot" and before not in _BEFORE_A_DOT:
        return True
    if before in ("@", "at") and last in _MAIL_HOSTS:
        return True
    is_near_at = last == "at" or not {"at", "@"}.isdisjoint((before_that, before))
    if (is_near_at or last in _SEPARATORS) and _has_name_of_address(tokens):
        return True
    return _gives_mail(tokens) or None


def _has_name_of_address(tokens: Sequence[str]) -> bool:
    """Whether what comes before the last "at" is the name in an e-mail address."""
    ats = [place for place, token in enumerate(tokens) if token in ("at", "@")]
    name = tokens[: ats[-1]] if ats else tokens[:-1]
    is_joined = any(
        one == "underscore" or (one == "dot" and after not in _TOP_LEVEL)
        for one, after in itertools.pairwise([*name[-8:], ""])
    )
    return is_joined or _count_letters(_spelt(name)) >= 2 or _gives_mail(name)


def _gives_mail(tokens: Sequence[str]) -> bool:
    """Whether the words are "my e-mail is" and the beginning of it."""
    given = _MAIL_IS.search(" ".join(tokens))
    return given is not None and _ABOUT_MAIL.isdisjoint(given[1].split())


# -- letters

_ABBREVIATIONS = word_set("""
    am pm us usa uk tv dc la ny nyc id ok irs atm fbi cia dna hr it ai pc usb dvd cd gp er mri sms
    url uae eu un vip faq asap rsvp diy bbc cnn nhs iou phd ceo mb gb kg km qa ie eg pa rv suv bmw
    ibm ups
""")
_LETTER_BY_WORD = re.compile(r"(?:^| )(?:([a-z]) as in(?: \1\w+)?|([b-hj-z]) for \2\w+)$")


def letters_go_on(tokens: Sequence[str]) -> bool | None:
    """Whether letters are given one by one at the end, or as in "j as in Juliet"."""
    if _LETTER_BY_WORD.search(" ".join(tokens[-4:])):
        return True
    run = _spelt(tokens)
    letters = _count_letters(run)
    return True if letters >= 2 or (letters and len(run) >= 3) else None


def _spelt(tokens: Sequence[str]) -> Sequence[str]:
    """The single letters and digits at the end, unless they are an abbreviation such as "p m"."""
    start = len(tokens)
    while start and (_is_letter(tokens[start - 1]) or len(_digits_of(tokens[start - 1])) == 1):
        start -= 1
    run = tokens[start:]
    # "is a d a m": the first one may be a word of its own.
    rest = run[1:] if start and run and run[0] in ("a", "i") else run
    written = "".join(filter(_is_letter, run))
    return [] if {written, written[len(run) - len(rest) :]} & _ABBREVIATIONS else rest


def _count_letters(tokens: Sequence[str]) -> int:
    return sum(map(_is_letter, tokens))


def _is_letter(token: str) -> bool:
    return len(token) == 1 and token.isascii() and token.isalpha()
