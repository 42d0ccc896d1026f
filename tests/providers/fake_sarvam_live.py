"""A server that speaks Sarvam's realtime recognition, and can misbehave as vendors do.

With ``endpointing=manual`` it hears nothing outside of an utterance, and finishes one when it is
told where it ends.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import trio

from .fake_deepgram_models import Message
from .fake_live import LiveFake, LiveRecogniser, Manners

PARTIAL_S = 0.5
MOST_S = 0.5
"""What one message may hold with ``stream_type=fast``."""

LANGUAGES = """
auto en-IN hi-IN bn-IN kn-IN ml-IN mr-IN or-IN pa-IN ta-IN te-IN gu-IN as-IN ur-IN ne-IN kok-IN
ks-IN sd-IN sa-IN sat-IN mni-IN brx-IN mai-IN doi-IN
"""


def error(code: str, is_fatal: bool = True, **more: Any) -> dict[str, Any]:
    return {"event": "error", "code": code, "is_fatal": is_fatal, "message": "about key k", **more}


BAD_KEY = error("invalid_api_key_error", status_code=403)
NO_QUOTA = error("insufficient_quota_error")


class Realtime(LiveRecogniser):
    """``/speech-to-text-realtime/ws``."""

    index = 0
    begun: float | None = None
    said_at = 0.0
    said = ""

    def greet(self) -> None:
        super().greet()
        if self.behaviour.error is not None or self.behaviour.close:
            return
        query = self.session.query
        expected = {"encoding": "mulaw", "sample_rate": "8000", "endpointing": "manual"}
        if not expected.items() <= query.items():
            self.session.violations.append(f"query {query}")
        if query["language_code"] not in LANGUAGES.split():
            self.session.violations.append(f"language {query['language_code']}")
        config = {
            "model": query["model"],
            "language_code": query["language_code"],
            "encoding": query["encoding"],
            "sample_rate": int(query["sample_rate"]),
            "stream_type": query.get("stream_type", "balanced"),
            "mode": "transcribe",
            "prompt": "",
            "turn_detection": "manual",
            "return_timestamps": query.get("return_timestamps") == "true",
        }
        self.say({"event": "session.begin", "request_id": "r", "config": config})

    def decode(self, message: str | bytes) -> bytes | dict[str, Any]:
        said: dict[str, Any] = json.loads(message)
        if said.get("event") != "audio_input":
            return said
        audio = base64.b64decode(said["audio"], validate=True)
        if not 0 < len(audio) / 8000 <= MOST_S:
            self.session.violations.append(f"{len(audio)} bytes of audio")
        if self.begun is None:
            self.session.violations.append("audio outside of an utterance")
        return audio

    def last_words(self) -> str:
        return "end"

    def hear(self) -> None:
        now = self.session.seconds
        if self.begun is not None and self.behaviour.interims and now >= self.said_at + PARTIAL_S:
            self.said_at = now
            # It lags: what was said last is not in it.
            text = self._text(self.begun, now - PARTIAL_S / 2)
            if text and text != self.said:
                self.said = text
                self.say({"event": "transcript.partial", "utterance_idx": self.index, "text": text})

    def obey(self, kind: str) -> bool:
        now = self.session.seconds
        if kind == "speech_start":
            self.begun = now
        elif kind == "speech_end" and self.begun is not None:
            if not self.behaviour.deaf:
                self._finalise(self.begun, now)
            self.begun = None
        elif kind == "ping":
            self.say({"event": "pong"})
        else:
            return False
        return True

    def finish(self) -> None:
        if self.begun is not None and self._text(self.begun, self.session.seconds):
            self._finalise(self.begun, self.session.seconds)
        self.say(
            {
                "event": "session.end",
                "request_id": "r",
                "total_duration_s": trio.current_time() - self.session.opened,
                "total_utterances": self.index,
                "audio_duration_s": self.session.seconds,
            }
        )

    def say(self, message: Message) -> None:
        if isinstance(message, dict) and message.get("event") == "transcript.final":
            due = trio.current_time() + self.behaviour.latency_s + self.behaviour.final_after_s
            self._post_in.send_nowait((due, message))
        else:
            super().say(message)

    def _text(self, start: float, end: float) -> str:
        return " ".join(word.text for word in self.between(start, end))

    def _finalise(self, start: float, end: float) -> None:
        text = self._text(start, end)
        times = {"start_s": round(start, 3), "end_s": round(end, 3)}
        final = {
            "event": "transcript.final",
            "utterance_idx": self.index,
            "text": text,
            **({} if self.behaviour.untimed else times),
        }
        if text or self.behaviour.answers_silence:
            self.say(final)
        if text and self.behaviour.twice:
            self.say(final)
        self.index, self.said = self.index + 1, ""


class FakeSarvam(LiveFake):
    """All connections to one fake.  A key that is wrong is refused after the upgrade."""

    header = "api-subscription-key"
    kind = Realtime
    bad_key = Manners(error=BAD_KEY, close=1003)
