"""TTS by eSpeak NG, embedded: a hundred languages, no key, no network, and a robot's voice.

The wheel of espeakng-loader carries library and voices.  A second of speech takes about a
millisecond, so one engine process serves hundreds of calls.  eSpeak NG is GPL-3.0: it is an
optional extra, loaded in the process of `espeak_engine` only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import trio

from ..errors import ProviderError
from ..settings import Settings, variable_name
from .engines import EnginePool, module_command, open_pool

logger = logging.getLogger(__name__)

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
    """Start the engine, without waiting for it; it warns if the voice is none of its own."""
    async with open_pool(NAME, module_command(ENGINE), ENGINES) as pool, trio.open_nursery() as own:
        tts = EspeakTTS(pool)
        own.start_soon(_warn, tts, settings, name="try the voice")
        yield Espeak(tts)
        own.cancel_scope.cancel()


async def trial(settings: Settings) -> list[str]:
    """Return what is wrong with the voice or the language, in one line, if anything is."""
    async with open_pool(NAME, module_command(ENGINE), ENGINES) as pool:
        return await _tried(EspeakTTS(pool), settings)


async def _warn(tts: EspeakTTS, settings: Settings) -> None:
    for line in await _tried(tts, settings):
        logger.warning(line)


async def _tried(tts: EspeakTTS, settings: Settings) -> list[str]:
    try:
        async with tts.speak("", settings.tts_voice, settings.language) as pieces:
            async for _ in pieces:
                pass
    except ProviderError as error:
        if error.fault == "status":
            return [_no_such_voice(settings)]
        # An engine that does not come up is reported where it is kept.
    return []


def _no_such_voice(settings: Settings) -> str:
    field = "tts_voice" if settings.tts_voice else "language"
    got = f"{variable_name(field)}: got {getattr(settings, field)!r}; espeak has no such voice"
    return got if settings.tts_voice else f"{got}, and {variable_name('tts_voice')} names none"
