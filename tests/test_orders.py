"""What others than the caller can do to a call: have something said, end it, give it away."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from voicecore.call.call import Call, Transfer
from voicecore.testing import ScriptedCaller, fake_agent

TEN = "one two three four five six seven eight nine ten."


async def test_a_sentence_from_outside_waits_for_a_pause(autojump_clock: MockClock) -> None:
    who = fake_agent(greeting="Good day.")

    async def inject(call: Call) -> None:
        await trio.sleep(0.2)  # into the greeting
        assert call.say("Stay calm.")
        await trio.sleep(1.6)  # into the caller's words
        assert call.say("All is well.")

    caller = ScriptedCaller().pauses(1.6).says("hello there").listens().pauses(2).hangs_up()
    transcript = await caller.call(who, inject)
    assert " ".join(transcript.heard) == ("Good day. Stay calm. You said hello there. All is well.")


async def test_a_last_word_cannot_be_interrupted_and_hangs_up(autojump_clock: MockClock) -> None:
    who = fake_agent(greeting=TEN)

    async def inject(call: Call) -> None:
        await trio.sleep(0.5)
        assert call.take_leave("Please call us back today.")

    caller = ScriptedCaller().pauses(1).says("hello there").pauses(9)
    transcript = await caller.call(who, inject)
    assert transcript.heard[-5:] == ["Please", "call", "us", "back", "today."]
    assert "ten." not in transcript.heard
    assert transcript.ended_by == "agent"


async def test_too_many_sentences_from_outside_are_refused(autojump_clock: MockClock) -> None:
    who = fake_agent(greeting=TEN)
    taken: list[bool] = []

    async def inject(call: Call) -> None:
        for _ in range(12):
            await trio.sleep(0.01)
            taken.append(call.say("More."))

    await ScriptedCaller().pauses(9).hangs_up().call(who, inject)
    assert taken == [True] * 8 + [False] * 4


async def test_a_call_that_is_given_away_ends_here(autojump_clock: MockClock) -> None:
    who = fake_agent(greeting=TEN)
    given: list[Transfer | None] = []

    async def give(call: Call) -> None:
        await trio.sleep(0.5)
        call.transfer_to(Transfer("+15550002222"))
        call.transfer_to(Transfer("+15550003333"))
        given.append(call.transfer)

    transcript = await ScriptedCaller().pauses(9).call(who, give)
    assert transcript.ended_by == "transfer"
    assert given == [Transfer("+15550002222")]
