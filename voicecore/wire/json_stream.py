"""What the carriers' dialects in JSON share: the life of a stream, and how mistakes are counted.

Rules that hold here, as in `wire.twilio`:

* One text message is one event.  What the state does not allow, what belongs to another stream and
  what cannot be read is `Ignored`, never an exception, until there is too much of it.
* A dialect is a table of transitions, a decoder, and two functions: `_event` for what it hears and
  `send` for what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..audio import FRAME_BYTES
from ..errors import LocalProtocolError, RemoteProtocolError
from .events import Command, Event, Ignored
from .twilio import MAX_IGNORED, StreamState

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What a stranger's text can raise in msgspec."""

quote: Callable[[object], bytes] = msgspec.json.Encoder().encode

Transitions = Mapping[StreamState, Mapping[str, StreamState]]
"""What a carrier may say in each state.  Everything else is ignored where it arrives."""


class StreamLife:
    """The state of one stream and the count of its bad messages.  The base of every dialect."""

    def __init__(self, transitions: Transitions) -> None:
        self.state = StreamState.CONNECTING
        self.stream_sid = ""
        self.ignored = 0
        self._transitions = transitions

    def __repr__(self) -> str:
        name, state = type(self).__name__, self.state.name
        return f"<{name} {state} {self.stream_sid} ignored={self.ignored}>"

    def _following(self, event: str) -> StreamState | None:
        return self._transitions[self.state].get(event)

    def _ignore(self, reason: str) -> Ignored:
        """Count a bad message.

        Raises:
            RemoteProtocolError: it was one too many (1008).
        """
        self.ignored += 1
        if self.ignored >= MAX_IGNORED:
            raise RemoteProtocolError(f"{self.ignored} bad messages, the last: {reason:.100}", 1008)
        return Ignored(reason[:200])

    def _check_started(self, command: Command) -> None:
        if self.state is not StreamState.STARTED:
            raise LocalProtocolError(f"cannot send {command!r:.40} in state {self.state.name}")


class JsonStream(StreamLife):
    """A stream whose every message is JSON text with an ``event``.

    A dialect's messages are Structs tagged by their event; those that belong to a stream have its
    name as `stream_id`, which is empty where the carrier may leave it out.
    """

    def __init__(self, transitions: Transitions, decode: Callable[[str | bytes], Any]) -> None:
        super().__init__(transitions)
        self._decode = decode

    def receive(self, message: str | bytes) -> Event:
        """Take one message from the carrier and say what it means.

        Raises:
            RemoteProtocolError: the stream must be closed, with the error's `close_code`: its
                audio format is not ours (1003), or it sent `MAX_IGNORED` bad messages (1008).
        """
        try:
            decoded = self._decode(message)
        except UNREADABLE as error:
            return self._ignore(f"undecodable message: {error}")
        tag = type(decoded).__struct_config__.tag
        following = self._following(tag)
        if following is None:
            return self._ignore(f"{tag!r} in state {self.state.name}")
        if self.state is StreamState.STARTED and decoded.stream_id not in ("", self.stream_sid):
            return self._ignore(f"{tag!r} for another stream")
        ignored = self.ignored
        event = self._event(decoded)
        if self.ignored == ignored:
            self.state = following
        return event

    def _event(self, message: Any) -> Event:
        """Say what a message that the state allows means."""
        raise NotImplementedError


def check_frames(audio: bytes, most: int) -> None:
    """Refuse a `Play` that is not one to `most` whole frames of mu-law.

    Raises:
        LocalProtocolError: it is not.
    """
    if not audio or len(audio) % FRAME_BYTES or len(audio) > most * FRAME_BYTES:
        raise LocalProtocolError(f"{len(audio)} bytes are not 1 to {most} whole frames")


def string_pairs(given: object) -> dict[str, str]:
    """Return the strings that a carrier's object has, whatever else it has, or is."""
    pairs = given.items() if isinstance(given, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}


def format_fields(media_format: object, *keys: str) -> tuple[object, ...]:
    """Return the values that a media format of any shape has under `keys`; None where none."""
    given = media_format if isinstance(media_format, dict) else {}
    return tuple(given.get(key) for key in keys)
