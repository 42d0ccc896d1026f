"""Whatever befalls a call's connections: no word is lost, doubled, or given to another turn."""

from __future__ import annotations

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from voicecore.errors import ProviderError
from voicecore.providers.deepgram import dialect_of
from voicecore.providers.live import open_live_stt
from voicecore.settings import load

from .fake_deepgram import Behaviour, open_fake
from .live_line import CallerLine

BEHAVIOURS = st.one_of(
    st.builds(Behaviour, cut_after_s=st.floats(0, 8)),
    st.builds(Behaviour, closes_after_s=st.floats(0, 8)),
    st.builds(Behaviour, garbage_after_s=st.floats(0, 8)),
    st.builds(Behaviour, wait_s=st.floats(0, 4)),
    st.builds(Behaviour, latency_s=st.floats(0, 0.8), chatty=st.booleans()),
    st.builds(Behaviour, deaf=st.booleans(), finals=st.booleans()),
    st.sampled_from(
        [
            Behaviour(refuses=True),
            Behaviour(status=503),
            Behaviour(hangs="before"),
            Behaviour(hangs="after"),
            Behaviour(bytewise=True),
        ]
    ),
)

TURNS = st.tuples(
    st.sampled_from([1, 2, 3, 5, 8, 45]),  # words: up to 13 s
    st.floats(0, 3),  # silence before
    st.one_of(st.none(), st.floats(0.01, 0.5)),  # when a speculation is lost
)


async def converse(
    model: str, behaviours: list[Behaviour], turns: list[tuple[int, float, float | None]]
) -> None:
    configured = load(
        deepgram_base_url="http://deepgram.test", deepgram_api_key="k", stt_model=model
    )
    async with open_fake(*behaviours) as fake:
        async with open_live_stt("deepgram", dialect_of(configured), fake.connect) as stt:
            async with stt.listen("en-US") as transcription:
                line = CallerLine(transcription)
                for number, (count, silence, lost_after) in enumerate(turns):
                    await line.pause(silence)
                    words = [f"{number}.{at}" for at in range(count)]
                    utterance = await line.turn(" ".join(words))
                    start = len(line.audio) - len(utterance)
                    if lost_after is not None:
                        try:
                            with trio.move_on_after(lost_after):
                                await line.words(utterance)
                        except* ProviderError:
                            pass
                        words.append(f"{number}.more")
                        await line.say(words[-1])
                        await line.pause(0.1)
                    spent = fake.attempts
                    try:
                        text = await line.words(bytes(line.audio[start:]))
                    except* ProviderError:
                        assert spent < len(behaviours)
                    else:
                        assert text == " ".join(words)
                    await line.pause(0.4)
        assert not fake.open_sessions
        assert not any(session.violations for session in fake.sessions)


@pytest.mark.parametrize("model", ["nova-3", "flux-general-en"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BEHAVIOURS, max_size=6), st.lists(TURNS, min_size=1, max_size=4))
def test_every_word_is_heard_once_in_its_turn(
    model: str, behaviours: list[Behaviour], turns: list[tuple[int, float, float | None]]
) -> None:
    trio.run(converse, model, behaviours, turns, clock=MockClock(autojump_threshold=0))
