"""Twilio's side of one media stream, without I/O: exact messages out, our server's messages in.

Counters are strings that start at "1" and are shared by all messages; the first media's timestamp
is not zero.  What Twilio would warn about (31950, 31951) is kept in `warnings` and then ignored, as
Twilio does.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .buffer import PlaybackBuffer, Played

FIRST_TIMESTAMP_MS = 120
FRAME_MS = 20
MAX_WARNINGS = 50
"""Warnings kept; a server that sends more garbage is counted, not remembered."""
_SHAPES: dict[str, frozenset[str]] = {
    "media": frozenset({"event", "streamSid", "media"}),
    "mark": frozenset({"event", "streamSid", "mark"}),
    "clear": frozenset({"event", "streamSid"}),
}


@dataclass(frozen=True, slots=True)
class CallIdentity:
    """Who calls: the SIDs are two letters and 32 hex digits, the parameters come from the TwiML."""

    call_sid: str
    stream_sid: str
    account_sid: str = "AC" + "0" * 32
    parameters: Mapping[str, str] = field(default_factory=dict)


class CarrierStream:
    """One stream as Twilio keeps it.  Every method returns the text messages to send."""

    def __init__(self, identity: CallIdentity) -> None:
        self.identity = identity
        self.buffer = PlaybackBuffer()
        self.warnings: list[str] = []
        self.media_messages = self.clears = self.ignored = 0
        self._sequence = self._chunk = 0

    def open(self) -> list[str]:
        """Begin: `connected`, then `start`."""
        who = self.identity
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        start = {
            "accountSid": who.account_sid,
            "streamSid": who.stream_sid,
            "callSid": who.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": dict(who.parameters),
        }
        return [json.dumps(connected), self._message("start", {"start": start})]

    def media(self, audio: bytes) -> str:
        """Say one piece of the caller's sound, 20 ms after the one before."""
        self._chunk += 1
        body = {
            "track": "inbound",
            "chunk": str(self._chunk),
            "timestamp": str(FIRST_TIMESTAMP_MS + FRAME_MS * (self._chunk - 1)),
            "payload": b64encode(audio).decode(),
        }
        return self._message("media", {"media": body})

    def dtmf(self, digit: str) -> str:
        """Press a key."""
        return self._message("dtmf", {"dtmf": {"track": "inbound_track", "digit": digit}})

    def stop(self) -> str:
        """Hang up."""
        who = self.identity
        stop = {"accountSid": who.account_sid, "callSid": who.call_sid}
        return self._message("stop", {"stop": stop})

    def play(self) -> tuple[Played, list[str]]:
        """Let the caller hear 20 ms; return it and the marks' echoes to send."""
        played = self.buffer.play()
        return played, self._echo(played.marks)

    def receive(self, text: str | bytes) -> list[str]:
        """Take one message from the server; return the echoes to send at once."""
        if isinstance(text, bytes):
            return self._warn("31950 binary frame")
        try:
            message: dict[str, Any] = json.loads(text)
            event = message["event"]
            if set(message) != _SHAPES[event] or message["streamSid"] != self.identity.stream_sid:
                return self._warn(f"31951 wrong keys or streamSid: {text:.80}")
            match event:
                case "media":
                    self.buffer.media(b64decode(message["media"]["payload"], validate=True))
                    self.media_messages += 1
                    return []
                case "mark":
                    name = message["mark"]["name"]
                    if not isinstance(name, str):
                        return self._warn(f"31951 a mark's name is a string: {text:.80}")
                    return self._echo(self.buffer.mark(name))
                case _:
                    self.clears += 1
                    return self._echo(self.buffer.clear())
        except (ValueError, KeyError, TypeError, Base64Error, RecursionError):
            return self._warn(f"31951 not a valid message: {text:.80}")

    def _echo(self, marks: Iterable[str]) -> list[str]:
        return [self._message("mark", {"mark": {"name": name}}) for name in marks]

    def _message(self, event: str, body: Mapping[str, object]) -> str:
        self._sequence += 1
        head = {"event": event, "sequenceNumber": str(self._sequence)}
        return json.dumps({**head, **body, "streamSid": self.identity.stream_sid})

    def _warn(self, warning: str) -> list[str]:
        self.ignored += 1
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(warning)
        return []
