"""Twilio Media Streams, both ways, as its WebSocket messages page defines them.

Rules that hold here:

* One text message is one event.  What the state does not allow is `Ignored`, never an exception:
  one odd message must not end a conversation.  `MAX_IGNORED` of them do (close code 1008).
* Counters are JSON strings.  Unknown keys are skipped without a word: Twilio adds keys.
* Outbound messages are assembled from constant parts: json.dumps costs eight times as much, fifty
  times a second a call.
"""

from __future__ import annotations

import enum
from binascii import b2a_base64
from typing import Any

import msgspec

from ..errors import LocalProtocolError, RemoteProtocolError
from .events import (
    Clear,
    Command,
    Connected,
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

MAX_IGNORED = 50
"""Bad messages until the stream is closed: a hiccup is forgiven, a stranger probing is not."""

DIGITS = frozenset("0123456789*#")


class StreamState(enum.Enum):
    """Where a stream is in its life."""

    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    STARTED = enum.auto()
    STOPPED = enum.auto()


_S = StreamState

TRANSITIONS: dict[StreamState, dict[str, StreamState]] = {
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
"""What Twilio may say in each state.  Everything else is ignored where it arrives."""


class _StartBody(msgspec.Struct):
    call_sid: str = msgspec.field(name="callSid")
    media_format: Any = msgspec.field(name="mediaFormat", default=None)
    """Of any shape: what is not ours closes the stream, and is not ignored as a bad message."""
    account_sid: str = msgspec.field(name="accountSid", default="")
    custom_parameters: dict[str, str] = msgspec.field(name="customParameters", default_factory=dict)


class _MediaBody(msgspec.Struct):
    payload: bytes
    """Base64 on the wire; msgspec decodes it strictly, in the same pass as the JSON."""
    track: str = "inbound"
    timestamp: Any = None
    """Of any shape: sound whose time cannot be read is still sound."""


class _MarkBody(msgspec.Struct):
    name: str


class _DtmfBody(msgspec.Struct):
    digit: str


class _Connected(msgspec.Struct, tag_field="event", tag="connected"):
    pass


class _Start(msgspec.Struct, tag_field="event", tag="start"):
    start: _StartBody
    stream_sid: str = msgspec.field(name="streamSid")


class _Media(msgspec.Struct, tag_field="event", tag="media"):
    media: _MediaBody
    stream_sid: str = msgspec.field(name="streamSid")


class _Mark(msgspec.Struct, tag_field="event", tag="mark"):
    mark: _MarkBody
    stream_sid: str = msgspec.field(name="streamSid")


class _Dtmf(msgspec.Struct, tag_field="event", tag="dtmf"):
    dtmf: _DtmfBody
    stream_sid: str = msgspec.field(name="streamSid")


class _Stop(msgspec.Struct, tag_field="event", tag="stop"):
    stream_sid: str = msgspec.field(name="streamSid")


_Message = _Connected | _Start | _Media | _Mark | _Dtmf | _Stop
_decode = msgspec.json.Decoder(_Message).decode
_quote = msgspec.json.Encoder().encode


class MediaStream:
    """One stream, our side of it: `receive` its messages, `send` our commands."""

    def __init__(self) -> None:
        self.state = StreamState.CONNECTING
        self.stream_sid = ""
        self.ignored = 0
        self._media_head = self._mark_head = ""

    def __repr__(self) -> str:
        return f"<MediaStream {self.state.name} {self.stream_sid} ignored={self.ignored}>"

    def receive(self, text: str | bytes) -> Event:
        """Take one message from Twilio and say what it means.

        Raises:
            RemoteProtocolError: the stream must be closed, with the error's `close_code`: its
                audio format is not ours (1003), or it sent `MAX_IGNORED` bad messages (1008).
        """
        try:
            message: Any = _decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return self._ignore(f"undecodable message: {error}")
        # The hot path: forty-nine of fifty messages are media in the started state.
        if type(message) is _Media and self.state is _S.STARTED:
            return self._media(message)
        tag = type(message).__struct_config__.tag
        following = TRANSITIONS[self.state].get(tag)
        if following is None:
            return self._ignore(f"{tag!r} in state {self.state.name}")
        if self.state is _S.STARTED and message.stream_sid != self.stream_sid:
            return self._ignore(f"{tag!r} for another stream")
        event = self._event(message)
        if not isinstance(event, Ignored):
            self.state = following
        return event

    def send(self, command: Command) -> str:
        """Put a command into Twilio's words.

        Raises:
            LocalProtocolError: the stream is not started, or a `Play` is not whole frames.
        """
        if self.state is not _S.STARTED:
            raise LocalProtocolError(f"cannot send {command!r:.40} in state {self.state.name}")
        match command:
            case Play(audio):
                if not audio or len(audio) % 160:
                    raise LocalProtocolError(f"{len(audio)} bytes are not whole frames")
                return f'{self._media_head}{b2a_base64(audio, newline=False).decode()}"}}}}'
            case Mark(name):
                return f"{self._mark_head}{_quote(name).decode()}}}}}"
            case Clear():
                return f'{{"event":"clear","streamSid":{_quote(self.stream_sid).decode()}}}'

    def _media(self, message: _Media) -> Event:
        if message.stream_sid != self.stream_sid:
            return self._ignore("'media' for another stream")
        body = message.media
        if body.track != "inbound":
            return self._ignore(f"media of track {body.track!r:.40}")
        return Media(body.payload, milliseconds(body.timestamp))

    def _event(self, message: Any) -> Event:
        match message:
            case _Connected():
                return Connected()
            case _Start():
                return self._start(message)
            case _Mark():
                return MarkReached(message.mark.name)
            case _Dtmf():
                digit = message.dtmf.digit
                return Dtmf(digit) if digit in DIGITS else self._ignore("not a digit")
            case _:
                return Stopped()

    def _start(self, message: _Start) -> Event:
        body = message.start
        given = body.media_format if isinstance(body.media_format, dict) else {}
        shape = tuple(given.get(key) for key in ("encoding", "sampleRate", "channels"))
        if shape != ("audio/x-mulaw", 8000, 1):
            raise RemoteProtocolError("media format is not audio/x-mulaw 8000 mono", 1003)
        self.stream_sid = message.stream_sid
        sid = _quote(self.stream_sid).decode()
        self._media_head = f'{{"event":"media","streamSid":{sid},"media":{{"payload":"'
        self._mark_head = f'{{"event":"mark","streamSid":{sid},"mark":{{"name":'
        return Started(
            call_sid=body.call_sid,
            stream_sid=message.stream_sid,
            account_sid=body.account_sid,
            parameters=body.custom_parameters,
        )

    def _ignore(self, reason: str) -> Ignored:
        self.ignored += 1
        if self.ignored >= MAX_IGNORED:
            raise RemoteProtocolError(f"{self.ignored} bad messages, the last: {reason:.100}", 1008)
        return Ignored(reason[:200])
