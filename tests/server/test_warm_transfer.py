"""Warm transfers: the human is asked first; whatever they, the caller or the network do, it ends.

In every ending a human whom nobody needs is hung up on, and nothing is left of the transfer.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest
import trio
from control_house import HUMAN, PUBLIC, ControlHouse, FakeTwilio, OneAgent, decoded, sid
from test_control import Talk, talking
from trio.testing import MockClock

from voicecore.audio import wav
from voicecore.call.briefing import BRIEFING_CHARS, briefing_of, transfer_words
from voicecore.call.call import Call
from voicecore.call.phrases import stock_words
from voicecore.call.transfer import Transfer
from voicecore.contracts import Message, ToolCall
from voicecore.errors import ProviderError
from voicecore.server.control.live_calls import KnownCall
from voicecore.server.control.warm_transfer import (
    MOST_TRANSFERS,
    TRANSFER_S,
    PendingTransfer,
)
from voicecore.testing import FakeLLM, FakeTTS, ScriptedCaller, fake_agent
from voicecore.testing.audible import words

EN, CONNECTING = transfer_words("en"), stock_words("en").connecting
WARM = {"to": HUMAN, "mode": "warm", "briefing": "It is about a bill."}


class Ringing:
    """A warm transfer whose human is being called; the leg's URLs are what Twilio was given."""

    def __init__(self, house: ControlHouse, talk: Talk, twilio: FakeTwilio) -> None:
        self.house, self.talk, self.twilio = house, talk, twilio
        self.form = twilio.created[-1]
        self.url = self.form["Url"][0]

    async def document(self, url: str, **form: str) -> ElementTree.Element:
        answer = await self.house.webhook(url, CallSid=sid(1), **form)
        assert answer.status == 200
        return ElementTree.fromstring(answer.body)

    async def press(self, key: str) -> ElementTree.Element:
        return await self.document(f"{self.url}/answer", Digits=key)

    async def status(self, status: str) -> None:
        answer = await self.house.webhook(f"{self.url}/status", CallStatus=status)
        assert answer.status == 204

    @property
    def call(self) -> Call:
        return self.call_of(self.house)

    @staticmethod
    def call_of(house: ControlHouse) -> Call:
        known = house.calls.find(sid(100))
        assert known is not None
        assert known.call is not None
        return known.call

    async def outcome(self) -> str:
        await self.house.until(lambda: not self.house.board.transfers._pending)
        return str(decoded(await self.house.get(f"/calls/{sid(100)}"))["transfer"])


@asynccontextmanager
async def ringing(
    caller: ScriptedCaller, agent: Any = None, plans: Any = (), **given: object
) -> AsyncIterator[Ringing]:
    twilio = FakeTwilio([*plans])
    async with talking(caller, agent, twilio, sid(100), **given) as (house, talk):
        answer = await house.post(f"/calls/{sid(100)}/transfer", WARM)
        assert (answer.status, decoded(answer)) == (202, {"status": "connecting"})
        await house.until(lambda: bool(twilio.created))
        await trio.sleep(1)
        yield Ringing(house, talk, twilio)


async def test_a_key_takes_the_call(autojump_clock: MockClock) -> None:
    async with ringing(ScriptedCaller().pauses(60)) as it:
        assert it.form == {
            "To": [HUMAN], "From": ["+15550001111"], "Url": [it.url], "Timeout": ["25"],
            "StatusCallback": [f"{it.url}/status"],
        }  # fmt: skip
        call = it.call
        await trio.sleep(3)
        response = await it.document(it.url)
        gather, redirect = response
        assert gather.attrib == {
            "input": "dtmf", "numDigits": "1", "finishOnKey": "", "timeout": "8",
            "action": f"{it.url}/answer", "method": "POST",
        }  # fmt: skip
        assert (redirect.tag, redirect.text) == ("Redirect", f"{it.url}/answer")
        assert [verb.tag for verb in gather] == ["Play", "Pause", "Play"]
        assert gather[0].text == f"{it.url}/briefing.wav"
        sound = await it.house.get(f"{it.url}/briefing.wav".removeprefix(PUBLIC))
        assert (sound.status, sound.headers["content-type"]) == (200, "audio/x-wav")
        said = " ".join(words(wav.read_telephone(sound.body)))
        assert said == f"It is about a bill. {EN.press_key}"
        [dial] = await it.press("#")
        [conference] = dial
        assert conference.attrib == {
            "startConferenceOnEnter": "true", "endConferenceOnExit": "true", "beep": "false"
        }  # fmt: skip
        await it.talk.ended()
        assert call.ended_by == "transfer"
        assert call.transfer == Transfer(conference=conference.text or "")
        assert " ".join(it.talk.transcript.heard) == f"Good day. {CONNECTING}"
        assert await it.outcome() == "connected"
        assert it.twilio.updates == []  # nobody is hung up on
        [dial] = await it.press("#")  # a webhook may be repeated
        assert dial[0].text == conference.text
        await it.status("completed")


