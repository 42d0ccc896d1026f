"""Calls with a speech cache: what was said before is said at once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from voicecore.call.agent import Agent
from voicecore.providers.cache import CachedTTS, SpeechCache, open_cache
from voicecore.settings import Settings
from voicecore.testing import FakeSTT, FakeTTS, ScriptedCaller, fake_agent


def agent(cache: SpeechCache, tts: FakeTTS, **stages: Any) -> Agent:
    around: Any = CachedTTS(tts, cache, "acme", "m1")
    return fake_agent(tts=around, greeting="Good day.", **stages)


async def test_after_a_restart_nothing_is_rendered(tmp_path: Path, mock_clock: MockClock) -> None:
    requests = []
    for _ in range(3):
        tts = FakeTTS()
        async with open_cache(Settings(_env_file=None, cache_dir=tmp_path)) as cache:
            host = agent(cache, tts)
            await host.prepare()
            assert host.phrases.audio("Good day.")
            assert host.phrases.audio(host.persona.stock_words.apology)
        requests.append(len(tts.requests))
    assert requests[0] >= 5
    assert requests[1:] == [0, 0]


async def test_what_was_said_in_one_call_is_said_at_once_in_the_next(
    autojump_clock: MockClock,
) -> None:
    tts = FakeTTS(1.0, speed=1.5)
    host = agent(SpeechCache(1 << 20), tts, stt=FakeSTT(0.1))
    script = partial(ScriptedCaller().listens().says("hello there").listens().hangs_up().call, host)
    first = await script()
    requests = len(tts.requests)
    second = await script()
    assert requests == len(tts.requests) == 2
    assert first.gaps[0] == pytest.approx(0.1 + 0.1 + 1.0, abs=0.03)
    assert second.gaps[0] == pytest.approx(0.3, abs=0.03)
    assert second.words[0][0] < first.words[0][0] - 0.9
    assert second.heard == first.heard == ["Good", "day.", "You", "said", "hello", "there."]
    assert second.history == first.history
