"""Live recognition by Sarvam, for the languages of India (``/speech-to-text-realtime/ws``).

Its own turn detection is switched off: an utterance is ended at our pause, and the next begun at
once, so that no audio lies between two.  Every message is JSON, audio too.

A partial text has no times, and lags behind the audio by up to half a second: it is shown, but
never taken for all that was said.  The final one comes late: meanwhile the next utterance may have
partial texts already.

Source: the models and the client of sarvamai 0.1.39.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import urlencode

import msgspec

from ..audio import SAMPLE_RATE
from ..errors import ProviderError
from .live import Event, Failed, Finalized, Rules, Word, Words
from .websocket import Endpoint, Refusal

NAME = "sarvam"
MODEL = "saaras:v3-realtime"

MARGIN_S = 0.5
"""Where an answer tells no times: what was sent since it was asked for is less than that."""

_BEGIN = '{"event":"speech_start"}'
_END = '{"event":"speech_end"}'


class _Kind(msgspec.Struct):
    event: str = ""


class _Transcript(msgspec.Struct):
    """Times are seconds of the stream."""

    text: str
    utterance_idx: int
    start_s: float | None = None
    end_s: float | None = None


class _Error(msgspec.Struct):
    is_fatal: bool = True
    code: str | None = None
    status_code: int | None = None


class Saaras:
    """One session."""

    rules = Rules(
        opening=(_BEGIN,),
        least_bytes=640,
        most_bytes=4000,
        finalise=(_END, _BEGIN),
        quiet_s=1.2,  # silence may be answered by an empty text, or by nothing
        keep_alive='{"event":"ping"}',
        keep_alive_s=5.0,
        # 1003 is limit, quota or key: it does not say which, and none gets better by asking again.
        close_faults={1003: "refused", 4000: "refused"},
    )

    def __init__(self, url: str, key: str, model: str, language: str) -> None:
        query = {
            "language_code": _language(language),
            "model": model or MODEL,
            "stream_type": "fast",  # of the partial texts; the final ones are the same
            "endpointing": "manual",
            "encoding": "mulaw",
            "sample_rate": str(SAMPLE_RATE),
            "return_timestamps": "true",
        }
        headers = (("api-subscription-key", key),) if key else ()
        self.endpoint = Endpoint(NAME, f"{url}?{urlencode(query)}", headers, '{"event":"end"}')
        self._sent = 0
        self._until_s = 0.0
        self._final = -1
        """How far utterances are final, and the last that is."""
        self._partials: dict[int, tuple[float, str]] = {}
        """Of each utterance that is not final: where its first came, and its last."""

    def audio(self, mulaw: bytes) -> str:
        """Audio goes as base64."""
        self._sent += len(mulaw)
        return f'{{"event":"audio_input","audio":"{base64.b64encode(mulaw).decode()}"}}'

    def receive(self, message: str | bytes) -> Iterable[Event]:
        """Understand one message of the server."""
        try:
            kind = msgspec.json.decode(message, type=_Kind).event
            if kind in ("transcript.partial", "transcript.final"):
                said = msgspec.json.decode(message, type=_Transcript)
                return self._partial(said) if kind == "transcript.partial" else self._finish(said)
            if kind == "error":
                return _failures(msgspec.json.decode(message, type=_Error))
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return (Failed(ProviderError(NAME, "garbage", "not a message of this API")),)
        return ()

    def _partial(self, said: _Transcript) -> Iterable[Event]:
        if said.utterance_idx <= self._final:
            return
        now = self._sent / SAMPLE_RATE
        begun, _ = self._partials.get(said.utterance_idx, (now, ""))
        self._partials[said.utterance_idx] = (begun, said.text)
        yield self._unfinished()

    def _finish(self, said: _Transcript) -> Iterable[Event]:
        if said.utterance_idx == self._final:
            return
        end = self._sent / SAMPLE_RATE - MARGIN_S if said.end_s is None else said.end_s
        begun, _ = self._partials.pop(said.utterance_idx, (end, ""))
        start = min(begun, end) if said.start_s is None else said.start_s
        if said.utterance_idx > self._final:  # a short one may be done before a long one
            start = max(self._until_s, start)
        yield Words.of(said.text, start, max(start, end), True)
        self._until_s = max(self._until_s, start, end)
        self._final = max(self._final, said.utterance_idx)
        self._partials = {at: said for at, said in self._partials.items() if at > self._final}
        if self._partials:
            yield self._unfinished()
        yield Finalized()

    def _unfinished(self) -> Words:
        """What is being said, since its first partial text; how far it reaches, nobody knows."""
        text = " ".join(text for _, text in self._partials.values()).strip()
        begun = max(self._until_s, min(begun for begun, _ in self._partials.values()))
        word = Word(text, begun, max(begun, self._sent / SAMPLE_RATE))
        return Words((word,) if text else (), self._until_s, self._until_s, False)


def _failures(error: _Error) -> Iterable[Event]:
    """Return what an error message means: nothing, if the session goes on."""
    if not error.is_fatal:
        return ()
    status, code = error.status_code, error.code or ""
    detail = f"error {status}" if status is not None else "an error message"
    if status == 429 or "limit" in code or "quota" in code:
        return (Failed(Refusal(NAME, "busy", detail)),)
    if status in (401, 402, 403) or "key" in code or "auth" in code:
        return (Failed(Refusal(NAME, "refused", detail)),)
    return (Failed((Refusal if status == 400 else ProviderError)(NAME, "status", detail)),)


def _language(tag: str) -> str:
    """Return a BCP-47 language as this endpoint tags it; Odia is ``or-IN`` here, and only here."""
    code = tag.partition("-")[0].lower()
    return f"{'or' if code == 'od' else code}-IN"
