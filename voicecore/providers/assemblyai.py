"""Live recognition by AssemblyAI's streaming API (``/v3/ws``).

Audio is gathered to 60 ms a message: less than 50 closes the session.  At a pause the turn is ended
by ``ForceEndpoint``, whose answer is the turn's words, in about 0.3 s.

A turn that was ended by force looks like one that AssemblyAI ended, and a ``ForceEndpoint`` after
such an end is answered by nothing; so it is told to wait for a silence that is longer than any of
ours, and the end of a turn is never taken for a conclusion of its own.  What it does conclude is
that an utterance is complete, before the turn is: that is passed on.

Source: the models and the client of assemblyai 1.8, and AssemblyAI's pages on turn detection, the
message sequence, supported languages, and session errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

import msgspec

from ..audio import SAMPLE_RATE
from ..contracts import STT, TurnHint
from ..errors import ProviderError
from ..settings import Settings
from .access import base_url_of, key_of, websocket_url
from .live import Event, Failed, Finalized, Hint, Rules, Word, Words, open_live_stt
from .websocket import Connect, Endpoint, Refusal, connect_tcp

NAME = "assemblyai"
VERSION = "2025-05-12"

ENGLISH = "universal-streaming-english"
MULTILINGUAL = "universal-streaming-multilingual"
PRO = "universal-3-5-pro"

MODELS = {"en": ENGLISH, **dict.fromkeys(("es", "fr", "de", "it", "pt"), MULTILINGUAL)}
"""The fastest model for a language; `PRO` for all others."""

PRO_LANGUAGES = """
en es de fr it pt tr nl sv no da fi hi vi ar he ja ur zh ru ko ca gl ro et fa yue af mr zu xh nn
"""
"""Those that `PRO` can be told to expect; a session that names another is refused."""

SILENCE_MS = "2000"
"""A turn that nobody asks for ends after so much: longer than a pause inside any turn of ours."""

MARGIN_S = 0.5
"""Where an answer tells no times: what was sent since it was asked for is less than that."""

REFUSED = (1008, 4001, 4002, 4003)
BUSY = (3009, 4102)
INVALID = (3006, 4000, 4100, 4101)
"""What was asked for cannot be had; asking again will not help."""


class _Kind(msgspec.Struct):
    type: str = ""
    error: object = None
    error_code: object = None


class _Word(msgspec.Struct):
    text: str
    start: float
    end: float
    confidence: float = 1.0
    word_is_final: bool = True


class _Turn(msgspec.Struct):
    """Times are milliseconds."""

    transcript: str = ""
    words: list[_Word] = []
    utterance: str | None = None
    end_of_turn: bool = False
    turn_order: int | None = None


class UniversalStreaming:
    """One session."""

    rules = Rules(
        least_bytes=480,
        most_bytes=8000,
        sends_tail=False,
        # What is sent faster than that only waits at the other end; "well above" real time closes.
        speed=1.25,
        finalise=('{"type":"ForceEndpoint"}',),
        quiet_s=1.0,  # nine of ten answers come within a third of that
        keep_alive='{"type":"KeepAlive"}',
        keep_alive_s=5.0,
        close_faults={**dict.fromkeys(REFUSED, "refused"), **dict.fromkeys(BUSY, "busy")},
    )

    def __init__(self, url: str, key: str, model: str, language: str) -> None:
        # Bare, without "Bearer".  A version that is not named may be another one tomorrow.
        headers = (("Authorization", key),) if key else ()
        self.endpoint = Endpoint(
            NAME,
            f"{url}?{urlencode(_query(model, language))}",
            (*headers, ("AssemblyAI-Version", VERSION)),
            '{"type":"Terminate"}',
        )
        self._sent = 0
        self._until_s = 0.0
        self._ended: int | None = None
        """How far the turns have ended, and the last that has."""
        self._complete = ""
        """The utterance that was last said to be complete."""

    def audio(self, mulaw: bytes) -> bytes:
        """Audio goes as it is."""
        self._sent += len(mulaw)
        return mulaw

    def receive(self, message: str | bytes) -> Iterable[Event]:
        """Understand one message of the server."""
        try:
            kind = msgspec.json.decode(message, type=_Kind)
            if kind.type == "Turn":
                return self._heard(msgspec.json.decode(message, type=_Turn))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return (Failed(ProviderError(NAME, "garbage", "not a message of this API")),)
        if kind.type == "Error" or kind.error is not None:  # some come without a type
            return (Failed(_failure(kind.error_code, str(kind.error).lower())),)
        return ()

    def _heard(self, turn: _Turn) -> Iterable[Event]:
        if turn.turn_order is not None and turn.turn_order == self._ended:
            return  # once more, formatted
        words = tuple(self._words(turn))
        if not turn.end_of_turn:
            # A word that is not final may be half of one: nothing is known up to its end.
            known = [word.end / 1000 for word in turn.words if word.word_is_final]
            yield Words(words, self._until_s, max([self._until_s, *known[-1:]]), False)
            if turn.utterance and turn.utterance != self._complete:
                self._complete = turn.utterance
                yield Hint(TurnHint.EAGER)
            return
        end = words[-1].end_s if turn.words else self._sent / SAMPLE_RATE - MARGIN_S
        end = max(self._until_s, end)
        yield Words(words, self._until_s, end, True)
        self._until_s, self._ended, self._complete = end, turn.turn_order, ""
        yield Finalized()

    def _words(self, turn: _Turn) -> Iterable[Word]:
        """A turn's words.  None lies in the turn before: a first word's start may be far too early.

        Where they have no times, the turn is one word.
        """
        for word in turn.words:
            start, end = max(self._until_s, word.start / 1000), max(self._until_s, word.end / 1000)
            yield Word(word.text, start, end, word.confidence)
        if not turn.words and turn.transcript.strip():
            yield Word(turn.transcript.strip(), self._until_s, self._sent / SAMPLE_RATE)


def _query(model: str, language: str) -> dict[str, str]:
    code = language.partition("-")[0].lower()
    query = {
        "sample_rate": str(SAMPLE_RATE),
        "encoding": "pcm_mulaw",
        "speech_model": model or MODELS.get(code, PRO),
        "min_turn_silence": SILENCE_MS,
        "max_turn_silence": SILENCE_MS,
    }
    if query["speech_model"].startswith("universal-3-") and code in PRO_LANGUAGES.split():
        query["language_codes"] = f'["{code}"]'
    return query


def _failure(code: object, text: str) -> ProviderError:
    """Return what an error message means; its text is looked at, and told nobody."""
    detail = f"error {code}" if isinstance(code, int) else "an error message"
    if code in BUSY or "concurrent" in text:  # which is told as 1008, too
        return Refusal(NAME, "busy", detail)
    if code in REFUSED or "authoriz" in text:
        return Refusal(NAME, "refused", detail)
    return (Refusal if code in INVALID else ProviderError)(NAME, "status", detail)


@dataclass(frozen=True, slots=True)
class AssemblyAI:
    """What this vendor offers."""

    stt: STT


@asynccontextmanager
async def opened(settings: Settings, connect: Connect = connect_tcp) -> AsyncIterator[AssemblyAI]:
    """Open it; nothing is sent before the first call.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    url = websocket_url(base_url_of(settings, NAME), "/v3/ws")
    dialect = partial(UniversalStreaming, url, key_of(settings, NAME), settings.stt_model)
    async with open_live_stt(NAME, dialect, connect) as stt:
        yield AssemblyAI(stt)
