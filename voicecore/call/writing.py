"""The model's half of a reply: it is asked, writes, has tools used, and is asked again.

A model is only ever asked for what it has not written yet; so a reply that was cut off can go on.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import trio

from ..contracts import Delta, Message, Tool, ToolCall, Usage
from ..dialogue.sentences import Clause
from ..errors import ProviderError
from .agent import Agent
from .hands import Hands
from .rounds import Rounds
from .timeline import TurnTimeline
from .tool_use import ToolUse
from .tools import END_CALL
from .voice import Voice

FIRST_S = 5.5
"""How long an LLM or a recogniser may take for its first word: a provider's own deadline is shorter
and says more; this one also holds for those that have none."""

IDLE_S = 5.0
"""How long a stream may pause once it has begun."""

PassOn = Callable[[Sequence[Clause]], Awaitable[None]]


class Writing:
    """What a model makes of one reply."""

    def __init__(self, agent: Agent, hands: Hands, voice: Voice) -> None:
        self.rounds = Rounds(voice.speech.is_live)
        self.messages: Sequence[Message] = ()
        """What is replied to."""
        self.is_complete = False
        """Whether there is no more to be written."""
        self.has_broken_off = False
        """Whether the model failed after it had begun to write."""
        self.tokens = 0
        """Deltas so far."""
        self.may_act: trio.Event | None = None
        """What tools wait for: a speculation that is lost must have done nothing."""
        self._agent = agent
        self._tools = ToolUse(agent, hands, voice)
        self._hands = hands
        self._voice = voice

    def __repr__(self) -> str:
        return f"<Writing {self.rounds!r}>"

    @property
    def _timeline(self) -> TurnTimeline:
        return self._voice.timeline

    def begin_again(self) -> None:
        """Forget what was written."""
        self.has_broken_off = False
        self.rounds = Rounds(self._voice.speech.is_live)
        self._hands.reset()

    async def run(self, pass_on: PassOn, nursery: trio.Nursery) -> None:
        """Have everything written; what is said meanwhile runs in `nursery`.

        Raises:
            ProviderError: the model failed.
        """
        while not self.is_complete:
            if not self.rounds.runs:
                await self._write(pass_on)
            if not self.rounds.runs:
                self.is_complete = True
            elif await self._use_tools(nursery):
                self.is_complete = True
                is_silent = self._timeline.first_clause is None
                if is_silent and self._hands.transfer is not None:
                    # Nobody is given away without a word.
                    await pass_on([self._clause(self._agent.persona.stock_words.connecting)])

    async def _write(self, pass_on: PassOn) -> None:
        """Have one round written."""
        if self.rounds.text:
            await pass_on(self._take(" "))
        try:
            await self._listen(pass_on)
        except ProviderError:
            self.has_broken_off = bool(self.rounds.text)
            raise
        await pass_on(self.rounds.flush())
        if self._timeline.first_clause is not None:
            return
        if self._hands.ends_call:
            # Models often call the tool and say nothing: nobody is hung up on without a word.
            await pass_on([self._clause(self._agent.persona.stock_words.goodbye)])
        elif not self.rounds.runs and not (self.rounds.step and self.rounds.may_use_tools):
            # After a tool's result there may be nothing left to say; else there must be, and from a
            # model that would go on with tools for ever, too.
            raise ProviderError("llm", "garbage", "no words")

    async def _listen(self, pass_on: PassOn) -> None:
        with trio.CancelScope(deadline=trio.current_time() + FIRST_S) as patience:
            async with self._agent.llm.reply(self._prompt(), self._offered()) as deltas:
                async for delta in deltas:
                    patience.deadline = math.inf
                    await pass_on(self._take(delta))
                    patience.deadline = trio.current_time() + IDLE_S
        if patience.cancelled_caught:
            raise ProviderError("llm", "timeout", "no word in time")

    def _prompt(self) -> tuple[Message, ...]:
        system = Message("system", self._agent.persona.prompt)
        return (system, *self.messages, *self.rounds.prompt())

    def _offered(self) -> tuple[Tool, ...]:
        return self._tools.offered if self.rounds.may_use_tools else ()

    def _take(self, delta: Delta) -> list[Clause]:
        timeline = self._timeline
        if isinstance(delta, Usage):
            timeline.usage = delta if timeline.usage is None else timeline.usage + delta
            return []
        self.tokens += 1
        if timeline.first_token is None:
            timeline.first_token = trio.current_time()
            timeline.milestone("reply started", **_only(timeline.breakdown(), "llm"))
        if not isinstance(delta, ToolCall):
            return self.rounds.write(_speakable(delta))
        if delta.name == END_CALL.name:
            self._hands.ends_call = True
        elif self.rounds.may_use_tools:
            self.rounds.want(self._tools.run_of(delta))
        return []

    async def _use_tools(self, nursery: trio.Nursery) -> bool:
        """Use the tools of this round, once that is certain; something is said meanwhile.

        Return whether nothing is left to be written then.
        """
        if self.may_act is not None:
            await self.may_act.wait()
        is_last = await self._tools.use(self.rounds.runs, nursery)
        self.rounds.advance()
        return is_last

    def _clause(self, text: str) -> Clause:
        return Clause(text, True, self.rounds.step)


def _speakable(text: str) -> str:
    """Take out what cannot be spoken: control characters, and the marks of markup."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text if c not in "*`")


def _only(breakdown: dict[str, float], stage: str) -> dict[str, float]:
    return {stage: breakdown[stage]} if stage in breakdown else {}
