"""Plivo audio streaming, both ways, as its "Stream Event Protocol" page defines it.

What differs from Twilio:

* `start` is the first message.  None says that the stream stops: the WebSocket closes.
* A mark is a `checkpoint`, and its echo is `playedStream`.
* `clearAudio` is acknowledged by `clearedAudio`, and the checkpoints before it are never heard of
  again.  So nobody may wait for a mark after a `Clear`; the player does not.
* What our answer gives the stream comes back as one string of pairs, and only letters and digits
  may be in it: `pack_headers` and `unpack_headers`.
"""

from __future__ import annotations

import re
from base64 import b32decode, b32encode
from binascii import Error as Base32Error
from binascii import b2a_base64
from collections.abc import Mapping
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
    Stopped,
    milliseconds,
)
from .json_stream import JsonStream, Transitions, check_frames, format_fields, quote
from .twilio import DIGITS, StreamState

ABILITIES = Abilities()

MOST_FRAMES = 1500
"""Plivo names no limit; half a minute in one message is a mistake of ours."""

HEADER_BYTES = 512
"""All pairs together (the attribute `extraHeaders` of `<Stream>`)."""

_S = StreamState
_PACKED = "b32x"
_PLAIN = re.compile("[A-Za-z0-9]+")
_PLAY_HEAD = (
    '{"event":"playAudio","media":{"contentType":"audio/x-mulaw","sampleRate":8000,"payload":'
)


class _StartBody(msgspec.Struct):
    call_id: str = msgspec.field(name="callId")
    stream_id: str = msgspec.field(name="streamId")
    account_id: str = msgspec.field(name="accountId", default="")
    media_format: Any = msgspec.field(name="mediaFormat", default=None)
    """Of any shape: what is not ours closes the stream, and is not ignored as a bad message."""


class _MediaBody(msgspec.Struct):
    payload: bytes
    track: str = "inbound"
    timestamp: Any = None
    """Unix milliseconds, as a string.  Of any shape: sound without a time is still sound."""


class _Digit(msgspec.Struct):
    digit: str


class _Start(msgspec.Struct, tag_field="event", tag="start"):
    start: _StartBody
    extra_headers: Any = ""


class _Media(msgspec.Struct, tag_field="event", tag="media"):
    media: _MediaBody
    stream_id: str = msgspec.field(name="streamId")


class _Played(msgspec.Struct, tag_field="event", tag="playedStream"):
    name: str
    stream_id: str = msgspec.field(name="streamId", default="")


class _Cleared(msgspec.Struct, tag_field="event", tag="clearedAudio"):
    stream_id: str = msgspec.field(name="streamId", default="")


class _Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    dtmf: _Digit
    stream_id: str = msgspec.field(name="streamId")


class _Stop(msgspec.Struct, tag_field="event", tag="stop"):
    """Not on Plivo's page, but its relatives send it: an end that is announced is still an end."""

    stream_id: str = msgspec.field(name="streamId", default="")


_Message = _Start | _Media | _Played | _Cleared | _Dtmf | _Stop
_decode = msgspec.json.Decoder(_Message).decode

TRANSITIONS: Transitions = {
    _S.CONNECTING: {"start": _S.STARTED},
    _S.CONNECTED: {},
    _S.STARTED: {
        "media": _S.STARTED,
        "playedStream": _S.STARTED,
        "clearedAudio": _S.STARTED,
        "dtmf": _S.STARTED,
        "stop": _S.STOPPED,
    },
    _S.STOPPED: {},
}


class PlivoStream(JsonStream):
    """One stream, our side of it: `receive` its messages, `send` our commands."""

    def __init__(self) -> None:
        super().__init__(TRANSITIONS, _decode)

    def send(self, command: Command) -> str:
        """Put a command into Plivo's words.

        Raises:
            LocalProtocolError: the stream is not started, or a `Play` is not whole frames.
        """
        self._check_started(command)
        match command:
            case Play(audio):
                check_frames(audio, MOST_FRAMES)
                payload = b2a_base64(audio, newline=False).decode()
                return f'{_PLAY_HEAD}"{payload}"}}}}'
            case Mark(name):
                sid, quoted = quote(self.stream_sid).decode(), quote(name).decode()
                return f'{{"event":"checkpoint","streamId":{sid},"name":{quoted}}}'
            case Clear():
                return f'{{"event":"clearAudio","streamId":{quote(self.stream_sid).decode()}}}'

    def _event(self, message: Any) -> Event:
        match message:
            case _Media(media=body):
                if body.track != "inbound":
                    return self._ignore(f"media of track {body.track!r:.40}")
                return Media(body.payload, milliseconds(body.timestamp))
            case _Played(name=name):
                return MarkReached(name)
            case _Cleared():
                return Ignored("the queue was cleared")
            case _Dtmf(dtmf=dtmf):
                return Dtmf(dtmf.digit) if dtmf.digit in DIGITS else self._ignore("not a digit")
            case _Start():
                return self._start(message)
            case _:
                return Stopped()

    def _start(self, message: _Start) -> Event:
        body = message.start
        if format_fields(body.media_format, "encoding", "sampleRate") != ("audio/x-mulaw", 8000):
            raise RemoteProtocolError("media format is not audio/x-mulaw 8000", 1003)
        self.stream_sid = body.stream_id
        headers = message.extra_headers
        return Started(
            call_sid=body.call_id,
            stream_sid=body.stream_id,
            account_sid=body.account_id,
            parameters=unpack_headers(headers) if isinstance(headers, str) else {},
        )


def pack_headers(parameters: Mapping[str, str]) -> str:
    """Write parameters as `extraHeaders`: at most 512 bytes of letters and digits in pairs.

    What is not made of letters and digits is packed in base32 behind a prefix.  Empty values are
    left out, and so is what does not fit: the first come first.
    """
    pairs: list[str] = []
    for name, value in parameters.items():
        pair = f"{_pack(name)}={_pack(value)}"
        if name and value and len(",".join([*pairs, pair])) <= HEADER_BYTES:
            pairs.append(pair)
    return ",".join(pairs)


def unpack_headers(text: str) -> dict[str, str]:
    """Read the pairs that Plivo returns: the commas may have become semicolons."""
    pairs = (pair.strip().partition("=") for pair in re.split("[,;]", text))
    return {_unpack(name): _unpack(value) for name, equals, value in pairs if name and equals}


def _pack(text: str) -> str:
    if _PLAIN.fullmatch(text) and not text.startswith(_PACKED):
        return text
    return _PACKED + b32encode(text.encode("utf-8", "replace")).decode().rstrip("=")


def _unpack(text: str) -> str:
    """Undo `_pack`; what others wrote into their own headers stays as it is."""
    packed = text.removeprefix(_PACKED)
    if packed in (text, ""):
        return text
    try:
        return b32decode(packed + "=" * (-len(packed) % 8)).decode()
    except (Base32Error, UnicodeError, ValueError):
        return text
