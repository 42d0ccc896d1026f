"""How calls end, and how they go on when something fails: in virtual time, over the real wire."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import wrap_client_stream

from voicecore.contracts import Message
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, fake_agent
from voicecore.testing.audible import say
from voicecore.testing.network import Answered, answer_on

FRAME = 0.02


async def test_idle_prompts_then_goodbye(autojump_clock: MockClock) -> None:
    host = fake_agent(idle_prompt_s=5, idle_prompts=2)
    transcript = await ScriptedCaller().pauses(60).hangs_up().call(host)
    words = host.persona.stock_words
    said = f"{words.still_there} {words.still_there} {words.goodbye}"
    assert transcript.heard == said.split()
    assert transcript.ended_by == "agent"
    assert transcript.close_code == 1000
    first, second = (at for at, word in transcript.words if word == "there?")
    assert second - first == pytest.approx(5 + 4 * 0.3, abs=0.1)


async def test_answering_an_idle_prompt_starts_the_count_again(autojump_clock: MockClock) -> None:
    host = fake_agent(idle_prompt_s=5, idle_prompts=1)
    caller = ScriptedCaller().listens().says("yes").listens().listens().pauses(1).hangs_up()
    transcript = await caller.call(host)
    assert transcript.heard == [
        "Are",
        "you",
        "still",
        "there?",
        "You",
        "said",
        "yes.",
        "Are",
        "you",
        "still",
        "there?",
    ]


async def test_the_goodbye_is_heard_before_the_agent_hangs_up(autojump_clock: MockClock) -> None:
    llm = FakeLLM(answer=lambda m: "Goodbye then. <end_call>")
    caller = ScriptedCaller().says("bye").pauses(30)
    transcript = await caller.call(fake_agent(llm=llm))
    assert transcript.heard == ["Goodbye", "then."]
    assert transcript.ended_by == "agent"
    assert transcript.close_code == 1000
    assert transcript.seconds < 2


async def test_an_interrupted_goodbye_does_not_hang_up(autojump_clock: MockClock) -> None:
    farewell = "Goodbye and thank you for calling us today. <end_call>"
    llm = FakeLLM(answer=lambda m: farewell if m[-1].text == "bye" else "Yes?")
    caller = ScriptedCaller().says("bye").pauses(1).says("wait please").listens().hangs_up()
    transcript = await caller.call(fake_agent(llm=llm))
    assert transcript.history[-1] == Message("assistant", "Yes?")
    assert transcript.ended_by == "caller"


async def test_a_call_has_a_maximum_length(autojump_clock: MockClock) -> None:
    host = fake_agent(max_call_s=20, idle_prompt_s=0)
    transcript = await ScriptedCaller().pauses(60).call(host)
    assert transcript.heard == host.persona.stock_words.goodbye.split()
    assert transcript.ended_by == "length"
    assert 20 < transcript.seconds < 25


async def test_a_caller_who_talks_for_ever_cannot_outtalk_the_limit(
    autojump_clock: MockClock,
) -> None:
    host = fake_agent(max_call_s=20, idle_prompt_s=0)
    transcript = await ScriptedCaller().says("and " * 200, 90).call(host)
    assert transcript.seconds < 45


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        (s, f)
        for s in ("stt", "llm", "tts")
        for f in ("error", "hang", "stall")
        if s + f != "sttstall"
    ],
)
async def test_a_failing_provider_is_apologised_for_and_the_next_turn_works(
    stage: str, fault: str, autojump_clock: MockClock
) -> None:
    faulty = {"faults": [fault]}
    fakes = {"stt": FakeSTT(), "llm": FakeLLM(), "tts": FakeTTS()}
    host = fake_agent(**fakes, idle_prompt_s=0)
    await host.prepare()
    fakes[stage].__init__(**faulty)  # type: ignore[misc]
    caller = ScriptedCaller().says("hello").listens().says("again please").listens().hangs_up()
    transcript = await caller.call(host)
    words = " ".join(transcript.heard)
    assert words.endswith("You said again please.")
    # A reply that stalls half-way leaves a silence, into which this caller speaks.
    assert host.persona.stock_words.apology in words or (stage, fault) == ("tts", "stall")
    assert max(transcript.gaps) < 6.0
    assert not any(fake.open_requests for fake in fakes.values())


async def test_three_failed_turns_end_the_call(autojump_clock: MockClock) -> None:
    host = fake_agent(llm=FakeLLM(faults=["error"] * 9))
    await host.prepare()
    caller = ScriptedCaller()
    for _ in range(5):
        caller = caller.says("hello").listens()
    transcript = await caller.call(host)
    words = host.persona.stock_words
    assert " ".join(transcript.heard) == " ".join([*[words.apology] * 3, words.give_up])
    assert transcript.ended_by == "agent"


async def test_with_everything_down_there_is_still_a_voice(autojump_clock: MockClock) -> None:
    host = fake_agent(tts=FakeTTS(faults=["error"] * 99), greeting="Good day.")
    await host.prepare()
    transcript = await ScriptedCaller().pauses(12).hangs_up().call(host)
    assert len(bytes(transcript.audio).strip(b"\xff")) > 8000


async def test_a_caller_without_media_is_let_go(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        answered = Answered()
        stream = await nursery.start(answer_on, fake_agent(idle_prompt_s=0), answered)
        websocket = await wrap_client_stream(nursery, stream, "agent.test", "/media-stream")
        for message in CarrierStream(CallIdentity("CA1", "MZ1")).open():
            await websocket.send_message(message)
        began = trio.current_time()
        await answered.over.wait()
        nursery.cancel_scope.cancel()
    assert 30 <= trio.current_time() - began < 34
    assert answered.call is not None
    assert answered.call.ended_by == "silence"


async def test_a_carrier_that_sends_nothing_in_silence_still_gets_its_answer(
    autojump_clock: MockClock,
) -> None:
    carrier = CarrierStream(CallIdentity("CA1", "MZ1"))
    async with trio.open_nursery() as nursery:
        stream = await nursery.start(answer_on, fake_agent(), Answered())
        websocket = await wrap_client_stream(nursery, stream, "agent.test", "/media-stream")
        for message in carrier.open():
            await websocket.send_message(message)
        for frame in say("hello there", 40):
            await websocket.send_message(carrier.media(frame))
            await trio.sleep(FRAME)
        with trio.fail_after(1.0):
            while not carrier.buffer.queued_bytes:
                carrier.receive(await websocket.get_message())
        nursery.cancel_scope.cancel()


async def test_a_greeting_that_fails_is_no_failed_turn(autojump_clock: MockClock) -> None:
    llm, tts = FakeLLM(faults=["error"] * 2), FakeTTS(faults=["error"])
    caller = ScriptedCaller().listens()
    for words in ("hello", "hello", "again"):
        caller = caller.says(words).listens()
    transcript = await caller.hangs_up().call(fake_agent(llm=llm, tts=tts, greeting="Good day."))
    assert transcript.ended_by == "caller"
    assert transcript.heard[-3:] == ["You", "said", "again."]
