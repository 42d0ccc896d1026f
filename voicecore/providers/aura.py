"""TTS by Deepgram, whose voices are called Aura: a request for each clause, streamed as mu-law.

A voice is a model here, and speaks one language: ``aura-2-thalia-en``.  A request for each clause
rather than the WebSocket, for the reasons given in `elevenlabs`; here 20 flushes a minute are the
limit, and a reply of several clauses would reach it.

Source: the API reference of /v1/speak, and the vendor's Python SDK 7.17.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager

from ..audio import SAMPLE_RATE
from .http import Api
from .ulaw import speech

NAME = "deepgram"
VOICES = {
    "de": "viktoria",
    "en": "thalia",
    "es": "celeste",
    "fr": "agathe",
    "it": "livia",
    "ja": "izanami",
    "nl": "rhea",
}
"""Of each language that Aura 2 speaks, the voice that is taken if none is named."""


class DeepgramTTS:
    """Streams speech, a request a text.

    The header ``Authorization: Token …`` is the client's.
    """

    def __init__(self, api: Api, model: str) -> None:
        """Speak by `model`, such as ``aura-2-thalia-en``; empty: by a voice for the language."""
        self._api = api
        self._model = model

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Stream `text`; `voice` is a whole model's name, or a name such as ``thalia``."""
        query = {
            "model": self._model_of(voice.lower(), language),
            "encoding": "mulaw",
            "sample_rate": str(SAMPLE_RATE),
            "container": "none",  # the default is WAV, whose header clicks
        }
        return speech(self._api, NAME, "v1/speak", params=query, json={"text": text})

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()

    def _model_of(self, voice: str, language: str) -> str:
        if "-" in voice:
            return voice
        code = language.partition("-")[0].lower()
        if not voice:
            if self._model:
                return self._model
            code = code if code in VOICES else "en"
            voice = VOICES[code]
        return f"aura-2-{voice}-{code}"
