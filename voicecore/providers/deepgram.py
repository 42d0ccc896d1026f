"""Deepgram: live recognition by nova (``/v1/listen``) and Flux (`flux`), and speech (`aura`).

Words are asked for at each pause with ``Finalize``, and stand within one round trip.

Source: Deepgram's documentation of the live API, its finalize and keep-alive pages, and the
message models of deepgram-sdk 7.17.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

import msgspec

from ..contracts import STT, TTS
from ..errors import ProviderError
from ..settings import Settings
from .access import base_url_of, key_of, websocket_url
from .aura import DeepgramTTS
from .flux import Flux
from .http import Api, open_client
from .live import Dialect, Event, Failed, Finalized, Rules, Word, Words, open_live_stt
from .websocket import Connect, Endpoint, connect_tcp

NAME = "deepgram"

STT_MODEL = "nova-3"

LISTENING = {
    "encoding": "mulaw",
    "sample_rate": "8000",
    "channels": "1",
    "interim_results": "true",
    "punctuate": "true",
    # smart_format waits for the rest of what might be a number or a date: not on the phone.
    "smart_format": "false",
    # Our own detector finds the pauses and asks at each.  This closes what it does not ask for
    # (coughs, clicks), so that what is final is never far behind; the default of 10 ms would cut
    # sentences inside.
    "endpointing": "300",
}

REGIONS = """
en-US en-AU en-GB en-IN en-NZ es-419 fr-CA de-CH da-DK gu-IN ko-KR nl-BE pa-IN pt-BR pt-PT sv-SE
th-TH zh-CN zh-Hans zh-TW zh-Hant zh-HK
"""
"""Tags with more than a language that the models know; they refuse others, ``hi-IN`` too."""


class _Kind(msgspec.Struct):
    type: str = ""


class _Word(msgspec.Struct):
    word: str
    start: float
    end: float
    confidence: float = 1.0
    punctuated_word: str = ""


class _Alternative(msgspec.Struct):
    transcript: str
    confidence: float = 1.0
    words: list[_Word] = []


class _Channel(msgspec.Struct):
    alternatives: list[_Alternative]


class _Results(msgspec.Struct):
    channel: _Channel
    start: float
    duration: float
    is_final: bool | None = None
    from_finalize: bool | None = None


class Nova:
    """One session of ``/v1/listen``."""

    rules = Rules(
        # Three frames a message cost a third of three messages; at a pause the rest goes at once.
        least_bytes=480,
        most_bytes=2000,
        finalise=('{"type":"Finalize"}',),
        keep_alive='{"type":"KeepAlive"}',
        keep_alive_s=3.0,
    )

    def __init__(self, url: str, key: str, model: str, language: str) -> None:
        query = {"model": model, "language": _language(language), **LISTENING}
        self.endpoint = Endpoint(
            NAME, f"{url}?{urlencode(query)}", authorization(key), '{"type":"CloseStream"}'
        )

    def audio(self, mulaw: bytes) -> bytes:
        """Audio goes as it is.  An empty message would close the stream; there is none."""
        return mulaw

    def receive(self, message: str | bytes) -> Iterable[Event]:
        """Understand one message of the server."""
        try:
            kind = msgspec.json.decode(message, type=_Kind).type
            if kind == "Results":
                return _heard(msgspec.json.decode(message, type=_Results))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return (Failed(ProviderError(NAME, "garbage", "not a message of this API")),)
        if kind == "Error":
            return (Failed(ProviderError(NAME, "status", "an error message")),)
        return ()


def _heard(results: _Results) -> Iterable[Event]:
    start, end = results.start, results.start + results.duration
    best = next(iter(results.channel.alternatives), _Alternative(""))
    is_final = bool(results.is_final)
    if best.words:
        words = tuple(
            Word(w.punctuated_word or w.word, w.start, w.end, w.confidence) for w in best.words
        )
        yield Words(words, start, end, is_final)
    else:
        yield Words.of(best.transcript, start, end, is_final)
    if results.from_finalize:
        yield Finalized()


def _language(tag: str) -> str:
    """Return the model's name of a language: with its region only where there is such a model."""
    return tag if tag in REGIONS.split() else tag.partition("-")[0].lower()


def authorization(key: str) -> tuple[tuple[str, str], ...]:
    """Return the header with the key; none without one, as servers in one's own house need."""
    return (("Authorization", f"Token {key}"),) if key else ()


def dialect_of(settings: Settings) -> Callable[[str], Dialect]:
    """Return what makes a session's dialect for a language: nova's or Flux's, by the model.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    key, base = key_of(settings, NAME), base_url_of(settings, NAME)
    model = settings.stt_model or STT_MODEL
    if model.startswith("flux"):
        url = websocket_url(base, "/v2/listen")
        return partial(Flux, url, authorization(key), model)
    return partial(Nova, websocket_url(base, "/v1/listen"), key, model)


@dataclass(frozen=True, slots=True)
class Deepgram:
    """What this vendor offers."""

    stt: STT
    tts: TTS


@asynccontextmanager
async def opened(settings: Settings, connect: Connect = connect_tcp) -> AsyncIterator[Deepgram]:
    """Open both; nothing is sent before the first call.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    dialect, key = dialect_of(settings), key_of(settings, NAME)
    async with (
        open_client(str(base_url_of(settings, NAME)), dict(authorization(key))) as client,
        open_live_stt(NAME, dialect, connect) as stt,
    ):
        yield Deepgram(stt, DeepgramTTS(Api(NAME, client), settings.tts_model))
