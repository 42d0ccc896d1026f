"""One use of a tool, from what the model wrote to the result that it will read.

Whatever happens there is a result: the function's own, or why there is none.
"""

from __future__ import annotations

from typing import Literal

import outcome
import trio

from ..contracts import Message, ToolCall
from ..errors import leaves
from .hands import Hands
from .timeline import CallLog
from .toolbox import AgentTool, as_text

GRACE_S = 1.5
"""How much longer a tool that is spared may take once its call is over."""

RUNNING = "It is still running. You will see the result here."
INTERRUPTED = "It was stopped, because the caller interrupted."

Ending = Literal["done", "failed", "timeout", "unknown"]


class ToolRun:
    """One tool call of a model, and what became of it."""

    def __init__(self, call: ToolCall, tool: AgentTool | None) -> None:
        self.call = call
        self.tool = tool
        self.result = ""
        self.done = trio.Event()
        self.is_spared = tool is not None and tool.on_barge_in == "keep"
        self.is_started = False
        self.wants_answer = True
        """Whether the model should say something about the result."""
        self.typed = ""
        """Keys that it has collected so far: they outlive the noise that cut it off."""

    def __repr__(self) -> str:
        return f"<ToolRun {self.call.name} {self.result[:40] or 'running'}>"

    def message(self) -> Message:
        """Return what a history says of it, now."""
        text = self.result or (RUNNING if self.is_spared and self.is_started else INTERRUPTED)
        if self.typed and not self.result:
            text = f"{text} They had typed {self.typed}."
        return Message("tool", text, tool_call_id=self.call.id)

    async def run(self, hands: Hands, log: CallLog) -> None:
        """Use the tool.  Raises nothing of the tool's making."""
        self.is_started = True
        log.milestone("tool called", name=self.call.name, text=self.call.arguments)
        began = trio.current_time()
        ending = await self._spared(hands) if self.is_spared else await self._use(hands)
        if hands.gather is not None and hands.gather.call_id == self.call.id:
            return  # its result comes from the carrier
        seconds = round(trio.current_time() - began, 3)
        log.milestone(
            "tool done", name=self.call.name, outcome=ending, seconds=seconds, text=self.result
        )
        self.done.set()

    async def run_spared(self, hands: Hands, log: CallLog) -> None:
        """Do the same beside the turn, and tell the history when it is done."""
        await self.run(hands, log)
        hands.desk.tool_done(self.call.id, self.result)

    async def _spared(self, hands: Hands) -> Ending:
        """Use the tool whatever becomes of its call, for a moment."""
        ending: Ending = "failed"
        async with trio.open_nursery() as nursery:
            with trio.CancelScope(shield=True) as shield:
                nursery.start_soon(_grant_grace, shield, name="grace")
                ending = await self._use(hands)
            if shield.cancelled_caught:
                self.result = "The call was over before it was done."
            nursery.cancel_scope.cancel()
        return ending

    async def _use(self, hands: Hands) -> Ending:
        if self.tool is None:
            self.result = f"There is no tool named {self.call.name!r}."
            return "unknown"
        with trio.move_on_after(self.tool.deadline_s):
            # What a stranger's function raises, whatever it is, is its result.
            used = await outcome.acapture(
                self.tool.use, self.call.arguments, (hands.desk.info(), hands, self)
            )
            if isinstance(used, outcome.Error):
                self.result = as_text(_failure(used.error))
                return "failed"
            self.result = used.value
            return "done"
        self.result = f"It took longer than {self.tool.deadline_s:g} s and was stopped."
        return "timeout"


async def _grant_grace(shield: trio.CancelScope) -> None:
    try:
        await trio.sleep_forever()
    finally:
        shield.deadline = min(shield.deadline, trio.current_time() + GRACE_S)


def _failure(error: BaseException) -> str:
    """Put what a tool has raised into a line for a model: what it says, else what it is.

    Raises:
        BaseException: `error`, if it is not the tool's own, such as a cancellation.
    """
    raised = leaves(error) if isinstance(error, BaseExceptionGroup) else (error,)
    said = []
    for each in raised:
        # Code that is made for programs of its own exits: that ends the tool, and no call.
        if not isinstance(each, (Exception, SystemExit)):
            raise error
        words = "" if isinstance(each, SystemExit) else " ".join(str(each).split())
        said.append(words or type(each).__name__)
    return f"It failed: {'; '.join(said)}"
