"""The page on writing a provider: its package installs, is found by its name, and works."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from voicecore.contracts import Message, Tool, ToolCall, Usage, WarmsUp
from voicecore.errors import ProviderError, SettingsError
from voicecore.providers.table import describe, open_providers
from voicecore.settings import Settings

from .fake_openai import Answer, FakeOpenAI, answers, page, silence

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-provider.md").read_text()
HELLO = (Message("system", "Be brief."), Message("user", "hello"))
OPENAI = {"stt": "openai", "tts": "openai", "openai_api_key": "k"}


def block(language: str) -> str:
    [text] = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **{**OPENAI, "llm": "ollama", **values})


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0.02)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the page's package where an installer would: its module, and its metadata beside it."""
    project = tomllib.loads(block("toml"))["project"]
    [module] = tomllib.loads(block("toml"))["tool"]["setuptools"]["py-modules"]
    (tmp_path / f"{module}.py").write_text(block("py"))
    information = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    information.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (information / "METADATA").write_text(head)
    entries = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
        for group, names in project["entry-points"].items()
    ]
    broken = "broken = no_such_module:opened\nhollow = voicecore_ollama:nothing\n"
    (information / "entry_points.txt").write_text("".join(entries) + broken)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, module, raising=False)


def line(content: str = "", **more: Any) -> bytes:
    answer = {"model": "llama3.2", "message": {"role": "assistant", "content": content}, **more}
    return json.dumps({"done": False, **answer}).encode() + b"\n"


DONE = line(done=True, done_reason="stop", prompt_eval_count=26, eval_count=3)


def lines(*chunks: bytes) -> Answer:
    return Answer(content_type="application/x-ndjson", chunks=chunks)


def ollama(*script: Answer) -> FakeOpenAI:
    return FakeOpenAI(llm=script, paths={"/api/chat": "llm", "/api/generate": "llm"})


def address(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_URL", fake.base_url.removesuffix("/v1"))


async def replied(
    fake: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    *,
    tools: tuple[Tool, ...] = (),
    **values: Any,
) -> list[Any]:
    address(fake, monkeypatch)
    async with open_providers(settings(**values)) as providers:
        async with providers.llm.reply(HELLO, tools) as deltas:
            return [delta async for delta in deltas]


def test_it_is_found_by_its_name_and_not_imported_before() -> None:
    assert "voicecore_ollama" not in sys.modules
    assert describe(settings(llm="builtin"))[1].problem is None
    assert "voicecore_ollama" not in sys.modules
    info = describe(settings(llm_model="qwen3"))[1]
    assert (info.name, info.what, info.model) == ("ollama", "from voicecore-ollama 1.0", "qwen3")
    assert (info.key, info.problem) == (None, None)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"llm": "olama"}, "VOICECORE_LLM: got 'olama'; takes anthropic, broken, builtin, hollow,"),
        ({"llm": "broken"}, "VOICECORE_LLM: got 'broken'; No module named 'no_such_module'"),
        ({"llm": "hollow"}, "VOICECORE_LLM: got 'hollow'; module 'voicecore_ollama' has no attri"),
        ({"tts": "ollama"}, "VOICECORE_TTS: got 'ollama'; that has no tts"),
    ],
)
async def test_what_it_cannot_be_is_one_line(values: dict[str, str], complaint: str) -> None:
    with pytest.raises(SettingsError) as failure:
        async with open_providers(settings(**values)):
            raise AssertionError
    assert str(failure.value).startswith(complaint)
    assert "\n" not in str(failure.value)


def test_the_packages_own_names_cannot_be_taken(tmp_path: Path) -> None:
    [entries] = tmp_path.glob("*.dist-info/entry_points.txt")
    entries.write_text(entries.read_text() + "builtin = voicecore_ollama:opened\n")
    importlib.invalidate_caches()
    assert describe(settings(llm="builtin"))[1].what == "a host who follows rules, no model"


@pytest.mark.parametrize("whole", [True, False])
async def test_it_replies_and_says_what_that_cost(
    whole: bool, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = lines(line("Hel"), line("lo."), DONE)
    async with ollama(answer if whole else answer.bytewise()) as fake:
        assert await replied(fake, monkeypatch) == ["Hel", "lo.", Usage(26, 3)]
    [request] = fake.requests
    assert request.json["model"] == "llama3.2"
    assert request.json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


async def test_it_calls_tools(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    call = {"function": {"name": "end_call", "arguments": {"why": "done"}}}
    asking = lines(line("Bye."), json.dumps({"message": {"tool_calls": [call]}}).encode() + b"\n")
    async with ollama(Answer(**{**vars(asking), "chunks": (*asking.chunks, DONE)})) as fake:
        deltas = await replied(fake, monkeypatch, tools=(Tool("end_call", "Hang up."),))
    assert deltas[1] == ToolCall("ollama-1", "end_call", '{"why":"done"}')
    [tool] = fake.requests[0].json["tools"]  # type: ignore[misc]
    assert tool["function"]["name"] == "end_call"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (answers(404), "status"),
        (answers(429), "busy"),
        (page(), "garbage"),
        (lines(b"no json\n"), "garbage"),
        (lines(b"{" * 100_000), "garbage"),
        (lines(b'{"error": "model runner has crashed"}\n'), "status"),
        (lines(line()).cut_after(1), "cut"),
        (silence(), "timeout"),
    ],
)
async def test_it_fails_as_it_should(
    answer: Answer, fault: str, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ollama(answer) as fake:
        with pytest.raises(ProviderError) as failure:
            await replied(fake, monkeypatch)
    assert failure.value.fault == fault


async def test_what_came_before_a_failure_is_given(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    async def read(fake: FakeOpenAI) -> None:
        address(fake, monkeypatch)
        async with open_providers(settings()) as providers:
            async with providers.llm.reply(HELLO, ()) as deltas:
                async for delta in deltas:
                    given.append(delta)  # noqa: PERF401  what came before the failure counts

    async with ollama(lines(line("Half a "), line("sentence")).cut_after(2)) as fake:
        with pytest.raises(ProviderError, match="cut"):
            await read(fake)
    assert given == ["Half a ", "sentence"]


async def test_with_a_fallback_behind_it_the_caller_gets_an_answer(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ollama(silence()) as fake:
        began = trio.current_time()
        deltas = await replied(fake, monkeypatch, llm="ollama,builtin")
        assert "".join(deltas) == "Hello! How can I help you?"
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
        await fake.all_closed()


async def test_it_warms_up(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ollama(Answer(chunks=(b'{"done": true}',))) as fake:
        address(fake, monkeypatch)
        async with open_providers(settings()) as providers:
            assert isinstance(providers.llm, WarmsUp)
            await providers.llm.warm_up("en-US")
    assert [request.path for request in fake.requests] == ["/api/generate"]


async def test_cancelled_it_leaves_no_request(
    clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ollama(lines(line("Hello"), DONE).slow(pause_s=0.5)) as fake:
        with trio.move_on_after(0.7) as scope:
            await replied(fake, monkeypatch)
        assert scope.cancelled_caught
        await fake.all_closed()
        assert fake.requests[0].left
