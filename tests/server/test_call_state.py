"""A call's state: what is kept, for how long, and what a conversation may count to."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.call.call import Call
from voicecore.call.recorded import HangUp, Record, RecordedAnswer
from voicecore.call.transfer import Transfer
from voicecore.contracts import Message, ToolCall
from voicecore.server.call_state import OVERTIME_S, CallState, CallStates, StreamKeeper
from voicecore.server.recordings.flow_steps import after_answer
from voicecore.server.store import MemoryStore
from voicecore.testing import fake_agent


def states(store: MemoryStore | None = None) -> CallStates:
    return CallStates(store or MemoryStore(trio.current_time), trio.current_time, 100)


async def test_everything_is_found_again() -> None:
    kept, call = states(), ToolCall("1", "look_up", '{"a": "ü"}')
    state = kept.new({"From": "+1555", "name": "😀"})
    state.transfer, state.ended_by = Transfer(conference="Room 5"), "transfer"
    state.messages = (
        Message("user", "नमस्ते"),
        Message("assistant", "One mo", interrupted=True, tool_calls=(call,)),
        Message("tool", "{}", tool_call_id="1"),
    )
    await kept.save("CA1", state)
    assert await kept.load("CA1") == state
    assert await kept.load("CA2") is None
    assert await kept.pop("CA1") == state
    assert await kept.load("CA1") is None


async def test_halves_of_characters_are_no_reason_to_fail() -> None:
    kept = states()
    state = kept.new({"na\udcffme": "\ud83d"})
    state.messages = (Message("user", "so\ud800"), Message("assistant", "what"))
    await kept.save("CA1\ud800", state)
    found = await kept.load("CA1\ud800")
    assert found is not None
    assert found.parameters == {"na?me": "?"}
    assert [message.text for message in found.messages] == ["so?", "what"]


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x90", b"\x81\xa5began\xa1x"])
async def test_what_another_version_has_kept_is_nothing(value: bytes) -> None:
    store = MemoryStore(trio.current_time)
    await store.put("call", "CA1", value, 100)
    assert await states(store).load("CA1") is None


async def test_a_call_is_known_as_long_as_it_can_last(autojump_clock: MockClock) -> None:
    kept = states()
    await kept.save("CA1", kept.new({}))
    await trio.sleep(100 + OVERTIME_S - 1)
    assert await kept.load("CA1") is not None
    await trio.sleep(2)
    assert await kept.load("CA1") is None


async def test_a_stream_goes_on_though_its_state_cannot_be_read(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryStore):
        async def get(self, kind: str, key: str) -> bytes | None:
            raise OSError(24, "Too many open files")

    class Mute:
        async def receive(self) -> str:
            return await trio.sleep_forever()

        async def send(self, *texts: str) -> None: ...

    call = Call(Mute())
    keeper = StreamKeeper(states(Failing(trio.current_time)), None)
    async with keeper.keeping(call):
        for _ in range(3):
            keeper.observe(call.sid, "user said", 1.0, {})
            await trio.sleep(1)
    assert "state is not kept" in caplog.text


async def test_of_a_history_that_is_too_long_the_newest_is_kept() -> None:
    kept = states()
    state = kept.new({})
    state.messages = tuple(Message("user", str(n) * 60_000) for n in range(200))
    await kept.save("CA1", state)
    found = await kept.load("CA1")
    assert found is not None
    assert found.messages == state.messages[-len(found.messages) :]
    assert 0 < len(found.messages) < 200


ANSWERS = {
    "silence": RecordedAnswer(),
    "failure": RecordedAnswer(has_failed=True),
    "answer": RecordedAnswer("hello", "Hello.", b"\x10" * 160),
}


@given(st.lists(st.sampled_from(sorted(ANSWERS)), max_size=30), st.integers(0, 3))
def test_silences_and_failures_are_counted_in_a_row(kinds: list[str], prompts: int) -> None:
    agent = fake_agent(idle_prompts=prompts, failed_turns=3)
    state = CallState({}, 0.0)
    for number, kind in enumerate(kinds):
        step = after_answer(state, agent, ANSWERS[kind])
        assert step.text or step.audio
        recent = kinds[: number + 1]
        silences = failures = 0
        for each in recent:
            failures = failures + 1 if each == "failure" else 0
            silences = {"silence": silences + 1, "answer": 0, "failure": silences}[each]
        if failures >= 3 or (kind == "silence" and silences > prompts):
            assert isinstance(step.next, HangUp)
            return
        assert isinstance(step.next, Record)
