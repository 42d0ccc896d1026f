"""The built-in host: what it answers to what."""

from __future__ import annotations

from datetime import datetime

import pytest

from voicecore.contracts import Delta, Message, Tool, ToolCall
from voicecore.providers.builtin import (
    ENGLISH,
    HINDI,
    BuiltinLLM,
    Phrasebook,
    answer,
    opened,
    phrasebook,
)
from voicecore.settings import Settings

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
        ("count from one to five, please", "One, two, three, four, five."),
        ("count on me", "One, two, three, four, five, six, seven, eight, nine, ten."),
        ("count to 3²", "One, two, three, four, five, six, seven, eight, nine, ten."),
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
        ("Hello!", "नमस्ते! मैं आपकी कैसे मदद कर सकता हूँ?"),
        ("नमस्ते, कोई है?", "नमस्ते! आपने कहा: नमस्ते, कोई है।"),
        ("hindi बोलिए", "आपने कहा: hindi बोलिए।"),
        ("पेरिस में मौसम कैसा है?", "आपने कहा: पेरिस में मौसम कैसा है।"),
        ("यह श्लोक है॥", "आपने कहा: यह श्लोक है।"),
        ("बायीं ओर मुड़िए", "आपने कहा: बायीं ओर मुड़िए।"),
        ("तीन तक गिनो", "एक, दो, तीन।"),
        ("एक से पांच तक गिनती कीजिए", "एक, दो, तीन, चार, पाँच।"),
        ("गिनो ३ तक", "एक, दो, तीन।"),
        ("छः तक गिनिए।", "एक, दो, तीन, चार, पाँच, छह।"),
        ("गिनती सुनाओ", "एक, दो, तीन, चार, पाँच, छह, सात, आठ, नौ, दस।"),
        ("अभी कितने बजे हैं", "अभी दोपहर के दो बजकर 5 मिनट हुए हैं।"),
        ("time क्या हुआ है", "अभी दोपहर के दो बजकर 5 मिनट हुए हैं।"),
        ("मेरी मदद कीजिए", HINDI.rules[3].answer),
        ("", HINDI.nothing_heard),
    ],
)
def test_hindi(heard: str, said: str) -> None:
    assert answer(HINDI, heard, NOW) == (said, False)


@pytest.mark.parametrize(
    ("book", "heard"),
    [
        *((ENGLISH, heard) for heard in ("okay goodbye then", "Bye.", "hang up")),
        *((HINDI, heard) for heard in ("अलविदा।", "ठीक है, बाय!", "goodbye", "फ़ोन रख दो")),
        (HINDI, "अब फोन काट दीजिए"),
        (HINDI, "कॉल \u0916\u093c\u0924्म करो"),
        (HINDI, "कॉल \u0959\u0924्म करो"),
    ],
)
def test_goodbye_ends_the_call(book: Phrasebook, heard: str) -> None:
    assert answer(book, heard, NOW) == (book.rules[0].answer, True)


@pytest.mark.parametrize(
    ("hour", "minute", "told"),
    [
        (0, 0, "रात के बारह बजे हैं"),
        (1, 0, "रात का एक बजा है"),
        (4, 30, "सुबह के चार बजकर 30 मिनट हुए हैं"),
        (12, 0, "दोपहर के बारह बजे हैं"),
        (13, 0, "दोपहर का एक बजा है"),
        (19, 59, "शाम के सात बजकर 59 मिनट हुए हैं"),
        (23, 1, "रात के ग्यारह बजकर 1 मिनट हुए हैं"),
    ],
)
def test_the_time_in_hindi(hour: int, minute: int, told: str) -> None:
    said, _ = answer(HINDI, "समय बताइए", NOW.replace(hour=hour, minute=minute))
    assert said == f"अभी {told}।"


async def test_the_host_speaks_the_settings_language() -> None:
    """Everything that it can say is Hindi, but for what the caller said in other letters."""
    asked = ["नमस्ते", "मौसम", "पाँच तक गिनो", "कितने बजे हैं", "मदद", "अलविदा", ""]
    async with opened(Settings(_env_file=None, language="hi-IN")) as vendor:
        for heard in asked:
            async with vendor.llm.reply([Message("user", heard)], [END_CALL]) as deltas:
                said = [delta async for delta in deltas]
            words = "".join(delta for delta in said if isinstance(delta, str))
            assert words
            assert not any("a" <= letter <= "z" for letter in words.lower())
            assert any(isinstance(one, ToolCall) for one in said) is (heard == "अलविदा")


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
