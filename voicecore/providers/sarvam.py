"""Sarvam, for the languages of India: live recognition (`sarvam_live`), and speech as mu-law.

A request for each clause rather than the WebSocket, for the reasons given in `elevenlabs`; here it
holds text back until 50 characters are there.

Source: the API reference of /text-to-speech/stream, and the vendor's Python SDK 0.1.39.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from ..audio import SAMPLE_RATE
from ..contracts import STT
from ..settings import Settings
from .access import base_url_of, key_of, websocket_url
from .http import Api, open_client
from .live import open_live_stt
from .sarvam_live import Saaras
from .ulaw import speech
from .websocket import Connect, connect_tcp

NAME = "sarvam"
MODEL = "bulbul:v3"


def indian(language: str) -> str:
    """Return a BCP-47 language as Sarvam tags it: ``hi-IN``; English is India's, Odia ``od-IN``."""
    code = language.partition("-")[0].lower()
    return f"{'od' if code == 'or' else code}-IN"


class SarvamTTS:
    """Streams speech, a request a text."""

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model or MODEL

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Stream `text`; `voice` is a speaker of the model, whose own default is taken else."""
        content = {
            "text": text,
            "language_code": indian(language),
            "model": self._model,
            "speech_sample_rate": SAMPLE_RATE,
            "output_audio_codec": "mulaw",
        }
        if voice:
            content["speaker"] = voice.lower()  # names in capitals are refused
        return speech(self._api, NAME, "text-to-speech/stream", json=content)

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()


@dataclass(frozen=True, slots=True)
class Sarvam:
    """What this vendor offers."""

    stt: STT
    tts: SarvamTTS


@asynccontextmanager
async def opened(settings: Settings, connect: Connect = connect_tcp) -> AsyncIterator[Sarvam]:
    """Open both; nothing is sent before the first call.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    key, url = key_of(settings, NAME), base_url_of(settings, NAME)
    live = websocket_url(url, "/speech-to-text-realtime/ws")
    dialect = partial(Saaras, live, key, settings.stt_model)
    async with (
        open_client(str(url), {"api-subscription-key": key} if key else {}) as client,
        open_live_stt(NAME, dialect, connect) as stt,
    ):
        yield Sarvam(stt, SarvamTTS(Api(NAME, client), settings.tts_model))
