"""Who answers which call: one agent all of them, or one that is picked by the call's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Protocol

from .agent import Agent

CHOICE_S = 2.0
"""How long it may take to find out who answers, while a carrier waits for a document."""

AgentPicker = Callable[[Mapping[str, str]], Agent]
"""A plain function from a call's parameters to who answers it.  The parameters: From, To, language,
and whatever the webhook's answer, or who ordered the call, has added."""


class Agents(Protocol):
    """Whoever answers calls, whichever way they come: as a stream, or by recordings."""

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        """Return who answers a call with these parameters, ready to be asked."""


def picker_of(who: object) -> AgentPicker | None:
    """Return who answers calls; None if `who` is an async function that takes each call itself."""
    if isinstance(who, Agent):
        return lambda parameters: who
    if inspect.iscoroutinefunction(who) or inspect.iscoroutinefunction(type(who).__call__):
        return None
    return who if callable(who) else None


def picked(pick: AgentPicker, parameters: Mapping[str, str]) -> Agent:
    """Ask a picker, and make sure of its answer.

    Raises:
        TypeError: it is no Agent.
    """
    agent: object = pick(parameters)
    if not isinstance(agent, Agent):
        name = getattr(pick, "__name__", repr(pick))
        raise TypeError(f"{name}() returned {agent!r:.60}, which is no Agent")
    return agent


def unknown_call(language: str) -> dict[str, str]:
    """Return the parameters of a call of which nothing is known: whom a picker is tried with."""
    return {"From": "", "To": "", "language": language}
