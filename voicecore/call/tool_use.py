"""The tools that one reply asks for, used; and what the caller hears meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ..contracts import Tool, ToolCall
from .agent import Agent
from .bridge import Bridge
from .hands import Hands
from .tool_run import ToolRun
from .tools import offered, tools_of
from .voice import Voice


class ToolUse:
    """Where one reply's tools are used."""

    def __init__(self, agent: Agent, hands: Hands, voice: Voice) -> None:
        self._tools = tools_of(agent)
        self._stock_fillers = agent.persona.stock_words.fillers
        self._hands = hands
        self._voice = voice

    def __repr__(self) -> str:
        return f"<ToolUse of {len(self._tools)} tools>"

    @property
    def offered(self) -> tuple[Tool, ...]:
        """What a model is told of the tools."""
        return offered(self._tools)

    def run_of(self, call: ToolCall) -> ToolRun:
        """Return what becomes of a model's call: there may be no such tool."""
        return ToolRun(call, self._tools.get(call.name))

    async def use(self, runs: Sequence[ToolRun], nursery: trio.Nursery) -> bool:
        """Use tools until there are results; something is said meanwhile, in `nursery`.

        Runs that have a result are left alone: a reply that was cut goes on.  Return whether the
        model has nothing left to say then.
        """
        log = self._voice.timeline.log
        fillers = self._fillers(runs) if self._hands.desk.line is not None else ()
        bridge = Bridge(self._voice, fillers, self._hands.seconds_left)
        if fillers:
            nursery.start_soon(bridge.run, log, name="bridge")
        if self._hands.is_all_spoken:
            self._voice.speech.pause()
        try:
            await self._run_all(runs)
        finally:
            bridge.end()
        return self._hands.is_last and not any(run.wants_answer for run in runs)

    async def _run_all(self, runs: Sequence[ToolRun]) -> None:
        log, desk = self._voice.timeline.log, self._hands.desk
        async with trio.open_nursery() as nursery:
            for run in runs:
                if not run.is_spared and not run.done.is_set():
                    nursery.start_soon(run.run, self._hands, log, name=run.call.name)
                elif run.is_spared and not run.is_started:
                    run.is_started = True
                    desk.spare.start_soon(run.run_spared, self._hands, log, name=run.call.name)
            for run in runs:
                if run.is_spared:
                    await run.done.wait()

    def _fillers(self, runs: Sequence[ToolRun]) -> tuple[str, ...]:
        fillers = [run.tool.filler for run in runs if run.tool is not None]
        if all(filler is None for filler in fillers):
            return ()
        return tuple(filter(None, fillers)) or self._stock_fillers
