"""A server that speaks AssemblyAI's streaming API v3, and can misbehave as vendors do.

It ends turns as the vendor documents it: by itself after ``min_turn_silence``, and by force; an end
by force of no turn is answered by nothing.
"""

from __future__ import annotations

import json
from typing import Any

import trio

from .fake_deepgram_models import Spoken
from .fake_live import LiveFake, LiveRecogniser, Manners

LEAST_S, MOST_S = 0.05, 1.0
SETTLED_S = 0.3
"""After its end a word is final; until then it may be said to be half of it."""
UTTERANCE_S = 0.2

MODELS = """
universal-streaming-english universal-streaming-multilingual whisper-rt u3-rt-pro universal-3-5-pro
"""


def error(code: int, text: str) -> dict[str, Any]:
    return {"type": "Error", "error_code": code, "error": text}


UNAUTHORIZED = error(1008, "Unauthorized Connection: Invalid API key")
TOO_MANY = error(1008, "Unauthorized Connection: Too many concurrent sessions")


class StreamingV3(LiveRecogniser):
    """``/v3/ws``."""

    order = 0
    begun = 0.0
    said = ""
    complete = False

    def greet(self) -> None:
        super().greet()
        if self.behaviour.error is None and not self.behaviour.close:
            query = self.session.query
            if query.get("speech_model") not in MODELS.split():
                self.session.violations.append(f"model {query.get('speech_model')}")
            configuration = {"model": query.get("speech_model"), "mode": None}
            self.say(
                {
                    "type": "Begin",
                    "id": "s",
                    "expires_at": 1790221526,
                    "configuration": {**configuration, "api_version": "2025-05-12"},
                }
            )

    def decode(self, message: str | bytes) -> bytes | dict[str, Any]:
        if isinstance(message, str):
            said: dict[str, Any] = json.loads(message)
            return said
        self._inspect(len(message) / 8000)
        return message

    def last_words(self) -> str:
        return "Terminate"

    def _inspect(self, seconds: float) -> None:
        """Watch what the vendor limits."""
        if not LEAST_S <= seconds <= MOST_S:
            self.session.violations.append(f"Input Duration Violation: {seconds * 1000} ms")
        elapsed = trio.current_time() - self.session.opened
        if self.session.seconds > 1.25 * elapsed + MOST_S:
            self.session.violations.append("Audio Transmission Rate Exceeded")

    def hear(self) -> None:
        words, silence = self._pending(), self.silence
        if not words:
            return
        if silence >= float(self.session.query.get("min_turn_silence", "400")) / 1000:
            self._end(0.9)
        elif silence >= UTTERANCE_S and not self.complete and self.behaviour.interims:
            self.complete = True
            self._turn(words, end_of_turn=False, utterance=text_of(words))
        elif self.behaviour.interims:
            self._turn(words, end_of_turn=False)

    def obey(self, kind: str) -> bool:
        answers = bool(self._pending()) or self.behaviour.answers_silence
        if kind == "ForceEndpoint" and answers and not self.behaviour.deaf:
            self._end(0.8)  # as sure as it is of what happens to be said
        return kind in ("ForceEndpoint", "KeepAlive", "UpdateConfiguration")

    def finish(self) -> None:
        if self._pending():
            self._end(0.2)
        seconds = round(self.session.seconds)
        self.say(
            {
                "type": "Termination",
                "audio_duration_seconds": seconds,
                "session_duration_seconds": seconds,
            }
        )

    def _pending(self) -> list[Spoken]:
        return self.between(self.begun, self.session.seconds)

    def _end(self, confidence: float) -> None:
        words = self._pending()
        self._turn(words, end_of_turn=True, end_of_turn_confidence=confidence)
        if self.behaviour.twice:
            formatted = [Spoken(word.text.title(), word.start, word.end) for word in words]
            self._turn(formatted, end_of_turn=True, turn_is_formatted=True)
        self.order, self.begun = self.order + 1, self.session.seconds
        self.said, self.complete = "", False

    def _turn(self, words: list[Spoken], end_of_turn: bool, **more: Any) -> None:
        now = self.session.seconds
        final = [end_of_turn or at + 1 < len(words) or word.end <= now - SETTLED_S
                 for at, word in enumerate(words)]  # fmt: skip
        content = [
            {
                "text": word.text if is_final else word.text[:-1],
                "start": round(word.start * 1000),
                "end": round(word.end * 1000),
                "confidence": 0.9,
                "word_is_final": is_final,
            }
            for word, is_final in zip(words, final, strict=True)
        ]
        message = {
            "type": "Turn",
            "turn_order": self.order,
            "turn_is_formatted": False,
            "end_of_turn": end_of_turn,
            "transcript": text_of(
                [w for w, is_final in zip(words, final, strict=True) if is_final]
            ),
            "end_of_turn_confidence": 0.01,
            "words": [] if self.behaviour.untimed else content,
            "utterance": "",
            **more,
        }
        if end_of_turn or json.dumps(message) != self.said:
            self.said = "" if end_of_turn else json.dumps(message)
            self.say(message)


def text_of(words: list[Spoken]) -> str:
    return " ".join(word.text for word in words)


class FakeAssemblyAI(LiveFake):
    """All connections to one fake.  A key that is wrong is refused after the upgrade."""

    header = "authorization"
    kind = StreamingV3
    bad_key = Manners(error=UNAUTHORIZED, close=1008)
