"""Whole calls of the phone in virtual time, against scripted servers."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import trio
from phone_fakes import (
    IDENTITY,
    MemoryLink,
    Server,
    converse,
    greeting_agent,
    polite_agent,
    tone,
    utterance,
)
from trio.testing import MockClock

from voicecore.audio import wav
from voicecore.audio.stereo import StereoRecording
from voicecore.phone.caller import OUTBOX_MESSAGES, Caller
from voicecore.phone.handset import Conditions, Key
from voicecore.phone.network import Stall
from voicecore.phone.script import Manners, Script

SID = IDENTITY.stream_sid


async def test_each_file_is_said_after_the_reply_to_the_one_before(
    autojump_clock: MockClock,
) -> None:
    caller, _ = await converse(polite_agent, utterance(1.0), utterance(0.5, name="b.wav"))
    greeting, first, second = caller.log.turns
    assert (greeting.said, first.said, second.said) == (None, "a.wav", "b.wav")
    assert greeting.answer is not None
    assert greeting.answer.heard_s == pytest.approx(0.8)
    # 0.6 s of silence after the greeting, then speech at once.
    assert first.speech_start == pytest.approx(greeting.answer.end + 0.6, abs=0.041)
    assert first.speech_end - first.speech_start == pytest.approx(1.0)
    for turn in (first, second):
        assert turn.gap == pytest.approx(0.3 + 0.1, abs=0.021)
        assert turn.answer.heard_s == pytest.approx(1.0)
        assert turn.answer.marks == 1
        assert not turn.answer.underruns
    assert caller.ended == "hung up"
    assert caller.late_s == 0
    assert caller.dropped == 0


async def test_messages_are_as_twilio_sends_them(autojump_clock: MockClock) -> None:
    _, server = await converse(greeting_agent, utterance(0.5), manners=Manners(patience_s=1.0))
    assert server.events()[:3] == ["connected", "start", "media"]
    assert server.events()[-1] == "stop"
    assert server.messages[1]["start"]["customParameters"] == {"token": "t-9"}
    numbered = [m["sequenceNumber"] for m in server.messages[1:]]
    assert numbered == [str(n) for n in range(1, len(numbered) + 1)]
    media = [m["media"] for m in server.messages if m["event"] == "media"]
    assert [m["chunk"] for m in media] == [str(n) for n in range(1, len(media) + 1)]
    assert {len(b64decode(m["payload"])) for m in media} == {160}
    at = [t for m, t in zip(server.messages, server.times, strict=True) if m["event"] == "media"]
    steps = {round(b - a, 6) for a, b in pairwise(at)}
    assert steps == {0.02}


async def test_marks_are_echoed_in_order_when_they_are_heard(autojump_clock: MockClock) -> None:
    echoes = {}

    async def agent(server: Server) -> None:
        await server.until("start")
        began = trio.current_time()
        await server.send("mark", mark={"name": "at once"})
        await server.say(tone(0.5), "half")
        await server.say(tone(0.5), "whole")
        for _ in range(3):
            echo = await server.until("mark")
            echoes[echo["mark"]["name"]] = trio.current_time() - began
        await server.rest()

    await converse(agent)
    assert list(echoes) == ["at once", "half", "whole"]
    assert echoes["at once"] == 0
    # The echo comes with the first frame in which nothing before the mark is left.
    assert echoes["half"] == pytest.approx(0.5, abs=0.041)
    assert echoes["whole"] == pytest.approx(1.0, abs=0.041)


async def test_clear_silences_the_reply_and_flushes_the_marks(autojump_clock: MockClock) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        await server.say(tone(5.0), "long")
        await server.speech(frames=8)
        await server.send("clear")
        assert (await server.until("mark"))["mark"]["name"] == "long"
        await server.speech_end()
        await server.say(tone(0.4), "answer")
        await server.rest()

    manners = Manners(interrupt_at_s=1.0)
    caller, _ = await converse(agent, utterance(0.8), manners=manners)
    greeting, turn = caller.log.turns
    cut = greeting.replies[0]
    assert cut.interrupted_at == pytest.approx(cut.start + 1.0, abs=0.021)
    assert cut.clear_s == pytest.approx(0.16, abs=0.021)
    assert cut.yield_s == pytest.approx(0.16 + 0.02, abs=0.021)
    assert cut.marks == 1
    assert caller.stream.clears == 1
    assert turn.gap == pytest.approx(0.3, abs=0.021)


async def test_replies_are_interrupted_but_not_the_greeting_nor_the_last_one(
    autojump_clock: MockClock,
) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        await server.say(tone(2.0))
        try:
            while True:
                await server.speech(frames=8)
                await server.send("clear")
                await server.speech_end()
                await server.say(tone(2.0))
        except trio.EndOfChannel:
            pass

    manners = Manners(interrupt_at_s=0.4)
    caller, _ = await converse(agent, utterance(0.5), utterance(0.5), manners=manners)
    greeting, first, second = caller.log.turns
    assert greeting.replies[0].interrupted_at is None
    assert first.replies[0].interrupted_at == pytest.approx(first.replies[0].start + 0.4)
    assert first.replies[0].clear_s == pytest.approx(0.16, abs=0.021)
    assert second.answer is not None
    assert second.answer.interrupted_at is None
    assert second.answer.heard_s == pytest.approx(2.0)


async def test_a_buffer_that_runs_dry_in_mid_reply_is_an_underrun(
    autojump_clock: MockClock,
) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        await server.say(tone(0.5))
        await trio.sleep(0.7)
        await server.say(tone(0.5), "end")
        await server.rest()

    caller, _ = await converse(agent)
    (reply,) = caller.log.turns[0].replies
    (dry,) = reply.underruns
    assert dry.seconds == pytest.approx(0.2, abs=0.021)
    assert dry.at == pytest.approx(reply.start + 0.5)
    assert reply.heard_s == pytest.approx(1.0)


async def test_an_agent_that_never_answers_is_given_up(autojump_clock: MockClock) -> None:
    async def agent(server: Server) -> None:
        await server.rest()

    manners = Manners(greeting_wait_s=2.0, patience_s=3.0)
    caller, _ = await converse(agent, utterance(0.5), utterance(0.5), manners=manners)
    assert [turn.gap for turn in caller.log.turns] == [None, None, None]
    assert caller.log.now == pytest.approx(2.0 + 0.5 + 3.0 + 0.5 + 3.0, abs=0.1)
    assert caller.ended == "hung up"


async def test_an_agent_that_never_stops_is_hung_up_on(autojump_clock: MockClock) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        await server.say(tone(60.0), "never")
        await server.rest()

    caller, server = await converse(agent, utterance(), conditions=Conditions(max_s=10.0))
    assert caller.ended == "hung up: 10 s over"
    assert server.events()[-1] == "stop"


async def test_the_longest_call_is_counted_from_its_answer_not_from_its_stream(
    autojump_clock: MockClock,
) -> None:
    manners = Manners(greeting_wait_s=60.0)
    conditions, began = Conditions(max_s=10.0), trio.current_time() - 4.0

    async def agent(server: Server) -> None:
        await server.rest()

    caller, _ = await converse(agent, manners=manners, conditions=conditions, began=began)
    assert caller.ended == "hung up: 10 s over"
    assert caller.log.now == pytest.approx(6.0, abs=0.021)


async def test_a_close_by_the_server_ends_the_call_without_stop(autojump_clock: MockClock) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        await server.say(tone(0.5))
        await trio.sleep(0.3)
        server.close()
        await server.rest()

    caller, server = await converse(agent, utterance())
    assert caller.ended == "the server closed (1000)"
    assert not caller.hung_up
    assert "stop" not in server.events()
    assert caller.log.now == pytest.approx(0.3, abs=0.021)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff",
        "",
        "nonsense",
        "[]",
        "null",
        '{"event": []}',
        '{"event": "media"}',
        "[" * 100_000,
        '{"event":"dance","streamSid":"MZ"}',
        SID.join(('{"event":"media","streamSid":"', '","media":{"payload":7}}')),
        SID.join(('{"event":"media","streamSid":"', '","media":{"payload":"?"}}')),
        SID.join(('{"event":"mark","streamSid":"', '","mark":{"name":{"a":1}}}')),
        SID.join(('{"event":"mark","streamSid":"', '","mark":"m"}')),
        '{"event":"clear","streamSid":"MZ other"}',
    ],
)
async def test_garbage_is_warned_about_and_the_call_goes_on(
    autojump_clock: MockClock, garbage: str | bytes
) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        for _ in range(60):
            await server.raw(garbage)
        await server.say(tone(0.4), "fine")
        await server.rest()

    caller, server = await converse(agent)
    assert caller.stream.ignored == 60
    assert len(caller.stream.warnings) == 50
    assert caller.log.turns[0].answer is not None
    assert server.events().count("mark") == 1


async def test_a_flood_of_audio_ends_the_call(autojump_clock: MockClock) -> None:
    async def agent(server: Server) -> None:
        await server.until("start")
        for _ in range(7):
            await server.send("media", media={"payload": b64encode(tone(1.0) * 100).decode()})
        await server.rest()

    caller, _ = await converse(agent)
    assert "ten minutes" in caller.ended


async def test_keys_are_pressed_in_time(autojump_clock: MockClock) -> None:
    keys = [Key("#", 0.5), Key("1", 0.2)]
    _, server = await converse(greeting_agent, conditions=Conditions(keys=keys))
    pressed = [(m["dtmf"]["digit"], t) for m, t in zip(server.messages, server.times, strict=True)
               if m["event"] == "dtmf"]  # fmt: skip
    began = server.times[0]
    assert [(digit, round(t - began, 2)) for digit, t in pressed] == [("1", 0.2), ("#", 0.5)]


async def test_jitter_delays_messages_and_keeps_their_order(autojump_clock: MockClock) -> None:
    conditions = Conditions(jitter_s=0.08, chance=Random(7))
    caller, server = await converse(greeting_agent, conditions=conditions)
    chunks = [int(m["media"]["chunk"]) for m in server.messages if m["event"] == "media"]
    assert chunks == sorted(chunks)
    at = [t for m, t in zip(server.messages, server.times, strict=True) if m["event"] == "media"]
    late = [t - at[0] - 0.02 * n for n, t in enumerate(at)]
    assert 0.03 < max(late) - min(late) <= 0.08
    assert caller.log.turns[0].answer is not None


async def test_a_stall_holds_both_directions(autojump_clock: MockClock) -> None:
    conditions = Conditions(stalls=[Stall(at=0.2, seconds=0.4)])
    caller, server = await converse(greeting_agent, conditions=conditions)
    began = server.times[0]
    inside = [t for t in server.times if began + 0.2 <= t < began + 0.6 - 1e-9]
    assert inside == []
    assert caller.log.turns[0].answer is not None


async def test_a_server_that_does_not_read_loses_the_callers_sound(
    autojump_clock: MockClock,
) -> None:
    class Stuck(MemoryLink):
        async def send(self, text: str) -> None:
            await trio.sleep_forever()

    link = Stuck()
    caller = Caller(link, IDENTITY, Script([]), Conditions(max_s=60.0))
    async with trio.open_nursery() as nursery:

        async def keep_talking() -> None:
            while True:
                payload = {"event": "media", "streamSid": IDENTITY.stream_sid}
                await link.server_send.send(
                    json.dumps({**payload, "media": {"payload": "gIAA" * 400}})
                )
                await trio.sleep(0.1)

        nursery.start_soon(keep_talking)
        await caller.run()
        nursery.cancel_scope.cancel()
    assert caller.ended == "hung up: 60 s over"
    assert caller.dropped == pytest.approx(60 * 50 - OUTBOX_MESSAGES, abs=5)
    assert link.closed


async def test_the_recording_has_both_sides_on_one_clock(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    with StereoRecording(path) as recording:
        caller, _ = await converse(polite_agent, utterance(1.0), ears=[recording])
    stereo = wav.read(path)
    assert stereo.channels == 2
    assert stereo.seconds == pytest.approx(caller.log.now, abs=0.021)
    samples = memoryview(stereo.pcm).cast("h")
    left, right = samples[0::2].tolist(), samples[1::2].tolist()
    turn = caller.log.turns[1]

    def first_loud(channel: list[int], since: int = 0) -> int:
        return next(n for n in range(since, len(channel)) if abs(channel[n]) > 256)

    assert first_loud(left) / 8000 == pytest.approx(turn.speech_start, abs=0.001)
    end = round(turn.speech_end * 8000)
    assert (first_loud(right, end) - end) / 8000 == pytest.approx(turn.gap, abs=0.001)


@pytest.mark.parametrize("after", [n * 0.25 for n in range(13)])
async def test_a_cancelled_call_leaves_nothing_behind(
    autojump_clock: MockClock, after: float
) -> None:
    link = MemoryLink()
    server = Server(link)
    caller = Caller(link, IDENTITY, Script([utterance(0.5)]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(polite_agent, server)
        with trio.move_on_after(after) as scope:
            await caller.run()
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()
    assert caller.log.now <= after + 0.02
