"""TTS by eSpeak NG, embedded: a hundred languages, no key, no network, and a robot's voice.

The wheel of espeakng-loader carries library and voices.  A second of speech takes about a
millisecond, so one engine process serves hundreds of calls.  eSpeak NG is GPL-3.0: it is an
optional extra, loaded in the process of `espeak_engine` only.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from ..settings import Settings
from .engines import EnginePool, module_command, open_pool

NAME = "espeak"
ENGINE = "voicecore.providers.espeak_engine"
ENGINES = 1
WAIT_S = 3.0
"""For the engine, and on the first call for it to start."""

PIECE_S = 3.0
"""For the next piece of audio: 200 ms of speech, made in less than one."""


class EspeakTTS:
    """Speaks through an engine process."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterable[bytes]]:
        """Stream `text` as mu-law; `voice` is one of espeak-ng's, such as ``en-us+f3``."""
        request = msgspec.json.encode({"text": text, "voice": voice, "language": language})
        async with self._pool.job(request, WAIT_S, PIECE_S) as pieces:
            yield pieces


@dataclass(frozen=True, slots=True)
class Espeak:
    """What this vendor offers."""

    tts: EspeakTTS


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Espeak]:
    """Start the engine, without waiting for it."""
    async with open_pool(NAME, module_command(ENGINE), ENGINES) as pool:
        yield Espeak(EspeakTTS(pool))
