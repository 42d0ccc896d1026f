"""After a stream: the call is over, is given to somebody, or goes on, with its history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from flow_house import BASE, Carrier, FlowServer, RecordingStore, Shared, flow_server
from server_house import CALL_SID, STREAM_SID, settings
from trio.testing import MockClock
from trio_websocket import ConnectionClosed, wrap_client_stream

from voicecore.call.agent import Agent
from voicecore.call.call import Call
from voicecore.call.phrases import STOCK_WORDS
from voicecore.call.transfer import Transfer
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.server.conversing import converse_with
from voicecore.server.media import MediaStreams
from voicecore.server.serve import serve
from voicecore.server.store import DirectoryStore
from voicecore.server.words import BROKEN
from voicecore.testing import FakeLLM, ScriptedCaller, Transcript, fake_agent

WORDS = STOCK_WORDS["en"]
RECORD = ["Play", "Record", "Redirect"]
SILENT = ["Hangup"]


def fake(**given: object) -> Agent:
    return fake_agent(greeting="Hi.", **given)  # type: ignore[arg-type]


async def stream(house: FlowServer, caller: ScriptedCaller) -> Transcript:
    """Talk over a stream of this worker until it ends."""
    async with trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(
            nursery, house.connect(), "agent.test", "/media-stream"
        )
        transcript = await caller.talk(websocket)
        await house.streams.wait_empty()
        nursery.cancel_scope.cancel()
    return transcript


def talker() -> ScriptedCaller:
    return ScriptedCaller().listens().says("book a table").listens()


def messages(agent: Agent) -> list[tuple[str, str]]:
    assert isinstance(agent.llm, FakeLLM)
    return [(message.role, message.text) for message in agent.llm.prompts[-1][1:]]


async def test_a_stream_that_is_lost_goes_on_in_any_worker(autojump_clock: MockClock) -> None:
    agent, shared = fake(), Shared()
    async with flow_server(agent, None, shared) as house, flow_server(agent, None, shared) as other:
        await stream(house, talker().drops())
        caller = Carrier(other)
        heard = await caller.visit("/voice-stream/ended")
        assert (heard.text, heard.verbs) == (WORDS.cut_off, RECORD)
        assert (await caller.says("for two")).text == "You said for two."
        caller.house = house
        house.recordings = other.recordings
        await caller.hangs_up()
    assert messages(agent) == [
        ("assistant", "Hi."),
        ("user", "book a table"),
        ("assistant", "You said book a table."),
        ("assistant", WORDS.cut_off),
        ("user", "for two"),
    ]
    ended = [fields["reason"] for fields in shared.milestones.of("call ended")]
    assert ended == ["caller", "caller"]  # the stream's, by its log, and the call's


async def test_a_stream_that_is_dead_to_its_carrier_alone_overwrites_nothing(
    autojump_clock: MockClock,
) -> None:
    agent = fake()
    async with flow_server(agent) as house, trio.open_nursery() as nursery:
        nursery.start_soon(stream, house, talker())
        await trio.sleep(8)
        caller = Carrier(house)
        assert (await caller.visit("/voice-stream/ended")).text == WORDS.cut_off
        await caller.says("for two")
        await house.streams.wait_empty()  # the agent has asked in vain whether anybody is there
        assert (await caller.says("tomorrow")).text == "You said tomorrow."
    assert messages(agent)[-4:] == [
        ("assistant", WORDS.cut_off),
        ("user", "for two"),
        ("assistant", "You said for two."),
        ("user", "tomorrow"),
    ]


async def test_a_stream_whose_agent_crashes_goes_on_with_what_was_said(
    autojump_clock: MockClock,
) -> None:
    def answer(messages: object) -> str:
        if len(llm.prompts) > 1:
            raise ZeroDivisionError
        return "Where?"

    llm = FakeLLM(answer=answer)
    async with flow_server(fake(llm=llm)) as house:
        await stream(house, talker().says("in town").pauses(5))
        heard = await Carrier(house).visit("/voice-stream/ended")
        assert (heard.text, heard.verbs) == (WORDS.cut_off, RECORD)
        state = await house.states.load(CALL_SID)
        assert state is not None
        assert [message.text for message in state.messages][:3] == ["Hi.", "book a table", "Where?"]


async def test_a_call_that_nobody_knows_is_an_apology_and_goes_on(
    autojump_clock: MockClock,
) -> None:
    agent = fake()
    async with flow_server(agent) as house:
        caller = Carrier(house)
        heard = await caller.visit("/voice-stream/ended")
        assert (heard.text, heard.verbs) == (WORDS.apology, RECORD)
        assert (await caller.says("hello")).text == "You said hello."


async def test_a_call_that_gets_no_stream_after_all_is_greeted(autojump_clock: MockClock) -> None:
    async with flow_server(fake(), max_calls=1) as house:
        caller = Carrier(house)
        assert (await caller.visit("/voice-stream", CallStatus="ringing")).verbs == ["Connect"]
        house.ledger.call_began()  # somebody else's stream was faster
        heard = await caller.visit("/voice-stream/ended")
        assert (heard.text, heard.verbs) == ("Hi.", RECORD)
        assert (await caller.says("hello")).text == "You said hello."
        house.ledger.call_over()


async def test_a_server_that_was_restarted_goes_on_with_a_recording(
    autojump_clock: MockClock,
) -> None:
    recordings, agent = RecordingStore(), fake()
    async with flow_server(agent, recordings) as house:
        await Carrier(house).calls()
    async with flow_server(agent, recordings) as house:
        heard = await Carrier(house).says("hello")
        assert (heard.text, heard.verbs) == ("You said hello.", RECORD)


@pytest.mark.parametrize("status", ["completed", "canceled", "failed"])
async def test_a_call_that_is_over_is_told_nothing(status: str, autojump_clock: MockClock) -> None:
    async with flow_server(fake()) as house:
        caller = Carrier(house)
        for path in ("", "/ended", "/dialled"):
            assert (await caller.visit(f"/voice-stream{path}", CallStatus=status)).verbs == SILENT
        for path in ("", "/recording"):
            assert (await caller.visit(f"/voice{path}", CallStatus=status)).verbs == SILENT
        assert not len(house.calls)
        assert not house.shared.milestones


@pytest.mark.parametrize("ended_by", ["agent", "caller", "silence", "length", "admin"])
async def test_a_stream_that_was_ended_is_the_calls_end(
    ended_by: str, autojump_clock: MockClock
) -> None:
    async with flow_server(fake()) as house:
        house.ledger.note_ending(CALL_SID, ended_by)
        assert (await Carrier(house).visit("/voice-stream/ended")).verbs == SILENT


@pytest.mark.parametrize("ended_by", ["lost", "server", "carrier", ""])
async def test_a_stream_that_failed_is_not(ended_by: str, autojump_clock: MockClock) -> None:
    async with flow_server(fake()) as house:
        if ended_by:
            house.ledger.note_ending(CALL_SID, ended_by)
        assert (await Carrier(house).visit("/voice-stream/ended")).verbs == RECORD


async def test_the_agents_goodbye_over_the_stream_is_the_end(autojump_clock: MockClock) -> None:
    llm = FakeLLM(answer=lambda messages: "Goodbye. <end_call>")
    async with flow_server(fake(llm=llm)) as house:
        await stream(house, talker())
        assert (await Carrier(house).visit("/voice-stream/ended")).verbs == SILENT
        assert await house.states.load(CALL_SID) is None


def transferring(transfer: Transfer) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        call.transfer_to(transfer)

    return answer


@pytest.mark.parametrize(
    ("transfer", "noun", "name"),
    [
        (Transfer(number="+15550002222"), "Number", "+15550002222"),
        (Transfer(conference="Room 5 <b>"), "Conference", "Room 5 <b>"),
    ],
)
async def test_a_call_is_given_to_somebody_else(
    transfer: Transfer, noun: str, name: str, autojump_clock: MockClock
) -> None:
    async with flow_server(fake()) as house:
        caller = Carrier(house)
        await transferred(house, transfer)
        heard = await caller.visit("/voice-stream/ended")
        assert heard.verbs == ["Dial"]
        dial = heard.root[0]
        action = "https://agent.example.com/voice-stream/dialled"
        assert dial.attrib == {"action": action, "method": "POST", "timeout": "30"}
        assert dial.findtext(noun) == name
        heard = await caller.visit("/voice-stream/dialled", DialCallStatus="completed")
        assert heard.verbs == SILENT


async def transferred(house: FlowServer, transfer: Transfer) -> None:
    """Give the call away in the middle of its stream."""
    converse = converse_with(transferring(transfer), states=house.states)
    streams = MediaStreams(converse, house.admission, house.ledger)
    house.server._streams = house.streams = streams
    await stream(house, ScriptedCaller().pauses(1))


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "canceled"])
async def test_nobody_takes_the_call_and_the_agent_goes_on(
    status: str, autojump_clock: MockClock
) -> None:
    agent = fake()
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await transferred(house, Transfer(number="+15550002222"))
        await caller.visit("/voice-stream/ended")
        heard = await caller.visit("/voice-stream/dialled", DialCallStatus=status)
        assert (heard.text, heard.verbs) == (WORDS.no_answer, RECORD)
        assert (await caller.says("hello")).text == "You said hello."


@pytest.mark.parametrize("path", ["/voice", "/voice-stream/ended", "/voice-stream/dialled"])
async def test_a_webhook_that_is_repeated_says_the_same(
    path: str, autojump_clock: MockClock
) -> None:
    shared = Shared()
    async with (
        flow_server(fake(), None, shared) as house,
        flow_server(fake(), None, shared) as other,
    ):
        answers = [
            (await Carrier(worker).request(path, f"I-Twilio-Idempotency-Token: {token}")).body
            for worker, token in ((house, "one"), (other, "one"), (house, "one"), (other, "two"))
        ]
        assert answers[0] == answers[1] == answers[2] != answers[3]
        assert len(shared.milestones.of("agent said")) == 2


async def test_workers_share_a_directory(tmp_path: Path) -> None:
    """In real time: virtual time does not wait for a disk."""
    shared = Shared(DirectoryStore(tmp_path, trio.current_time))
    agent, recordings = fake(llm=FakeLLM(0.3)), RecordingStore()
    async with (
        flow_server(agent, recordings, shared) as house,
        flow_server(agent, recordings, shared) as other,
    ):
        here, there = Carrier(house), Carrier(other)
        here.is_patient = there.is_patient = False
        assert (await here.calls()).text == "Hi."
        sid, answers = recordings.keep("hello"), []

        async def bring(carrier: Carrier) -> None:
            answers.append((await carrier.records(sid)).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring, here)
            nursery.start_soon(bring, there)
        assert answers == ["You said hello."] * 2
        assert isinstance(agent.llm, FakeLLM)
        assert len(agent.llm.requests) == 1
        await there.hangs_up()
        assert len(shared.milestones.of("call ended")) == 1


async def test_a_caller_who_hangs_up_at_another_worker_is_not_worked_for(
    autojump_clock: MockClock,
) -> None:
    agent, shared = fake(llm=FakeLLM(3.0)), Shared()
    async with flow_server(agent, None, shared) as house, flow_server(agent, None, shared) as other:
        caller = Carrier(house)
        await caller.calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.records, house.recordings.keep("hello"))
            await trio.sleep(1)
            await Carrier(other).hangs_up()
            await trio.sleep(0.3)
            assert not len(house.turns)
            assert isinstance(agent.llm, FakeLLM)
            assert not agent.llm.open_requests
            nursery.cancel_scope.cancel()
        assert len(shared.milestones.of("call ended")) == 1


async def test_a_turn_whose_worker_dies_is_an_apology_and_soon(autojump_clock: MockClock) -> None:
    agent, shared, recordings = fake(llm=FakeLLM(5.0)), Shared(), RecordingStore()
    async with flow_server(agent, recordings, shared) as other:
        async with flow_server(agent, recordings, shared) as house:
            caller = Carrier(house)
            await caller.calls()
            heard = await caller.visit("/voice/recording", RecordingSid=recordings.keep("one"))
            assert heard.verbs == ["Play", "Redirect"]
        caller.house, began = other, trio.current_time()
        heard = await caller.follow(heard)
        assert (heard.words[-1], "Record" in heard.verbs) == (WORDS.apology.split()[-1], True)
        assert trio.current_time() - began < 10
        assert (await caller.says("two")).text == f"{WORDS.fillers[0]} You said two."


async def test_a_worker_forgets_calls_that_end_at_another(autojump_clock: MockClock) -> None:
    shared = Shared()
    async with (
        flow_server(fake(), None, shared) as house,
        flow_server(fake(), None, shared) as other,
    ):
        await Carrier(house).calls()
        assert len(house.calls) == 1
        await Carrier(other).hangs_up()
        await trio.sleep(1.5)
        assert not len(house.calls)


class Embedded:
    """A server in somebody's program, on a port, whose calls a function takes."""

    recordings = RecordingStore()

    def __init__(self, port: int) -> None:
        self._port = port

    async def dial(self) -> trio.abc.Stream:
        return await trio.open_tcp_stream("127.0.0.1", self._port)


async def test_a_function_of_the_embedders_can_give_calls_away_and_nothing_more() -> None:
    answer = transferring(Transfer(number="+15550002222"))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, answer, settings(public_url=BASE))
        house = Embedded(server.port)
        caller = Carrier(house)
        for path in ("/voice", "/voice-stream/ended", "/voice/recording"):
            heard = await caller.visit(path)
            assert (heard.text, heard.verbs) == (BROKEN, ["Say", "Hangup"])
        stream = await house.dial()
        websocket = await wrap_client_stream(nursery, stream, "agent.test", "/media-stream")
        for message in CarrierStream(CallIdentity(CALL_SID, STREAM_SID)).open():
            await websocket.send_message(message)
        with pytest.raises(ConnectionClosed):
            await websocket.get_message()
        await stream.aclose()
        assert (await caller.visit("/voice-stream/ended")).verbs == ["Dial"]
        heard = await caller.visit("/voice-stream/dialled", DialCallStatus="busy")
        assert (heard.text, heard.verbs) == (BROKEN, ["Say", "Hangup"])
        nursery.cancel_scope.cancel()
