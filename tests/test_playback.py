"""The player: exact times, the exact bytes, and the truth about what was heard, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.call.playback import ECHO_PATIENCE_S, Player
from voicecore.call.speech import AHEAD_BYTES, Speech
from voicecore.phone.buffer import PlaybackBuffer
from voicecore.wire.events import Clear, Command, Mark, Play

FRAME_S = 0.02


@dataclass
class Carrier:
    """A carrier at the end of the wire that plays in real time and echoes marks."""

    latency: float = 0.0
    echoes: bool = True
    buffer: PlaybackBuffer = field(default_factory=PlaybackBuffer)
    sent: list[tuple[float, Command]] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    first_heard_at: float | None = None
    dry: int = 0
    player: Player | None = None
    began: float = 0.0
    stuck_until: float = 0.0

    async def send(self, commands: Sequence[Command]) -> None:
        if trio.current_time() < self.stuck_until:
            await trio.sleep_until(self.stuck_until)
        for command in commands:
            self.take(command)

    def take(self, command: Command) -> None:
        self.sent.append((trio.current_time() - self.began, command))
        match command:
            case Play(audio):
                self.buffer.media(audio)
            case Mark(name):
                self._echo(self.buffer.mark(name))
            case Clear():
                self._echo(self.buffer.clear())

    async def play(self) -> None:
        ticks = 0
        while True:
            played = self.buffer.play()
            if played.queued:
                self.first_heard_at = self.first_heard_at or trio.current_time()
                self.heard += played.audio[: played.queued]
            elif self.heard and self.player is not None and self.player.is_speaking:
                self.dry += 1
            self._echo(played.marks)
            ticks += 1
            await trio.sleep_until(self.began + ticks * FRAME_S)

    def _echo(self, marks: tuple[str, ...]) -> None:
        if self.echoes and self.player is not None:
            for mark in marks:
                self.player.mark_reached(mark)

    def times(self, kind: type[Command]) -> list[float]:
        return [at for at, command in self.sent if isinstance(command, kind)]


@asynccontextmanager
async def playing(carrier: Carrier, lead: float = 0.16) -> AsyncIterator[Player]:
    carrier.player = player = Player(carrier.send, lead)
    carrier.began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(carrier.play)
        yield player
        nursery.cancel_scope.cancel()


def audio(frames: int) -> bytes:
    return b"".join(bytes([number % 250]) * 160 for number in range(1, frames + 1))


async def say(speech: Speech, sound: bytes) -> None:
    await speech.put(sound)
    speech.finish()


async def play_all(player: Player, sound: bytes) -> Speech:
    speech = player.new_speech("t1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, speech, sound)
        await player.play(speech)
    return speech


async def test_frames_leave_at_absolute_deadlines_with_a_lead(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        await play_all(player, audio(100))
    # Ten at once, then each pair when its first frame is due.
    due = [max(0.0, (n - n % 2) * FRAME_S - 0.16) for n in range(100)]
    assert carrier.times(Play) == pytest.approx(due, abs=1e-6)
    assert bytes(carrier.heard) == audio(100)
    assert carrier.dry == 0


async def test_a_tail_is_padded_and_only_the_tail(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        await play_all(player, audio(3) + b"\x07" * 50)
    assert bytes(carrier.heard) == audio(3) + b"\x07" * 50 + b"\xff" * 110


async def test_speaking_lasts_until_the_last_mark(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        began = trio.current_time()
        speech = await play_all(player, audio(50))
        assert trio.current_time() - began == pytest.approx(1.0, abs=1.5 * FRAME_S)
        assert speech.confirmed == 8000
        assert not player.is_speaking


async def test_without_echoes_the_clock_decides(autojump_clock: MockClock) -> None:
    carrier = Carrier(echoes=False)
    async with playing(carrier) as player:
        began = trio.current_time()
        await play_all(player, audio(50))
        assert trio.current_time() - began == pytest.approx(
            1.0 + ECHO_PATIENCE_S, abs=1.5 * FRAME_S
        )


async def test_a_carrier_that_echoes_nothing_is_waited_for_once(
    autojump_clock: MockClock,
) -> None:
    carrier = Carrier(echoes=False)
    async with playing(carrier) as player:
        await play_all(player, audio(50))
        began = trio.current_time()
        await play_all(player, audio(50))
        assert trio.current_time() - began == pytest.approx(1.25, abs=1.5 * FRAME_S)


async def test_marks_come_at_sentences_and_at_least_each_second(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        speech = player.new_speech("t7")

        async def speak() -> None:
            await speech.put(audio(30))
            speech.end_sentence()
            await say(speech, audio(120))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await player.play(speech)
    names = [c.name for _, c in carrier.sent if isinstance(c, Mark)]
    assert names == ["t7:1", "t7:2", "t7:3", "t7:4"]
    before = [sum(isinstance(c, Play) for _, c in carrier.sent[:at])
              for at, (_, c) in enumerate(carrier.sent) if isinstance(c, Mark)]  # fmt: skip
    assert before == [30, 80, 130, 150]


async def test_a_late_finish_still_gets_its_mark(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        speech = player.new_speech("t1")

        async def speak() -> None:
            await speech.put(audio(10))
            await trio.sleep(1)
            speech.finish()

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await player.play(speech)
        assert trio.current_time() - began == pytest.approx(1.0, abs=1.5 * FRAME_S)


async def test_a_cut_clears_and_knows_what_was_heard(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        speech = player.new_speech("t1")
        with trio.move_on_after(1.01):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, speech, audio(300))
                await player.play(speech)
        await trio.sleep(0.1)
        assert carrier.times(Clear) == [pytest.approx(1.01, abs=1e-6)]
        assert speech.confirmed == pytest.approx(len(carrier.heard), abs=320)
        assert max(carrier.times(Play)) <= 1.01
        assert not player.is_speaking


def without_repeats(heard: bytes) -> bytes:
    """A cut falls inside a 20 ms frame: at most that frame is heard again, never is one lost."""
    frames = [heard[i : i + 160] for i in range(0, len(heard), 160)]
    return b"".join(f for i, f in enumerate(frames) if i == 0 or f != frames[i - 1])


async def test_going_on_after_a_cut_loses_nothing_and_repeats_a_frame_at_most(
    autojump_clock: MockClock,
) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        speech = player.new_speech("t1")
        sound = audio(150)

        async def speak() -> None:
            await say(speech, sound)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with trio.move_on_after(1.03):
                await player.play(speech)
            await trio.sleep(0.5)
            speech.rewind()
            await player.play(speech)
    assert without_repeats(bytes(carrier.heard)) == sound
    assert len(carrier.heard) <= len(sound) + 160


async def test_hold_lets_only_the_lead_out_and_release_goes_on(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play_all, player, audio(100))
            await trio.sleep(0.5)
            player.hold()
            held_at = len(carrier.times(Play))
            await trio.sleep(0.4)
            assert len(carrier.times(Play)) == held_at
            assert carrier.buffer.queued_bytes == 0
            player.release()
        assert bytes(carrier.heard) == audio(100)
        assert player.statistics.underruns == player.statistics.starved == 0


async def test_after_a_stall_it_catches_up_to_the_lead_and_no_further(
    autojump_clock: MockClock,
) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play_all, player, audio(200))
            await trio.sleep(1.0)
            carrier.stuck_until = trio.current_time() + 0.1
            await trio.sleep(0.5)
            assert carrier.dry == 0
            assert carrier.buffer.queued_bytes <= 0.16 * 8000 + 3 * 160
        assert bytes(carrier.heard) == audio(200)
        assert player.statistics.underruns == 0
        assert 0.05 < player.statistics.lateness_max_s <= 0.1


async def test_a_stall_beyond_the_lead_is_an_underrun_and_is_not_rushed_after(
    autojump_clock: MockClock,
) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play_all, player, audio(200))
            await trio.sleep(1.0)
            carrier.stuck_until = trio.current_time() + 0.5
            await trio.sleep(1.0)
            # The lead, the pair that was stuck on its way, and the carrier's own phase.
            assert carrier.buffer.queued_bytes <= 0.16 * 8000 + 3 * 160
        assert bytes(carrier.heard) == audio(200)
        assert player.statistics.underruns == 1
        assert player.statistics.silence_s == pytest.approx(0.5 - 0.16, abs=3 * FRAME_S)


async def test_slow_tts_counts_as_starved_not_as_ours(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        speech = player.new_speech("t1")

        async def speak() -> None:
            await speech.put(audio(20))
            await trio.sleep(1.0)
            await say(speech, audio(20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await player.play(speech)
        assert player.statistics.starved == 1
        assert player.statistics.underruns == 0


async def test_production_is_leashed_to_a_second(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        speech = player.new_speech("t1")
        with trio.move_on_after(30) as scope:
            await speech.put(audio(500))
        assert scope.cancelled_caught
        assert speech.end == AHEAD_BYTES


async def test_stale_marks_change_nothing(autojump_clock: MockClock) -> None:
    carrier = Carrier(echoes=False)
    async with playing(carrier) as player:
        speech = player.new_speech("t2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, speech, audio(100))
            nursery.start_soon(player.play, speech)
            await trio.sleep(0.5)
            for stale in ("t1:1", "t2:99", "", "t2:1x"):
                player.mark_reached(stale)
            assert speech.confirmed == 0
            nursery.cancel_scope.cancel()


async def test_an_empty_speech_is_over_at_once(autojump_clock: MockClock) -> None:
    async with playing(Carrier()) as player:
        began = trio.current_time()
        await play_all(player, b"")
        assert trio.current_time() == began


async def test_one_reply_at_a_time(autojump_clock: MockClock) -> None:
    carrier = Carrier()
    async with playing(carrier) as player:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(play_all, player, b"\x01" * 8000)
            nursery.start_soon(play_all, player, b"\x02" * 8000)
    assert bytes(carrier.heard) in (
        b"\x01" * 8000 + b"\x02" * 8000,
        b"\x02" * 8000 + b"\x01" * 8000,
    )


def in_virtual_time(function: Callable[[], object]) -> None:
    trio.run(function, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["hold", "release", "cut", "wait"]), st.floats(0.001, 0.7)),
        max_size=12,
    ),
    st.integers(1, 4000),
)
def test_whatever_interrupts_it_the_caller_hears_every_byte_once_and_in_order(
    moves: list[tuple[str, float]], chunk: int
) -> None:
    sound = audio(150)

    async def scenario() -> None:
        carrier = Carrier()
        async with playing(carrier) as player:
            speech = player.new_speech("t1")

            async def speak() -> None:
                start = 0
                while start < len(sound):  # after 500 tiny pieces they need not be tiny
                    end = start + (chunk if start < 500 * chunk else max(chunk, 97))
                    await speech.put(sound[start:end])
                    start = end
                speech.finish()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak)
                scope = trio.CancelScope()

                async def play() -> None:
                    with scope:
                        await player.play(speech)

                nursery.start_soon(play)
                for move, seconds in moves:
                    await trio.sleep(seconds)
                    match move:
                        case "hold":
                            player.hold()
                        case "release":
                            player.release()
                        case "cut" if not speech.done.is_set():
                            scope.cancel()
                            await trio.sleep(0.001)
                            assert speech.confirmed <= speech.sent
                            speech.rewind()
                            scope = trio.CancelScope()
                            nursery.start_soon(play)
                player.release()
                await speech.done.wait()
        assert without_repeats(bytes(carrier.heard)) == sound

    in_virtual_time(scenario)
