"""Names to providers: what opens, what is refused, and what it says about itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
import trio

from voicecore.errors import SettingsError
from voicecore.providers import table
from voicecore.providers.builtin import BuiltinLLM
from voicecore.providers.openai import OpenAILLM, OpenAISTT, OpenAITTS
from voicecore.providers.table import ProviderInfo, Vendor, describe, open_providers, trial
from voicecore.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def own_llm(settings: Settings) -> BuiltinLLM:
    return BuiltinLLM(settings.language)


closed: list[str] = []


@asynccontextmanager
async def own_opened_llm(settings: Settings) -> AsyncIterator[BuiltinLLM]:
    yield BuiltinLLM(settings.language)
    closed.append(settings.language)


async def test_the_embedded_engines_open_at_once_and_leave_nothing() -> None:
    before = psutil.Process().children()
    began = trio.current_time()
    async with open_providers(settings()) as providers:
        assert trio.current_time() - began < 1
        assert isinstance(providers.llm, BuiltinLLM)
        async with providers.tts.speak("Hi.", "", "en-US") as audio:
            assert [piece async for piece in audio]
        assert len(psutil.Process().children()) > len(before)
    assert psutil.Process().children() == before


async def test_one_vendor_for_all_stages() -> None:
    names = {"stt": "openai", "llm": "openai", "tts": "openai"}
    async with open_providers(settings(**names, openai_api_key="k")) as providers:
        assert isinstance(providers.stt, OpenAISTT)
        assert isinstance(providers.llm, OpenAILLM)
        assert isinstance(providers.tts, OpenAITTS)
        assert providers.stt._api is providers.llm._api is providers.tts._api


@pytest.mark.parametrize("factory", ["own_llm", "own_opened_llm"])
async def test_a_provider_of_ones_own(factory: str) -> None:
    names = {"stt": "openai", "llm": f"{__name__}:{factory}", "tts": "openai"}
    closed.clear()
    async with open_providers(settings(**names, openai_api_key="k")) as providers:
        assert isinstance(providers.llm, BuiltinLLM)
        assert closed == []
    assert closed == (["en-US"] if factory == "own_opened_llm" else [])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"llm": "gpt"},
            "VOICECORE_LLM: got 'gpt'; takes builtin, openai, or module:attribute",
        ),
        ({"stt": "espeak"}, "VOICECORE_STT: got 'espeak'; takes openai, pocketsphinx, or"),
        ({"tts": "openai"}, "VOICECORE_TTS: 'openai' needs a key: set OPENAI_API_KEY"),
        ({"llm": "no.such.module:llm"}, "VOICECORE_LLM: got 'no.such.module:llm'; No module"),
        ({"llm": "json:llm"}, "VOICECORE_LLM: got 'json:llm'; module 'json' has no attribute"),
        ({"llm": ":"}, "VOICECORE_LLM: got ':'; "),
    ],
)
async def test_what_cannot_start_is_one_line(values: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as failure:
        async with open_providers(settings(**values)):
            raise AssertionError
    assert str(failure.value).startswith(line)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "a b"])
async def test_a_key_that_can_be_none_is_named(key: str) -> None:
    """The engines are open by then: what their nursery would wrap comes out plain."""
    with pytest.raises(SettingsError, match="OPENAI_API_KEY") as failure:
        async with open_providers(settings(llm="openai", openai_api_key=key)):
            raise AssertionError
    assert key not in str(failure.value)


async def test_a_url_that_can_be_none_is_named() -> None:
    with pytest.raises(SettingsError, match="OPENAI_BASE_URL"):
        async with open_providers(settings(llm="openai", openai_base_url="http://xn--ab-/v1")):
            raise AssertionError


async def test_all_that_cannot_start_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as failure:
        async with open_providers(settings(stt="a", llm="b", tts="c")):
            raise AssertionError
    assert len(str(failure.value).splitlines()) == 3


async def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    vendor = Vendor("m", "w", {"stt": "x"}, needs=("no_such_engine",), extra="embedded")
    monkeypatch.setitem(table.VENDORS, "pocketsphinx", vendor)
    [info, *_] = describe(settings())
    assert info.problem == (
        "VOICECORE_STT: 'pocketsphinx' needs the embedded engines:"
        " pip install 'voicecore[embedded]'"
    )


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({}, []),
        ({"language": "hi-IN"}, []),
        ({"language": "en-Zzzz"}, []),
        ({"language": "xx", "tts_voice": "en-us+f3"}, []),
        ({"tts_voice": "nobody"}, ["VOICECORE_TTS_VOICE: got 'nobody'; espeak has no such voice"]),
        (
            {"language": "xx-YY"},
            [
                "VOICECORE_LANGUAGE: got 'xx-YY'; espeak has no such voice,"
                " and VOICECORE_TTS_VOICE names none"
            ],
        ),
    ],
)
async def test_voices_are_tried_by_the_check_and_warned_of_at_start(
    values: dict[str, str], lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    given = settings(**values)
    assert await trial(given) == lines
    async with open_providers(given):
        with trio.move_on_after(10 if lines else 0.5):
            while not warned(caplog):  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert warned(caplog) == lines


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_describe() -> None:
    shown = describe(
        settings(llm="openai", llm_model="llama", openai_api_key="sk-SECRET", tts="json:loads")
    )
    assert shown == [
        ProviderInfo("stt", "pocketsphinx", "PocketSphinx, embedded: English", "en-us", None, None),
        ProviderInfo("llm", "openai", "OpenAI or a compatible server", "llama", True, None),
        ProviderInfo("tts", "json:loads", "a provider of your own", "", None, None),
    ]
    assert "SECRET" not in repr(shown)


def test_a_compatible_server_needs_no_key() -> None:
    info = describe(settings(llm="openai", openai_base_url="http://localhost:11434/v1"))[1]
    assert (info.key, info.problem) == (False, None)


def test_only_what_is_named_is_imported() -> None:
    code = """
import sys
from voicecore.providers import table
from voicecore.settings import Settings
table.describe(Settings(_env_file=None))
print([name for name in sys.modules if name.split(".")[0] in ("httpx", "soxr", "pocketsphinx")])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
