"""What a model is told of a function, and what comes of what it writes."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from voicecore.call.toolbox import RESULT_CHARACTERS, AgentTool, CallInfo, Toolbox, tool_of

INFO = CallInfo("CA1", {"From": "+15550001111"})


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Address(BaseModel):
    street: str
    number: int


async def order(
    info: CallInfo,
    size: Literal["small", "large"],
    toppings: list[str],
    count: Annotated[int, Field(ge=1, le=20)] = 1,
    title: str | None = None,
) -> str:
    """Order pizzas.

    Only what is on the menu.

    Args:
        size: How large
            they are.
        count: How many.
    """
    return f"{info.parameters['From']}: {count} {size} {'+'.join(toppings)} for {title}"


def test_the_schema_is_made_of_hints_and_docstring() -> None:
    tool = tool_of(order)
    assert tool.schema.name == "order"
    assert tool.schema.description == "Order pizzas.\nOnly what is on the menu."
    assert tool.schema.parameters == {
        "type": "object",
        "properties": {
            "size": {
                "type": "string",
                "enum": ["small", "large"],
                "description": "How large they are.",
            },
            "toppings": {"type": "array", "items": {"type": "string"}},
            "count": {
                "type": "integer",
                "minimum": 1,
                "maximum": 20,
                "default": 1,
                "description": "How many.",
            },
            "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        },
        "required": ["size", "toppings"],
        "additionalProperties": False,
    }


async def test_it_is_called_with_what_the_model_wrote() -> None:
    written = '{"size": "large", "toppings": ["ham"], "count": "2", "title": "Ada"}'
    assert await tool_of(order).use(written, [INFO]) == "+15550001111: 2 large ham for Ada"


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("", "size: Field required; toppings: Field required"),
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ('{"size": "huge", "toppings": []}', "size: Input should be 'small' or 'large'"),
        ('{"size": "large", "toppings": ["x"], "count": 99}', "count: Input should be less than"),
        ('{"size": "large", "toppings": [], "cheese": 1}', "cheese: Extra inputs"),
        ('{"size": "large", "toppings": [], "info": {}}', "info: Extra inputs"),
    ],
)
async def test_what_does_not_fit_is_said_in_words(written: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        await tool_of(order).use(written, [INFO])
    assert "\n" not in str(caught.value)


JUNK = st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)


@given(st.text(max_size=50) | JUNK)
async def test_nothing_that_a_model_writes_does_harm(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        await tool_of(order).use(written, [INFO])


@dataclass
class Table:
    seats: int


@pytest.mark.parametrize(
    ("result", "read"),
    [
        (None, "done"),
        ("booked", "booked"),
        (3.5, "3.5"),
        ({"seats": [1, 2]}, '{"seats":[1,2]}'),
        (Table(4), '{"seats":4}'),
        (Size.SMALL, '"small"'),
        (Address(street="Hauptstr.", number=3), '{"street":"Hauptstr.","number":3}'),
        ("x" * 9999, "x" * RESULT_CHARACTERS),
        ("a\udce4b", "a?b"),
        ("", "(empty)"),
        (b"", '""'),
    ],
)
async def test_results_are_text(result: object, read: str) -> None:
    async def look() -> object:
        return result

    assert await tool_of(look).use("{}", [INFO]) == read


async def test_types_of_ones_own() -> None:
    async def deliver(to: Address, size: Size) -> str:
        assert isinstance(to, Address)
        return f"{to.street} {to.number} {size.name}"

    tool = tool_of(deliver)
    assert tool.schema.description == "deliver"
    written = '{"to": {"street": "Elm", "number": 4}, "size": "small"}'
    assert await tool.use(written, [INFO]) == "Elm 4 SMALL"


def not_async(count: int) -> None: ...
async def untyped(count) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
async def starred(*count: int) -> None: ...
async def strange(count: Callable[[], Any]) -> None: ...


@pytest.mark.parametrize("function", [not_async, untyped, starred, strange, lambda: None, 3])
def test_what_cannot_be_a_tool_is_refused_where_it_is_made(function: Any) -> None:
    with pytest.raises(TypeError, match=r"[a-z]"):
        tool_of(function)


def test_a_decorator_with_and_without_manners() -> None:
    box = Toolbox()

    @box.tool
    async def one() -> None: ...

    @box.tool(on_barge_in="keep", deadline_s=3, filler="One moment.")
    async def two() -> None: ...

    assert callable(one)
    assert [tool.schema.name for tool in box] == ["one", "two"]
    kept = box.get("two")
    assert isinstance(kept, AgentTool)
    assert (kept.on_barge_in, kept.deadline_s, kept.filler) == ("keep", 3, "One moment.")
    assert box.get("three") is None
    with pytest.raises(ValueError, match="two tools named 'one'"):
        box.tool(one)
    with pytest.raises(TypeError, match="on_barge_in"):
        tool_of(two, on_barge_in="shield")  # type: ignore[arg-type]
