"""What is said when a caller is given to a human who is called first: to both of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..contracts import Message
from .phrases import in_language

BRIEFING_CHARS = 600
"""Half a minute of speech."""

LAST_MESSAGES = 4


@dataclass(frozen=True, slots=True)
class TransferWords:
    """The sentences of a transfer, in one language."""

    still_trying: str
    nobody: str
    introduction: str
    press_key: str
    gone: str
    caller_said: str
    """Before the caller's words; what the agent said is left out."""


TRANSFER_WORDS: dict[str, TransferWords] = {
    "en": TransferWords(
        still_trying="I am still trying to reach somebody.",
        nobody="I am sorry, nobody could be reached. How else can I help you?",
        introduction="A caller would like to speak to you.",
        press_key="Press any key to take the call.",
        gone="The caller has hung up. Goodbye.",
        caller_said="The caller said:",
    ),
    "hi": TransferWords(
        still_trying="मैं अभी भी कोशिश कर रही हूँ।",
        nobody="माफ़ कीजिए, कोई उपलब्ध नहीं है। मैं और कैसे मदद कर सकती हूँ?",
        introduction="एक कॉलर आपसे बात करना चाहते हैं।",
        press_key="कॉल लेने के लिए कोई भी बटन दबाइए।",
        gone="कॉलर ने फ़ोन रख दिया है। नमस्ते।",
        caller_said="कॉलर ने कहा:",
    ),
}


def transfer_words(language: str) -> TransferWords:
    """Return the words of a BCP-47 language, or the English ones."""
    return in_language(TRANSFER_WORDS, language)


def briefing_of(messages: Sequence[Message], words: TransferWords) -> str:
    """Make a briefing of what the caller has said last; of nothing, only the introduction."""
    said = [message.text for message in messages[-LAST_MESSAGES:] if message.role == "user"]
    if not said:
        return words.introduction
    # From its end: what was said last is what it is about.
    last = " ".join(said)[-BRIEFING_CHARS:]
    return f"{words.introduction} {words.caller_said} {last}"
