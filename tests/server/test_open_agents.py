"""Agents as an operator writes them: what they leave out is as the settings say."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from server_house import settings
from trio.testing import MockClock

from voicecore import Agent, CallLimits, FromSettings, Persona, TurnRules
from voicecore.errors import LocalProtocolError, SettingsError
from voicecore.providers.builtin import BuiltinLLM
from voicecore.server.open_agents import MOST_SETS, OpenAgents, open_agents
from voicecore.server.port.boundary import contain
from voicecore.server.serve import serve
from voicecore.settings import Settings
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller

OPENED: list[str] = []


@asynccontextmanager
async def _counted(fake: object, given: Settings) -> AsyncIterator[object]:
    OPENED.append(given.language)
    try:
        yield fake
    finally:
        OPENED.append("closed")


def stt(given: Settings) -> AbstractAsyncContextManager[object]:
    """A factory that the settings can name, as the two below."""
    return _counted(FakeSTT(), given)


def llm(given: Settings) -> AbstractAsyncContextManager[object]:
    return _counted(FakeLLM(), given)


def tts(given: Settings) -> AbstractAsyncContextManager[object]:
    return _counted(FakeTTS(), given)


def on_fakes(**given: object) -> Settings:
    mine = {stage: f"{__name__}:{stage}" for stage in ("stt", "llm", "tts")}
    return settings(**{**mine, **given})


@pytest.fixture(autouse=True)
def forget() -> None:
    OPENED.clear()


async def test_what_is_left_out_is_as_the_settings_say(autojump_clock: MockClock) -> None:
    agent = Agent(
        persona=Persona(prompt="Take orders."),
        rules=TurnRules(end_silence_ms=700),
        limits=CallLimits(idle_prompts=5),
    )
    given = on_fakes(
        greeting="Good day.", prompt="Be brief.", tts_voice="ada", barge_in_ms=200,
        end_silence_ms=400, max_call_s=60, transfers="sales=+15550002222",
    )  # fmt: skip
    async with open_agents(lambda _: agent, given) as agents:
        whole = await agents.agent_for({})
    assert (whole.persona.prompt, whole.persona.greeting) == ("Take orders.", "Good day.")
    assert whole.persona.voice == "ada"
    assert (whole.rules.end_silence_ms, whole.rules.barge_in_ms) == (700, 200)
    assert (whole.limits.max_call_s, whole.limits.idle_prompts) == (60, 5)
    assert whole.transfers == {"sales": "+15550002222"}
    assert whole.tools is agent.tools


async def test_providers_are_opened_once_for_all_who_want_the_same(
    autojump_clock: MockClock,
) -> None:
    hindi = Persona(language="hi-IN")
    who = {
        "1": Agent(),
        "2": Agent(persona=Persona(prompt="Other.")),
        "3": Agent(persona=hindi),
        "4": Agent(llm=FromSettings("builtin")),
        "5": Agent(stt=FakeSTT(), llm=FakeLLM(), tts=FakeTTS()),
    }
    pick = lambda given: who[given["To"] or "1"]  # noqa: E731
    async with open_agents(pick, on_fakes()) as agents:
        assert OPENED == ["en-US"] * 3
        got = [await agents.agent_for({"To": number}) for number in who]
        assert OPENED == ["en-US"] * 3 + ["hi-IN"] * 3 + ["en-US"] * 2
        assert got[0].llm is got[1].llm is not got[2].llm
        assert got[2].persona.greeting.startswith("नमस्ते")
        assert got[4].llm is who["5"].llm
        assert await agents.agent_for({"To": "1"}) is got[0]
        assert isinstance(got[3].llm.order.choices[0].provider, BuiltinLLM)  # type: ignore[union-attr]
    assert OPENED.count("closed") == 8


async def test_agents_made_for_each_call_are_bounded(autojump_clock: MockClock) -> None:
    async with open_agents(lambda _: Agent(), on_fakes()) as agents:
        for _ in range(200):
            await agents.agent_for({})
        assert len(agents._whole) == 64
    assert OPENED.count("en-US") == 3


async def test_all_speech_is_kept_in_one_cache_and_counted_once(
    autojump_clock: MockClock,
) -> None:
    """VOICECORE_CACHE_MB bounds the worker's memory, however many voices its agents have."""
    pick = lambda given: Agent(persona=Persona(voice=given.get("voice", "")))  # noqa: E731
    async with open_agents(pick, on_fakes(cache_mb=1)) as agents:
        for voice in ("ada", "bob"):
            agent = await agents.agent_for({"voice": voice})
            async with agent.tts.speak("one two", voice, "en-US") as pieces:
                assert b"".join([piece async for piece in pieces])
        await trio.sleep(60)  # what agents have prepared is in it, too
        caches = [providers.cache for providers in agents._providers.values()]
        assert len(caches) == 3
        assert len(set(map(id, caches))) == 1
        assert agents.totals()["cache_bytes",] == caches[0].statistics().bytes > 0


