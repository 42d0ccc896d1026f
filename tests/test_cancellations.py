"""A call that is cancelled, or left, at any moment leaves nothing behind.

A deadline is stepped through a whole call, off the beat of the frames; the call holds a greeting, a
lost speculation, a reply, a barge-in and a cough.  After each: no request is open, the history is
legal, and the carrier has got whole messages only.  A step is a frame, and is left out where
nothing new has happened since the step before.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock
from trio_websocket import wrap_client_stream

from voicecore.call.agent import Agent
from voicecore.contracts import Delta, Message, ToolCall
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, Transcript, fake_agent
from voicecore.testing.network import Answered, answer_on

STEP = 0.02
OFF_BEAT = 0.0075
LENGTH = 3.8
REPLY = "one two three, four five six. seven eight nine ten."


def agent_with_tools() -> Agent:
    """Looks something up before each answer; the second time it is interrupted by that."""

    def answer(messages: Sequence[Message]) -> str | Sequence[Delta]:
        if messages[-1].role == "tool":
            return "seven eight nine ten."
        number = len(messages)
        calls = [ToolCall(f"{number}-{name}", name) for name in ("cancelled", "kept")]
        return ["one two three.", *calls]

    agent = fake_agent(
        FakeSTT(0.05),
        FakeLLM(0.08, token_seconds=0.02, answer=answer),
        FakeTTS(0.06, word_frames=5, speed=2),
        greeting="Good day.",
    )

    @agent.tool
    async def cancelled() -> None:
        await trio.sleep(0.4)

    @agent.tool(on_barge_in="keep")
    async def kept() -> None:
        await trio.sleep(0.9)

    return agent


def slow_agent() -> Agent:
    return fake_agent(
        FakeSTT(0.05),
        FakeLLM(0.08, token_seconds=0.02, answer=lambda m: REPLY),
        FakeTTS(0.06, word_frames=5, speed=2),
        greeting="Good day.",
    )


def script() -> ScriptedCaller:
    return (
        ScriptedCaller().pauses(0.3).says("book a", 0.3).pauses(0.2).says("table", 0.2).pauses(0.7)
        .says("wait please", 0.4).pauses(0.7).coughs(0.22).pauses(0.78)
    )  # fmt: skip


def open_requests(agent: Agent) -> list[object]:
    fakes = (agent.stt, agent.llm, agent.tts)
    return [request for fake in fakes for request in fake.open_requests]  # type: ignore[attr-defined]


def assert_legal(history: Sequence[Message], said: Sequence[str]) -> None:
    """No two callers' messages in a row, no empty one, only what was generated, and behind each
    tool's call its result."""
    for at, message in enumerate(history):
        results = [m.tool_call_id for m in history[at + 1 :][: len(message.tool_calls)]]
        assert results == [call.id for call in message.tool_calls]
    for one, next_ in itertools.pairwise(history):
        assert (one.role, next_.role) != ("user", "user")
    for message in history:
        assert message.text or message.tool_calls
        if message.role == "assistant":
            assert any(text.startswith(message.text) for text in said), message


async def answer_until(
    at: float, agent: Agent, answered: Answered, task_status: trio.TaskStatus[trio.abc.Stream]
) -> None:
    with trio.move_on_after(at):
        await answer_on(agent, answered, task_status)


async def cancelled(make: Callable[[], Agent], at: float) -> None:
    agent, answered = make(), Answered()
    async with trio.open_nursery() as nursery:
        stream = await nursery.start(partial(answer_until, at, agent, answered))
        with trio.move_on_after(LENGTH):
            websocket = await wrap_client_stream(nursery, stream, "agent.test", "/media-stream")
            transcript = await script().talk(websocket)
            assert transcript.close_code in (None, 1000, 1006)
            assert transcript.warnings == []
        nursery.cancel_scope.cancel()
    assert not open_requests(agent)
    if answered.call is not None:
        said = ["Good day.", REPLY, "one two three.", "seven eight nine ten."]
        assert_legal(answered.call.history.messages, said)


