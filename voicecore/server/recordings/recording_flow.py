"""The recording flow: a conversation by `<Record>` and `<Play>`, from webhook to webhook.

Slower than a stream by seconds, and made of nothing but requests: it answers when every place for a
stream is taken, when a stream breaks, and where streams are not wanted.  The agent, its tools, the
history and the rules of a conversation are the same.

Rules that hold here:

* A webhook is answered within ten seconds, whatever providers do: a turn that takes longer goes on
  meanwhile (`recorded_turns`), and the caller hears that somebody is there.
* A call's state is in the store: any worker can answer its next webhook.
* Nothing goes on for ever: silences, failures, webhooks and minutes are counted (`flow_steps`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

import trio

from ...audio import SAMPLE_RATE
from ...call.agent import Agent
from ...call.agents import CHOICE_S, Agents
from ...call.hands import Gather
from ...call.keypad import as_words
from ...call.recorded import Dial, HangUp, Record, RecordedAnswer, Recording, answer_recording
from ...call.tools import typed_text
from ...call.transfer import Transfer
from ...dialogue.history import History
from ...errors import ProviderError
from ...twilio import twiml
from ...twilio.twiml import RECORD_S, RECORD_SILENCE_S, Prompt
from ..call_state import CallState
from ..port.boundary import attempted, contain
from ..words import BROKEN, BUSY
from . import flow_steps
from .flow_calls import SWEEP_S, FlowCalls, Visit
from .flow_steps import Step
from .prompts import Prompts
from .recorded_turns import TURN_S, RecordedTurns

HOLD_S = 4.0
"""How long a webhook waits for its answer; then a filler is played, and we are asked again."""

HOLDS = 20
"""How often: for longer than the longest turn takes."""

GATHER_S = 120.0
"""How long a caller may type: 32 keys, each as late as may be."""

Fetch = Callable[[str, str], Awaitable[bytes]]
"""Returns a recording as mu-law, by its account's SID and its own; raises ProviderError."""

Choose = Callable[[CallState, Agent], Step]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the caller has said or typed, or that it was nothing.  `key` names the turn."""

    key: str
    account_sid: str = ""
    sid: str = ""
    """The recording's; empty, if there is none."""
    digits: str | None = None
    """What was typed, if that was asked for."""


