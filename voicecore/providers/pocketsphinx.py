"""STT by PocketSphinx, embedded: English, no key, no network.

Its wheel carries engine and model.  It is a demonstration, not a product: short and clear English
sentences come out well, and 0.2 s of a core go for each second of speech.  The recognition itself
is `pocketsphinx_engine`, in processes of its own.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from ..contracts import Transcript
from ..settings import Settings
from .engines import EnginePool, default_size, module_command, open_pool

logger = logging.getLogger(__name__)

NAME = "pocketsphinx"
ENGINE = "voicecore.providers.pocketsphinx_engine"
WAIT_S = 5.0
"""For a free engine, and on the first call for the model to load."""

TOTAL_S = 15.0
"""A turn's longest minute would take 12 s."""


class PocketsphinxTranscription:
    """One call's recognition: at most one engine works for it at a time."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool
        self._turn = trio.Lock()

    def feed(self, frame: bytes) -> None:
        """Do nothing: the whole utterance is decoded when it is there."""

    async def transcript(self, utterance: bytes) -> Transcript:
        """Decode `utterance`, all of it."""
        async with self._turn, self._pool.job(utterance, WAIT_S, TOTAL_S) as pieces:
            text = b"".join([piece async for piece in pieces])
        return Transcript(text.decode())


class PocketsphinxSTT:
    """Recognises English in a pool of engine processes."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[PocketsphinxTranscription]:
        """Open one call's recognition; whatever the language, English is heard."""
        if language.partition("-")[0].lower() != "en":
            logger.warning("pocketsphinx knows English only; the call's language is %s", language)
        yield PocketsphinxTranscription(self._pool)


@dataclass(frozen=True, slots=True)
class Pocketsphinx:
    """What this vendor offers."""

    stt: PocketsphinxSTT


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Pocketsphinx]:
    """Start the engines, without waiting for their models."""
    async with open_pool(NAME, module_command(ENGINE), default_size()) as pool:
        yield Pocketsphinx(PocketsphinxSTT(pool))
