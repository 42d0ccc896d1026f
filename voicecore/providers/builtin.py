"""LLM without a model: a host who follows a table of rules.

It needs no key and no network, answers at once and always the same: to try a phone line with, and
to test calls against.  It greets, repeats what it heard, counts, tells the time, and hangs up when
told goodbye; in English, and in Hindi where the language is ``hi``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import trio

from ..contracts import Delta, Message, Tool, ToolCall
from ..settings import Settings

END_CALL = "end_call"
_HEARD_CHARACTERS = 500
"""What is repeated of a longer speech: half a minute."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What to say when `pattern` is found, with ``{heard}``, ``{count}``, ``{time}`` filled in."""

    pattern: str
    answer: str
    ends_call: bool = False


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """One language: its rules, of which the first that fits counts, and its numbers from one.

    `spellings` are other ways to write a number.
    """

    rules: tuple[Rule, ...]
    numbers: tuple[str, ...]
    nothing_heard: str
    tell_time: Callable[[datetime], str]
    spellings: Mapping[str, str] = field(default_factory=dict)


def _english_time(now: datetime) -> str:
    return now.strftime("%I:%M %p").lstrip("0")


_ENGLISH_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip

ENGLISH = Phrasebook(
    rules=(
        Rule(r"\b(good ?bye|bye|hang up|end the call)\b", "Goodbye! It was nice to talk.", True),
        Rule(r"\bcount\b", "{count}."),
        Rule(r"\b(what time|time is it|the time)\b", "It is {time}."),
        Rule(
            r"\b(help|what can you do)\b",
            "I repeat what you say. Ask me to count to five, or for the time. Say goodbye to end.",
        ),
        Rule(r"^(hello|hi|hey|good (morning|afternoon|evening))\W*$", "Hello! How can I help you?"),
        Rule(r"^(hello|hi|hey)\b", "Hello! You said: {heard}."),
        Rule(r"", "You said: {heard}."),
    ),
    numbers=_ENGLISH_NUMBERS,
    nothing_heard="I did not hear anything. Please say that again.",
    tell_time=_english_time,
)

_HINDI_NUMBERS = (
    "एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ", "दस", "ग्यारह", "बारह", "तेरह",
    "चौदह", "पंद्रह", "सोलह", "सत्रह", "अठारह", "उन्नीस", "बीस",
)  # fmt: skip

_WORD_ENDS = r"(?![^\s,.!?।])"
"""What ``\\b`` does not see: for `re` a vowel sign is no part of a word."""

_HINDI_HELLO = "नमस्ते|नमस्कार|हैलो|हेलो|हलो|hello|hi|namaste"


def _hindi_time(now: datetime) -> str:
    """In words, as a clock is read: "two past noon, five minutes"."""
    hours = ((4, "रात"), (12, "सुबह"), (16, "दोपहर"), (20, "शाम"), (24, "रात"))
    part = next(name for end, name in hours if now.hour < end)
    hour = _HINDI_NUMBERS[(now.hour - 1) % 12]
    if now.minute:
        return f"{part} के {hour} बजकर {now.minute} मिनट हुए हैं"
    return f"{part} का एक बजा है" if hour == "एक" else f"{part} के {hour} बजे हैं"


HINDI = Phrasebook(
    rules=(
        Rule(
            rf"अलविदा|फिर मिलेंगे|(?<!\S)बाय{_WORD_ENDS}|bye|फ़?ोन (रख|काट)|कॉल (रख|काट|बंद|समाप्त|ख़?त्म)",
            "अलविदा! आपसे बात करके अच्छा लगा।",
            True,
        ),
        Rule(r"गिनो|गिनती|गिनिए|गिनिये|गिनकर", "{count}।"),
        Rule(r"समय|कितने बजे|कितना बजा|क्या बजा|टाइम|time", "अभी {time}।"),
        Rule(
            r"मदद|सहायता|help",
            "मैं आपकी बात दोहराता हूँ। गिनती या समय पूछिए। अलविदा कहकर कॉल समाप्त कीजिए।",
        ),
        Rule(rf"^({_HINDI_HELLO})\W*$", "नमस्ते! मैं आपकी कैसे मदद कर सकता हूँ?"),
        Rule(rf"^({_HINDI_HELLO}){_WORD_ENDS}", "नमस्ते! आपने कहा: {heard}।"),
        Rule(r"", "आपने कहा: {heard}।"),
    ),
    numbers=_HINDI_NUMBERS,
    nothing_heard="मैंने कुछ नहीं सुना। कृपया फिर से कहिए।",
    tell_time=_hindi_time,
    spellings={
        "पांच": "पाँच", "छः": "छह", "छ": "छह", "छे": "छह", "छै": "छह", "पन्द्रह": "पंद्रह",
        "अट्ठारह": "अठारह",
    },
)  # fmt: skip


def phrasebook(language: str) -> Phrasebook:
    """Return the phrases of a BCP-47 language; English where there are none."""
    return HINDI if language.partition("-")[0].lower() == "hi" else ENGLISH


def answer(book: Phrasebook, heard: str, now: datetime) -> tuple[str, bool]:
    """Return what to say to `heard`, and whether the call ends with that."""
    heard = unicodedata.normalize("NFC", heard).strip().rstrip(".!?।॥")[:_HEARD_CHARACTERS]
    if not heard:
        return book.nothing_heard, False
    for rule in book.rules:
        if re.search(rule.pattern, heard.lower()):
            said = rule.answer.format(
                heard=heard, count=_counted(book, heard), time=book.tell_time(now)
            )
            return said, rule.ends_call
    raise AssertionError("the last rule of a phrasebook fits everything")


def _counted(book: Phrasebook, heard: str) -> str:
    """Return the numbers in words: up to the last one that was said, to ten without, or all."""
    said = [_value(book, word) for word in re.split(r"[\s,;:.!?।॥-]+", heard.lower())]
    last = next((number for number in reversed(said) if number is not None), 10)
    counted = ", ".join(book.numbers[: max(1, min(last, len(book.numbers)))])
    return counted[:1].upper() + counted[1:]


def _value(book: Phrasebook, word: str) -> int | None:
    if word.isdecimal():
        return int(word[:4])
    word = book.spellings.get(word, word)
    return book.numbers.index(word) + 1 if word in book.numbers else None


class BuiltinLLM:
    """Answers the caller's last words by rule, word by word as a model would."""

    def __init__(
        self, language: str = "en-US", clock: Callable[[], datetime] = datetime.now
    ) -> None:
        self._book = phrasebook(language)
        self._clock = clock

    def __repr__(self) -> str:
        return "<BuiltinLLM>"

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterable[Delta]]:
        """Stream the answer; after a goodbye the tool ``end_call`` is called, if it is offered."""
        async with aclosing(self._deltas(messages, tools)) as deltas:
            yield deltas

    async def _deltas(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncGenerator[Delta, None]:
        if messages and messages[-1].role == "tool":
            return  # all was said before the tool was called
        heard = next((entry.text for entry in reversed(messages) if entry.role == "user"), "")
        text, ends_call = answer(self._book, heard, self._clock())
        for word in re.findall(r"\s*\S+", text):
            await trio.lowlevel.checkpoint()
            yield word
        if ends_call and any(tool.name == END_CALL for tool in tools):
            yield ToolCall(f"builtin-{len(messages)}", END_CALL, "{}")


@dataclass(frozen=True, slots=True)
class Builtin:
    """What this vendor offers."""

    llm: BuiltinLLM


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Builtin]:
    """Make the host of the settings' language."""
    yield Builtin(BuiltinLLM(settings.language))
