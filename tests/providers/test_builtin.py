"""The built-in host: what it answers to what."""

from __future__ import annotations

from datetime import datetime

import pytest

from voicecore.contracts import Delta, Message, Tool, ToolCall
from voicecore.providers.builtin import ENGLISH, HINDI, BuiltinLLM, Phrasebook, answer, phrasebook

NOW = datetime(2026, 11, 20, 14, 5)
END_CALL = Tool("end_call", "Ends the call.")


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("hello", "Hello! How can I help you?"),
        ("Good morning!", "Hello! How can I help you?"),
        ("hello world", "Hello! You said: hello world."),
        ("Why did the weather in Paris?", "You said: Why did the weather in Paris."),
        ("count to five", "One, two, three, four, five."),
        ("please count to 3", "One, two, three."),
        ("count", "One, two, three, four, five, six, seven, eight, nine, ten."),
        ("count to 0", "One."),
        ("what time is it", "It is 2:05 PM."),
        ("can you help me", ENGLISH.rules[3].answer),
        ("{heard} {0} {time}", "You said: {heard} {0} {time}."),
        ("", ENGLISH.nothing_heard),
        (" . ", ENGLISH.nothing_heard),
    ],
)
def test_english(heard: str, said: str) -> None:
    assert answer(ENGLISH, heard, NOW) == (said, False)


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("नमस्ते", "नमस्ते! मैं आपकी कैसे मदद कर सकता हूँ?"),
        ("पेरिस में मौसम कैसा है", "आपने कहा: पेरिस में मौसम कैसा है।"),
        ("तीन तक गिनो", "एक, दो, तीन।"),
        ("अभी कितने बजे हैं", "अभी 2:05 बजे हैं।"),
        ("", HINDI.nothing_heard),
    ],
)
def test_hindi(heard: str, said: str) -> None:
    assert answer(HINDI, heard, NOW) == (said, False)


@pytest.mark.parametrize(
    ("book", "heard"),
    [(ENGLISH, "okay goodbye then"), (ENGLISH, "Bye."), (ENGLISH, "hang up"), (HINDI, "अलविदा")],
)
def test_goodbye_ends_the_call(book: Phrasebook, heard: str) -> None:
    assert answer(book, heard, NOW) == (book.rules[0].answer, True)


def test_counting_ends_somewhere() -> None:
    said, _ = answer(ENGLISH, "count to 999", NOW)
    assert said.endswith("nineteen, twenty.")


@pytest.mark.parametrize(
    ("language", "book"), [("en-US", ENGLISH), ("hi-IN", HINDI), ("hi", HINDI), ("fr-FR", ENGLISH)]
)
def test_languages(language: str, book: Phrasebook) -> None:
    assert phrasebook(language) is book


async def replied(messages: list[Message], tools: list[Tool]) -> list[Delta]:
    async with BuiltinLLM("en-US", lambda: NOW).reply(messages, tools) as deltas:
        return [delta async for delta in deltas]


async def test_it_streams_word_by_word() -> None:
    said = await replied([Message("user", "hello there world")], [])
    assert said == ["Hello!", " You", " said:", " hello", " there", " world."]


async def test_the_last_words_of_the_caller_count() -> None:
    messages = [Message("user", "goodbye"), Message("assistant", "No."), Message("user", "hi")]
    assert "".join(str(word) for word in await replied(messages, [END_CALL])).startswith("Hello!")


async def test_goodbye_is_said_before_the_tool_is_called() -> None:
    *words, last = await replied([Message("user", "goodbye")], [END_CALL])
    assert "".join(str(word) for word in words) == ENGLISH.rules[0].answer
    assert last == ToolCall("builtin-1", "end_call", "{}")


async def test_no_tool_is_called_that_is_not_offered() -> None:
    words = await replied([Message("user", "goodbye")], [Tool("other", "")])
    assert all(isinstance(word, str) for word in words)


async def test_after_its_tool_it_has_nothing_to_add() -> None:
    call = ToolCall("builtin-1", "end_call", "{}")
    messages = [
        Message("user", "goodbye"),
        Message("assistant", "Goodbye!", tool_calls=(call,)),
        Message("tool", "ended", tool_call_id="builtin-1"),
    ]
    assert await replied(messages, [END_CALL]) == []
