"""The history of a conversation as it was *heard*, in the shape that an LLM is given.

Rules that hold here:

* A reply of which nothing was heard never happened; the caller's words before and after it are one
  message.
* An interrupted reply stands with the words that were heard, and says so.
* A reply that was interrupted by nothing and goes on is one message, not two.
* A tool that was called has happened, whatever was heard: the call stands, with its result behind
  it, as soon as there is one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """Who said what, in order.  The pipeline's turns are its only writers."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._messages = list(messages)
        self._last_reply = ""
        self._last_size = 0
        """Messages at the end that belong to the last reply."""

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
        self._last_size = 0
        self._trim()

    def agent_said(
        self, reply: str, text: str, interrupted: bool, before: Sequence[Message] = ()
    ) -> None:
        """Write down what was heard of the reply named `reply`; again, if it went on.

        `before` is what stands before its last words: earlier words, tools' calls and results.
        """
        if self._last_size and self._last_reply == reply:
            del self._messages[-self._last_size :]
            self._last_size = 0
        said = [*before, *([Message("assistant", text, interrupted)] if text else [])]
        if said:
            self._messages += said
            self._last_reply, self._last_size = reply, len(said)
        self._trim()

    def tool_done(self, call_id: str, result: str) -> None:
        """Write down a result that came after its reply was over."""
        for at in reversed(range(len(self._messages))):
            message = self._messages[at]
            if message.role == "tool" and message.tool_call_id == call_id:
                self._messages[at] = replace(message, text=result)
                return

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