async def test_a_voice_with_a_bug_ends_no_server(autojump_clock: MockClock) -> None:
    class Broken(FakeTTS):
        @asynccontextmanager
        async def speak(self, text: str, voice: str, language: str) -> AsyncIterator[Any]:
            raise ZeroDivisionError
            yield

    good, bad = Agent(), Agent(tts=Broken())
    pick = lambda given: bad if given["To"] else good  # noqa: E731
    async with open_agents(pick, on_fakes()) as agents:
        await agents.agent_for({"To": "1"})
        await trio.sleep(60)  # its phrases are prepared meanwhile
        assert (await agents.agent_for({"To": ""})).llm is not None


async def test_sets_of_providers_are_bounded_and_those_that_are_open_stay(
    autojump_clock: MockClock,
) -> None:
    """A function may pass on what a stranger has put into a call's parameters."""
    pick = lambda given: Agent(persona=Persona(voice=given.get("voice", "")))  # noqa: E731
    async with open_agents(pick, on_fakes()) as agents:
        for number in range(MOST_SETS - 1):
            await agents.agent_for({"voice": f"v{number}"})
        for _ in range(3):
            with pytest.raises(SettingsError, match="providers"):
                await agents.agent_for({"voice": "one more"})
        assert len(OPENED) == 3 * MOST_SETS
        assert (await agents.agent_for({"voice": "v0"})).persona.voice == "v0"
        assert (await agents.agent_for({})).persona.voice == ""


async def test_a_picker_that_picks_nobody_ends_its_call_only(autojump_clock: MockClock) -> None:
    def pick(parameters: Mapping[str, str]) -> Agent:
        return {"": Agent()}.get(parameters["To"])  # type: ignore[return-value]

    async with open_agents(pick, on_fakes()) as agents:
        with pytest.raises(TypeError, match=r"pick\(\) returned None, which is no Agent"):
            await agents.agent_for({"To": "+1555"})
        assert (await agents.agent_for({"To": ""})).persona


async def test_a_picker_that_exits_ends_its_call_only(autojump_clock: MockClock) -> None:
    async def choose() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            sys.exit("no such number")

    closing = await contain("choice of an agent", choose)
    assert closing is not None
    assert closing.code == 1011


async def test_an_agent_whose_provider_cannot_be_opened(autojump_clock: MockClock) -> None:
    who = {"": Agent(), "x": Agent(tts=FromSettings("nobody"))}
    async with open_agents(lambda given: who[given["To"]], on_fakes()) as agents:
        with pytest.raises(SettingsError, match="VOICECORE_TTS: got 'nobody'"):
            await agents.agent_for({"To": "x"})
        assert await agents.agent_for({"To": ""})
    with pytest.raises(ExceptionGroup) as caught:
        async with open_agents(lambda _: who["x"], on_fakes()):
            pass
    assert caught.group_contains(SettingsError)


async def test_an_agent_that_nobody_opened_says_so() -> None:
    agent = Agent()
    with pytest.raises(LocalProtocolError, match="not open"):
        agent.stt.listen("en-US")
    with pytest.raises(LocalProtocolError, match="not open"):
        agent.llm.reply([], [])
    with pytest.raises(LocalProtocolError, match="not open"):
        agent.tts.speak("Hello.", "", "en-US")


async def test_the_number_that_was_dialled_picks_who_answers(autojump_clock: MockClock) -> None:
    """A whole call each, over the server's own line."""
    pizza = Agent(persona=Persona(greeting="Pizza palace."))
    doctor = Agent(persona=Persona(greeting="Doctor Rao."))

    def pick(parameters: Mapping[str, str]) -> Agent:
        return doctor if parameters.get("To") == "+15550002222" else pizza

    async with open_agents(pick, on_fakes()) as agents:
        for number, words in [("+15550002222", "Doctor Rao."), ("+1", "Pizza palace.")]:
            agent = await agents.agent_for({"To": number})
            transcript = await ScriptedCaller().listens().hangs_up().call(agent)
            assert " ".join(transcript.heard) == words


async def test_serve_takes_an_agent_a_picker_or_a_function(autojump_clock: MockClock) -> None:
    async def takes_calls(call: object) -> None: ...

    for who in (Agent(), lambda parameters: Agent(), takes_calls):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, who, on_fakes()))
            assert (server._house.flow is None) == (who is takes_calls)
            server.drain()


async def test_totals_are_those_of_all_providers(autojump_clock: MockClock) -> None:
    who = [Agent(), Agent(persona=Persona(language="hi-IN"))]
    async with open_agents(lambda given: who[len(given["To"])], on_fakes()) as agents:
        await agents.agent_for({"To": "1"})
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(agents, OpenAgents)
        assert agents.totals()["cache_misses",] > 5
        await agents.warm_up()
