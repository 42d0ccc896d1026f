"""Exotel's AgentStream (the Voicebot applet), both ways, as its WebSocket protocol page defines it.

What differs from Twilio:

* Names are in snake_case, even the sample rate is a string, and `start` says who calls.
* Audio is 16-bit little-endian PCM at 8 kHz, about 100 ms a message.  Streams that the newer API
  starts may be mu-law instead; `start` says which.
* What we send must be 3,200 bytes to 100 KB, in multiples of 320, or the caller hears gaps.  The
  page calls that 100 ms, but of PCM at 8 kHz it is 200: so a message holds ten frames, a barge-in
  leaves more of them out, and the end of a reply is padded with silence.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Any

import msgspec

from ..audio import FRAME_BYTES, SILENCE_BYTE
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
from .linear import LinearPcm
from .twilio import DIGITS, StreamState

ABILITIES = Abilities(message_frames=10)

MOST_FRAMES = 312
"""The most whole frames of 320 bytes in 100,000."""

_S = StreamState


class _StartBody(msgspec.Struct):
    call_sid: str
    account_sid: str = ""
    caller: Any = msgspec.field(name="from", default="")
    called: Any = msgspec.field(name="to", default="")
    custom_parameters: Any = None
    media_format: Any = None
    """Of any shape, all of them: a start that cannot be read would be a call that never begins."""


class _MediaBody(msgspec.Struct):
    payload: bytes
    timestamp: Any = None
    """Milliseconds, as a string.  Of any shape: sound without a time is still sound."""


class _Name(msgspec.Struct):
    name: str


class _Digit(msgspec.Struct):
    digit: str


class _Connected(msgspec.Struct, tag_field="event", tag="connected"):
    stream_id: str = msgspec.field(name="stream_sid", default="")


class _Start(msgspec.Struct, tag_field="event", tag="start"):
    start: _StartBody
    stream_id: str = msgspec.field(name="stream_sid")


class _Media(msgspec.Struct, tag_field="event", tag="media"):
    media: _MediaBody
    stream_id: str = msgspec.field(name="stream_sid")


class _Mark(msgspec.Struct, tag_field="event", tag="mark"):
    mark: _Name
    stream_id: str = msgspec.field(name="stream_sid")


class _Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    dtmf: _Digit
    stream_id: str = msgspec.field(name="stream_sid")


class _Stop(msgspec.Struct, tag_field="event", tag="stop"):
    stream_id: str = msgspec.field(name="stream_sid")


_Message = _Connected | _Start | _Media | _Mark | _Dtmf | _Stop
_decode = msgspec.json.Decoder(_Message).decode

TRANSITIONS: Transitions = {
    _S.CONNECTING: {"connected": _S.CONNECTED},
    _S.CONNECTED: {"start": _S.STARTED},
    _S.STARTED: {
        "media": _S.STARTED,
        "mark": _S.STARTED,
        "dtmf": _S.STARTED,
        "stop": _S.STOPPED,
    },
    _S.STOPPED: {},
}


class ExotelStream(JsonStream):
    """One stream, our side of it: `receive` its messages, `send` our commands."""

    def __init__(self) -> None:
        super().__init__(TRANSITIONS, _decode)
        self._pcm: LinearPcm | None = LinearPcm()
        """None: the stream is mu-law."""

    def send(self, command: Command) -> str:
        """Put a command into Exotel's words.  A `Play` of less than 200 ms is padded to them.

        Raises:
            LocalProtocolError: the stream is not started, or a `Play` is not whole frames.
        """
        self._check_started(command)
        sid = quote(self.stream_sid).decode()
        match command:
            case Play(audio):
                check_frames(audio, MOST_FRAMES)
                payload = b2a_base64(self._outgoing(audio), newline=False).decode()
                return f'{{"event":"media","stream_sid":{sid},"media":{{"payload":"{payload}"}}}}'
            case Mark(name):
                quoted = quote(name).decode()
                return f'{{"event":"mark","stream_sid":{sid},"mark":{{"name":{quoted}}}}}'
            case Clear():
                return f'{{"event":"clear","stream_sid":{sid}}}'

    def _outgoing(self, audio: bytes) -> bytes:
        audio = audio.ljust(ABILITIES.message_frames * FRAME_BYTES, SILENCE_BYTE)
        return audio if self._pcm is None else self._pcm.from_mulaw(audio)

    def _event(self, message: Any) -> Event:
        match message:
            case _Media(media=body):
                at_ms = milliseconds(body.timestamp)
                if self._pcm is None:
                    return Media(body.payload, at_ms)
                return Media(self._pcm.to_mulaw(body.payload), at_ms)
            case _Mark(mark=mark):
                return MarkReached(mark.name)
            case _Dtmf(dtmf=dtmf):
                return Dtmf(dtmf.digit) if dtmf.digit in DIGITS else self._ignore("not a digit")
            case _Start():
                return self._start(message)
            case _Connected():
                return Connected()
            case _:
                return Stopped()

    def _start(self, message: _Start) -> Event:
        body = message.start
        encoding, rate = format_fields(body.media_format, "encoding", "sample_rate")
        if encoding not in ("audio/x-raw", "audio/x-mulaw") or rate not in ("8000", 8000):
            raise RemoteProtocolError("media format is not PCM or mu-law at 8000 Hz", 1003)
        if encoding == "audio/x-mulaw":
            self._pcm = None
        self.stream_sid = message.stream_id
        return Started(
            call_sid=body.call_sid,
            stream_sid=message.stream_id,
            account_sid=body.account_sid,
            parameters=string_pairs({"From": body.caller, "To": body.called})
            | string_pairs(body.custom_parameters),
        )
