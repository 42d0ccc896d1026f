"""A restaurant that takes an order over the telephone.

    python server.py --agent examples/pizza.py:agent

The model talks; what is ordered, and what it costs, is code: a tool's result is what the model
says, and nothing is ordered that is not on the menu.  Needs a model that uses tools
(VOICECORE_LLM=openai or anthropic); the embedded host only repeats what it hears.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated, Literal

import trio
from pydantic import Field

from voicecore import Agent, CallInfo, Persona

Pizza = Literal["margherita", "funghi", "diavola", "quattro formaggi"]
Size = Literal["small", "large"]

PRICES: dict[Pizza, dict[Size, float]] = {
    "margherita": {"small": 7.5, "large": 10.0},
    "funghi": {"small": 8.5, "large": 11.5},
    "diavola": {"small": 9.0, "large": 12.0},
    "quattro formaggi": {"small": 9.5, "large": 12.5},
}

ORDERS_KEPT = 1000
"""Calls whose order is not placed yet; those that were forgotten longest go first."""

KITCHEN_S = 1.5
"""What the kitchen's printer takes to accept an order."""

Order = dict[tuple[Pizza, Size], int]

orders: OrderedDict[str, Order] = OrderedDict()
"""By call: an agent is shared by all its calls, and keeps nothing of theirs itself."""

kitchen: list[tuple[str, str, Order]] = []
"""What was ordered, by which number, and to which name."""

agent = Agent(
    persona=Persona(
        prompt=(
            "You take orders for Pizzeria Bella on the telephone. Your words are spoken: answer in"
            " one or two short sentences, without lists or markup. Find out which pizzas, which"
            " size, and how many, and add each with add_pizza as soon as it is clear; take it off"
            " with remove_pizza when the caller changes their mind. When that is all, read the"
            " order back with its total, ask for a name, and only when the caller agrees call"
            " place_order. Then say when it is ready, say goodbye, and end the call. We have "
            + ", ".join(PRICES)
            + "; nothing else. If somebody asks for a human, say that nobody is free."
        ),
        greeting="Pizzeria Bella, what can I get you?",
        phrases=("Anything else?", "What name is it for?"),
    )
)


@agent.tool
async def add_pizza(
    call: CallInfo, pizza: Pizza, size: Size, count: Annotated[int, Field(ge=1, le=20)] = 1
) -> str:
    """Add pizzas to the caller's order.

    Args:
        pizza: Which one.
        size: How large.
        count: How many more of it.
    """
    order = _order_of(call)
    order[pizza, size] = min(20, order.get((pizza, size), 0) + count)
    return _read_back(order)


@agent.tool
async def remove_pizza(call: CallInfo, pizza: Pizza, size: Size) -> str:
    """Take all pizzas of one kind and size off the caller's order."""
    order = _order_of(call)
    if order.pop((pizza, size), None) is None:
        return f"There was no {size} {pizza} in it. {_read_back(order)}"
    return _read_back(order)


@agent.tool
async def read_order(call: CallInfo) -> str:
    """Return what the caller has ordered so far, and what it costs."""
    return _read_back(_order_of(call))


@agent.tool(on_barge_in="keep", deadline_s=8, filler="One moment, I am passing it to the kitchen.")
async def place_order(
    call: CallInfo, name: Annotated[str, Field(min_length=1, max_length=60)]
) -> str:
    """Send the order to the kitchen.  Only after the caller has heard it and agreed.

    An interruption does not stop it: pizzas that are being made should not be unmade by a cough.

    Args:
        name: Who will pick it up.
    """
    order = _order_of(call)
    if not order:
        raise LookupError("nothing is ordered yet")
    await trio.sleep(KITCHEN_S)
    del orders[call.sid]
    kitchen.append((call.parameters.get("From", ""), name, order))
    minutes = 15 + 5 * sum(order.values())
    return f"Ordered for {name}: {_read_back(order)} Ready in {minutes} minutes."


def _order_of(call: CallInfo) -> Order:
    order = orders.setdefault(call.sid, {})
    orders.move_to_end(call.sid)
    while len(orders) > ORDERS_KEPT:
        orders.popitem(last=False)
    return order


def _read_back(order: Order) -> str:
    if not order:
        return "The order is empty."
    total = sum(PRICES[pizza][size] * count for (pizza, size), count in order.items())
    parts = ", ".join(f"{count} {size} {pizza}" for (pizza, size), count in order.items())
    return f"{parts}: {total:.2f} euros."
