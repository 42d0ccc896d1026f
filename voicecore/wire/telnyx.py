"""Telnyx media streaming, both ways, as its "Media Streaming over WebSockets" page defines it.

What differs from Twilio:

* Names are in snake_case, the call is named by its call control id, and `start` says who calls.
* What we send names no stream.
* **The order of media is not promised**: messages have a chunk number, and `Reordering` puts them
  back into their order.
* `clear` makes Telnyx return the pending marks, as Twilio does.
* The media's codec is the call's own (A-law in much of the world) unless the answer asks for PCMU,
  as ours does.  Any other is refused: as mu-law it would be noise.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Any

import msgspec

from ..errors import RemoteProtocolError
from .abilities import Abilities
from .events import (
    Clear,
    Command,
    Connected,
    Dtmf,
    Event,
    Mark,
    MarkReached,
    Media,
    Play,
    Started,
    Stopped,
    milliseconds,
)
from .json_stream import JsonStream, Transitions, check_frames, format_fields, quote, string_pairs
from .twilio import DIGITS, StreamState

ABILITIES = Abilities()

MOST_FRAMES = 1500
"""A message's audio: 20 ms to 30 s (the page's section on RTP mode)."""

HELD_CHUNKS = 3
"""Chunks that wait for one before them.  60 ms: a caller's onset may come so late, and no later."""

LATE_CHUNKS = 50
"""A chunk that is a second late is not late: the carrier has begun to count anew."""

_S = StreamState


class _StartBody(msgspec.Struct):
    call_control_id: str
    user_id: str = ""
    caller: Any = msgspec.field(name="from", default="")
    called: Any = msgspec.field(name="to", default="")
    custom_parameters: Any = None
    media_format: Any = None
    """Of any shape, all of them: a start that cannot be read would be a call that never begins."""


class _MediaBody(msgspec.Struct):
    payload: bytes
    track: str = "inbound"
    chunk: Any = None
    """Its number, as a string.  Of any shape: audio without one is heard as it comes."""
    timestamp: Any = None


class _Name(msgspec.Struct):
    name: str


class _Digit(msgspec.Struct):
    digit: str


class _Report(msgspec.Struct):
    title: str = ""
    detail: str = ""


class _Connected(msgspec.Struct, tag_field="event", tag="connected"):
    stream_id: str = ""


class _Start(msgspec.Struct, tag_field="event", tag="start"):
    start: _StartBody
    stream_id: str


class _Media(msgspec.Struct, tag_field="event", tag="media"):
    media: _MediaBody
    stream_id: str


class _Mark(msgspec.Struct, tag_field="event", tag="mark"):
    mark: _Name
    stream_id: str


class _Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    dtmf: _Digit
    stream_id: str


class _Error(msgspec.Struct, tag_field="event", tag="error"):
    payload: _Report = msgspec.field(default_factory=_Report)
    stream_id: str = ""


class _Stop(msgspec.Struct, tag_field="event", tag="stop"):
    stream_id: str


_Message = _Connected | _Start | _Media | _Mark | _Dtmf | _Error | _Stop
_decode = msgspec.json.Decoder(_Message).decode

TRANSITIONS: Transitions = {
    _S.CONNECTING: {"connected": _S.CONNECTED},
    _S.CONNECTED: {"start": _S.STARTED},
    _S.STARTED: {
        "media": _S.STARTED,
        "mark": _S.STARTED,
        "dtmf": _S.STARTED,
        "error": _S.STARTED,
        "stop": _S.STOPPED,
    },
    _S.STOPPED: {},
}


class TelnyxStream(JsonStream):
    """One stream, our side of it: `receive` its messages, `send` our commands."""

    def __init__(self) -> None:
        super().__init__(TRANSITIONS, _decode)
        self._order = Reordering()

    def send(self, command: Command) -> str:
        """Put a command into Telnyx's words.

        Raises:
            LocalProtocolError: the stream is not started, or a `Play` is not 20 ms to 30 s.
        """
        self._check_started(command)
        match command:
            case Play(audio):
                check_frames(audio, MOST_FRAMES)
                payload = b2a_base64(audio, newline=False).decode()
                return f'{{"event":"media","media":{{"payload":"{payload}"}}}}'
            case Mark(name):
                return f'{{"event":"mark","mark":{{"name":{quote(name).decode()}}}}}'
            case Clear():
                return '{"event":"clear"}'

    def _event(self, message: Any) -> Event:
        match message:
            case _Media(media=body):
                if body.track != "inbound":
                    return self._ignore(f"media of track {body.track!r:.40}")
                audio = self._order.next_audio(body.chunk, body.payload)
                # What was held or is given out late is not of this message's time.
                is_its_own = audio is body.payload
                return Media(audio, milliseconds(body.timestamp) if is_its_own else None)
            case _Mark(mark=mark):
                return MarkReached(mark.name)
            case _Dtmf(dtmf=dtmf):
                return Dtmf(dtmf.digit) if dtmf.digit in DIGITS else self._ignore("not a digit")
            case _Start():
                return self._start(message)
            case _Error(payload=report):
                return self._ignore(f"the carrier objects: {report.title} {report.detail}")
            case _Connected():
                return Connected()
            case _:
                return Stopped()

    def _start(self, message: _Start) -> Event:
        body = message.start
        encoding, rate, channels = format_fields(
            body.media_format, "encoding", "sample_rate", "channels"
        )
        if encoding not in ("PCMU", "audio/x-mulaw") or rate != 8000 or channels != 1:
            raise RemoteProtocolError("media format is not PCMU 8000 mono", 1003)
        self.stream_sid = message.stream_id
        return Started(
            call_sid=body.call_control_id,
            stream_sid=message.stream_id,
            account_sid=body.user_id,
            parameters=string_pairs({"From": body.caller, "To": body.called})
            | string_pairs(body.custom_parameters),
        )


class Reordering:
    """Puts numbered audio back into order.

    What comes too early is held; when `HELD_CHUNKS` wait, the one before them is given up.  What
    comes too late, or twice, is dropped: by then it is an echo.
    """

    def __init__(self) -> None:
        self._expected: int | None = None
        self._held: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"<Reordering expects {self._expected}, holds {len(self._held)}>"

    def next_audio(self, chunk: object, audio: bytes) -> bytes:
        """Take one message's audio; return what may be heard now, which may be nothing."""
        number = _number(chunk)
        if number is None:
            return audio
        if self._expected is None:
            self._expected = number
        if number == self._expected and not self._held:
            self._expected += 1
            return audio
        if self._expected - number > LATE_CHUNKS:
            self._expected, self._held = number, {}
        if number < self._expected:
            return b""
        self._held.setdefault(number, audio)
        if len(self._held) > HELD_CHUNKS:
            self._expected = min(self._held)
        heard = bytearray()
        while self._expected in self._held:
            heard += self._held.pop(self._expected)
            self._expected += 1
        return bytes(heard)


def _number(chunk: object) -> int | None:
    """Return a chunk's number if it has one; eighteen digits last for ever."""
    if isinstance(chunk, str) and chunk.isascii() and chunk.isdigit() and len(chunk) <= 18:
        return int(chunk)
    return chunk if isinstance(chunk, int) and not isinstance(chunk, bool) else None
