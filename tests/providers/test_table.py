"""Names to providers: what opens, what is refused, and what it says about itself."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import trio

from voicecore.errors import ProviderError, SettingsError
from voicecore.providers import table
from voicecore.providers.breaker import BreakerState
from voicecore.providers.builtin import BuiltinLLM
from voicecore.providers.fallback import FallbackLLM, FallbackSTT, FallbackTTS
from voicecore.providers.names import named
from voicecore.providers.openai import OpenAILLM, OpenAISTT, OpenAITTS
from voicecore.providers.openai_realtime import RealtimeModel
from voicecore.providers.table import ProviderInfo, describe, open_providers, totals, trial_of
from voicecore.providers.vendors import Vendor
from voicecore.settings import Settings
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, audible


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def own_llm(settings: Settings) -> BuiltinLLM:
    return BuiltinLLM(settings.language)


def asked(chain: FallbackSTT | FallbackLLM | FallbackTTS) -> list[Any]:
    """The providers of a stage, in the order in which they are asked."""
    return [choice.provider for choice in chain.order.choices]


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
        assert isinstance(asked(providers.llm)[0], BuiltinLLM)
        async with providers.tts.speak("Hi.", "", "en-US") as audio:
            assert [piece async for piece in audio]
        assert len(psutil.Process().children()) > len(before)
    assert psutil.Process().children() == before


async def test_one_vendor_for_all_stages() -> None:
    names = {"stt": "openai", "llm": "openai", "tts": "openai"}
    async with open_providers(settings(**names, openai_api_key="k")) as providers:
        [stt], [llm], [tts] = asked(providers.stt), asked(providers.llm), asked(providers.tts)
        assert isinstance(stt, OpenAISTT)
        assert isinstance(llm, OpenAILLM)
        assert isinstance(tts, OpenAITTS)
        assert stt._api is llm._api is tts._api


@pytest.mark.parametrize("factory", ["own_llm", "own_opened_llm"])
async def test_a_provider_of_ones_own(factory: str) -> None:
    names = {"stt": "openai", "llm": f"{__name__}:{factory}", "tts": "openai"}
    closed.clear()
    async with open_providers(settings(**names, openai_api_key="k")) as providers:
        assert isinstance(asked(providers.llm)[0], BuiltinLLM)
        assert closed == []
    assert closed == (["en-US"] if factory == "own_opened_llm" else [])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"llm": "gpt"},
            "VOICECORE_LLM: got 'gpt'; takes anthropic, builtin, openai, openai-realtime,"
            " or module:attribute",
        ),
        (
            {"stt": "espeak"},
            "VOICECORE_STT: got 'espeak'; takes assemblyai, deepgram, openai, pocketsphinx, sarvam,"
            " or",
        ),
        ({"tts": "openai"}, "VOICECORE_TTS: 'openai' needs a key: set OPENAI_API_KEY"),
        ({"llm": "no.such.module:llm"}, "VOICECORE_LLM: got 'no.such.module:llm'; No module"),
        ({"llm": "json:llm"}, "VOICECORE_LLM: got 'json:llm'; module 'json' has no attribute"),
        ({"llm": ":"}, "VOICECORE_LLM: got ':'; "),
        ({"llm": "builtin,"}, "VOICECORE_LLM: got ''; takes"),
        ({"llm": "builtin,gpt"}, "VOICECORE_LLM: got 'gpt'; takes"),
        ({"llm": "builtin,openai"}, "VOICECORE_LLM: 'openai' needs a key: set OPENAI_API_KEY"),
        (
            {"llm_model": "a,b"},
            "VOICECORE_LLM_MODEL: got 'a,b'; takes at most 1, one for each name in VOICECORE_LLM",
        ),
        (
            {"tts_voice": "en-us, hi"},
            "VOICECORE_TTS_VOICE: got 'en-us, hi'; takes at most 1, one for each name in",
        ),
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
    given = settings(stt="openai", openai_api_key="k", **values)
    assert await trial_of(named(given, "tts")[0], given) == lines
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


def test_an_order_is_described_name_by_name() -> None:
    given = settings(
        stt="deepgram, pocketsphinx", stt_model="nova-2", deepgram_api_key="k",
        tts="openai,espeak", tts_model=" , espeak-ng", openai_base_url="http://127.0.0.1/v1",
    )  # fmt: skip
    shown = describe(given)
    assert [(info.stage, info.place, info.name, info.model, info.key) for info in shown] == [
        ("stt", 0, "deepgram", "nova-2", True),
        ("stt", 1, "pocketsphinx", "en-us", None),
        ("llm", 0, "builtin", "rules", None),
        ("tts", 0, "openai", "gpt-4o-mini-tts", False),
        ("tts", 1, "espeak", "espeak-ng", None),
    ]
    assert not [info.problem for info in shown if info.problem]


class Seen:
    """A vendor's module that writes down what it is opened with."""

    def __init__(self) -> None:
        self.settings: list[Settings] = []
        self.open = 0

    @asynccontextmanager
    async def opened(self, settings: Settings) -> AsyncIterator[Any]:
        self.settings.append(settings)
        self.open += 1
        yield SimpleNamespace(stt=FakeSTT(), llm=FakeLLM(), tts=FakeTTS())
        self.open -= 1


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Two vendors, ``red`` and ``blue``, that offer everything."""
    module = Seen()
    for name in ("red", "blue"):
        everything = {"stt": "s", "llm": "l", "tts": "t"}
        monkeypatch.setitem(table.VENDORS, name, Vendor(f"seen_{name}", name, everything))
        monkeypatch.setitem(sys.modules, f"seen_{name}", module)
    return module


async def test_each_vendor_is_opened_once_with_its_own_models_and_voice(seen: Seen) -> None:
    given = settings(
        stt="red,blue", stt_model="r1,b1", llm="blue,red", llm_model="b2",
        tts="red,blue", tts_model=",b3", tts_voice="anna,otto",
    )  # fmt: skip
    async with open_providers(given) as providers:
        assert seen.open == 2
        assert [choice.name for choice in providers.llm.order.choices] == ["blue", "red"]
    assert seen.open == 0
    red, blue = seen.settings
    assert (red.stt_model, red.llm_model, red.tts_model, red.tts_voice) == ("r1", "", "", "anna")
    assert (blue.stt_model, blue.llm_model, blue.tts_model) == ("b1", "b2", "b3")
    assert blue.tts_voice == "otto"
    assert (blue.stt, blue.llm, blue.tts) == ("blue", "blue", "blue")


async def test_a_single_model_and_voice_belong_to_the_first(seen: Seen) -> None:
    names = {"stt": "red", "llm": "red,blue", "tts": "red,blue"}
    async with open_providers(settings(**names, llm_model="m", tts_voice="anna")):
        pass
    red, blue = seen.settings
    assert (red.llm_model, red.tts_voice) == ("m", "anna")
    assert (blue.llm_model, blue.tts_voice) == ("", "")


async def test_what_was_said_before_needs_no_provider(seen: Seen) -> None:
    """The cache is before the breaker: with the vendor down, its own voice still says it."""
    names = {"stt": "red", "llm": "red", "tts": "red,blue"}
    async with open_providers(settings(**names)) as providers:
        first, second = asked(providers.tts)
        for _ in range(2):
            await spoken(providers.tts, "good day")
        assert len(first.requests) == 1
        first._faults = itertools.repeat("error")
        for number in range(5):
            await spoken(providers.tts, f"number {number}")
            await spoken(providers.tts, "good day")  # a hit forgives nothing
        assert providers.tts.order.choices[0].guard.breaker.state is BreakerState.OPEN
        await spoken(providers.tts, "good day")
        assert (len(first.requests), len(second.requests)) == (6, 5)
        assert providers.cache.statistics().hits == 7


async def spoken(tts: FallbackTTS, text: str) -> None:
    async with tts.speak(text, "", "en-US") as audio:
        assert audible.words(b"".join([piece async for piece in audio])) == text.split()


async def test_a_cache_directory_that_cannot_be_used_is_one_line(
    seen: Seen, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    names = {"stt": "red", "llm": "red", "tts": "red"}
    with pytest.raises(SettingsError, match="VOICECORE_CACHE_DIR"):
        async with open_providers(settings(**names, cache_dir=tmp_path / "file")):
            raise AssertionError


async def test_a_vendor_twice_in_an_order_is_opened_twice(seen: Seen) -> None:
    """As a fallback to another model of the same vendor."""
    given = settings(stt="red", llm="red,red", llm_model="large,small", tts="red")
    async with open_providers(given) as providers:
        one, other = asked(providers.llm)
        assert one is not other
    assert [own.llm_model for own in seen.settings] == ["large", "small"]


async def test_a_provider_of_ones_own_may_be_anywhere_in_an_order(seen: Seen) -> None:
    names = {"stt": "red", "llm": f"red,{__name__}:own_llm", "tts": "red"}
    async with open_providers(settings(**names)) as providers:
        assert isinstance(asked(providers.llm)[1], BuiltinLLM)


def test_every_vendors_key_and_address_are_settings() -> None:
    for vendor in table.VENDORS.values():
        assert (vendor.key or "port") in Settings.model_fields
        assert not vendor.key or vendor.address in Settings.model_fields


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


async def test_a_model_that_hears_needs_no_recogniser() -> None:
    given = settings(llm="openai-realtime", openai_api_key="k")
    assert [info.stage for info in describe(given)] == ["llm", "tts"]
    async with open_providers(given) as providers:
        assert isinstance(providers.model, RealtimeModel)
        with pytest.raises(ProviderError, match="speaks by itself"):
            async with providers.llm.reply((), ()) as deltas:
                await anext(aiter(deltas))
        assert totals(providers.cache, [providers])[("cache_hits",)] == 0


def test_a_model_that_hears_stands_alone() -> None:
    given = settings(llm="openai-realtime,openai", openai_api_key="k")
    assert any("stands alone" in (info.problem or "") for info in describe(given))
