"""SignalWire's cXML streams: Twilio's messages, under another carrier's name.

What differs: the codec may be another than mu-law if the answer asks for it, which ours does not;
and mu-law may be called by its RTP name, PCMU.
"""

from __future__ import annotations

from typing import Any

from .abilities import Abilities
from .events import Event
from .json_stream import format_fields
from .twilio import MediaStream

ABILITIES = Abilities()

MULAW = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


class SignalWireStream(MediaStream):
    """One stream, our side of it: `receive` its messages, `send` our commands."""

    def __repr__(self) -> str:
        return f"<SignalWireStream {self.state.name} {self.stream_sid} ignored={self.ignored}>"

    def _start(self, message: Any) -> Event:
        body = message.start
        shape = format_fields(body.media_format, "encoding", "sampleRate", "channels")
        if shape == ("PCMU", 8000, 1):
            body.media_format = MULAW
        return super()._start(message)
