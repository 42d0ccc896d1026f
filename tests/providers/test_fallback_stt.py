"""The fallback order of recognisers: one call, several who may have to understand it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from voicecore.audio import FRAME_BYTES
from voicecore.contracts import LiveTranscription, Transcript, TurnHint
from voicecore.errors import ProviderError, ProviderFault
from voicecore.providers.breaker import BreakerState
from voicecore.providers.fallback import FallbackSTT
from voicecore.testing import FakeSTT, audible

FAULTS: tuple[ProviderFault, ...] = get_args(ProviderFault)
HELLO = b"".join(audible.say("hello there", 30))
WAIT = b"".join(audible.say("wait please", 30))


class FailingSTT(FakeSTT):
    """Fails with `fault` at every transcript, or when it shall listen, while `is_down`."""

    def __init__(
        self, fault: ProviderFault, where: str = "transcript", group: bool = False
    ) -> None:
        super().__init__()
        self.fault: ProviderFault = fault
        self.where, self.group, self.is_down = where, group, True

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[FakeSTT]:
        self._fail("listen")
        async with super().listen(language) as transcription:
            yield transcription

    async def transcript(self, utterance: bytes) -> Transcript:
        words = await super().transcript(utterance)
        self._fail("transcript")
        return words

    def _fail(self, where: str) -> None:
        if self.is_down and self.where == where:
            error = ProviderError("first", self.fault, "as told")
            raise ExceptionGroup("from a nursery", [error]) if self.group else error


class LiveSTT:
    """Understands what it is fed, as it comes; what it was not fed it takes from the utterance."""

    def __init__(self) -> None:
        self.sessions: list[LiveSession] = []
        self.is_down = False
        self.open = 0

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[LiveSession]:
        session = LiveSession(self)
        self.sessions.append(session)
        async with trio.open_nursery() as nursery:  # as those do that hold a connection
            nursery.start_soon(trio.sleep_forever)
            self.open += 1
            try:
                yield session
            finally:
                self.open -= 1
            nursery.cancel_scope.cancel()


class LiveSession:
    def __init__(self, vendor: LiveSTT) -> None:
        self.vendor = vendor
        self.fed = b""
        self.hints = [TurnHint.EAGER]

    def feed(self, frame: bytes) -> None:
        self.fed += frame

    @property
    def partial(self) -> str:
        return " ".join(audible.words(self.fed))

    async def standing(self, utterance: bytes) -> str:
        await trio.sleep_forever()

    def hint(self) -> TurnHint | None:
        return self.hints.pop() if self.hints else None

    async def transcript(self, utterance: bytes) -> Transcript:
        await trio.sleep(0.1)
        if self.vendor.is_down:
            raise ProviderError("live", "cut", "as told")
        heard = self.fed[-len(utterance) :] if len(self.fed) >= len(utterance) else utterance
        return Transcript(" ".join(audible.words(heard)))


def feed(call: object, audio: bytes) -> None:
    for start in range(0, len(audio), FRAME_BYTES):
        call.feed(audio[start : start + FRAME_BYTES])  # type: ignore[attr-defined]


async def said(call: object, audio: bytes) -> str:
    """Let the call hear `audio`, and return the words that it understood."""
    feed(call, audio)
    return (await call.transcript(audio)).text  # type: ignore[attr-defined, no-any-return]


def state(order: FallbackSTT, place: int = 0) -> BreakerState:
    return order.order.choices[place].guard.breaker.state


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("where", ["listen", "transcript"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_next_one_understands_the_same_utterance(
    fault: ProviderFault, where: str, group: bool, autojump_clock: MockClock
) -> None:
    first, second = FailingSTT(fault, where, group), FakeSTT()
    order = FallbackSTT([("first", first), ("second", second)])
    async with order.listen("en-US") as call:
        assert await said(call, HELLO) == "hello there"
    assert trio.current_time() == 0
    assert [request.what for request in second.requests] == [f"{len(HELLO)} bytes"]
    asked = 2 if where == "listen" else 1  # at the call's start, and when it was needed
    assert order.order.failures == {("first", fault): asked}
    assert not first.open_requests + second.open_requests


async def test_everybody_fails() -> None:
    order = FallbackSTT([("first", FailingSTT("busy")), ("second", FailingSTT("refused"))])
    async with order.listen("en-US") as call:
        with pytest.raises(ProviderError) as failure:
            await said(call, HELLO)
    assert failure.value.fault == "refused"


async def test_a_failure_leaves_the_calls_context_as_it_is() -> None:
    """Not in a group: whoever opens a call by hand may say ``except ProviderError``."""
    with pytest.raises(ProviderError, match="as told"):
        async with FallbackSTT([("first", FailingSTT("busy"))]).listen("en-US") as call:
            await said(call, HELLO)


@pytest.mark.parametrize(("utterance_s", "patience"), [(0.6, 2.03), (10, 2.5), (60, 5.0)])
async def test_who_hangs_is_given_up_while_the_caller_still_waits(
    utterance_s: float, patience: float, autojump_clock: MockClock
) -> None:
    first, second = FakeSTT(faults=["hang"]), FakeSTT()
    order = FallbackSTT([("first", first), ("second", second)])
    utterance = b"".join(audible.say("hello there", round(utterance_s / 0.02)))
    async with order.listen("en-US") as call:
        assert await said(call, utterance) == "hello there"
        assert trio.current_time() == pytest.approx(patience)
        assert not first.open_requests


async def test_who_waits_for_the_network_holds_up_no_greeting(autojump_clock: MockClock) -> None:
    class Waiting(FakeSTT):
        @asynccontextmanager
        async def listen(self, language: str) -> AsyncIterator[FakeSTT]:
            await trio.sleep_forever()
            yield self

    order = FallbackSTT([("first", Waiting()), ("second", FakeSTT())])
    async with order.listen("en-US") as call:
        assert trio.current_time() == 1
        assert await said(call, HELLO) == "hello there"
        assert trio.current_time() == pytest.approx(3.03)


async def test_the_last_one_has_the_time_that_it_gives_itself(autojump_clock: MockClock) -> None:
    async with FallbackSTT([("first", FakeSTT(12.0))]).listen("en-US") as call:
        assert await said(call, HELLO) == "hello there"
    assert trio.current_time() == 12


async def test_after_five_failures_nobody_waits_for_it_any_more(
    autojump_clock: MockClock,
) -> None:
    first, second = FakeSTT(faults=["hang"] * 6), FakeSTT()
    order = FallbackSTT([("first", first), ("second", second)])
    for _ in range(5):  # in five calls
        async with order.listen("en-US") as call:
            await said(call, HELLO)
    assert state(order) is BreakerState.OPEN
    async with order.listen("en-US") as call:
        began = trio.current_time()
        assert await said(call, HELLO) == "hello there"
        assert trio.current_time() == began
        assert len(first.requests) == 5
        first._faults = iter(())
        await trio.sleep(10)
        assert await said(call, HELLO) == "hello there"
    assert (len(first.requests), len(second.requests)) == (6, 6)
    assert state(order) is BreakerState.CLOSED


async def test_alone_it_is_left_alone_too(autojump_clock: MockClock) -> None:
    order = FallbackSTT([("first", FailingSTT("connect"))])
    async with order.listen("en-US") as call:
        for _ in range(5):
            with pytest.raises(ProviderError, match="as told"):
                await said(call, HELLO)
        with pytest.raises(ProviderError, match="first: connect: not asked after 5 failures"):
            await said(call, HELLO)
    async with order.listen("en-US") as call:  # nobody listens, and that is no crash
        feed(call, HELLO)


async def test_a_live_fallback_is_fed_from_then_on() -> None:
    live = LiveSTT()
    order = FallbackSTT([("first", FailingSTT("status")), ("live", live)])
    async with order.listen("en-US") as call:
        feed(call, HELLO)
        assert not live.sessions
        assert (await call.transcript(HELLO)).text == "hello there"
        assert await said(call, WAIT) == "wait please"
        [session] = live.sessions
        assert session.fed == WAIT
    assert live.open == 0


async def test_the_first_goes_on_listening_and_is_asked_next(autojump_clock: MockClock) -> None:
    live, second = LiveSTT(), FakeSTT()
    order = FallbackSTT([("live", live), ("second", second)])
    async with order.listen("en-US") as call:
        live.is_down = True
        assert await said(call, HELLO) == "hello there"
        live.is_down = False
        assert await said(call, WAIT) == "wait please"
        [session] = live.sessions
        assert session.fed == HELLO + WAIT
    assert len(second.requests) == 1
    assert live.open == 0


async def test_who_is_left_alone_does_not_listen_until_the_probe(
    autojump_clock: MockClock,
) -> None:
    live = LiveSTT()
    order = FallbackSTT([("live", live), ("second", FakeSTT())])
    live.is_down = True
    async with order.listen("en-US") as call:
        for _ in range(5):
            assert await said(call, HELLO) == "hello there"
        await trio.testing.wait_all_tasks_blocked()
        assert live.open == 0
        assert call.partial == ""
        live.is_down = False
        await trio.sleep(10)
        assert await said(call, WAIT) == "wait please"
        assert (len(live.sessions), live.open) == (2, 1)


async def test_when_the_first_comes_back_the_fallback_is_let_go(
    autojump_clock: MockClock,
) -> None:
    first, live = FailingSTT("cut"), LiveSTT()
    order = FallbackSTT([("first", first), ("live", live)])
    async with order.listen("en-US") as call:
        assert await said(call, HELLO) == "hello there"
        assert live.open == 1
        first.is_down = False
        assert await said(call, WAIT) == "wait please"
        await trio.testing.wait_all_tasks_blocked()
        assert live.open == 0
        first.is_down = True
        assert await said(call, HELLO) == "hello there"


async def test_a_call_in_an_outage_begins_with_who_would_be_asked(
    autojump_clock: MockClock,
) -> None:
    first, live = FailingSTT("connect"), LiveSTT()
    order = FallbackSTT([("first", first), ("live", live)])
    async with order.listen("en-US") as call:
        for _ in range(5):
            await said(call, HELLO)
    async with order.listen("en-US") as call:
        feed(call, HELLO)
        assert live.sessions[-1].fed == HELLO
        assert isinstance(call, LiveTranscription)


async def test_it_is_live_if_the_first_one_is() -> None:
    live = LiveSTT()
    async with FallbackSTT([("live", live), ("b", FakeSTT())]).listen("en-US") as call:
        assert isinstance(call, LiveTranscription)
        feed(call, HELLO)
        assert call.partial == "hello there"
        assert (call.hint(), call.hint()) == (TurnHint.EAGER, None)
        live.is_down = True
        await said(call, b"")
        assert (call.partial, call.hint()) == ("", None)  # nobody live is left
    async with FallbackSTT([("a", FakeSTT()), ("live", live)]).listen("en-US") as call:
        assert not isinstance(call, LiveTranscription)


async def test_a_session_that_dies_is_opened_anew(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class Dying(FakeSTT):
        lives = 0

        @asynccontextmanager
        async def listen(self, language: str) -> AsyncIterator[FakeSTT]:
            self.lives += 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._die)
                yield self
                nursery.cancel_scope.cancel()

        async def _die(self) -> None:
            await trio.sleep(1)
            raise ProviderError("first", "cut", "the connection broke")

    first = Dying()
    order = FallbackSTT([("first", first)])
    async with order.listen("en-US") as call:
        await trio.sleep(2)
        assert first.lives == 1
        assert await said(call, HELLO) == "hello there"
        assert first.lives == 2
    assert "stt by first stopped listening: first: cut: the connection broke" in caplog.messages


async def test_words_between_failures_forgive(autojump_clock: MockClock) -> None:
    first = FailingSTT("cut")
    order = FallbackSTT([("first", first), ("second", FakeSTT())])
    async with order.listen("en-US") as call:
        for number in range(25):
            first.is_down = number % 5 != 4
            await said(call, HELLO)
    assert state(order) is BreakerState.CLOSED
    assert order.order.failures.total() == 20


async def test_the_words_of_a_session_that_died_are_not_the_calls(
    autojump_clock: MockClock,
) -> None:
    class DyingLive(LiveSTT):
        @asynccontextmanager
        async def listen(self, language: str) -> AsyncIterator[LiveSession]:
            with trio.move_on_after(1):
                async with super().listen(language) as session:
                    yield session
            raise ProviderError("live", "cut", "as told")

    async with FallbackSTT([("live", DyingLive())]).listen("en-US") as call:
        feed(call, HELLO)
        assert call.partial == "hello there"
        await trio.sleep(2)
        assert (call.partial, call.hint()) == ("", None)


@pytest.mark.parametrize("live", [False, True])
async def test_cancelled_anywhere_nothing_is_open(live: bool, autojump_clock: MockClock) -> None:
    """The turn is cancelled, then the call goes on, then it is left."""
    for step in range(14):
        first, second = FailingSTT("status"), LiveSTT() if live else FakeSTT(0.3)
        first.seconds = 0.3
        order = FallbackSTT([("first", first), ("second", second)])
        async with order.listen("en-US") as call:
            with trio.move_on_after(step * 0.05 + 0.02):
                await call.transcript(HELLO)
            assert not first.open_requests
            assert await said(call, HELLO) == "hello there"
            with trio.move_on_after(step * 0.05 + 0.02):
                await call.transcript(HELLO)
        assert not first.open_requests
        assert not (second.open if isinstance(second, LiveSTT) else second.open_requests)


async def test_cancelled_as_a_probe_it_makes_room(autojump_clock: MockClock) -> None:
    first = FailingSTT("status")
    order = FallbackSTT([("first", first), ("second", FakeSTT())])
    async with order.listen("en-US") as call:
        for _ in range(5):
            await said(call, HELLO)
        await trio.sleep(10)
        first.is_down, first.seconds = False, 1.0
        with trio.move_on_after(0.5):
            await said(call, HELLO)
        assert state(order) is BreakerState.OPEN
        assert await said(call, HELLO) == "hello there"
        assert state(order) is BreakerState.CLOSED
