"""The items that one answer of OpenAI's Realtime API is in the conversation: speech, tool calls.

What the caller did not hear of it is taken out again; so are calls that came to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..audio import SAMPLE_RATE
from ..contracts import ToolCall
from . import realtime_wire as wire

MAX_CALLS = 8


class Items:
    """One answer's."""

    def __init__(self) -> None:
        self._made: dict[str, int] = {}
        """Bytes of audio by the item that holds them, in the order in which they are spoken."""
        self._calls: dict[str, str] = {}
        """The items of tool calls that have no result, by the calls' ids."""

    def __repr__(self) -> str:
        return f"<Items {self._made} {self._calls}>"

    def add(self, item: wire.Item) -> None:
        """One more item is a part of the answer."""
        if item.id:
            self._made.setdefault(item.id, 0)

    def add_audio(self, item_id: str, size: int) -> None:
        """So many bytes more of an item's audio have come."""
        self._made[item_id] = self._made.get(item_id, 0) + size

    def add_call(self, item: wire.Item) -> ToolCall | None:
        """An item is a whole tool call: return it, unless there are too many."""
        if len(self._calls) >= MAX_CALLS:
            return None
        call = ToolCall(item.call_id or item.id or "", item.name or "", item.arguments or "{}")
        self._calls[call.id] = item.id or ""
        return call

    def keep_call(self, call_id: str) -> bool:
        """A tool call has a result, so that it stays; false if it had one, or is another's."""
        item_id = self._calls.pop(call_id, None)
        if item_id is not None:
            self._made.pop(item_id, None)
        return item_id is not None

    def cut(self, left_ms: int, is_whole: bool) -> Iterator[str]:
        """Return what must be said so that only so much is left; once."""
        for item_id, size in self._made.items():
            made_ms = size * 1000 // SAMPLE_RATE
            if left_ms <= 0 or not made_ms:
                yield wire.forget(item_id)
            elif left_ms < made_ms or not is_whole:
                yield wire.truncate(item_id, min(left_ms, made_ms))
            left_ms -= made_ms
        self._made.clear()