@pytest.mark.parametrize("ending", ["busy", "no-answer", "failed", "canceled", "completed", ""])
async def test_nobody_takes_it_and_the_caller_is_told(
    ending: str, autojump_clock: MockClock
) -> None:
    async with ringing(ScriptedCaller().pauses(20).hangs_up()) as it:
        if ending:
            await it.status(ending)
        else:  # a voicemail: it hears the briefing, and presses nothing
            await it.document(it.url)
            [hang_up] = await it.document(f"{it.url}/answer")
            assert hang_up.tag == "Hangup"
        expected = {"canceled": "declined", "completed": "declined", "": "declined"}
        assert await it.outcome() == expected.get(ending, ending)
        assert it.twilio.updates == []  # it is over already
        transcript = await it.talk.ended()
        assert " ".join(transcript.heard).startswith(f"Good day. {CONNECTING} {EN.nobody}")
        assert decoded(await it.house.get(f"/calls/{sid(100)}"))["ended_by"] == "caller"


async def test_a_caller_who_leaves_takes_the_ringing_with_them(autojump_clock: MockClock) -> None:
    async with ringing(ScriptedCaller().pauses(4).hangs_up()) as it:
        await it.document(it.url)
        await it.talk.ended()
        assert await it.outcome() == "caller left"
        assert it.twilio.updates == [(sid(1), {"Status": ["completed"]})]
        response = await it.press("1")
        assert [verb.tag for verb in response] == ["Say", "Hangup"]
        assert response[0].text == EN.gone


async def test_a_caller_who_leaves_while_the_call_is_being_placed(
    autojump_clock: MockClock,
) -> None:
    """The request is not torn: a phone that rings without a name could not be stopped."""
    async with ringing(ScriptedCaller().pauses(3).hangs_up(), plans=[7.0]) as it:
        await it.talk.ended()
        assert await it.outcome() == "caller left"
        assert it.twilio.updates == [(sid(1), {"Status": ["completed"]})]


@pytest.mark.parametrize("patience", [10.0, 3.0, 0.0])
async def test_the_patience_has_an_end_and_the_caller_is_kept_company(
    patience: float, autojump_clock: MockClock
) -> None:
    """An agent that hears nothing asks, and in the end hangs up: not on who was told to wait."""
    agent = fake_agent(greeting="Good day.", idle_prompt_s=patience)
    caller = ScriptedCaller().pauses(TRANSFER_S + 8).hangs_up()
    async with ringing(caller, agent) as it:
        began = trio.current_time()
        await it.document(it.url)
        assert await it.outcome() == "no-answer"
        assert trio.current_time() - began == pytest.approx(TRANSFER_S, abs=1.5)
        assert it.twilio.updates == [(sid(1), {"Status": ["completed"]})]
        heard = " ".join((await it.talk.ended()).heard)
        assert 8 <= heard.count(EN.still_trying) <= 40
        assert "there?" not in heard.partition(EN.nobody)[0]


@pytest.mark.parametrize(
    "plan", [httpx.ReadError(""), httpx.Response(400, json={"code": 21215}), 3600.0]
)
async def test_a_call_that_cannot_be_placed(plan: Any, autojump_clock: MockClock) -> None:
    async with ringing(ScriptedCaller().pauses(30).hangs_up(), plans=[plan]) as it:
        assert await it.outcome() == "failed"
        assert EN.nobody in " ".join((await it.talk.ended()).heard)


async def test_asked_twice_it_rings_once_and_for_another_not_at_all(
    autojump_clock: MockClock,
) -> None:
    async with ringing(ScriptedCaller().pauses(30).hangs_up()) as it:
        path = f"/calls/{sid(100)}/transfer"
        again = await it.house.post(path, WARM)
        assert (again.status, decoded(again)) == (202, {"status": "connecting"})
        other = await it.house.post(path, {**WARM, "to": "+15550004444"})
        assert other.status == 409
        cold = await it.house.post(path, {"to": "+15550004444"})
        assert (cold.status, it.house.calls.lines()[0].state) == (409, "live")
        await trio.sleep(1)
        assert len(it.twilio.created) == 1
        await it.status("busy")
        await it.outcome()
        assert (await it.house.post(path, WARM)).status == 202  # they may be free now
        await it.house.until(lambda: len(it.twilio.created) == 2)


