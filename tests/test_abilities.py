"""Playback where a carrier lacks marks or clear, or wants large portions; whole calls."""

from __future__ import annotations

import math

import pytest
import trio
from dialect_phone import FRAME_S, QUIET, Phone
from dialect_transcripts import CARRIERS, Carrier
from test_playback import Carrier as Ear
from test_playback import audio, say
from trio.testing import MockClock, memory_stream_pair
from trio_websocket import wrap_client_stream, wrap_server_stream

from voicecore.audio import FRAME_BYTES
from voicecore.call.call import open_call
from voicecore.call.line import WebSocketLine
from voicecore.call.playback import LEAST_LEAD_S, NO_ECHO_PATIENCE_S, Player
from voicecore.contracts import Message
from voicecore.testing import audible, fake_agent
from voicecore.wire.abilities import Abilities
from voicecore.wire.dialects import DIALECTS
from voicecore.wire.events import Clear, Mark, Play


async def interrupted(ear: Ear, player: Player, after_s: float) -> tuple[int, int]:
    """Play two seconds, cut them after a while; return what the player believes, and the truth."""
    speech = player.new_speech("t1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(ear.play)
        nursery.start_soon(say, speech, audio(100))
        with trio.move_on_after(after_s):
            await player.play(speech)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return speech.confirmed, len(ear.heard)


def made(abilities: Abilities, echoes: bool = True) -> tuple[Ear, Player]:
    ear = Ear(echoes=echoes, began=trio.current_time())
    ear.player = player = Player(ear.send, 0.16, abilities)
    return ear, player


async def test_without_marks_none_is_sent_and_the_clock_decides(autojump_clock: MockClock) -> None:
    ear, player = made(Abilities(marks=False))
    speech = player.new_speech("t1")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(ear.play)
        nursery.start_soon(say, speech, audio(50))
        await player.play(speech)
        nursery.cancel_scope.cancel()
    assert ear.times(Mark) == []
    assert trio.current_time() - began == pytest.approx(1.0 + NO_ECHO_PATIENCE_S, abs=0.03)
    assert speech.confirmed == 8000
    assert not speech.pending


async def test_without_marks_a_cut_goes_by_the_clock(autojump_clock: MockClock) -> None:
    ear, player = made(Abilities(marks=False))
    believed, truth = await interrupted(ear, player, 0.5)
    assert believed == pytest.approx(4000, abs=FRAME_BYTES)
    assert truth == pytest.approx(4000, abs=2 * FRAME_BYTES)
    assert len(ear.times(Clear)) == 1


async def test_without_clear_little_is_out_and_all_of_it_was_heard(
    autojump_clock: MockClock,
) -> None:
    ear, player = made(Abilities(clear=False))
    believed, truth = await interrupted(ear, player, 0.5)
    assert ear.times(Clear) == []
    assert believed == truth  # to the byte: nothing took it back
    assert 4000 <= truth <= 4000 + (LEAST_LEAD_S + 2 * FRAME_S) * 8000
    assert player._lead == LEAST_LEAD_S


async def test_without_clear_the_next_reply_knows_that_it_waits(autojump_clock: MockClock) -> None:
    ear, player = made(Abilities(marks=False, clear=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(ear.play)
        first, second = player.new_speech("t1"), player.new_speech("t2")
        nursery.start_soon(say, first, audio(100))
        with trio.move_on_after(0.5):
            await player.play(first)
        nursery.start_soon(say, second, audio(100))
        nursery.start_soon(player.play, second)
        for _ in range(20):
            await trio.sleep(0.031)
            truth = len(ear.heard) - first.sent
            assert player.heard(second) <= max(0, truth) + FRAME_BYTES
            assert player.heard(second) >= truth - 2 * FRAME_BYTES
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("frames", [1, 9, 10, 11, 57])
async def test_sound_in_portions(frames: int, autojump_clock: MockClock) -> None:
    ear, player = made(Abilities(message_frames=10))
    speech = player.new_speech("t1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(ear.play)
        nursery.start_soon(say, speech, audio(frames))
        await player.play(speech)
        nursery.cancel_scope.cancel()
    sizes = [len(command.audio) for _, command in ear.sent if isinstance(command, Play)]
    assert sizes[:-1] == [1600] * math.ceil(frames / 10 - 1)
    assert sum(sizes) == frames * FRAME_BYTES
    assert bytes(ear.heard) == audio(frames)
    assert player.statistics.frames == frames
    assert ear.dry == 0


async def test_portions_wait_for_a_slow_voice_rather_than_be_padded(
    autojump_clock: MockClock,
) -> None:
    ear, player = made(Abilities(message_frames=10))
    speech = player.new_speech("t1")

    async def trickle() -> None:
        for at in range(0, 8000, 320):
            await speech.put(audio(50)[at : at + 320])
            await trio.sleep(0.05)
        speech.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(ear.play)
        nursery.start_soon(trickle)
        await player.play(speech)
        nursery.cancel_scope.cancel()
    assert {len(c.audio) for _, c in ear.sent if isinstance(c, Play)} == {1600}
    assert bytes(ear.heard) == audio(50)
    assert player.statistics.starved > 0


async def call(carrier: Carrier, greeting: str, script: list[bytes]) -> tuple[Phone, list[Message]]:
    """Run a whole call over real WebSocket bytes: the greeting, and what the caller says."""
    ours, theirs = memory_stream_pair()
    history: list[Message] = []

    async def answer(nursery: trio.Nursery) -> None:
        request = await wrap_server_stream(nursery, ours)
        line = WebSocketLine(await request.accept())
        async with open_call(line, dialect=DIALECTS[carrier.name]) as call:
            assert call.started == carrier.started
            await call.converse(fake_agent(greeting=greeting))
        history.extend(call.history.messages)
        assert call.ended_by == "caller"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, nursery)
        websocket = await wrap_client_stream(nursery, theirs, "localhost", "/")
        phone = Phone(carrier, websocket)
        nursery.start_soon(phone.listen)
        await phone.open()
        for frame in script:
            await phone.tick(frame)
        await websocket.aclose()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return phone, history


each_carrier = pytest.mark.parametrize("carrier", CARRIERS, ids=lambda c: c.name)


@each_carrier
async def test_a_whole_call(carrier: Carrier, autojump_clock: MockClock) -> None:
    script = QUIET * 80 + audible.say("hello there", 40) + QUIET * 150
    phone, history = await call(carrier, "Good day.", script)
    assert phone.words == ["Good", "day.", "You", "said", "hello", "there."]
    assert history == [
        Message("assistant", "Good day."),
        Message("user", "hello there"),
        Message("assistant", "You said hello there."),
    ]
    assert phone.clears == 0


@each_carrier
async def test_a_barge_in(carrier: Carrier, autojump_clock: MockClock) -> None:
    long = "one two three four five six seven eight nine ten."
    script = QUIET * 80 + audible.say("wait", 40) + QUIET * 150
    phone, history = await call(carrier, long, script)
    assert phone.clears == 1
    greeting, wait, answer = history
    assert greeting.interrupted
    heard = phone.words[: phone.words.index("You")]
    assert 3 <= len(heard) < 10
    assert abs(len(greeting.text.split()) - len(heard)) <= 1
    assert (wait.text, answer.text) == ("wait", "You said wait.")
