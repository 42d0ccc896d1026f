"""Nova and Flux as a fake of Deepgram speaks them; see `fake_deepgram`.

They understand the words that are in the audio (`voicecore.testing.audible`), so what they say is
what they were sent, at its time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from voicecore.audio import SAMPLE_RATE

IDLE_S = 10.0
INTERIM_S = 0.5
UPDATE_S = 0.25
WORD_S = 0.2
QUIET = 0xFF


@dataclass(frozen=True)
class Behaviour:
    """How one connection goes."""

    refuses: bool = False  # the connection itself
    wait_s: float = 0  # before the upgrade
    status: int = 101
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    raw: bytes | None = None  # in place of any HTTP
    hangs: str = ""  # "before" or "after" the upgrade
    latency_s: float = 0.05
    cut_after_s: float | None = None  # of audio: the connection is gone
    closes_after_s: float | None = None  # of audio: with 1011
    garbage_after_s: float | None = None  # of audio
    garbage: str | bytes = "{not JSON"
    chatty: bool = False  # messages of unknown kinds in between
    bytewise: bool = False
    deaf: bool = False  # to Finalize and ForceEndTurn
    finals: bool = True  # whether Finalize is answered with from_finalize results
    interims: bool = True
    endpoints: bool = True  # whether finals come by themselves


@dataclass
class FakeSession:
    """One connection: what came over it."""

    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    audio: bytearray = field(default_factory=bytearray)
    messages: list[int] = field(default_factory=list)  # sizes of the binary ones
    texts: list[Any] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    opened: float = 0
    closed: float | None = None
    left: float | None = None
    violations: list[str] = field(default_factory=list)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.path).query))

    @property
    def kinds(self) -> list[str]:
        return [text.get("type", "") for text in self.texts]

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE


@dataclass(frozen=True)
class Spoken:
    """A word in the audio, in seconds of the stream."""

    text: str
    start: float
    end: float


Message = dict[str, Any] | str | bytes | None
"""What is sent; None: the closing handshake."""


class _Cut(Exception):
    """The connection is to be cut."""


class Recogniser:
    """What nova and Flux share: taking audio in, saying things late, the faults."""

    def __init__(
        self, socket: WebSocketConnection, behaviour: Behaviour, session: FakeSession
    ) -> None:
        self.socket = socket
        self.behaviour = behaviour
        self.session = session
        self.words: list[Spoken] = []
        self.last_loud = 0.0
        self._scanned = 0
        self._post_in, self._post_out = trio.open_memory_channel[tuple[float, Message]](10000)

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._post)
                self.greet()
                await self._listen()
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, _Cut):
            pass

    def greet(self) -> None:
        """Say what is said first."""

    def say(self, message: Message) -> None:
        """Say something, `latency_s` from now."""
        due = trio.current_time() + self.behaviour.latency_s
        if self.behaviour.chatty:
            self._post_in.send_nowait(
                (due, {"type": "SomethingNew", "of": ["2027"], "start": None})
            )
        self._post_in.send_nowait((due, message))

    def hear(self) -> None:
        """React to new audio."""
        raise NotImplementedError

    def obey(self, kind: str) -> bool:
        """React to a control message; false: it is none."""
        raise NotImplementedError

    async def _post(self) -> None:
        async for due, message in self._post_out:
            await trio.sleep_until(due)
            if message is None:
                await self.socket.aclose(1000)
                raise _Cut
            if isinstance(message, dict):
                self.session.sent.append(message)
                message = json.dumps(message)
            await self.socket.send_message(message)

    async def _listen(self) -> None:
        while True:
            with trio.move_on_after(IDLE_S) as patience:
                message = await self.socket.get_message()
            if patience.cancelled_caught:
                await self.socket.aclose(1011, "NET-0001")
                return
            if self.behaviour.hangs == "after":
                continue
            if isinstance(message, bytes):
                if not message:
                    self.session.violations.append("an empty message")
                    await self.socket.aclose(1011)
                    return
                self.session.messages.append(len(message))
                self.session.audio += message
                self._scan()
                self.hear()
                await self._misbehave()
                continue
            text = json.loads(message)
            self.session.texts.append(text)
            kind = text.get("type", "")
            if kind == "CloseStream":
                self.finish()
                self.say(None)
                await trio.sleep_forever()
            if not self.obey(kind):
                self.session.violations.append(f"a message of kind {kind}")

    def finish(self) -> None:
        """Say what is said last."""

    async def _misbehave(self) -> None:
        heard, behaviour = self.session.seconds, self.behaviour
        if behaviour.cut_after_s is not None and heard >= behaviour.cut_after_s:
            raise _Cut
        if behaviour.closes_after_s is not None and heard >= behaviour.closes_after_s:
            await self.socket.aclose(1011, "NET-0000")
            raise _Cut
        if behaviour.garbage_after_s is not None and heard >= behaviour.garbage_after_s:
            self.say(behaviour.garbage)

    def _scan(self) -> None:
        """Find the words that the new audio holds."""
        audio = self.session.audio
        while (at := audio.find(b"\x01", self._scanned)) >= 0 and at + 160 <= len(audio):
            text = bytes(audio[at + 2 : at + 2 + audio[at + 1]]).decode()
            end = (at + 160) / SAMPLE_RATE
            for word in text.split():
                before = self.words[-1].end if self.words else 0.0
                self.words.append(Spoken(word, max(before, end - WORD_S), end))
            self._scanned = at + 160
        tail = audio[-4000:]
        loud = len(tail.rstrip(bytes([QUIET])))
        if loud:
            self.last_loud = max(self.last_loud, (len(audio) - len(tail) + loud) / SAMPLE_RATE)

    @property
    def silence(self) -> float:
        """How long nobody has spoken."""
        return self.session.seconds - self.last_loud


class Nova(Recogniser):
    """``/v1/listen``."""

    final_end = 0.0
    interim_at = 0.0
    began = 0.0

    def hear(self) -> None:
        endpointing = float(self.session.query.get("endpointing", "10")) / 1000
        pending = self._pending()
        now = self.session.seconds
        if pending and self.silence >= endpointing and self.behaviour.endpoints:
            self._results(is_final=True, speech_final=True)
        elif now - self.final_end >= 3.0 and not pending:
            self._results(is_final=True)
        elif self.behaviour.interims and now - self.interim_at >= INTERIM_S:
            self._results(is_final=False)

    def obey(self, kind: str) -> bool:
        if kind == "Finalize" and not self.behaviour.deaf:
            buffered = self.session.seconds - self.final_end
            if buffered > 0.05:
                self._results(is_final=True, from_finalize=self.behaviour.finals)
        return kind in ("KeepAlive", "Finalize", "Configure")

    def finish(self) -> None:
        self._results(is_final=True)
        self.say(
            {
                "type": "Metadata",
                "transaction_key": "deprecated",
                "request_id": "r",
                "sha256": "0" * 64,
                "created": "2026-01-01T00:00:00.000Z",
                "duration": self.session.seconds,
                "channels": 1,
            }
        )

    def _pending(self) -> list[Spoken]:
        return [word for word in self.words if word.end > self.final_end]

    def _results(self, is_final: bool, **flags: bool) -> None:
        words, now = self._pending(), self.session.seconds
        start = self.final_end
        self.interim_at = now
        if is_final:
            self.final_end = now
        self.say(results([w for w in words if w.end <= now], start, now, is_final, **flags))


METADATA = {
    "request_id": "r",
    "model_info": {"name": "general-nova-3", "version": "2026-01-01", "arch": "nova-3"},
    "model_uuid": "u",
}


def results(
    words: Sequence[Spoken], start: float, end: float, is_final: bool, **flags: bool
) -> dict[str, Any]:
    """A Results message."""
    text = " ".join(word.text for word in words)
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "start": round(start, 3),
        "duration": round(end - start, 3),
        "is_final": is_final,
        "speech_final": False,
        "from_finalize": False,
        **flags,
        "channel": {
            "alternatives": [
                {
                    "transcript": text,
                    "confidence": 0.9 if words else 0.0,
                    "words": [
                        {
                            "word": word.text.lower().strip(",.?"),
                            "start": round(word.start, 3),
                            "end": round(word.end, 3),
                            "confidence": 0.9,
                            "punctuated_word": word.text,
                        }
                        for word in words
                    ],
                }
            ]
        },
        "metadata": METADATA,
    }


class Flux(Recogniser):
    """``/v2/listen``."""

    turn = 0
    turn_start = 0.0
    updated = 0.0
    sequence = 0
    eager: str | None = None
    started = False

    def greet(self) -> None:
        self._say({"type": "Connected"})

    def hear(self) -> None:
        words, now = self._words(), self.session.seconds
        text = " ".join(word.text for word in words)
        if words and not self.started:
            self.started = True
            self._info("StartOfTurn")
        elif self.eager is not None and text != self.eager:
            self.eager = None
            self._info("TurnResumed")
        elif words and self.eager is None and self.silence >= 0.2 and self._is_eager:
            self.eager = text
            self._info("EagerEndOfTurn")
        elif words and self.silence >= 0.6:
            self._end("model")
        elif now - self.updated >= UPDATE_S:
            self._info("Update")

    def obey(self, kind: str) -> bool:
        if kind == "ForceEndTurn":
            if self._words() and not self.behaviour.deaf:
                self._end("manual")
            return True
        if kind == "Configure":
            return True
        self._say({"type": "Error", "code": "BAD_REQUEST", "description": "unknown message"})
        return False

    @property
    def _is_eager(self) -> bool:
        return "eager_eot_threshold" in self.session.query

    def _words(self) -> list[Spoken]:
        return [word for word in self.words if word.end > self.turn_start]

    def _end(self, trigger: str) -> None:
        self._info("EndOfTurn", trigger=trigger)
        self.turn += 1
        self.turn_start = self.session.seconds
        self.eager, self.started = None, False

    def _info(self, event: str, **more: str) -> None:
        words, now = self._words(), self.session.seconds
        if event == "Update" and not self.behaviour.interims:
            return
        self.updated = now
        self._say(
            {
                "type": "TurnInfo",
                "event": event,
                "turn_index": self.turn,
                "audio_window_start": round(self.turn_start, 3),
                "audio_window_end": round(now, 3),
                "transcript": " ".join(word.text for word in words),
                "words": [
                    {
                        "word": word.text,
                        "confidence": 0.9,
                        "start": round(word.start, 3),
                        "end": round(word.end, 3),
                    }
                    for word in words
                ],
                "end_of_turn_confidence": 0.8 if event == "EndOfTurn" else 0.1,
                **more,
            }
        )

    def _say(self, message: dict[str, Any]) -> None:
        self.say({"request_id": "r", "sequence_id": self.sequence, **message})
        self.sequence += 1
