"""How a caller is given to a human: who does that, and what is said on the way.

Cold: the call goes on with a number, and the agent is gone (`Call.transfer_to`).  Warm: the human
is called first, told what it is about, and asked to take the call, while the caller stays with the
agent.  The second needs a carrier's REST API, which the server has: a call knows it as its
`operator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..contracts import Message

TransferOutcome = Literal[
    "connected", "declined", "busy", "no-answer", "failed", "caller left", "forbidden"
]
"""What became of a warm transfer.  connected: the call is the human's now, and over for the agent;
declined: somebody, or a voicemail, answered and pressed no key; failed: the number cannot be
called, or not now; forbidden: it is not one that may be."""

BRIEFING_CHARS = 600
"""Half a minute of speech."""

LAST_MESSAGES = 4


class Operator(Protocol):
    """Whoever can call a human for a caller."""

    async def connect(self, call_sid: str, number: str, briefing: str) -> TransferOutcome:
        """Call `number` (E.164), say `briefing`, and connect the caller if a key is pressed.

        An empty briefing is made of what was said last.  Takes up to a minute and a half; nothing
        is said to the caller meanwhile.  Cancelled, the human's phone stops ringing.
        """


@dataclass(frozen=True, slots=True)
class TransferWords:
    """What is said when a call is given to a human, in one language."""

    connecting: str
    still_trying: str
    nobody: str
    introduction: str
    press_key: str
    gone: str
    caller_said: str
    """Before the caller's words; what the agent said is left as it is."""


TRANSFER_WORDS: dict[str, TransferWords] = {
    "en": TransferWords(
        connecting="One moment, I am connecting you.",
        still_trying="I am still trying to reach somebody.",
        nobody="I am sorry, nobody could be reached. How else can I help you?",
        introduction="A caller would like to speak to you.",
        press_key="Press any key to take the call.",
        gone="The caller has hung up. Goodbye.",
        caller_said="The caller said:",
    ),
    "hi": TransferWords(
        connecting="एक पल, मैं आपको जोड़ रही हूँ।",
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
    return TRANSFER_WORDS.get(language.split("-")[0].lower(), TRANSFER_WORDS["en"])


def briefing_of(messages: Sequence[Message], words: TransferWords) -> str:
    """Make a briefing of what the caller has said last; of nothing, only the introduction."""
    said = [message.text for message in messages[-LAST_MESSAGES:] if message.role == "user"]
    if not said:
        return words.introduction
    # From its end: what was said last is what it is about.
    last = " ".join(said)[-BRIEFING_CHARS:]
    return f"{words.introduction} {words.caller_said} {last}"
