"""The recording flow: whole conversations, from webhook to webhook, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
import trio
import trio.lowlevel
from flow_house import ACCOUNT, BASE, Carrier, FlowServer, RecordingStore, Shared, flow_server
from server_house import CALL_SID, ask, get
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.call.phrases import STOCK_WORDS
from voicecore.contracts import Delta, Message, ToolCall
from voicecore.server.recordings.flow_calls import PATIENCE_S
from voicecore.server.recordings.recording_flow import HOLD_S
from voicecore.server.store import MemoryStore
from voicecore.server.words import BUSY
from voicecore.testing import FakeLLM, FakeModel, FakeSTT, FakeTTS, fake_agent

WORDS = STOCK_WORDS["en"]
FLAWS = {"stt": FakeSTT, "llm": FakeLLM, "tts": FakeTTS}


def nothing_is_left(house: FlowServer, agent: Agent) -> None:
    assert not len(house.turns)
    for fake in (agent.stt, agent.llm, agent.tts):
        assert not fake.open_requests  # type: ignore[attr-defined]


async def test_a_conversation(autojump_clock: MockClock) -> None:
    agent = fake_agent(greeting="Hello there.")
    async with flow_server(agent) as house:
        caller = Carrier(house)
        heard = await caller.calls()
        assert heard.text == "Hello there."
        assert heard.verbs == ["Play", "Record", "Redirect"]
        record = heard.root.find("Record")
        assert record is not None
        assert record.attrib == {
            "action": f"{BASE}/voice/recording",
            "method": "POST",
            "timeout": "1",
            "maxLength": "60",
            "finishOnKey": "#",
            "playBeep": "false",
            "trim": "trim-silence",
        }
        assert heard.root.findtext("Redirect") == f"{BASE}/voice/recording"
        assert (await caller.says("book a table")).text == "You said book a table."
        heard = await caller.says("for two")
        assert heard.text == "You said for two."
        assert heard.verbs == ["Play", "Record", "Redirect"]
        assert (await caller.hangs_up()).verbs == ["Hangup"]
        assert not len(house.calls)
        nothing_is_left(house, agent)
    llm = agent.llm
    assert isinstance(llm, FakeLLM)
    assert llm.prompts[-1][1:] == (
        Message("assistant", "Hello there."),
        Message("user", "book a table"),
        Message("assistant", "You said book a table."),
        Message("user", "for two"),
    )


async def test_it_is_measured_and_logged_as_a_call(autojump_clock: MockClock) -> None:
    agent = fake_agent(stt=FakeSTT(0.25), llm=FakeLLM(0.5), tts=FakeTTS(0.125), greeting="Hi.")
    async with flow_server(agent, RecordingStore(seconds=0.0625)) as house:
        caller = Carrier(house)
        await caller.calls()
        assert house.server.calls == 1
        await caller.says("hello")
        await caller.hangs_up()
        assert house.server.calls == 0
    seen = house.shared.milestones
    assert [event for _, event, _ in seen if event not in ("audio chunk", "reply started")] == [
        "recording flow started", "agent said", "processing", "user said", "agent said",
        "turn done", "ready", "call ended",
    ]  # fmt: skip
    assert seen.of("recording flow started")[0]["flow"] == "recording"
    [done] = seen.of("turn done")
    assert done["gap"] == pytest.approx(0.9375, abs=0.001)
    stages = {name: done[name] for name in ("fetch", "stt", "llm", "clause", "tts")}
    assert stages == pytest.approx(
        {"fetch": 0.062, "stt": 0.25, "llm": 0.5, "clause": 0, "tts": 0.125}, abs=0.001
    )
    [ended] = seen.of("call ended")
    assert (ended["reason"], ended["turns"], ended["flow"]) == ("caller", 1, "recording")
    assert ended["seconds"] == pytest.approx(trio.current_time(), abs=0.1)


async def test_the_voice_is_asked_for_whole_sentences(autojump_clock: MockClock) -> None:
    """Nobody hears the first words before the last are there: an early clause is a wait more."""
    tts = FakeTTS(0.4)
    agent = fake_agent(llm=FakeLLM(answer=lambda _: "Good question, let me look."), tts=tts)
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        await caller.says("hello")
        await caller.hangs_up()
    [done] = house.shared.milestones.of("turn done")
    assert done["gap"] == pytest.approx(0.4, abs=0.001)


async def test_signed_by_twilio_and_not_at_all(autojump_clock: MockClock) -> None:
    agent = fake_agent(llm=FakeLLM(5.0), greeting="Hi.")
    async with flow_server(agent, twilio_auth_token="secret") as house:
        caller, stranger = Carrier(house, token="secret"), Carrier(house, token="guess")
        await caller.calls()
        heard = await caller.visit("/voice/recording", RecordingSid=house.recordings.keep("one"))
        wait = (heard.root.findtext("Redirect") or "").removeprefix(BASE)
        for path in ("/voice", "/voice/recording", wait, "/voice-stream/dialled"):
            answer = await stranger.request(path, RecordingSid="RE" + "1" * 32)
            assert (answer.status, answer.body) == (403, b"")
        assert (await caller.follow(heard)).text.endswith("You said one.")
        assert len(house.recordings.requests) == 1
        assert "authorization" in house.recordings.requests[0].headers


async def test_a_recording_that_is_being_written_is_waited_for(autojump_clock: MockClock) -> None:
    store = RecordingStore(missing=4)
    async with flow_server(fake_agent(), store, twilio_account_sid="AC" + "b" * 32) as house:
        caller = Carrier(house)
        await caller.calls()
        assert (await caller.says("hello")).text == "You said hello."
    assert len(store.requests) == 5
    assert {request.url.path.split("/")[3] for request in store.requests} == {"AC" + "b" * 32}


async def test_a_recording_that_never_comes_is_an_apology_and_three_are_the_end(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent()
    async with flow_server(agent, RecordingStore(missing=99)) as house:
        caller = Carrier(house)
        await caller.calls()
        for _ in range(2):
            heard = await caller.says("hello")
            assert heard.text.endswith(WORDS.apology)
            assert "Record" in heard.verbs
        heard = await caller.says("hello")
        assert heard.text.endswith(WORDS.give_up)
        assert heard.verbs == ["Play", "Hangup"]
        assert house.shared.milestones.of("call ended")[0]["reason"] == "agent"
    faults = house.shared.milestones.of("provider failed")
    assert {(fault["provider"], fault["fault"]) for fault in faults} == {("recordings", "timeout")}


async def test_an_answer_that_takes_long_is_waited_for_in_company(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(5.0, token_seconds=4.0, answer=lambda messages: "It is sunny.")
    agent = fake_agent(llm=llm, greeting="Hi.")
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        heard = await caller.says("how is the weather")
        assert heard.text == f"{WORDS.fillers[0]} {WORDS.fillers[1]} It is sunny."
        assert len(heard.seconds) == 3
        assert max(heard.seconds) < HOLD_S + 0.1
        assert "Record" in heard.verbs
        nothing_is_left(house, agent)
    assert len(llm.requests) == 1


async def test_every_provider_hangs_and_every_webhook_is_answered(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent(
        stt=FakeSTT(faults=["hang"] * 9), tts=FakeTTS(faults=["hang"] * 99), greeting="Hi."
    )
    async with flow_server(agent, RecordingStore(seconds=3)) as house:
        caller = Carrier(house)
        heard = await caller.calls()
        assert heard.verbs == ["Say", "Record", "Redirect"]
        say = heard.root.find("Say")
        assert say is not None
        assert say.attrib == {"language": "en-US"}
        for verbs in (["Play", "Record", "Redirect"], ["Play", "Record", "Redirect"]):
            heard = await caller.says("hello")
            assert heard.verbs == verbs
            assert max(heard.seconds) < 10
        heard = await caller.says("hello")
        assert heard.verbs == ["Say", "Hangup"]
        assert heard.text.endswith(WORDS.give_up)
        nothing_is_left(house, agent)


async def test_a_webhook_that_is_retried_is_answered_the_same_and_asks_nobody_again(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(1.0)
    async with flow_server(fake_agent(llm=llm)) as house:
        caller = Carrier(house)
        await caller.calls()
        sid, answers = house.recordings.keep("hello"), []

        async def bring() -> None:
            answers.append(await caller.records(sid))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring)
            nursery.start_soon(bring)
        await bring()
        assert [answer.text for answer in answers] == ["You said hello."] * 3
        assert len(llm.requests) == 1
        # Without a recording there is only Twilio's own token to know it by.
        for token in ("one", "one", "two"):
            await caller.visit("/voice/recording", f"I-Twilio-Idempotency-Token: {token}")
        state = await house.states.load(CALL_SID)
        assert state is not None
        assert state.silences == 2


async def test_nothing_said_is_asked_about_and_then_taken_for_goodbye(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent(idle_prompts=2)
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        assert (await caller.visit("/voice/recording")).text == WORDS.unheard
        assert (await caller.records(house.recordings.keep("..."))).text == WORDS.unheard
        assert (await caller.says("hello")).text == "You said hello."
        for _ in range(2):
            assert (await caller.visit("/voice/recording")).text == WORDS.unheard
        heard = await caller.visit("/voice/recording")
        assert heard.text == WORDS.goodbye
        assert heard.verbs == ["Play", "Hangup"]
        # What comes after the end changes nothing.
        for path in ("/voice", "/voice/recording", "/voice-stream/dialled"):
            assert (await caller.visit(path)).verbs == ["Hangup"]
        assert len(house.shared.milestones.of("call ended")) == 1


async def test_the_agent_ends_the_call_when_its_goodbye_is_played(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent(llm=FakeLLM(answer=lambda messages: "Goodbye. <end_call>"))
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        sid = house.recordings.keep("bye")
        heard = await caller.records(sid)
        assert (heard.text, heard.verbs) == ("Goodbye.", ["Play", "Hangup"])
        assert (await caller.records(sid)).verbs in (["Hangup"], ["Play", "Hangup"])
        await trio.sleep(2)
        assert not len(house.calls)
    assert [fields["turns"] for fields in house.shared.milestones.of("call ended")] == [1]


async def test_a_call_has_a_greatest_length(autojump_clock: MockClock) -> None:
    async with flow_server(fake_agent(max_call_s=100)) as house:
        caller = Carrier(house)
        await caller.calls()
        await trio.sleep(50)
        assert "Record" in (await caller.says("hello")).verbs
        await trio.sleep(50)
        heard = await caller.says("hello")
        assert (heard.text, heard.verbs) == (WORDS.goodbye, ["Play", "Hangup"])
        assert house.shared.milestones.of("call ended")[0]["reason"] == "length"


@pytest.mark.parametrize("after", [0.05, 0.7, 1.2, 1.7])
async def test_a_caller_who_hangs_up_is_not_worked_for(
    after: float, autojump_clock: MockClock
) -> None:
    agent = fake_agent(stt=FakeSTT(0.5), llm=FakeLLM(0.5), tts=FakeTTS(0.5))
    async with flow_server(agent, RecordingStore(seconds=0.5)) as house:
        caller = Carrier(house)
        await caller.calls()
        await trio.sleep(10)  # until what may have to be said is rendered
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.records, house.recordings.keep("hello"))
            await trio.sleep(after)
            await caller.hangs_up()
            await trio.testing.wait_all_tasks_blocked()
            nothing_is_left(house, agent)
            nursery.cancel_scope.cancel()
        assert len(house.shared.milestones.of("call ended")) == 1
        assert not len(house.calls)


async def test_a_new_recording_drops_the_turn_of_the_one_before(
    autojump_clock: MockClock,
) -> None:
    llm = FakeLLM(3.0)
    async with flow_server(fake_agent(llm=llm)) as house:
        caller = Carrier(house)
        await caller.calls()
        first, second = house.recordings.keep("one"), house.recordings.keep("two")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.records, first)
            await trio.sleep(1)
            assert (await caller.records(second)).text == "You said two."
            # Whoever still asks for the first one is told to listen, and changes nothing.
            assert (await caller.records(first)).verbs == ["Record", "Redirect"]
            nursery.cancel_scope.cancel()
        state = await house.states.load(CALL_SID)
        assert state is not None
        assert [message.text for message in state.messages if message.role == "user"] == ["two"]


async def test_a_caller_who_goes_without_a_word_is_missed(autojump_clock: MockClock) -> None:
    async with flow_server(fake_agent()) as house:
        await Carrier(house).calls()
        await trio.sleep(60 + PATIENCE_S - 2)
        assert len(house.calls) == 1
        await trio.sleep(4)
        assert not len(house.calls)
        assert house.shared.milestones.of("call ended")[0]["reason"] == "caller"


@pytest.mark.parametrize("stage", FLAWS)
@pytest.mark.parametrize("fault", ["error", "hang", "stall"])
async def test_a_provider_fails_and_the_next_turn_works(
    stage: str, fault: str, autojump_clock: MockClock
) -> None:
    agent = fake_agent()
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        await trio.sleep(1)  # until what may have to be said is rendered
        getattr(agent, stage)._faults = iter([fault])
        heard = await caller.says("one two three four")
        if (stage, fault) != ("stt", "stall"):
            assert heard.text.endswith(WORDS.apology)
        assert "Record" in heard.verbs
        assert (await caller.says("hello")).text == "You said hello."
        nothing_is_left(house, agent)


async def test_a_bug_in_the_agent_is_an_apology(autojump_clock: MockClock) -> None:
    def crash(messages: object) -> str:
        raise ZeroDivisionError

    async with flow_server(fake_agent(llm=FakeLLM(answer=crash))) as house:
        caller = Carrier(house)
        await caller.calls()
        heard = await caller.says("hello")
        assert heard.text == WORDS.apology
        assert "Record" in heard.verbs


async def test_nobody_to_answer_is_said(autojump_clock: MockClock) -> None:
    def pick(parameters: object) -> Agent:
        raise LookupError

    async with flow_server(pick) as house:
        heard = await Carrier(house).calls()
        assert heard.verbs == ["Say", "Hangup"]
        assert not len(house.calls)


async def test_the_agent_is_picked_by_the_calls_parameters(autojump_clock: MockClock) -> None:
    agents = {"+1555": fake_agent(greeting="One."), "+1666": fake_agent(greeting="Two.")}
    async with flow_server(lambda parameters: agents[parameters["To"]]) as house:
        assert (await Carrier(house).calls()).text == "One."
        other = Carrier(house, "CA" + "2" * 32)
        other.form["To"] = "+1666"
        assert (await other.calls()).text == "Two."


async def test_a_model_that_hears_and_speaks(autojump_clock: MockClock) -> None:
    model = FakeModel(0.3, question_s=0.1)
    agent = replace(fake_agent(greeting="Hi."), model=model)
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        assert (await caller.says("book a table")).text == "You said book a table."
        assert (await caller.says("thanks")).text == "You said thanks."
        assert not model.open_requests
        await caller.hangs_up()
    assert [message.text for message in model.prompts[-1]] == [
        "Hi.", "book a table", "You said book a table."
    ]  # fmt: skip


@pytest.mark.parametrize("words", ["Your number, please.", ""])
async def test_a_model_that_hears_and_speaks_uses_tools_and_gets_keys(
    words: str, autojump_clock: MockClock
) -> None:
    def answer(said: str) -> str | list[str | ToolCall]:
        if "typed" in said:
            return f"You said {said}."
        name = "collect_digits" if "number" in said else "look"
        return [*([words] if words else []), ToolCall(name, name)]

    model = FakeModel(answer=answer, conclude=lambda results: f"I see: {' '.join(results)}")
    agent = replace(fake_agent(), model=model)

    @agent.tool
    async def look() -> str:
        return "It is there."

    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        heard = await caller.says("my parcel")
        assert heard.text == f"{words} I see: It is there.".strip()
        heard = await caller.says("my number")
        assert (heard.text, heard.verbs) == (words, ["Gather"])
        heard = await caller.follow(await caller.visit("/voice/digits", Digits="1234"))
        assert heard.text == "I see: The caller typed 1234."
        assert "Record" in heard.verbs
        heard = await caller.follow(await caller.visit("/voice/digits", Digits="56"))
        assert heard.text == "You said (56 typed on the keypad)."
        assert not model.open_requests


async def test_full_is_answered_at_once_and_beyond_that_is_busy(
    autojump_clock: MockClock,
) -> None:
    async with flow_server(fake_agent(greeting="Hi."), max_calls=1) as house:
        house.ledger.call_began()
        for number in range(4):
            heard = await Carrier(house, f"CA{number:032}").calls("/voice-stream")
            assert (heard.text, heard.verbs) == ("Hi.", ["Play", "Record", "Redirect"])
        heard = await Carrier(house, "CA" + "f" * 32).calls("/voice-stream")
        assert (heard.text, heard.verbs) == (BUSY, ["Say", "Hangup"])
        known = Carrier(house, f"CA{3:032}")
        assert (await known.says("hello")).text == "You said hello."
        house.ledger.call_over()


async def test_a_store_that_fails_ends_no_server(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryStore):
        fails = False

        async def get(self, kind: str, key: str) -> bytes | None:
            if self.fails:
                raise OSError(24, "Too many open files")
            return await super().get(kind, key)

        async def pop(self, kind: str, key: str) -> bytes | None:
            return await self.get(kind, key) and await super().pop(kind, key)

    shared = Shared(store=(store := Failing(trio.current_time)))
    async with flow_server(fake_agent(greeting="Hi."), shared=shared) as house:
        await Carrier(house).calls()
        store.fails = True
        await trio.sleep(200)  # nobody comes: it is looked for, and cannot be found
        assert "sweep failed" in caplog.text
        store.fails = False
        heard = await Carrier(house, "CA" + "2" * 32).calls()
        assert heard.text == "Hi."


async def test_going_down_waits_for_calls_here_and_takes_new_ones_here(
    autojump_clock: MockClock,
) -> None:
    async with flow_server(fake_agent(greeting="Hi."), drain_s=60) as house:
        caller, late = Carrier(house), Carrier(house, "CA" + "2" * 32)
        await caller.calls()
        house.server.drain()
        assert (await late.calls("/voice-stream")).verbs == ["Play", "Record", "Redirect"]
        assert (await caller.says("hello")).text == "You said hello."
        await caller.hangs_up()
        await trio.sleep(5)
        assert (await late.says("hello")).text == "You said hello."
        await late.hangs_up()


async def test_audio_is_there_for_whoever_knows_its_name_and_not_for_ever(
    autojump_clock: MockClock,
) -> None:
    async with flow_server(fake_agent(greeting="Hi.")) as house:
        play = (await Carrier(house).calls()).root.findtext("Play") or ""
        path = play.removeprefix(BASE)
        head = await ask(house.connect(), get(path).replace(b"GET", b"HEAD"), "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 44
        for bad in ("/voice/audio/", "/voice/audio/x.wav", path[:-5] + "_.wav", path + "/.."):
            assert (await ask(house.connect(), get(bad))).status == 404
        await trio.sleep(601)
        assert (await ask(house.connect(), get(path))).status == 404


HOSTILE = {
    "another host": {"RecordingUrl": "https://169.254.169.254/RE/../../latest"},
    "a user name": {"RecordingUrl": "https://api.twilio.com@127.0.0.1/x"},
    "a fragment": {"RecordingUrl": "http://127.0.0.1/#api.twilio.com"},
    "a SID with slashes": {"RecordingSid": "RE/../../../Messages"},
    "a SID with a query": {"RecordingSid": "RE" + "1" * 32 + "?x"},
    "a SID with a line break": {"RecordingSid": "RE" + "1" * 32 + "\n"},
    "an account with slashes": {"RecordingSid": "RE" + "1" * 32, "AccountSid": "AC1/../x"},
    "an account on another host": {"RecordingSid": "RE" + "1" * 32, "AccountSid": "@evil/AC"},
}


@pytest.mark.parametrize("form", HOSTILE.values(), ids=HOSTILE)
async def test_no_form_chooses_what_is_fetched(
    form: dict[str, str], autojump_clock: MockClock
) -> None:
    async with flow_server(fake_agent()) as house:
        caller = Carrier(house)
        heard = await caller.visit("/voice/recording", **form)
        assert "Record" in (await caller.follow(heard)).verbs
        assert not house.recordings.requests
        sid = "RE" + "2" * 32
        await caller.visit("/voice/recording", RecordingUrl=f"https://evil.example/x/{sid}?y=z")
        [request] = house.recordings.requests[:1]
        path = f"/2010-04-01/Accounts/{ACCOUNT}/Recordings/{sid}.wav"
        assert str(request.url) == f"https://api.twilio.com{path}"


@pytest.mark.parametrize("held", ["", "1", "-1", "99", "1" * 500, "%C2%B2", "x"])
async def test_a_wait_for_nothing_is_an_apology(held: str, autojump_clock: MockClock) -> None:
    async with flow_server(fake_agent()) as house:
        caller = Carrier(house)
        await caller.calls()
        heard = await caller.visit(f"/voice/recording/wait?turn=nothing&held={held}")
        assert (heard.text, "Record" in heard.verbs) == (WORDS.apology, True)


async def test_a_turn_belongs_to_its_call(autojump_clock: MockClock) -> None:
    async with flow_server(fake_agent(llm=FakeLLM(5.0, token_seconds=1))) as house:
        caller, other = Carrier(house), Carrier(house, "CA" + "2" * 32)
        await caller.calls()
        await other.calls()
        url = f"/voice/recording?x={'y' * 100}"
        heard = await caller.visit(url, RecordingSid=house.recordings.keep("my secret"))
        wait = heard.root.findtext("Redirect") or ""
        assert "/voice/recording/wait?turn=" in wait
        assert "secret" not in (await other.follow(await other.visit(wait))).text
        assert (await caller.follow(await caller.visit(wait))).text == "You said my secret."


async def test_the_loop_of_webhooks_has_an_end(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicecore.server.recordings.flow_steps.WEBHOOKS", 5)
    async with flow_server(fake_agent(greeting="Hi.")) as house:
        caller = Carrier(house)
        verbs = [(await caller.calls()).verbs[-1] for _ in range(7)]
        assert verbs == ["Redirect"] * 5 + ["Hangup"] * 2


@pytest.mark.parametrize("after", [step / 10 for step in range(1, 40, 2)])
async def test_a_server_that_is_cancelled_leaves_nothing(
    after: float, autojump_clock: MockClock
) -> None:
    agent = fake_agent(
        stt=FakeSTT(0.3), llm=FakeLLM(0.3, token_seconds=0.1), tts=FakeTTS(0.2), greeting="Hi."
    )
    with trio.move_on_after(after):
        async with flow_server(agent, RecordingStore(seconds=0.4, missing=1)) as house:
            caller = Carrier(house)
            await caller.calls()
            await caller.says("one two three")
            await caller.says("four")
    nothing_is_left(house, agent)


class FullDisk(MemoryStore):
    async def put(self, kind: str, key: str, value: bytes, lifetime_s: float) -> None:
        raise OSError(28, "No space left on device")


async def test_a_full_disk_costs_the_history_and_our_voice_and_no_call(
    autojump_clock: MockClock,
) -> None:
    agent = fake_agent(greeting="Hi.")
    async with flow_server(agent, None, Shared(FullDisk(trio.current_time))) as house:
        caller = Carrier(house)
        heard = await caller.calls()
        assert (heard.text, heard.verbs) == ("Hi.", ["Say", "Record", "Redirect"])
        heard = await caller.says("hello")
        assert (heard.text, heard.verbs) == ("You said hello.", ["Say", "Record", "Redirect"])
        assert (await caller.hangs_up()).verbs == ["Hangup"]


def using(tool: ToolCall, words: str = "") -> FakeLLM:
    """A model that uses a tool once, and says `words` with it; then, what the tool said."""

    class Model(FakeLLM):
        async def _stream(self, text: str, fault: object) -> AsyncGenerator[Delta, None]:
            last = self.prompts[-1][-1]
            if last.role == "tool":
                yield f"I see: {last.text}"
            elif any(message.role == "tool" for message in self.prompts[-1]):
                yield f"You said {last.text}."
            else:
                if words:
                    yield words
                yield tool

    return Model()


async def test_a_call_is_given_away_in_the_flow(autojump_clock: MockClock) -> None:
    llm = using(ToolCall("1", "transfer_call", '{"to": "sales"}'), "I will connect you.")
    agent = replace(fake_agent(llm=llm), transfers={"sales": "+15550002222"})
    async with flow_server(agent) as house:
        caller = Carrier(house)
        await caller.calls()
        heard = await caller.says("sales please")
        assert (heard.text, heard.verbs) == ("I will connect you.", ["Play", "Dial"])
        assert heard.root.findtext("Dial/Number") == "+15550002222"
        await trio.sleep(5)
        assert not len(house.calls)
        heard = await caller.visit("/voice-stream/dialled", DialCallStatus="no-answer")
        assert (heard.text, "Record" in heard.verbs) == (WORDS.no_answer, True)
        assert (await caller.says("never mind")).text == "You said never mind."
        await caller.hangs_up()
    ended = house.shared.milestones.of("call ended")
    assert [(each["reason"], each["turns"]) for each in ended] == [("transfer", 1), ("caller", 2)]


@pytest.mark.parametrize(
    ("arguments", "attributes"),
    [
        ("{}", {"timeout": "5", "finishOnKey": "#"}),
        ('{"count": 4, "terminator": ""}', {"timeout": "5", "finishOnKey": "", "numDigits": "4"}),
        ('{"timeout_s": 9.5}', {"timeout": "10", "finishOnKey": "#"}),
    ],
)
async def test_keys_are_collected_by_the_carrier(
    arguments: str, attributes: dict[str, str], autojump_clock: MockClock
) -> None:
    llm = using(ToolCall("call-7", "collect_digits", arguments), "Your number, please.")
    async with flow_server(fake_agent(llm=llm)) as house:
        caller = Carrier(house)
        await caller.calls()
        heard = await caller.says("my parcel")
        assert (heard.text, heard.verbs) == ("Your number, please.", ["Gather"])
        assert heard.root[0].attrib == {
            "action": f"{BASE}/voice/digits",
            "method": "POST",
            "input": "dtmf",
            "actionOnEmptyResult": "true",
            **attributes,
        }
        heard = await caller.follow(await caller.visit("/voice/digits", Digits="1234"))
        assert heard.text == "I see: The caller typed 1234."
        assert "Record" in heard.verbs
        assert (await caller.says("thanks")).text == "You said thanks."
    results = [message.text for message in llm.prompts[-1] if message.role == "tool"]
    assert results == ["The caller typed 1234."]


async def test_keys_that_nobody_types_and_keys_that_nobody_asked_for(
    autojump_clock: MockClock,
) -> None:
    llm = using(ToolCall("1", "collect_digits"), "Your number, please.")
    async with flow_server(fake_agent(llm=llm)) as house:
        caller = Carrier(house)
        await caller.calls()
        await caller.says("my parcel")
        heard = await caller.follow(await caller.visit("/voice/digits", Digits=""))
        assert heard.text == "I see: The caller typed nothing."
        heard = await caller.follow(await caller.visit("/voice/digits", Digits="5<b>\n6"))
        assert heard.text == "You said (56 typed on the keypad)."
        heard = await caller.follow(await caller.visit("/voice/digits"))
        assert heard.text == WORDS.unheard


async def test_keys_are_pressed_in_what_is_played(autojump_clock: MockClock) -> None:
    llm = using(ToolCall("1", "press_digits", '{"digits": "12"}'))
    async with flow_server(fake_agent(llm=llm)) as house:
        caller = Carrier(house)
        await caller.calls()
        assert (await caller.says("press")).text == "I see: Pressed 12."


async def test_when_nothing_works_others_take_the_call_once(autojump_clock: MockClock) -> None:
    agent = replace(fake_agent(), transfers={"desk": "+15550002222"})
    async with flow_server(agent, RecordingStore(missing=99)) as house:
        caller = Carrier(house)
        await caller.calls()
        for _ in range(3):
            heard = await caller.says("hello")
        assert heard.text.endswith(WORDS.connecting)
        assert heard.verbs == ["Play", "Dial"]
        await caller.visit("/voice-stream/dialled", DialCallStatus="busy")
        heard = await caller.says("hello")
        assert heard.text.endswith(WORDS.give_up)
        assert heard.verbs == ["Play", "Hangup"]


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_a_status_callback_ends_the_call(status: str, autojump_clock: MockClock) -> None:
    async with flow_server(fake_agent(llm=FakeLLM(3.0))) as house:
        caller = Carrier(house)
        await caller.calls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller.records, house.recordings.keep("hello"))
            await trio.sleep(1)
            assert (await caller.request("/status/call", CallStatus="in-progress")).status == 204
            assert len(house.turns) == 1
            assert (await caller.request("/status/call", CallStatus=status)).status == 204
            await trio.lowlevel.checkpoint()
            assert not len(house.calls)
            nursery.cancel_scope.cancel()
        assert len(house.shared.milestones.of("call ended")) == 1