@pytest.mark.parametrize("leaves_at", [0.5 + 0.35 * step for step in range(20)])
async def test_whenever_the_caller_leaves_nobody_is_left_waiting(
    leaves_at: float, autojump_clock: MockClock
) -> None:
    """Placed in 1.5 s, answered in 3, taken in 5: the human is hung up on, or has a caller."""
    twilio, caller = FakeTwilio([1.5]), ScriptedCaller().pauses(leaves_at).hangs_up()
    async with talking(caller, None, twilio, sid(100)) as (house, talk):
        call = Ringing.call_of(house)
        answer = await house.post(f"/calls/{sid(100)}/transfer", WARM)
        began = trio.current_time()
        await house.until(lambda: bool(twilio.created) or talk.over.is_set())
        taken = False
        if answer.status == 202 and twilio.created:
            it = Ringing(house, talk, twilio)
            await trio.sleep_until(began + 3)
            await it.document(it.url)
            await trio.sleep_until(began + 5)
            taken = (await it.press("1"))[0].tag == "Dial"
        await talk.ended()
        await house.until(lambda: not house.board.transfers._pending)
        assert taken is (call.transfer is not None)
        assert taken is (call.ended_by == "transfer")
        hung_up = [(sid(1), {"Status": ["completed"]})]
        assert twilio.updates == (hung_up if twilio.created and not taken else [])
        if abs(leaves_at - 5) > 0.3:
            assert taken is (leaves_at > 5)


async def test_an_operators_hang_up_ends_it_too(autojump_clock: MockClock) -> None:
    async with ringing(ScriptedCaller().pauses(60)) as it:
        assert (await it.house.post(f"/calls/{sid(100)}/hangup")).status == 200
        assert await it.outcome() == "caller left"
        assert len(it.twilio.updates) == 1


async def test_a_voice_that_fails_leaves_the_briefing_to_the_carrier(
    autojump_clock: MockClock,
) -> None:
    class NoVoice(FakeTTS):
        @asynccontextmanager
        async def speak(self, text: str, voice: str, language: str) -> AsyncIterator[Any]:
            if text.startswith("It is about"):
                raise ProviderError("tts", "busy", "429")
            async with super().speak(text, voice, language) as pieces:
                yield pieces

    agent = fake_agent(tts=NoVoice(), greeting="Good day.")
    async with ringing(ScriptedCaller().pauses(30).hangs_up(), agent) as it:
        gather = (await it.document(it.url))[0]
        assert [verb.tag for verb in gather] == ["Say", "Pause", "Say"]
        assert gather[0].text == f"It is about a bill. {EN.press_key}"
        assert gather[0].get("language") == "en-US"
        assert (await it.house.get(f"{it.url}/briefing.wav".removeprefix(PUBLIC))).status == 404


async def test_a_language_without_a_region_is_none_of_the_carriers(
    autojump_clock: MockClock,
) -> None:
    mute = replace(fake_agent(), tts=FakeTTS(faults=["error"] * 99))
    hindi = replace(mute, persona=replace(mute.persona, language="hi"))
    async with ringing(ScriptedCaller().pauses(60), hindi, language="hi") as it:
        [gather, _] = await it.document(it.url)
        [gone] = [each for each in await it.document(f"{PUBLIC}/transfer/x") if each.tag == "Say"]
        said = [each for each in gather if each.tag == "Say"]
        assert len(said) == 2
        assert [each.attrib for each in (*said, gone)] == [{}, {}, {}]
        assert gone.text == transfer_words("hi").gone


async def test_a_human_is_called_though_nobody_can_say_who_answers(
    autojump_clock: MockClock,
) -> None:
    twilio = FakeTwilio()
    late = OneAgent(fake_agent(), seconds=8)
    async with talking(ScriptedCaller().pauses(60), late, twilio, sid(100)) as (house, _):
        assert (await house.post(f"/calls/{sid(100)}/transfer", WARM)).status == 202
        await trio.sleep(3)
        it = Ringing(house, _, twilio)
        [gather, _] = await it.document(it.url)
        assert gather[0].text == f"It is about a bill. {EN.press_key}"
        assert [verb.tag for verb in gather] == ["Say", "Pause", "Say"]


async def test_a_stream_for_which_nobody_can_be_found_is_no_silence_without_end(
    autojump_clock: MockClock,
) -> None:
    never = OneAgent(fake_agent(), seconds=1e6)
    async with talking(ScriptedCaller().pauses(600), never, FakeTwilio(), sid(100)) as (_, talk):
        await talk.ended()
        assert talk.transcript.seconds < 30
        assert talk.transcript.close_code == 1011


