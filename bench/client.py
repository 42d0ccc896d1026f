"""The carrier's end of a media stream, as cheap as Python makes it: frames, messages, the buffer.

It does what `voicecore.phone` does, at a fraction of its cost and with none of its comforts: a load
generator that costs more than the server it measures would measure itself.  `CountedBuffer` is
checked against `voicecore.phone.buffer` by a test.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

from voicecore.audio import FRAME_BYTES, FRAME_MS, mulaw

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A

_KEY = 0x5A
_MASK = bytes([_KEY] * 4)
_MASKED = bytes(code ^ _KEY for code in range(256))
"""A mask of four equal bytes: the server has to unmask as ever, we mask with one translation."""

FIRST_TIMESTAMP_MS = 120
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_AUDIBLE = 1000
"""A frame with a sample of this size (-30 dBFS) is heard."""


class BadStream(Exception):
    """The server broke the protocol."""


def frame(payload: bytes, head: int = TEXT) -> bytes:
    """Return one masked WebSocket frame."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else struct.pack("!BH", 0xFE, size)
    return bytes((head,)) + length + _MASK + payload.translate(_MASKED)


def payloads(audio: bytes) -> list[bytes]:
    """Return mu-law as the base64 of whole frames."""
    starts = range(0, len(audio) - FRAME_BYTES + 1, FRAME_BYTES)
    return [b64encode(audio[at : at + FRAME_BYTES]) for at in starts]


def is_audible(payload: bytes) -> bool:
    """Whether there is more than line noise in the base64 of some mu-law."""
    samples = np.frombuffer(mulaw.decode(b64decode(payload)), dtype="<i2")
    return bool((np.abs(samples) > _AUDIBLE).any())


class FrameReader:
    """The server's WebSocket frames out of its bytes.  It may not mask, and need not fragment."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte and the payload of each frame that is complete.

        Raises:
            BadStream: a masked frame, or one that is not a whole message.
        """
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, end = 0, len(data)
        while at < end:
            if end - at < 2:
                break
            head, size, start = data[at], data[at + 1], at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, start = data[at + 2] << 8 | data[at + 3], at + 4
            elif size > 126 or not head & 0x80:
                raise BadStream(f"frame head {head:#x} {size:#x}")
            if start + size > end:
                break
            yield head, data[start : start + size]
            at = start + size
        self._rest = data[at:]


class CountedBuffer:
    """`voicecore.phone.buffer.PlaybackBuffer`, counting the audio instead of keeping it."""

    __slots__ = ("_marks", "_played", "queued")

    def __init__(self) -> None:
        self.queued = 0
        """Bytes of audio not yet played."""
        self._played = 0
        self._marks: deque[tuple[int, str]] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether there is neither audio nor a mark left."""
        return not self.queued and not self._marks

    def media(self, size: int) -> None:
        """Append audio."""
        self.queued += size

    def mark(self, name: str) -> list[str]:
        """Append a mark; return the marks to echo at once."""
        if self.is_empty:
            return [name]
        self._marks.append((self._played + self.queued, name))
        return []

    def clear(self) -> list[str]:
        """Throw the audio away; return the pending marks."""
        names = [name for _, name in self._marks]
        self._marks.clear()
        self.queued = 0
        return names

    def play(self) -> list[str]:
        """Let 20 ms pass; return the marks that were reached."""
        if not self.queued:
            return []
        step = min(FRAME_BYTES, self.queued)
        self.queued -= step
        self._played += step
        names = []
        while self._marks and self._marks[0][0] <= self._played:
            names.append(self._marks.popleft()[1])
        return names


class Stream:
    """One media stream's messages: Twilio's to the server, composed; the server's, understood."""

    def __init__(self, number: int) -> None:
        self._sid = f"MZ{number:032x}"
        self._call = f"CA{number:032x}"
        self._sequence = 0
        self._chunk = 0
        self._tail = b'"},"streamSid":"%s"}' % self._sid.encode()
        self._usual = (-1, b"", 0)
        """Length, beginning and audio bytes of the newest media message: the next is alike."""

    def opening(self) -> bytes:
        """Return `connected` and `start`, framed."""
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        start = {
            "accountSid": "AC" + "0" * 32,
            "streamSid": self._sid,
            "callSid": self._call,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
        }
        return frame(json.dumps(connected).encode()) + self._message("start", start)

    def media(self, payload: bytes) -> bytes:
        """Return the next 20 ms of the caller's sound, framed; `payload` is base64."""
        self._sequence += 1
        self._chunk += 1
        return frame(
            b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
            b'"timestamp":"%d","payload":"%s%s'
            % (
                self._sequence,
                self._chunk,
                FIRST_TIMESTAMP_MS + FRAME_MS * (self._chunk - 1),
                payload,
                self._tail,
            )
        )

    def mark(self, name: str) -> bytes:
        """Return a mark's echo, framed."""
        return self._message("mark", {"name": name})

    def stop(self) -> bytes:
        """Return `stop`, framed."""
        return self._message("stop", {"accountSid": "AC" + "0" * 32, "callSid": self._call})

    def understand(self, message: bytes) -> tuple[str, int | str | bytes]:
        """Return what the server says: ("media", bytes of audio), ("mark", name), ("clear", "").

        Raises:
            BadStream: it is none of them, or for another stream.
        """
        size, beginning, audio_bytes = self._usual
        if len(message) == size and message.startswith(beginning):
            return "media", audio_bytes
        try:
            parsed = json.loads(message)
            event = parsed["event"]
            if parsed["streamSid"] != self._sid:
                raise BadStream("a message for another stream")
            if event == "media":
                return event, self._learn(message, parsed["media"]["payload"])
            if event == "mark":
                return event, str(parsed["mark"]["name"])
            if event == "clear":
                return event, ""
        except (ValueError, KeyError, TypeError):
            pass
        raise BadStream(f"not a message: {message[:80]!r}")

    def _learn(self, message: bytes, payload: str) -> int:
        audio_bytes = len(b64decode(payload, validate=True))
        self._usual = (len(message), message[: message.index(payload.encode())], audio_bytes)
        return audio_bytes

    def _message(self, event: str, body: Mapping[str, object]) -> bytes:
        self._sequence += 1
        head = {"event": event, "sequenceNumber": str(self._sequence)}
        return frame(json.dumps({**head, event: body, "streamSid": self._sid}).encode())


def payload_of(message: bytes) -> bytes:
    """Return the base64 in a media message that `Stream.understand` has taken."""
    return str(json.loads(message)["media"]["payload"]).encode()
