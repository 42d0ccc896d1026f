"""The history of a conversation as it was *heard*, in the shape that an LLM is given.

Rules that hold here:

* A reply of which nothing was heard never happened; the caller's words before and after it are one
  message.
* An interrupted reply stands with the words that were heard, and says so.
* A reply that was interrupted by nothing and goes on is one message, not two.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]

MAX_MESSAGES = 200
"""An hour of quick talk.  Beyond it the oldest go: prompts have a limit, and so does memory."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The LLM asks for a tool; `arguments` is the JSON object that it wrote, unparsed."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the history that an LLM is given.

    An assistant's `text` is what the caller *heard* of it; `interrupted` says that there was more.
    A tool's message answers the call named `tool_call_id`.
    """

    role: Role
    text: str
    interrupted: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class History:
    """Who said what, in order.  The pipeline's turns are its only writers.

    `messages` is what was said before, if the call goes on here.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._messages: list[Message] = list(messages)
        self._last_reply = ""

    def __repr__(self) -> str:
        return f"<History of {len(self._messages)} messages>"

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything so far, oldest first."""
        return tuple(self._messages)

    def with_caller(self, text: str) -> tuple[Message, ...]:
        """Return the history as it will be when the caller has said `text`; change nothing."""
        if self._messages and self._messages[-1].role == "user":
            said = f"{self._messages[-1].text} {text}"
            return (*self._messages[:-1], Message("user", said))
        return (*self._messages, Message("user", text))

    def caller_said(self, text: str) -> None:
        """Add the caller's words, to the same message if nothing was heard in between."""
        self._messages = list(self.with_caller(text))
        self._trim()

    def agent_said(self, reply: str, text: str, interrupted: bool) -> None:
        """Write down what was heard of the reply named `reply`; again, if it went on."""
        if self._messages and self._messages[-1].role == "assistant" and self._last_reply == reply:
            self._messages.pop()
        if text:
            self._messages.append(Message("assistant", text, interrupted))
            self._last_reply = reply
        self._trim()

    def _trim(self) -> None:
        """Forget the oldest; what is left begins with the caller, if the caller spoke at all."""
        if len(self._messages) > MAX_MESSAGES:
            kept = self._messages[-MAX_MESSAGES:]
            first = next((i for i, message in enumerate(kept) if message.role == "user"), 0)
            self._messages = kept[first:]


def same_words(one: str, other: str) -> bool:
    """Return whether two texts are the same words, whatever their case and punctuation."""
    return _bare(one) == _bare(other)


def _bare(text: str) -> list[str]:
    kept = (" " if unicodedata.category(c)[0] in "PSZC" else c for c in text.casefold())
    return "".join(kept).split()
