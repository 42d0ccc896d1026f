"""What one session of OpenAI's Realtime API is told besides questions.

A new session is told the conversation so far, as text, when it is first asked; before that there
is no need to tell it anything.  Tool calls and their results are a part of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..contracts import Message, ToolCall
from . import realtime_wire as wire

TOLD = 60
"""Messages of a conversation that a new session is told, the newest: half an hour of talk."""

CALLS = 64
"""Tool calls, the newest, of which a late result can say whose it is."""


class Memory:
    """One session's; `say` sends a message to it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._is_told = False
        self._calls: dict[str, ToolCall] = {}

    def __repr__(self) -> str:
        return f"<Memory of {len(self._calls)} calls, is_told={self._is_told}>"

    def tell(self, messages: Sequence[Message]) -> None:
        """Tell it the conversation, if it does not know it."""
        if self._is_told:
            return
        self._is_told = True
        for message in messages:
            for call in message.tool_calls:
                self.know(call)
        for message in messages[-TOLD:]:
            if message.text:
                self.remember(message)

    def remember(self, message: Message) -> None:
        """Tell it one more message, as text."""
        if self._is_told:
            self._say(wire.remember(message, self._calls.get(message.tool_call_id or "")))

    def know(self, call: ToolCall) -> None:
        """There was a tool call: a result may name it."""
        self._calls[call.id] = call
        while len(self._calls) > CALLS:
            del self._calls[next(iter(self._calls))]
