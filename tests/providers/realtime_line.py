"""A conversation with a fake of OpenAI's Realtime API, turn by turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from voicecore.audio import SILENCE_FRAME
from voicecore.call.tools import END_CALL
from voicecore.contracts import Dialogue, Message, SpokenAnswer, ToolCall, Usage
from voicecore.errors import ProviderError
from voicecore.providers.openai_realtime import RealtimeModel, opened
from voicecore.settings import load
from voicecore.testing import audible

from .fake_realtime import Behaviour, FakeRealtime, open_fake

HARMLESS = {"response_cancel_not_active"}
"""What a cancel that comes too early or too late is answered with."""


@asynccontextmanager
async def open_model(fake: FakeRealtime, key: str = "k") -> AsyncIterator[RealtimeModel]:
    settings = load(openai_base_url="http://openai.test/v1", openai_api_key=key)
    async with opened(settings, fake.connect) as vendor:
        yield vendor.llm


@asynccontextmanager
async def talking(
    *behaviours: Behaviour, lasting: Behaviour | None = None, key: str = "k"
) -> AsyncIterator[tuple[Dialogue, FakeRealtime]]:
    """A call's conversation with a fake, which must have nothing to complain about."""
    async with open_fake(*behaviours, lasting=lasting) as fake:
        async with open_model(fake, key) as model:
            async with model.converse("Be brief.", (END_CALL,), "cedar", "en-US") as dialogue:
                yield dialogue, fake
        assert not fake.open_sessions
        provoked = {code for behaviour in behaviours for code in behaviour.errors.values()}
        for session in fake.sessions:
            assert {*session.errors} <= HARMLESS | provoked | {"session_expired"}


@dataclass
class Heard:
    """What came of an answer."""

    words: list[str] = field(default_factory=list)
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    usage: Usage | None = None
    audio: bytes = b""


def utterance(text: str) -> bytes:
    frames = [SILENCE_FRAME] * 10 + audible.say(text, 15 * len(text.split())) + [SILENCE_FRAME] * 7
    return b"".join(frames)


async def take(answer: SpokenAnswer, seconds: float = float("inf")) -> Heard:
    """Hear an answer to its end, or as much of its audio as is told."""
    heard = Heard()
    async for sound in answer:
        if isinstance(sound, bytes):
            heard.audio += sound
            if len(heard.audio) >= seconds * 8000:
                break
        elif isinstance(sound, str):
            heard.text += sound
        elif isinstance(sound, ToolCall):
            heard.calls.append(sound)
        else:
            heard.usage = sound
    heard.words = audible.words(heard.audio)
    return heard


async def ask(dialogue: Dialogue, text: str, messages: Sequence[Message] = ()) -> Heard:
    """Say `text`, and hear the whole answer."""
    async with dialogue.answer(utterance(text), messages) as answer:
        return await take(answer)


async def fails(dialogue: Dialogue, text: str = "hello") -> tuple[str, float]:
    """Ask for an answer that cannot be had; return the fault, and how long that took."""
    began = trio.current_time()
    with pytest.raises(ProviderError) as caught:
        await ask(dialogue, text)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)
    return caught.value.fault, trio.current_time() - began


def named(value: object) -> str:
    """What is special about a behaviour, as a test's name."""
    if not isinstance(value, Behaviour):
        return str(value)
    usual = Behaviour()
    special = {name: getattr(value, name) for name in usual.__dataclass_fields__}
    return ",".join(
        f"{name}={shown!r}"[:40] for name, shown in special.items() if shown != getattr(usual, name)
    )
