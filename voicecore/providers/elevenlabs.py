"""TTS by ElevenLabs: a request for each clause, its answer streamed as mu-law.

There is also a WebSocket that takes text while it is being written.  It does not pay here:

* A reply comes clause by clause, each whole before it is sent.  What the socket saves, waiting for
  the end of a text, is nothing then; and over an open connection (see `connections`) a request
  takes one round trip to its first audio, as a message on an open socket does.
* It is one socket for one voice and one reply: to be opened before each reply or kept alive every
  20 s, counted as a use of the account's concurrency all the while.
* It knows no interrupt: barge-in closes it, as it closes a request.
* It holds text back until a buffer of 120 characters is full, unless it is flushed, and sends audio
  as base64 in JSON: a third more bytes, and work for each.

Source: the API reference of /v1/text-to-speech/{voice_id}/stream, and the vendor's Python SDK 2.78.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

from ..settings import Settings
from .access import base_url_of, key_of
from .http import Api, open_client
from .ulaw import speech

NAME = "elevenlabs"
MODEL = "eleven_flash_v2_5"
VOICE = "JBFqnCBsd6RMkjVDRZzb"
"""George, whom the vendor's own examples use; speaks every language of the multilingual models."""

_TAKES_LANGUAGE = re.compile(r"eleven_(flash_v2_5|turbo_v2_5|v3)")
"""Other models hear the language from the words, or know only English, and refuse the field."""


class ElevenLabsTTS:
    """Streams speech, a request a text."""

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model or MODEL

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Stream `text`; `voice` is a voice's id."""
        content = {"text": text, "model_id": self._model}
        code = language.partition("-")[0].lower()
        if len(code) == 2 and _TAKES_LANGUAGE.match(self._model):  # ISO-639-1
            content["language_code"] = code
        path = f"v1/text-to-speech/{quote(voice or VOICE, safe='')}/stream"
        return speech(self._api, NAME, path, params={"output_format": "ulaw_8000"}, json=content)

    async def warm_up(self, language: str) -> None:
        """Connect before it is needed."""
        await self._api.warm_up()


@dataclass(frozen=True, slots=True)
class ElevenLabs:
    """What this vendor offers."""

    tts: ElevenLabsTTS


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[ElevenLabs]:
    """Open the pool of connections; none is made before the first request.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    key, url = key_of(settings, NAME), base_url_of(settings, NAME)
    async with open_client(str(url), {"xi-api-key": key} if key else {}) as client:
        yield ElevenLabs(ElevenLabsTTS(Api(NAME, client), settings.tts_model))
