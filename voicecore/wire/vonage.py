"""Vonage's Voice API WebSocket, both ways, as its WebSockets guide defines it.

What differs from Twilio:

* **Sound is binary messages**: 16-bit little-endian PCM, 20 ms each, and exactly that from us.
  Only events and actions are JSON text.
* `websocket:connected` is the start.  It names neither call nor stream: our NCCO's `headers` come
  back in it, at the top level, and one of them is the call (`CALL_HEADER`).
* A mark is the action `notify`, echoed as `websocket:notify`.  Older platforms knew neither it nor
  `clear`: a player that gets no echo goes by the clock.
* `clear` is acknowledged by `websocket:cleared`.  Whether it returns the pending marks nobody says.
* Nothing says that the stream stops: the WebSocket closes.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ..errors import RemoteProtocolError
from .abilities import Abilities
from .events import (
    Clear,
    Command,
    Dtmf,
    Event,
    Ignored,
    Mark,
    MarkReached,
    Media,
    Play,
    Started,
)
from .json_stream import UNREADABLE, StreamLife, Transitions, check_frames, quote, string_pairs
from .linear import LinearPcm
from .twilio import DIGITS, StreamState

ABILITIES = Abilities()

CALL_HEADER = "uuid"
"""The header of our NCCO that names the call, as Vonage's webhooks do."""

_S = StreamState
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_LINEAR = re.compile(r"audio/l16;\s*rate=(8000|16000|24000)")
_OURS = frozenset({"event", "content-type", CALL_HEADER})

TRANSITIONS: Transitions = {
    _S.CONNECTING: {"websocket:connected": _S.STARTED},
    _S.CONNECTED: {},
    _S.STARTED: {
        "audio": _S.STARTED,
        "websocket:notify": _S.STARTED,
        "websocket:cleared": _S.STARTED,
        "websocket:dtmf": _S.STARTED,
    },
    _S.STOPPED: {},
}
"""As in the guide; `audio` stands for a binary message, which has no name."""


class VonageStream(StreamLife):
    """One stream, our side of it: `receive` its messages, `send` our commands."""

    def __init__(self) -> None:
        super().__init__(TRANSITIONS)
        self._pcm = LinearPcm()

    def receive(self, message: str | bytes) -> Event:
        """Take one message from Vonage, text or binary, and say what it means.

        Raises:
            RemoteProtocolError: the stream must be closed, with the error's `close_code`: its
                audio format is not ours (1003), it names no call (1008), or it sent
                `MAX_IGNORED` bad messages (1008).
        """
        if isinstance(message, bytes):
            if self._following("audio") is None:
                return self._ignore(f"audio in state {self.state.name}")
            return Media(self._pcm.to_mulaw(message))
        try:
            decoded = _decode(message)
        except UNREADABLE as error:
            return self._ignore(f"undecodable message: {error}")
        name = decoded.get("event")
        following = self._following(name) if isinstance(name, str) and name != "audio" else None
        if following is None:
            return self._ignore(f"{name!r:.40} in state {self.state.name}")
        event = self._event(name, decoded)
        self.state = following
        return event

    def send(self, command: Command) -> str | bytes:
        """Put a command into Vonage's words, or its sound into a binary message.

        Raises:
            LocalProtocolError: the stream is not started, or a `Play` is not one frame.
        """
        self._check_started(command)
        match command:
            case Play(audio):
                check_frames(audio, 1)
                return self._pcm.from_mulaw(audio)
            case Mark(name):
                return f'{{"action":"notify","payload":{{"name":{quote(name).decode()}}}}}'
            case Clear():
                self._pcm.clear()
                return '{"action":"clear"}'

    def _event(self, name: object, message: dict[str, Any]) -> Event:
        match name:
            case "websocket:notify":
                payload = message.get("payload")
                mark = payload.get("name") if isinstance(payload, dict) else None
                return MarkReached(mark) if isinstance(mark, str) else self._ignore("not our mark")
            case "websocket:dtmf":
                digit = message.get("digit")
                if isinstance(digit, str) and digit in DIGITS:
                    return Dtmf(digit)
                return self._ignore("not a digit")
            case "websocket:cleared":
                return Ignored("the queue was cleared")
            case _:
                return self._start(message)

    def _start(self, message: dict[str, Any]) -> Event:
        given = message.get("content-type")
        shape = _LINEAR.fullmatch(given) if isinstance(given, str) else None
        if shape is None:
            raise RemoteProtocolError("media format is not audio/l16 at 8, 16 or 24 kHz", 1003)
        call = message.get(CALL_HEADER)
        if not isinstance(call, str) or not call:
            raise RemoteProtocolError(f"no header {CALL_HEADER!r} names the call", 1008)
        self._pcm = LinearPcm(int(shape[1]))
        self.stream_sid = call
        headers = {name: value for name, value in message.items() if name not in _OURS}
        return Started(call_sid=call, stream_sid=call, parameters=string_pairs(headers))