class Wakes(trio.abc.Instrument):
    """Which tasks ran between one step and the next, and how often."""

    def __init__(self) -> None:
        self.before: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        step = int((trio.current_time() - OFF_BEAT) / STEP + 1)
        self.before[step][task.name] += 1


def moments(make: Callable[[], Agent] = slow_agent) -> list[int]:
    """Return the steps before which something happened that did not in the two steps before them.

    What goes on evenly (a caller or an agent who speaks, or both silent) is met at every tenth.
    """
    wakes = Wakes()
    clock = MockClock(autojump_threshold=0)
    trio.run(cancelled, make, 2 * LENGTH, clock=clock, instruments=[wakes])
    woke = [wakes.before[step] for step in range(int(LENGTH / STEP))]
    return [
        step
        for step, now in enumerate(woke)
        if step % 10 == 0 or now not in woke[max(0, step - 2) : step]
    ]


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("make", [slow_agent, agent_with_tools])
def test_cancelled_at_any_moment(make: Callable[[], Agent], part: int) -> None:
    steps = moments(make)
    assert LENGTH / STEP / 4 < len(steps) < LENGTH / STEP
    for step in steps[part::4]:
        trio.run(cancelled, make, step * STEP + OFF_BEAT, clock=MockClock(autojump_threshold=0))


async def left(at: float, how: str) -> tuple[Agent, Transcript]:
    agent = slow_agent()
    steps = script()
    caller = ScriptedCaller()
    frames = int(at / 0.02)
    for step in steps._steps:
        caller._steps.append(type(step)(step.frames[:frames]))
        frames -= len(step.frames)
        if frames <= 0:
            break
    caller = caller.hangs_up() if how == "stop" else caller.drops()
    return agent, await caller.call(agent)


@pytest.mark.parametrize(("how", "first"), [("stop", 0), ("drop", 1)])
def test_the_caller_leaves_at_any_moment(how: str, first: int) -> None:
    for step in moments()[first::3]:
        agent, transcript = trio.run(left, step * STEP, how, clock=MockClock(autojump_threshold=0))
        assert transcript.ended_by == "caller"
        assert not open_requests(agent)
        assert_legal(transcript.history, ["Good day.", REPLY])


MOVES = st.one_of(
    st.tuples(st.just("says"), st.sampled_from(["yes", "book a table", "wait please"])),
    st.tuples(st.just("pauses"), st.sampled_from([0.1, 0.2, 0.5, 1.1, 2.3])),
    st.tuples(st.just("coughs"), st.sampled_from([0.04, 0.12, 0.2, 0.4])),
    st.tuples(st.just("listens"), st.none()),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MOVES, max_size=8), st.sampled_from([0.0, 0.03, 0.3]), st.booleans())
def test_any_caller_hears_one_voice_at_a_time_and_nothing_stale(
    moves: list[tuple[str, object]], stage: float, streaming: bool
) -> None:
    llm = FakeLLM(stage, token_seconds=0.05 if streaming else 0, answer=lambda m: REPLY)
    tts = FakeTTS(stage, speed=2 if streaming else float("inf"))
    agent = fake_agent(FakeSTT(stage), llm, tts, greeting="Good day.", idle_prompt_s=0)
    caller = ScriptedCaller()
    for name, argument in moves:
        method = getattr(caller, name)
        caller = method() if argument is None else method(argument)
    transcript = trio.run(
        caller.pauses(1).hangs_up().call, agent, clock=MockClock(autojump_threshold=0)
    )
    assert transcript.warnings == []
    assert transcript.ended_by == "caller"
    assert not open_requests(agent)
    assert_legal(transcript.history, ["Good day.", REPLY, f"{REPLY} {REPLY}"])
    # What the history says was heard, was heard, in that order.  A clause that is cut while its
    # audio still comes is measured by the voice's usual pace: its last word is an estimate.
    remembered = [
        word
        for message in transcript.history
        if message.role == "assistant"
        for word in message.text.split()[: -1 if message.interrupted else None]
    ]
    heard = iter(transcript.heard)
    assert all(word in heard for word in remembered), (remembered, transcript.heard)
