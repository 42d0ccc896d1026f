"""TTS by Cartesia: a request for each clause, its answer streamed as mu-law.

A request for each clause rather than the WebSocket, for the reasons given in `elevenlabs`; here a
cancelled context even talks on until its end.

Source: the API reference of /tts/bytes, and the vendor's Python SDK 4.2.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from ..audio import SAMPLE_RATE
from ..settings import Settings
from .access import base_url_of, key_of
from .http import Api, bearer, open_client
from .ulaw import speech

NAME = "cartesia"
VERSION = "2026-08-14"
"""Of the API; it decides the shape of ``voice``."""

MODEL = "sonic-3"
VOICE = "9626c31c-bec5-4cca-baa8-f8ba9e84c8bc"
"""Jacqueline, a voice for agents; speaks every language of the model."""

FORMAT = {"container": "raw", "encoding": "pcm_mulaw", "sample_rate": SAMPLE_RATE}


class CartesiaTTS:
    """Streams speech, a request a text."""

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model or MODEL

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Stream `text`; `voice` is a voice's id."""
        content = {
            "model_id": self._model,
            "transcript": text,
            "voice": {"id": voice or VOICE},
            "language": language.partition("-")[0].lower(),
            "output_format": FORMAT,
        }
        return speech(self._api, NAME, "tts/bytes", json=content)

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()


@dataclass(frozen=True, slots=True)
class Cartesia:
    """What this vendor offers."""

    tts: CartesiaTTS


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Cartesia]:
    """Open the pool of connections; none is made before the first request.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    key, url = key_of(settings, NAME), base_url_of(settings, NAME)
    async with open_client(str(url), {**bearer(key), "Cartesia-Version": VERSION}) as client:
        yield Cartesia(CartesiaTTS(Api(NAME, client), settings.tts_model))
