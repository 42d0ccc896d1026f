"""LLM without a model: a host who follows a table of rules.

It needs no key and no network, answers at once and always the same: to try a phone line with, and
to test calls against.  It greets, repeats what it heard, counts, tells the time, and hangs up when
told goodbye; in English, and in Hindi where the language is ``hi``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

import trio

from ..contracts import Delta, Message, Tool, ToolCall
from ..settings import Settings

END_CALL = "end_call"
_HEARD_CHARACTERS = 500
"""What is repeated of a longer speech: half a minute."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What to say when `pattern` is found; ``{heard}``, ``{count}`` and ``{time}`` are filled in.

    A group of the pattern named ``number`` is how far to count.
    """

    pattern: str
    answer: str
    ends_call: bool = False


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """One language: its rules, of which the first that fits counts, and its numbers from one."""

    rules: tuple[Rule, ...]
    numbers: tuple[str, ...]
    nothing_heard: str
    time_format: str


def _number(words: tuple[str, ...]) -> str:
    return rf"(?P<number>\d{{1,3}}|{'|'.join(words)})"


_ENGLISH_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
)  # fmt: skip

_HINDI_NUMBERS = ("एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ", "दस")

ENGLISH = Phrasebook(
    rules=(
        Rule(r"\b(good ?bye|bye|hang up|end the call)\b", "Goodbye! It was nice to talk.", True),
        Rule(rf"\bcount\b(.*?\b{_number(_ENGLISH_NUMBERS)}\b)?", "{count}."),
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
    time_format="%I:%M %p",
)

HINDI = Phrasebook(
    rules=(
        Rule(r"(अलविदा|फिर मिलेंगे|बाय|goodbye|bye)", "अलविदा! आपसे बात करके अच्छा लगा।", True),
        Rule(rf"({_number(_HINDI_NUMBERS)} तक.*)?(गिनो|गिनती|गिनिए)", "{count}।"),
        Rule(r"(समय|कितने बजे|टाइम)", "अभी {time} बजे हैं।"),
        Rule(
            r"(मदद|सहायता)", "मैं आपकी बात दोहराता हूँ। गिनती या समय पूछिए। अलविदा कहकर कॉल समाप्त कीजिए।"
        ),
        Rule(r"^(नमस्ते|नमस्कार|हैलो|हेलो)\W*$", "नमस्ते! मैं आपकी कैसे मदद कर सकता हूँ?"),
        Rule(r"^(नमस्ते|नमस्कार|हैलो|हेलो)", "नमस्ते! आपने कहा: {heard}।"),
        Rule(r"", "आपने कहा: {heard}।"),
    ),
    numbers=_HINDI_NUMBERS,
    nothing_heard="मैंने कुछ नहीं सुना। कृपया फिर से कहिए।",
    time_format="%I:%M",
)


def phrasebook(language: str) -> Phrasebook:
    """Return the phrases of a BCP-47 language; English where there are none."""
    return HINDI if language.partition("-")[0].lower() == "hi" else ENGLISH


def answer(book: Phrasebook, heard: str, now: datetime) -> tuple[str, bool]:
    """Return what to say to `heard`, and whether the call ends with that."""
    heard = heard.strip().rstrip(".!?।")[:_HEARD_CHARACTERS]
    if not heard:
        return book.nothing_heard, False
    for rule in book.rules:
        found = re.search(rule.pattern, heard.lower())
        if found:
            number = found.groupdict().get("number")
            said = rule.answer.format(
                heard=heard,
                count=_counted(book.numbers, number),
                time=now.strftime(book.time_format).lstrip("0"),
            )
            return said, rule.ends_call
    raise AssertionError("the last rule of a phrasebook fits everything")


def _counted(numbers: tuple[str, ...], upto: str | None) -> str:
    """Return the numbers in words: up to the one asked for, to ten without one, at most to all."""
    last = 10
    if upto is not None:
        last = numbers.index(upto) + 1 if upto in numbers else int(upto)
    counted = ", ".join(numbers[: max(1, min(last, len(numbers)))])
    return counted[:1].upper() + counted[1:]


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
