"""The page on writing a provider: its example is a file that works."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from voicecore.audio import SAMPLE_RATE, SILENCE_BYTE
from voicecore.errors import ProviderError
from voicecore.providers.table import describe, open_providers
from voicecore.settings import Settings

from .fake_openai import Answer, FakeOpenAI, answers, page, silence, transcript

PAGE = Path(__file__).parent.parent.parent / "docs" / "writing-a-provider.md"
UTTERANCE = SILENCE_BYTE * SAMPLE_RATE
SETTINGS = Settings(_env_file=None, stt="whisper_cpp:stt", tts="openai", openai_api_key="k")


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.02)


@pytest.fixture(autouse=True)
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the page's only Python block where it can be imported."""
    [block] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "whisper_cpp.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "whisper_cpp", raising=False)


def whisper(*script: Answer) -> FakeOpenAI:
    return FakeOpenAI(stt=script, paths={"/v1/inference": "stt"})


async def heard(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WHISPER_CPP_URL", fake.base_url)
    async with open_providers(SETTINGS) as providers, providers.stt.listen("en-US") as call:
        return (await call.transcript(UTTERANCE)).text


def test_it_is_found() -> None:
    assert describe(SETTINGS)[0].problem is None


async def test_it_transcribes(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with whisper(transcript(" hello world\n")) as fake:
        assert await heard(fake, monkeypatch) == "hello world"
    assert b"RIFF" in fake.requests[0].body


@pytest.mark.parametrize(
    ("answer", "fault"),
    [(answers(429), "busy"), (answers(500), "status"), (page(), "garbage"), (silence(), "timeout")],
)
async def test_it_fails_as_it_should(
    answer: Answer, fault: str, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with whisper(answer) as fake:
        with pytest.raises(ProviderError) as failure:
            await heard(fake, monkeypatch)
    assert failure.value.fault == fault


async def test_cancelled_it_leaves_no_request(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with whisper(transcript("hello").slow(0.5)) as fake:
        with trio.move_on_after(0.2) as scope:
            await heard(fake, monkeypatch)
        assert scope.cancelled_caught
        await fake.all_closed(0.25)
        assert fake.requests[0].left
