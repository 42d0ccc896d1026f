"""The tools that every agent has.

`end_call`, and `transfer_call` without a briefing, take effect when the words that came with them
have been *heard*: a reply that is interrupted neither hangs up nor gives the caller away.  With a
briefing somebody is called at once, and the conversation goes on until they take the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal

from pydantic import Field

from ..contracts import Tool
from .agent import Agent
from .hands import Gather, Hands
from .tool_run import ToolRun
from .toolbox import AgentTool, tool_of
from .transfer import Transfer

ASKED = (
    "They are being called. The caller stays with you meanwhile, and is connected when they take"
    " the call; if nobody does, the caller is told. Say that it may take a moment."
)
NOT_ASKED = "They cannot be called now. The caller is still with you."

COLLECT_S = 120.0
KEYS_TIMEOUT_S = 5.0

OURS = (Hands, ToolRun)
"""What these tools are given that a model does not write."""


async def press_digits(
    hands: Hands, digits: Annotated[str, Field(min_length=1, max_length=32)]
) -> str:
    """Press keys of the telephone, so that the other side hears their tones.

    For the menu of another machine. Do not use it to tell the caller a number.

    Args:
        digits: Any of 0123456789*#, and w for half a second of waiting.
    """
    await hands.press(digits)
    return f"Pressed {digits}."


async def collect_digits(
    hands: Hands,
    run: ToolRun,
    count: Annotated[int, Field(ge=1, le=32)] | None = None,
    terminator: Literal["#", "*", ""] = "#",
    timeout_s: Annotated[float, Field(ge=1, le=30)] = KEYS_TIMEOUT_S,
) -> str:
    """Let the caller type digits on the telephone's keypad, and return them.

    Ask for them in the same reply. The caller may type while you speak.

    Args:
        count: How many there are, if that is known.
        terminator: The key that ends them.
        timeout_s: How long to wait for the first key after your words, and for each key after it.
    """
    if hands.desk.line is None:
        hands.gather = Gather(run.call.id, count, terminator, timeout_s)
        run.wants_answer = False
        return ""
    keypad, key = hands.desk.line.keypad, None
    with keypad.collected():
        # After a noise the words are not said again to somebody who has begun to type.
        while key is None and not run.typed and (left := hands.seconds_left()):
            key = await keypad.next_key(left)
        if key is None:
            key = await keypad.next_key(timeout_s)
        if key is not None:
            hands.hush()
        while key not in (None, terminator):
            run.typed += key or ""
            if len(run.typed) == count:
                break
            key = await keypad.next_key(timeout_s)
    return typed_text(run.typed, is_ended=key is not None)


def typed_text(digits: str, *, is_ended: bool) -> str:
    """Return what a model is told of keys that were collected."""
    if not digits:
        return "The caller typed nothing."
    return f"The caller typed {digits}{'' if is_ended else ', then stopped'}."


END_CALL = Tool(
    "end_call",
    "End the phone call.\nSay goodbye in the same reply: the call ends when the caller has heard"
    " it. Use it only when the caller wants to finish.",
    {"type": "object", "properties": {}, "additionalProperties": False},
)
"""Nothing runs for it: a reply notes that it was asked for, and its end is the call's."""

_ALWAYS = tuple(
    tool_of(function, deadline_s=deadline_s, filler=None, ours=OURS)
    for function, deadline_s in ((press_digits, 30.0), (collect_digits, COLLECT_S))
)


def tools_of(agent: Agent) -> dict[str, AgentTool]:
    """Return what runs for an agent, by name: its own tools, behind those that every agent has."""
    transfer = (_transfer_call(tuple(agent.transfers.items())),) if agent.transfers else ()
    return {tool.schema.name: tool for tool in (*_ALWAYS, *transfer, *agent.tools)}


def offered(tools: Mapping[str, AgentTool]) -> tuple[Tool, ...]:
    """Return what a model is told of tools, each name once: vendors refuse a second."""
    return tuple({END_CALL.name: END_CALL, **{n: t.schema for n, t in tools.items()}}.values())


@cache
def _transfer_call(transfers: tuple[tuple[str, str], ...]) -> AgentTool:
    numbers = dict(transfers)

    async def transfer_call(hands: Hands, run: ToolRun, to: str, briefing: str = "") -> str:
        """Give the caller to somebody else.

        Say so in the same reply: the call goes on with them when the caller has heard it.

        Args:
            to: To whom.
            briefing: What they should be told before they take the call, or do not; the caller
                stays here until then. Empty: they just hear the caller.
        """
        number, operator = numbers[to], hands.desk.operator()
        if briefing and operator is not None:
            is_asked = operator.ask(hands.desk.info().sid, number, briefing)
            return ASKED if is_asked else NOT_ASKED
        hands.transfer, run.wants_answer = Transfer(number), False
        return "The caller is connected when they have heard you."

    transfer_call.__annotations__["to"] = Literal[tuple(numbers)]
    return tool_of(transfer_call, filler=None, ours=OURS)
