"""A call in Hindi: stock words, host, sentences and voice; the ear is a fake that is told so.

In real time: the voice is eSpeak NG in a process of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from voicecore.call.agent import agent_from
from voicecore.contracts import TTS
from voicecore.providers import builtin, espeak
from voicecore.settings import Settings
from voicecore.testing import FakeSTT, LoudnessVAD, ScriptedCaller

pytest.importorskip("espeakng_loader")


class Ear(FakeSTT):
    """Notes in which language it is asked to listen."""

    language = ""

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[FakeSTT]:
        self.language = language
        yield self


class Voice:
    """Notes what it is asked to say, and in which language."""

    def __init__(self, tts: TTS) -> None:
        self._tts = tts
        self.texts: list[str] = []
        self.languages: set[str] = set()

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        self.texts.append(text)
        self.languages.add(language)
        return self._tts.speak(text, voice, language)


async def test_a_call_in_hindi() -> None:
    settings = Settings(
        _env_file=None, language="hi-IN", greeting="नमस्ते।", cache_phrases="ज़रूर। | ठीक है।"
    )
    ear = Ear()
    async with builtin.opened(settings) as host, espeak.opened(settings) as speaker:
        voice = Voice(speaker.tts)
        agent = agent_from(settings, ear, host.llm, voice)
        object.__setattr__(agent, "vad", LoudnessVAD)
        await agent.prepare()
        caller = ScriptedCaller().listens().says("तीन तक गिनो", 0.4).listens().hangs_up()
        transcript = await caller.call(agent)
        greeting, asked, counted = transcript.history
        assert (greeting.text, asked.text) == ("नमस्ते।", "तीन तक गिनो")
        assert "एक, दो, तीन" in counted.text
        assert ear.language == "hi-IN"
        assert agent.persona.stock_words.goodbye.endswith("।")
        # Eight frames are out at once, on any machine: what is heard is what the voice has said.
        spoken = agent.phrases.audio("नमस्ते।")
        assert spoken
        assert spoken[:1280] in bytes(transcript.audio)
        assert voice.languages == {"hi-IN"}
        assert any("एक" in text for text in voice.texts)
        assert agent.phrases.audio("ठीक है।")
        assert agent.phrases.audio(agent.persona.stock_words.apology)
