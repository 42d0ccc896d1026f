"""Agents as they are written, made whole: with providers that are open, and the settings' rules.

What an agent leaves at its default is as the settings say: providers, voice, greeting, when a turn
ends, how long a call may last.  Providers are opened once for all agents that want the same ones,
and stay open as long as the server does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from typing import Any, TypeVar

import trio

from ..audio.vad import GatedVad
from ..call.agent import Agent, CallLimits, Persona, agent_from
from ..call.agents import AgentPicker, picked, unknown_call
from ..call.from_settings import FromSettings
from ..call.phrases import default_greeting
from ..dialogue.turns import TurnRules
from ..errors import SettingsError
from ..providers.cache import SpeechCache, open_cache
from ..providers.table import Providers, Totals, open_providers, totals
from ..settings import Settings
from .port.boundary import contain

AGENTS_KEPT = 64
"""Agents whose phrases are prepared; a function that makes a new one for each call has more."""

MOST_SETS = 32
"""Providers stay open, so they are bounded: a function may want others for each call's parameters,
which are a stranger's."""

STAGES = ("stt", "llm", "tts")

Value = TypeVar("Value")


class OpenAgents:
    """The agents of one server.  Made by `open_agents`."""

    def __init__(
        self, pick: AgentPicker, settings: Settings, nursery: trio.Nursery, cache: SpeechCache
    ) -> None:
        self._pick = pick
        self._settings = settings
        self._nursery = nursery
        self._cache = cache
        self._providers: dict[tuple[tuple[str, str], ...], Providers] = {}
        self._opening = trio.Lock()
        self._whole: OrderedDict[int, tuple[Agent, Agent]] = OrderedDict()
        """Agents as written and made whole, by identity; those that were used last."""

    def __repr__(self) -> str:
        return f"<OpenAgents {len(self._whole)} agents, {len(self._providers)} sets of providers>"

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        """Return who answers a call with these parameters.

        Raises:
            TypeError: the operator's function picked something that is no agent.
            SettingsError: its providers cannot be opened.
        """
        written = picked(self._pick, parameters)
        if id(written) not in self._whole:
            whole = await self._completed(written)
            self._whole[id(written)] = (written, whole)
            # Behind the open port: until it is done, a call renders what it needs itself.
            self._nursery.start_soon(contain, "phrases", whole.prepare, name="prepare")
            while len(self._whole) > AGENTS_KEPT:
                self._whole.popitem(last=False)
        self._whole.move_to_end(id(written))
        return self._whole[id(written)][1]

    async def warm_up(self) -> None:
        """Make ready for a call that will begin in a moment.  Never raises for providers."""
        _, whole = next(reversed(self._whole.values()))  # who answered last
        await whole.warm_up()

    def totals(self) -> Totals:
        """Return what the providers have counted, for the metrics."""
        return totals(self._cache, self._providers.values())

    async def _completed(self, written: Agent) -> Agent:
        if not needs_opening(written):
            own = (written.stt, written.llm, written.tts, written.model)
            return completed(written, agent_from(self._settings, *own))
        own_settings = wanted(written)
        key = tuple(sorted(own_settings.items()))
        async with self._opening:
            if key not in self._providers:
                if len(self._providers) >= MOST_SETS:
                    told = "; ".join(f"{name}={value!r:.40}" for name, value in key)
                    raise SettingsError(f"more than {MOST_SETS} sets of providers: {told}")
                settings = self._settings.model_copy(update=own_settings)
                self._providers[key] = await self._nursery.start(self._hold, settings)
        open_ = self._providers[key]
        return completed(
            written, agent_from(self._settings, open_.stt, open_.llm, open_.tts, open_.model)
        )

    async def _hold(self, settings: Settings, *, task_status: trio.TaskStatus[Providers]) -> None:
        """Keep providers open until the server is gone."""
        async with open_providers(settings, self._cache) as providers:
            task_status.started(providers)
            await trio.sleep_forever()


@asynccontextmanager
async def open_agents(pick: AgentPicker, settings: Settings) -> AsyncIterator[OpenAgents]:
    """Open the agent of a call of which nothing is known, and others when they are picked.

    As it holds a nursery, what is raised inside comes out in an exception group.

    Raises:
        SettingsError: VOICECORE_CACHE_DIR cannot be used.
        ExceptionGroup[SettingsError]: its providers cannot be opened.
    """
    async with open_cache(settings) as cache, trio.open_nursery() as nursery:
        agents = OpenAgents(pick, settings, nursery, cache)
        await agents.agent_for(unknown_call(settings.language))
        yield agents
        nursery.cancel_scope.cancel()


def completed(written: Agent, base: Agent) -> Agent:
    """Return an agent that has of `base` what it does not say itself."""
    language = written.persona.language
    persona = _filled(written.persona, base.persona, Persona())
    if language != Persona().language and written.persona.greeting == Persona().greeting:
        persona = replace(persona, greeting=default_greeting(language))
    given = {stage: getattr(written, stage) for stage in STAGES}
    return replace(
        written,
        **{s: getattr(base, s) for s, own in given.items() if isinstance(own, FromSettings)},
        model=written.model or base.model,
        persona=persona,
        rules=_filled(written.rules, base.rules, TurnRules()),
        limits=_filled(written.limits, base.limits, CallLimits()),
        vad=base.vad if written.vad is GatedVad else written.vad,
        transfers=written.transfers or base.transfers,
    )


def _filled(own: Value, base: Value, default: Value) -> Value:
    """Return a dataclass's value with `base`'s fields where its own are the defaults."""
    names = [field.name for field in fields(own)]  # type: ignore[arg-type]
    left = [name for name in names if getattr(own, name) == getattr(default, name)]
    filled: Any = replace(own, **{name: getattr(base, name) for name in left})  # type: ignore[type-var]
    return filled  # type: ignore[no-any-return]


def needs_opening(agent: Agent) -> bool:
    """Return whether any of an agent's providers is one that the server must open."""
    return any(isinstance(getattr(agent, stage), FromSettings) for stage in STAGES)


def wanted(agent: Agent) -> dict[str, str]:
    """Return the settings that an agent brings itself, where they decide what is opened for it."""
    own: dict[str, str] = {}
    for stage in STAGES:
        named = getattr(agent, stage)
        if isinstance(named, FromSettings) and named.names:
            own |= {stage: named.names, f"{stage}_model": named.models}
    if agent.persona.language != Persona().language:
        own["language"] = agent.persona.language
    if agent.persona.voice:
        own["tts_voice"] = agent.persona.voice
    return own
