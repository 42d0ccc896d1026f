"""Deepgram Flux (``/v2/listen``): recognition that also concludes when the turn is over.

A turn's transcript is cumulative, and comes every quarter of a second whether or not it changed; so
an interim one that reaches the utterance's end is what there is to know.  Only where none does is
the turn ended by force.  There is no keep-alive message: silence is sent.

Source: Deepgram's Flux pages (state machine, configuration, ForceEndTurn) and the message models of
deepgram-sdk 7.17.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

import msgspec

from ..contracts import TurnHint
from ..errors import ProviderError
from .live_dialect import Event, Failed, Finalized, Hint, Rules, Word, Words
from .websocket import Endpoint

NAME = "deepgram"

EAGER_THRESHOLD = "0.5"
"""How sure Flux must be that the turn is over before it says so; 0.3 to 0.9.  Lower is sooner, and
more often wrong."""

MARGIN_S = 1.0
"""Before the end of a stretch without words: a word that is still coming may begin in it."""

_HINTS = {
    "EagerEndOfTurn": TurnHint.EAGER,
    "TurnResumed": TurnHint.RESUMED,
    "EndOfTurn": TurnHint.ENDED,
}


class _Kind(msgspec.Struct):
    type: str = ""


class _Word(msgspec.Struct):
    word: str
    confidence: float = 1.0
    start: float | None = None
    end: float | None = None


class _Turn(msgspec.Struct):
    event: str
    audio_window_start: float
    audio_window_end: float
    transcript: str
    words: list[_Word] = []
    trigger: str | None = None


class Flux:
    """One session of ``/v2/listen``."""

    rules = Rules(
        least_bytes=640,  # 80 ms, as the documentation recommends
        most_bytes=2000,
        finalise=('{"type":"ForceEndTurn"}',),
        finalise_after_s=0.7,  # two of its updates, and a round trip
        interims_stand=True,
        keep_alive="",
        keep_alive_s=1.0,  # longer than a network stalls: silence inside a word would split it
    )

    def __init__(
        self, url: str, headers: tuple[tuple[str, str], ...], model: str, language: str
    ) -> None:
        query = {"model": model, "encoding": "mulaw", "sample_rate": "8000"}
        query["eager_eot_threshold"] = EAGER_THRESHOLD
        if model.endswith("multi"):
            query["language_hint"] = language.partition("-")[0].lower()
        goodbye = '{"type":"CloseStream"}'
        self.endpoint = Endpoint(NAME, f"{url}?{urlencode(query)}", headers, goodbye)

    def audio(self, mulaw: bytes) -> bytes:
        """Audio goes as it is."""
        return mulaw

    def receive(self, message: str | bytes) -> Iterable[Event]:
        """Understand one message of the server."""
        try:
            kind = msgspec.json.decode(message, type=_Kind).type
            if kind == "TurnInfo":
                return _heard(msgspec.json.decode(message, type=_Turn))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return (Failed(ProviderError(NAME, "garbage", "not a message of this API")),)
        if kind == "Error":
            return (Failed(ProviderError(NAME, "status", "an error message")),)
        return ()


def _heard(turn: _Turn) -> Iterable[Event]:
    start, end = turn.audio_window_start, turn.audio_window_end
    ended = turn.event == "EndOfTurn"
    if not turn.transcript.strip() and end - MARGIN_S > start:
        # Nothing was said so far: no need to hear it again after a reconnect.
        yield Words((), start, end - MARGIN_S, True)
    yield Words(tuple(_words(turn)), start, end, ended)
    if turn.event in _HINTS:
        yield Hint(_HINTS[turn.event])
    if ended and turn.trigger == "manual":
        yield Finalized()


def _words(turn: _Turn) -> Iterable[Word]:
    """The words with their times; where a word has none, it lies behind the one before."""
    start, end = turn.audio_window_start, turn.audio_window_end
    if not turn.words and turn.transcript.strip():
        yield Word(turn.transcript.strip(), start, end)
    for word in turn.words:
        start = start if word.start is None else word.start
        until = end if word.end is None else word.end
        yield Word(word.word, start, until, word.confidence)
        start = until
