"""What a dialect may ask of the engine, with a vendor made up for it and no network at all."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from voicecore.audio import SILENCE_FRAME
from voicecore.contracts import TurnHint
from voicecore.errors import ProviderError
from voicecore.providers.live import Dialect, Event, Failed, Finalized, Hint, Rules, Words
from voicecore.providers.live_call import LiveCall
from voicecore.providers.websocket import Closed, Endpoint, WebSocket
from voicecore.testing import audible

from .live_line import CallerLine

FINALISE = '{"type":"flush"}'
PING = '{"type":"ping"}'


class Parrot:
    """A vendor that is told what to say."""

    endpoint = Endpoint("parrot", "ws://parrot.test/listen")

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def audio(self, mulaw: bytes) -> bytes:
        return mulaw

    def receive(self, message: str | bytes) -> Iterable[Event]:
        said = json.loads(message)
        if "fault" in said:
            yield Failed(ProviderError("parrot", said["fault"], "it said so"))
        if "text" in said:
            yield Words.of(said["text"], said["start"], said["end"], said["final"])
        if "hint" in said:
            yield Hint(TurnHint[said["hint"]])
        if said.get("done"):
            yield Finalized()


@dataclass
class Socket:
    """One connection to the parrot; `sent` is what came, and when."""

    react: Callable[[Socket, str | bytes], None]
    sent: list[tuple[float, str | bytes]] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._said, self._heard = trio.open_memory_channel[str | None | int](10000)

    def say(self, **message: Any) -> None:
        self._said.send_nowait(json.dumps(message))

    def close(self, code: int) -> None:
        self._said.send_nowait(code)

    async def send(self, message: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(message, bytes):
            self.seconds += len(message) / 8000
        self.sent.append((trio.current_time(), message))
        self.react(self, message)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> str:
        message = await self._heard.receive()
        if isinstance(message, int):
            raise Closed("parrot", f"closed with {message}", message)
        assert message is not None
        return message

    @property
    def texts(self) -> list[str]:
        return [message for _, message in self.sent if isinstance(message, str)]

    @property
    def audio(self) -> bytes:
        return b"".join(message for _, message in self.sent if isinstance(message, bytes))


def mute(socket: Socket, message: str | bytes) -> None:
    """A vendor who says nothing."""


def answers(text: str, start: float = 0.0) -> Callable[[Socket, str | bytes], None]:
    """A vendor who answers when asked to finish."""

    def react(socket: Socket, message: str | bytes) -> None:
        if message == FINALISE:
            socket.say(text=text, start=start, end=socket.seconds, final=True, done=True)

    return react


@asynccontextmanager
async def calling(
    rules: Rules, react: Callable[[Socket, str | bytes], None]
) -> AsyncIterator[tuple[LiveCall, CallerLine, list[Socket]]]:
    sockets: list[Socket] = []

    @asynccontextmanager
    async def connection() -> AsyncIterator[tuple[Dialect, WebSocket]]:
        sockets.append(Socket(react))
        yield Parrot(rules), cast("WebSocket", sockets[-1])

    call = LiveCall("parrot", connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        yield call, CallerLine(call), sockets
        nursery.cancel_scope.cancel()


async def test_audio_goes_in_messages_of_the_size_that_the_vendor_wants(
    autojump_clock: MockClock,
) -> None:
    rules = Rules(least_bytes=800, most_bytes=1600, finalise=(FINALISE,), sends_tail=False)
    async with calling(rules, answers("yes")) as (call, line, sockets):
        utterance = await line.turn("yes", pause=0.14)
        assert (await call.transcript(utterance)).text == "yes"
        sizes = [len(m) for _, m in sockets[0].sent if isinstance(m, bytes)]
        assert {*sizes} == {800}
        for _ in range(200):
            call.feed(SILENCE_FRAME)  # a burst
        await trio.sleep(0.1)
        sizes = [len(m) for _, m in sockets[0].sent if isinstance(m, bytes)]
        assert min(sizes) == 800
        assert max(sizes) == 1600


async def test_the_rest_goes_at_once_when_words_are_asked_for(autojump_clock: MockClock) -> None:
    rules = Rules(least_bytes=4000, most_bytes=8000, finalise=(FINALISE,))
    async with calling(rules, answers("yes")) as (call, line, sockets):
        utterance = await line.turn("yes")
        began = trio.current_time()
        assert (await call.transcript(utterance)).text == "yes"
        assert trio.current_time() == began
        assert sockets[0].audio == bytes(line.audio)
        assert sockets[0].texts == [FINALISE]


async def test_a_backlog_goes_no_faster_than_the_vendor_allows(autojump_clock: MockClock) -> None:
    rules = Rules(least_bytes=800, most_bytes=1600, speed=1.25, finalise=(FINALISE,))
    async with calling(rules, answers("yes")) as (call, _, sockets):
        for _ in range(150):  # three seconds at once
            call.feed(SILENCE_FRAME)
        await trio.sleep(5)
        seconds, began = 0.0, sockets[0].sent[0][0]
        for at, message in sockets[0].sent:
            assert at - began >= seconds / 1.25 - 1e-9
            seconds += len(message) / 8000
        assert seconds == pytest.approx(3)
        assert sockets[0].sent[-1][0] - began == pytest.approx(2.8 / 1.25)


async def test_opening_messages_and_signs_of_life(autojump_clock: MockClock) -> None:
    rules = Rules(opening=("hello",), keep_alive=PING, keep_alive_s=4)
    async with calling(rules, mute) as (call, _, sockets):
        call.feed(SILENCE_FRAME)
        await trio.sleep(9)
        assert sockets[0].texts == ["hello", PING, PING]
        assert sockets[0].audio == b""


async def test_silence_keeps_alive_where_no_message_does_and_moves_no_word(
    autojump_clock: MockClock,
) -> None:
    rules = Rules(keep_alive_s=1, finalise=(FINALISE,))
    async with calling(rules, answers("yes", start=3.9)) as (call, line, sockets):
        await line.pause(1)
        await trio.sleep(3.1)
        assert sockets[0].seconds == pytest.approx(4, abs=0.1)
        assert (await call.transcript(await line.turn("yes"))).text == "yes"
        assert call.partial == "yes"


async def test_words_are_asked_for_only_after_the_vendor_had_its_time(
    autojump_clock: MockClock,
) -> None:
    rules = Rules(finalise=(FINALISE,), finalise_after_s=0.7)
    async with calling(rules, answers("yes")) as (call, line, _):
        utterance = await line.turn("yes")
        began = trio.current_time()
        assert (await call.transcript(utterance)).text == "yes"
        assert trio.current_time() - began == pytest.approx(0.7)


async def test_a_vendor_that_says_nothing_to_silence(autojump_clock: MockClock) -> None:
    rules = Rules(finalise=(FINALISE,), quiet_s=1.0)
    async with calling(rules, mute) as (call, line, sockets):
        utterance = await line.turn("")
        began = trio.current_time()
        assert (await call.transcript(utterance)).text == ""
        assert trio.current_time() - began == pytest.approx(1)
        assert len(sockets) == 1


async def test_a_late_answer_does_not_settle_the_question_after_it(
    autojump_clock: MockClock,
) -> None:
    rules = Rules(finalise=(FINALISE,))
    async with calling(rules, mute) as (call, line, sockets):
        first = await line.turn("one")
        asked = sockets[0].seconds
        with trio.move_on_after(0.1):
            await call.transcript(first)
        await line.say("two", 0.2)
        await line.pause(0.1)
        whole = bytes(line.audio[-len(first) - 15 * 160 :])

        async def answer() -> None:
            await trio.sleep(0.1)
            sockets[0].say(text="one", start=0.0, end=asked, final=True, done=True)
            await trio.sleep(0.1)
            end = sockets[0].seconds
            sockets[0].say(text="two", start=asked, end=end, final=True, done=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            assert (await call.transcript(whole)).text == "one two"


@pytest.mark.parametrize(("code", "fault", "times"), [(3009, "busy", 1), (1011, "cut", 3)])
async def test_close_codes_mean_what_the_vendor_means_by_them(
    code: int, fault: str, times: int, autojump_clock: MockClock
) -> None:
    rules = Rules(least_bytes=480, close_faults={3009: "busy"})
    async with calling(rules, lambda socket, _: socket.close(code)) as (call, line, sockets):
        utterance = await line.turn("yes")
        await trio.sleep(20)
        before = len(sockets)
        with pytest.raises(ProviderError) as caught:
            await call.transcript(utterance)
        assert caught.value.fault == fault
        assert len(sockets) - before == times


async def test_a_failure_that_the_vendor_tells_ends_the_session(autojump_clock: MockClock) -> None:
    failed: list[Socket] = []

    def react(socket: Socket, message: str | bytes) -> None:
        if not failed:
            failed.append(socket)
            socket.say(fault="status")
        answers("yes")(socket, message)

    async with calling(Rules(finalise=(FINALISE,)), react) as (call, line, sockets):
        assert (await call.transcript(await line.turn("yes"))).text == "yes"
        assert len(sockets) == 2


async def test_each_hint_is_given_once_and_in_order(autojump_clock: MockClock) -> None:
    async with calling(Rules(), mute) as (call, line, sockets):
        await line.pause(0.2)
        assert call.hint() is None
        for hint in ("EAGER", "RESUMED", "ENDED"):
            sockets[0].say(hint=hint)
        await trio.sleep(0.1)
        hints = [call.hint() for _ in range(4)]
        assert hints == [TurnHint.EAGER, TurnHint.RESUMED, TurnHint.ENDED, None]


def talkative(socket: Socket, message: str | bytes) -> None:
    """Interim words with each message, a final stretch now and then."""
    start = 5 * math.floor(socket.seconds / 5)
    if isinstance(message, bytes):
        final = socket.seconds - start > 4.7 or message == FINALISE
        socket.say(text="babble", start=start, end=socket.seconds, final=final)
    socket.sent.clear()


async def test_half_an_hour_takes_no_more_memory_than_a_minute(autojump_clock: MockClock) -> None:
    piece = b"".join([*audible.say("ma", 70), *[SILENCE_FRAME] * 30])  # two seconds
    rules = Rules(least_bytes=8000, most_bytes=8000, finalise=(FINALISE,))
    async with calling(rules, talkative) as (call, _, _):
        tracemalloc.start()
        try:
            sizes = []
            for minute in range(30):
                for at in range(30):
                    for start in range(0, len(piece), 4000):
                        call.feed(piece[start : start + 4000])
                    await trio.sleep(2)
                    if minute % 2 and at % 5 == 4:  # every other minute nobody asks
                        await call.transcript(piece)
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert max(sizes[10:]) < max(sizes[:10]) + 100_000
        assert max(sizes) - sizes[0] < 1_500_000


async def test_ten_minutes_without_any_vendor_keep_seconds_of_audio(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def connection() -> AsyncIterator[tuple[Dialect, WebSocket]]:
        raise ProviderError("parrot", "connect", "no connection")
        yield  # type: ignore[unreachable]

    call = LiveCall("parrot", connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        for _ in range(600):
            for _ in range(50):
                call.feed(SILENCE_FRAME)
            await trio.sleep(1)
        assert call.dropped == (600 - 10) * 8000
        nursery.cancel_scope.cancel()
