"""Whether what a caller has said so far sounds as if more will come: endpointing by content.

Silence cannot tell a caller who has finished from one who looks for the next digit; the words
often can.  A caller who dictates digits, spells an address, or trails off on "and …" is given a
longer silence (`turns.TurnRules.long_silence_ms`); nobody else must pay for that.  So in doubt the
words are finished: patience costs an ordinary answer most of a second.

    dictation   digits that are no whole telephone number, letters one by one, an e-mail address
                without its end (`dictation`)
    trailing    a last word that no sentence ends with: "and", "the", "my number is", "um"
    marks       "?" is an end, "," and "…" are none; "." is one, but not of dictation, nor behind
                "and": recognisers put a full stop behind whatever they are given

Digits and marks count in every language, the rest in English and Hindi.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .dictation import (
    HESITATIONS,
    address_goes_on,
    digits_go_on,
    letters_go_on,
    normalised,
    tokens_of,
    word_set,
)

TAIL = 240
"""Characters at the end that are looked at: more than the longest number or address takes."""

_QUESTION = ("?", "؟")
_NO_END = ("..", ",", "،", "、", ":", "-", "–", "—")
_STOP = (".", "!", "।", "॥", "。")
_SENTENCE_END = re.compile(r"[.?!।॥。؟]\s+")


def may_go_on(words: str, language: str) -> bool:
    """Whether more is likely to come after `words`.  `language` is BCP-47, such as ``en-US``.

    Never raises, and takes far less than a millisecond however long the text is.
    """
    text = normalised(words.rstrip()[-TAIL:]).rstrip("\"'”»)]} ")
    if not text or text.endswith(_QUESTION):
        return False
    if text.endswith(_NO_END):
        return True
    code = re.split("[-_]", language, maxsplit=1)[0].lower()
    tokens = tokens_of(text)
    verdict = digits_go_on(tokens, code == "hi")
    if verdict is None and code in _TRAILS_OFF:
        verdict = address_goes_on(tokens)
        if verdict is None:
            verdict = letters_go_on(tokens)
        if verdict is None:
            clause = tokens_of(_SENTENCE_END.split(text.rstrip("".join(_STOP)))[-1])
            verdict = _TRAILS_OFF[code](clause, text.endswith(_STOP))
    return bool(verdict)


# -- last words

_OPENING = r"^(?:(?:yes|yeah|yep|no|ok|okay|so|well|hi|hello|hey|and|but|um|uh|oh|sure|please) )*"
_UNFINISHED = re.compile(
    r"\b(?:let me (?:think|see|check|look)|let's see|(?:how|what) about|name's|such as)$"
    rf"|{_OPENING}(?:i|we)(?:'m)?(?: just)? (?:want|need|wanna|just|was wondering(?: if)?)$"
    rf"|{_OPENING}(?:can|could|would|may) (?:you|i|we)(?: please)?$"
    rf"|{_OPENING}(?:well|oh)$"
    r"|\b(?:whether|wondering if) (?:you|i|we) (?:can|could|would|should)$"
    r"|^(?:(?:hi|hello|hey|um|uh|good morning|good afternoon) )*this is$"
)
_UNFINISHED_UNLESS_ASKED = re.compile(
    r"\b(?:number|name|email|address|code|birthday|birth|date|question|problem|issue|thing|reason"
    r"|account|order|password|pin|zip|card|extension|answer|id|phone|cell|mobile|flight|reference)s?"
    r" (?:is|are|was|would be|will be)$"
    r"|\b(?:i|we)(?:'d| would)(?: really)? like$|\bi mean$"
)
_WISHES = re.compile(
    r"(?:n't|\bnot|\bnever|\bif (?:i|you|we)|^(?:do|did|does) \S+)(?: really)?"
    r" (?:want|need|have|like|care|mean|allowed) to$"
)
_FILLERS = HESITATIONS - {"hm", "hmm"}
_NEVER_LAST = _FILLERS | word_set("""
    and or because cuz the an my your our their if unless whether than every mr mrs mister
    i'm i've i'll you're we're they're we've we'll it's that's there's here's what's where's who's
""")
"""Words with which nothing ends, whatever mark a recogniser has put behind them."""
_ENDS_AFTER = {
    "the": "", "an": "", "your": "", "our": "", "their": "",
    "and": "", "or": "", "but": "nothing anything all everything",
    "because": "just", "my": "oh my", "if": "what as", "than": "",
    "so": """
        think hope guess suppose believe say said says told afraid not or even do does did is that
        expect imagine reckon ever quite just more me seem seems much thought how very be
    """,
    "a": "plan vitamin grade option hepatitis section team type class part door gate answer and",
    "until": "", "till": "", "while": "a little short long good worth", "except": "",
    "including": "", "regarding": "", "concerning": "", "versus": "", "per": "as", "via": "",
    "hm": "mm m uh", "hmm": "mm m uh", "let's": "yes yeah sure ok okay", "dr": "",
    "i": "and am do so than but neither nor would can did will should have not",
    "of": "heard hear know aware think thought kind sort dream all rid",
    "to": "love loved used supposed happy glad told",
    "for": "what", "from": "", "as": "", "into": "", "onto": "", "between": "in", "during": "",
    "without": "do go live", "within": "from", "towards": "", "against": "", "at": "where",
    "with": "begin start deal go come along okay ok fine",
    "by": "stop stopped come came drop dropped swing pass passed stand go gone get walk near close",
    "about": "just care worry",
    "in": """
        come came log logged check checked sign signed get got move moved drop stop call called fill
        plug let count stay go put turn kick fit give tune join jump step dial bring it me him her
        he she they we i them us you that right all i'm we're be not is are am was on and plugged
        key type back hand zoom hang settle walk drive phone buy breaks break broke cut cuts
    """,
    "on": """
        come came hold go hang move log logged sign get got turn put switch carry keep dream later
        early light lights now so far what's it me him her them us you that this is are was on try
        going from add pass and bring left heating be tv i'm we're right
    """,
}  # fmt: skip
"""Words with which hardly anything ends, and those behind which they do end it."""
_ENDS = {
    **{word: frozenset[str]() for word in _NEVER_LAST},
    **{word: word_set(before) for word, before in _ENDS_AFTER.items()},
}
_PREPOSITIONS = word_set("""
    of to for with from at in on into onto by about between without as against