class RecordingFlow:
    """The recording flow of one worker."""

    def __init__(
        self, agents: Agents, calls: FlowCalls, turns: RecordedTurns, fetch: Fetch
    ) -> None:
        self.calls, self.turns = calls, turns
        self._agents = agents
        self._fetch = fetch
        self._prompts = Prompts(calls.states.store)

    def __repr__(self) -> str:
        return f"<RecordingFlow {self.calls!r} {self.turns!r}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the turns, and notice callers who went without a word, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self.calls.records.write_in(self._nursery)
            task_status.started()
            while True:
                await trio.sleep(SWEEP_S)
                await contain("sweep", self._sweep)

    async def _sweep(self) -> None:
        for call_sid in await self.calls.sweep(self.turns.is_over):
            await self.end(call_sid)

    async def begin(self, visit: Visit) -> bytes:
        """A call comes in, or comes back: greet the caller, or go on; and listen."""
        return await self._speak(visit, flow_steps.greeting)

    async def go_on(self, visit: Visit) -> bytes:
        """The call's stream has failed, and what was said in it is forgotten."""
        return await self._speak(visit, flow_steps.after_stream)

    async def go_on_unanswered(self, visit: Visit) -> bytes:
        """Whoever the call was given to has not answered."""
        return await self._speak(visit, flow_steps.after_dial)

    async def answer(self, visit: Visit, recorded: Recorded) -> bytes:
        """The caller has said something: answer it, once, however often it is told."""
        if not self.turns.is_over(visit.call_sid) and self.turns.claim(recorded.key):
            make = partial(self._make, visit, recorded, trio.current_time())
            fail = partial(self._speak, visit, flow_steps.after_failure)
            self.turns.start(self._nursery, visit.call_sid, recorded.key, make, fail)
        return await self._await(visit, recorded.key, 0)

    async def wait(self, visit: Visit, key: str, held: int) -> bytes:
        """The answer was not there when the carrier asked last: perhaps it is now."""
        if self.turns.claim(key):  # nobody has ever begun it, or everybody has forgotten it
            return await self._speak(visit, flow_steps.after_failure)
        return await self._await(visit, key, held)

    async def end(self, call_sid: str) -> None:
        """The caller has gone, as the carrier tells: nothing of the call goes on."""
        self.turns.note_ending(call_sid, "caller")
        self.turns.drop(call_sid)
        with self.calls.records.closing(call_sid):
            await self.calls.close(call_sid, "caller")

    async def _agent_for(self, parameters: Mapping[str, str]) -> Agent | None:
        """Return who answers; None if that cannot be found out."""
        with trio.move_on_after(CHOICE_S):
            choose = partial(self._agents.agent_for, parameters)
            return await attempted("choice of an agent", choose)
        return None

    async def _speak(self, visit: Visit, choose: Choose) -> bytes:
        """Say something of our own accord; an answer that is still being made comes too late."""
        if self.turns.is_over(visit.call_sid):
            return twiml.hang_up()
        with self.calls.records.closing(visit.call_sid):
            state = await self.calls.admit(visit)
            if state is None:
                return twiml.hang_up(BUSY)
            agent = await self._agent_for(state.parameters)
            if agent is None:
                return await self._break_off(visit)
            state.turn = ""
            self._nursery.start_soon(self._prompts.prepare, agent, name="phrases")
            step = flow_steps.at_limit(state, agent, self.calls.states.clock())
            return await self._document(visit, state, agent, step or choose(state, agent))

    async def _break_off(self, visit: Visit) -> bytes:
        await self.calls.close(visit.call_sid, "server")
        self.turns.note_ending(visit.call_sid, "server")
        return twiml.hang_up(BROKEN)

    async def _make(self, visit: Visit, recorded: Recorded, arrived: float) -> bytes:
        """Answer a recording; empty if meanwhile nobody wants to know."""
        with self.calls.records.closing(visit.call_sid):
            state = await self.calls.admit(visit)
            if state is None:
                return twiml.hang_up(BUSY)
            agent = await self._agent_for(state.parameters)
            if agent is None:
                return await self._break_off(visit)
            step = flow_steps.at_limit(state, agent, self.calls.states.clock())
            if step is None:
                state.turn = recorded.key
                await self.calls.save(visit.call_sid, state, TURN_S)
                answer = await self._heard(visit, state, agent, recorded, arrived)
                newest = await self.calls.states.load(visit.call_sid) or state
                if self.turns.is_over(visit.call_sid) or newest.turn != recorded.key:
                    return b""
                step = flow_steps.after_answer(state, agent, answer)
            return await self._document(visit, state, agent, step)

    async def _heard(
        self, visit: Visit, state: CallState, agent: Agent, recorded: Recorded, arrived: float
    ) -> RecordedAnswer:
        """Let the agent hear and answer a recording, or what was typed."""
        history, words = History(state.messages), None
        if recorded.digits is not None:
            words = _typed(history, state, recorded.digits)
        if not recorded.sid and words is None:
            return RecordedAnswer()
        self._nursery.start_soon(self._warm_up, agent, name="warm-up")
        log, name = self.calls.log(visit.call_sid, state), f"t{state.webhooks}"
        utterance = b""
        try:
            if words is None:
                utterance = await self._fetch(recorded.account_sid, recorded.sid)
        except ProviderError as error:
            found = {"provider": error.provider, "fault": error.fault, "why": str(error)}
            log.warning("provider failed", turn=name, **found)
            return RecordedAnswer(has_failed=True)
        seconds = len(utterance) / SAMPLE_RATE
        self.turns.allow(visit.call_sid, seconds)
        await self.calls.save(visit.call_sid, state, TURN_S + seconds)
        silent_for = trio.current_time() - arrived + RECORD_SILENCE_S
        self.calls.records.heard(visit.call_sid, utterance, silent_for)
        recording = Recording(name, utterance, arrived, trio.current_time(), words)
        answer = await answer_recording(agent, history, log, recording, state.parameters)
        state.messages = history.messages
        return answer

    async def _warm_up(self, agent: Agent) -> None:
        """Let the providers connect while the recording is on its way."""
        await contain("warm-up", agent.warm_up)

    async def _document(self, visit: Visit, state: CallState, agent: Agent, step: Step) -> bytes:
        """Write a step as TwiML, and the call's state down."""
        if not step.audio and step.text:
            self._remember(visit, state, step.text)
        prompt = await self._prompts.prompt(agent, visit.base, step.text, step.audio)
        said = step.audio or agent.phrases.audio(step.text) or b""
        self.calls.records.said(visit.call_sid, said)
        match step.next:
            case HangUp(ended_by):
                await self.calls.close(visit.call_sid, ended_by, prompt.seconds, state.turns)
                self.turns.note_ending(visit.call_sid, ended_by)
                return twiml.hang_up(prompt=prompt)
            case Dial(transfer):
                await self.calls.close(visit.call_sid, "transfer", prompt.seconds, state.turns)
                state.flow, state.transfer = "stream", transfer
                await self.calls.states.save(visit.call_sid, state)
                return dial(prompt, transfer, visit.base)
            case Gather(call_id, count, terminator, timeout_s):
                state.gather = call_id
                await self.calls.save(visit.call_sid, state, prompt.seconds + GATHER_S)
                url = f"{visit.base}/voice/digits"
                return twiml.gather(prompt, url, count, terminator, timeout_s)
            case Record():
                await self.calls.save(visit.call_sid, state, prompt.seconds + RECORD_S)
                return twiml.record(prompt, f"{visit.base}/voice/recording")

    def _remember(self, visit: Visit, state: CallState, text: str) -> None:
        """Write down what is said without the model."""
        history, name = History(state.messages), f"t{state.webhooks}"
        history.agent_said(name, text, interrupted=False)
        state.messages = history.messages
        log = self.calls.log(visit.call_sid, state)
        log.milestone("agent said", turn=name, text=text, interrupted=False)

    async def _await(self, visit: Visit, key: str, held: int) -> bytes:
        """Wait for an answer as long as a webhook may; then say something, and be asked again."""
        document = await self.turns.document(visit.call_sid, key, HOLD_S)
        if document is not None:
            return document
        if self.turns.is_over(visit.call_sid):
            return twiml.hang_up()
        state = await self.calls.states.load(visit.call_sid)
        if state is not None and state.turn not in ("", key):  # the caller has spoken since
            return twiml.record(Prompt(), f"{visit.base}/voice/recording")
        if held >= HOLDS or not await self.turns.is_alive(visit.call_sid, key):
            self.turns.drop(visit.call_sid)
            return await self._speak(visit, flow_steps.after_failure)
        prompt = Prompt()
        agent = await self._agent_for(visit.parameters if state is None else state.parameters)
        if agent is not None and (fillers := agent.persona.stock_words.fillers):
            text = fillers[held % len(fillers)]
            prompt = await self._prompts.prompt(agent, visit.base, text, b"")
        query = urlencode({"turn": key, "held": held + 1})
        return twiml.redirect(prompt, f"{visit.base}/voice/recording/wait?{query}")


def _typed(history: History, state: CallState, digits: str) -> str | None:
    """Write down what was typed, where somebody waits for it; return what is to be answered."""
    call_id, state.gather = state.gather, ""
    if call_id:
        history.tool_done(call_id, typed_text(digits, is_ended=True))
        return ""
    return as_words(digits) if digits else None


def dial(prompt: Prompt, transfer: Transfer, base: str) -> bytes:
    """Give a call to somebody else; we are asked how to go on after that."""
    then = f"{base}/voice-stream/dialled"
    return twiml.dial(prompt, transfer.number, transfer.conference, then)
