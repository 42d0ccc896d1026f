"""A conversation made fit for chat APIs, without I/O: what all of them refuse is put right here.

An API answers a history that it thinks impossible with a 400, and the history is sent again with
every turn: one tool call without its answer would silence the agent for the rest of the call.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..contracts import Message

NO_ANSWER = "There is no result: the call was cut short."


def answered(messages: Iterable[Message]) -> list[Message]:
    """Return `messages` with every tool call's answer right behind it, in the order of the calls.

    A call that was never answered gets `NO_ANSWER`; an answer whose call is forgotten is dropped.
    """
    fit: list[Message] = []
    open_calls: dict[str | None, int] = {}
    """Where the answer of a call belongs."""
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id in open_calls:
                fit[open_calls.pop(message.tool_call_id)] = message
            continue
        fit.append(message)
        for call in message.tool_calls:
            open_calls[call.id] = len(fit)
            fit.append(Message("tool", NO_ANSWER, tool_call_id=call.id))
    return fit


def spoken(message: Message) -> str:
    """Return what was heard of a message; one that was interrupted ends in an ellipsis."""
    return f"{message.text}…" if message.interrupted else message.text


def aside(text: str) -> str:
    """Return an instruction as it can stand among a caller's words, where none other is allowed."""
    return f"[Not said by the caller, but an instruction to you: {text}]"