""")
_SEPARATED = word_set("put turn switch leave bring take let plug keep get log sign check fill")
"""Verbs whose "in" or "on" may come after their object."""
_ASKING = word_set("what which who whom whose whatever whichever whoever what's who's")
_ABOUT_ASKING = _ASKING | word_set("where when how why know if as all that this one here")
_RELATIVES = word_set("""
    all thing things person people someone somebody something anyone anybody anything everyone
    everybody everything nobody nothing one ones place guy man woman lady only
""")
_BEFORE_STRANDED = word_set("""
    it this that you me him her us them they i we he she i'm you're we're they're talk speak look
    come came go went ask call live stay work wait belong listen pay paid use used write send sent
    give gave begin start sit put deal rely count fly drive worry think be is are was made known
    open close born sign log transfer apply care ready responsible afraid good close interested
""")
_INFINITIVE = word_set("like want need have going able got ought try trying how")


def _trails_off_in_english(tokens: Sequence[str], is_stopped: bool) -> bool:
    """Whether the last words are such that a sentence hardly ends with them."""
    *_, before, last = ["", "", *tokens]
    if is_stopped:
        return last in _NEVER_LAST and before not in _ENDS[last]
    clause = " ".join(tokens)
    if _UNFINISHED.search(clause):
        return True
    if _UNFINISHED_UNLESS_ASKED.search(clause):
        return _ABOUT_ASKING.isdisjoint(tokens[:-1])
    if last not in _ENDS or before in _ENDS[last]:
        return False
    if last in ("a", "i") and (len(tokens) == 1 or before.isdecimal()):
        return False
    if last in _PREPOSITIONS and _is_stranded(last, before, tokens):
        return False
    return not (last == "to" and _WISHES.search(clause))


def _is_stranded(last: str, before: str, tokens: Sequence[str]) -> bool:
    """Whether a preposition stands at the end because what it belongs to came before it.

    "Who is it for", "somebody to talk to", "put the kettle on"; not "the weather in".
    """
    if last in ("in", "on") and not _SEPARATED.isdisjoint(tokens[-6:-2]):
        return True
    asks = not _ASKING.isdisjoint(tokens)
    asks |= "where" in tokens and last in ("from", "to", "at")
    asks |= "how" in tokens and last == "for"
    if last == "to" and before in _INFINITIVE:
        return False
    if asks and last in ("for", "from", "about", "to"):
        return True
    is_verb = before in _BEFORE_STRANDED or before.endswith(("ing", "ed"))
    return is_verb and (asks or not _RELATIVES.isdisjoint(tokens[:-2]))


_HINDI_NEVER_LAST = _FILLERS | word_set("""
    और लेकिन मगर क्योंकि चूंकि कि या अगर यदि ताकि बल्कि परंतु परन्तु किंतु किन्तु अथवा एवं तथा यानी
    and but because my aur lekin magar kyunki agar
""")
_HINDI_ENDS = {word: frozenset[str]() for word in _HINDI_NEVER_LAST} | {
    "और": word_set("1 2 3 कुछ थोड़ा थोड़ी थोड़े कोई क्या"),
    "aur": word_set("ek do kuch thoda koi kya"),
    **dict.fromkeys(word_set("मेरा मेरी मेरे हमारा हमारी हमारे"), word_set("यह ये वह वो है हैं")),
    "इसलिए": word_set("बस सिर्फ"),
    "मतलब": word_set("क्या का कोई"),
}
_HINDI_UNFINISHED = re.compile(
    unicodedata.normalize(
        "NFKC", r"^(?:(?:हाँ|हां|अच्छा|ठीक है|जी) )*तो$|(?:सोचने|देखने) (?:दीजिए|दीजिये|2|दें)$"
    )
)
_HINDI_GIVES = re.compile(
    unicodedata.normalize(
        "NFKC",
        r"^(.*)(?:number|नाम|email|पता|कोड|अकाउंट|खाता|एड्रेस|पिन|जन्मतिथि|सवाल|समस्या|naam)"
        r"(?: यह| ये)? (?:है|हैं|hai)$",
    )
)
_HINDI_ASKING = word_set("क्या कौन कौनसा कहाँ कहां कब कितना कितने यही वही यह ये वो वह कोई kya yahi yeh")


def _trails_off_in_hindi(tokens: Sequence[str], is_stopped: bool) -> bool:
    """The same for Hindi, where what ends a sentence is its verb: so mostly conjunctions."""
    *_, before, last = ["", "", *tokens]
    if is_stopped:
        return last in _HINDI_NEVER_LAST and before not in _HINDI_ENDS[last]
    clause = " ".join(tokens)
    if _HINDI_UNFINISHED.search(clause):
        return True
    if gives := _HINDI_GIVES.match(clause):
        return _HINDI_ASKING.isdisjoint(gives[1].split())
    return last in _HINDI_ENDS and before not in _HINDI_ENDS[last]


_TRAILS_OFF = {"en": _trails_off_in_english, "hi": _trails_off_in_hindi}
