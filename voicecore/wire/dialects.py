"""Every dialect in one table: how its streams are understood, what they can do, who asks for them.

The name is the last part of the paths that a carrier is given: ``/voice-stream/telnyx`` answers
its webhook, ``/media-stream/telnyx`` is its WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from . import exotel, plivo, signalwire, telnyx, vonage
from .abilities import Abilities
from .events import Command, Event
from .twilio import MediaStream

AnswerKind = Literal["twiml", "texml", "plivo-xml", "cxml", "ncco", "exotel-json"]
"""The document with which a carrier is told to open a stream."""


class Machine(Protocol):
    """One stream in one dialect, without I/O."""

    ignored: int
    """Bad messages so far."""

    def receive(self, message: str | bytes, /) -> Event:
        """Take one WebSocket message and say what it means.

        Raises:
            RemoteProtocolError: the stream must be closed, with the error's `close_code`.
        """

    def send(self, command: Command, /) -> str | bytes:
        """Put a command into the carrier's words: a text message, or a binary one.

        Raises:
            LocalProtocolError: the stream's state or the carrier does not allow it.
        """


@dataclass(frozen=True, slots=True)
class Dialect:
    """One carrier's way to stream a call."""

    name: str
    machine: Callable[[], Machine]
    abilities: Abilities
    answer: AnswerKind


TWILIO = Dialect("twilio", MediaStream, Abilities(), "twiml")

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        TWILIO,
        Dialect("telnyx", telnyx.TelnyxStream, telnyx.ABILITIES, "texml"),
        Dialect("plivo", plivo.PlivoStream, plivo.ABILITIES, "plivo-xml"),
        Dialect("signalwire", signalwire.SignalWireStream, signalwire.ABILITIES, "cxml"),
        Dialect("exotel", exotel.ExotelStream, exotel.ABILITIES, "exotel-json"),
        Dialect("vonage", vonage.VonageStream, vonage.ABILITIES, "ncco"),
    )
}
"""Name -> dialect."""
