"""Who answers which call: one agent all of them, or one that is picked by the call's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from .agent import Agent

AgentPicker = Callable[[Mapping[str, str]], Agent]
"""A plain function from a call's parameters to who answers it.  The parameters: From, To, language,
and whatever the webhook's answer, or who ordered the call, has added."""


@runtime_checkable
class Agents(Protocol):
    """Whoever answers calls, whichever way they come: as a stream, or by recordings."""

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        """Return who answers a call with these parameters, ready to be asked."""


class OneAgent:
    """The same agent for every call."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __repr__(self) -> str:
        return f"<OneAgent {self._agent.persona.greeting!r:.40}>"

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        """Return the agent."""
        return self._agent


class PickedAgents:
    """An agent for each call, by a function of its parameters."""

    def __init__(self, pick: AgentPicker) -> None:
        self._pick = pick

    def __repr__(self) -> str:
        return f"<PickedAgents by {self._pick!r:.60}>"

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        """Return the agent that the function picks.

        Raises:
            TypeError: it picked something else.
        """
        return picked(self._pick, parameters)


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


def agents_of(who: object) -> Agents | None:
    """Return who answers calls; None if `who` is an async function that takes each call itself."""
    if isinstance(who, Agent):
        return OneAgent(who)
    if isinstance(who, Agents):
        return who
    if inspect.iscoroutinefunction(who) or inspect.iscoroutinefunction(type(who).__call__):
        return None
    return PickedAgents(who) if callable(who) else None