async def test_the_hour_counts_transfers_too(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with talking(ScriptedCaller().pauses(20).hangs_up(), None, twilio, sid(100),
                       outbound_per_hour=1) as (house, _):  # fmt: skip
        house.ledger.place_call("", trio.current_time(), 1)
        assert (await house.post(f"/calls/{sid(100)}/transfer", WARM)).status == 202
        await house.until(lambda: not house.board.transfers._pending)
        assert twilio.asked == []


async def test_an_operator_asks_and_the_conversation_goes_on(autojump_clock: MockClock) -> None:
    """As the model's tool asks: any word of the caller would otherwise call the human off."""
    twilio = FakeTwilio()
    caller = ScriptedCaller().pauses(6).says("thank you").pauses(200)
    who = fake_agent(greeting="Good day.", idle_prompt_s=0)
    async with talking(caller, who, twilio, sid(100)) as (house, talk):
        call = Ringing.call_of(house)
        operator = call.operator
        assert operator is not None
        assert not operator.ask(sid(6), HUMAN, "")
        assert operator.ask(sid(100), HUMAN, "It is about a bill.")
        assert operator.ask(sid(100), HUMAN, "It is about a bill.")  # is the same one
        assert not operator.ask(sid(100), "+390612345678", "")
        await house.until(lambda: len(twilio.created) == 1)
        await trio.sleep(14)
        response = await Ringing(house, talk, twilio).press("1")
        transcript = await talk.ended()
        assert call.transfer == Transfer(conference="".join(response.itertext()))
    heard = " ".join(transcript.heard)
    assert "You said thank you." in heard
    assert CONNECTING not in heard  # who asked has said so
    assert EN.still_trying in heard


async def test_the_model_gives_a_caller_to_a_human(autojump_clock: MockClock) -> None:
    """The tool, the agent's own list of numbers, the human's leg, the conference of both."""

    def answer(messages: Sequence[Message]) -> Any:
        asked = {"to": "sales", "briefing": "Ada wants a pizza."}
        call = ToolCall("c1", "transfer_call", msgspec.json.encode(asked).decode())
        return ["One second.", call] if messages[-1].role == "user" else "Here you are."

    agent = replace(fake_agent(llm=FakeLLM(answer=answer)), transfers={"sales": "+390612345678"})
    twilio, caller = FakeTwilio(), ScriptedCaller().pauses(0.1).says("sales please").pauses(60)
    async with talking(caller, agent, twilio, sid(100)) as (house, talk):
        call = Ringing.call_of(house)
        await house.until(lambda: bool(twilio.created))
        await trio.sleep(2)
        it = Ringing(house, talk, twilio)
        assert it.form["To"] == ["+390612345678"]
        sound = await house.get(f"{it.url}/briefing.wav".removeprefix(PUBLIC))
        assert words(wav.read_telephone(sound.body))[:4] == ["Ada", "wants", "a", "pizza."]
        response = await it.press("1")
        await talk.ended()
        assert call.transfer == Transfer(conference="".join(response.itertext()))
        assert twilio.updates == []


async def test_a_server_that_goes_down_lets_the_human_go(autojump_clock: MockClock) -> None:
    twilio = FakeTwilio()
    async with ringing(ScriptedCaller().pauses(60)) as it:
        twilio = it.twilio
    assert twilio.updates == [(sid(1), {"Status": ["completed"]})]


def test_a_briefing_is_what_was_said_last() -> None:
    assert briefing_of([Message("assistant", "Hi.")], EN) == EN.introduction
    said = [Message("user", "old"), *[Message("assistant", "?"), Message("user", "my bill")] * 2]
    assert briefing_of(said, EN) == f"{EN.introduction} The caller said: my bill my bill"
    assert len(briefing_of([Message("user", "x" * 9999)], EN)) < BRIEFING_CHARS + 100
    hindi = briefing_of([Message("user", "बिल")], transfer_words("hi-IN"))
    assert hindi.endswith("बिल")
    assert hindi.startswith("एक कॉलर")


async def test_there_is_room_for_so_many(autojump_clock: MockClock) -> None:
    async with talking(ScriptedCaller().pauses(2).hangs_up(), call_sid=sid(100)) as (house, _):
        transfers = house.board.transfers
        for number in range(MOST_TRANSFERS):
            known = KnownCall(str(number), "stream", 0.0)
            transfers._pending[str(number)] = PendingTransfer(known, HUMAN, "", is_news=False)
        answer = await house.post(f"/calls/{sid(100)}/transfer", WARM)
        assert answer.status == 409
        transfers._pending.clear()
