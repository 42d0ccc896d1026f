"""Sessions that are opened before a call needs them: taken by the next one, or closed in time."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from voicecore.contracts import WarmsUp

from .fake_deepgram import Behaviour, open_fake
from .live_line import CallerLine
from .test_live import REFUSES, open_nova


async def test_warmed_up_sessions_are_taken_or_close(autojump_clock: MockClock) -> None:
    async with open_fake() as fake, open_nova(fake) as stt:
        assert isinstance(stt, WarmsUp)
        await stt.warm_up("en-US")
        await stt.warm_up("de")
        assert [session.query["language"] for session in fake.open_sessions] == ["en-US", "de"]
        await trio.sleep(4)
        assert fake.sessions[0].kinds == ["KeepAlive"]
        async with stt.listen("en-US") as transcription:
            line = CallerLine(transcription)
            assert (await transcription.transcript(await line.turn("warm"))).text == "warm"
            await line.pause(5)
            assert fake.open_sessions == fake.sessions[:1]
            assert (await transcription.transcript(await line.turn("still"))).text == "still"
        assert not fake.open_sessions
        assert fake.sessions[0].kinds[-1] == "CloseStream"
        assert fake.sessions[1].kinds == ["KeepAlive"] * 2 + ["CloseStream"]
        assert len(fake.sessions) == 2


async def test_warming_up_is_bounded_and_never_fails(autojump_clock: MockClock) -> None:
    async with open_fake(REFUSES, Behaviour(status=429), Behaviour(hangs="before")) as fake:
        async with open_nova(fake) as stt:
            for _ in range(3):
                with trio.fail_after(3.1):
                    await stt.warm_up("en-US")
            await trio.sleep(1)
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(stt.warm_up, "en-US")
            assert len(fake.open_sessions) == 8
            await trio.sleep(9)
            assert not fake.open_sessions
            await stt.warm_up("en-US")
            assert len(fake.open_sessions) == 1
        assert not fake.open_sessions


async def test_a_warm_session_that_died_is_not_taken(autojump_clock: MockClock) -> None:
    async with open_fake(Behaviour(closes_after_s=0)) as fake, open_nova(fake) as stt:
        await stt.warm_up("en-US")
        async with stt.listen("en-US") as transcription:
            line = CallerLine(transcription)
            assert (await transcription.transcript(await line.turn("well"))).text == "well"
        assert len(fake.sessions) == 2
