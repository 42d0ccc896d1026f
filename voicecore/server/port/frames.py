"""The WebSocket frames in a stream of bytes: counted, measured, and decoded where plain.  Pure.

The WebSocket library bounds a message in characters and not in fragments, and has no limit on
frames a second.  Both are judged here, from the frames' heads alone (RFC 6455, section 5.2), before
the library sees a byte.

And nearly all of a media stream are whole, masked frames of one form, fifty a second a call:
`plain_messages` decodes those for a fifth of the library's price, and leaves it everything else.
"""

from __future__ import annotations

from ...errors import RemoteProtocolError

CLOSE = 0x8

_WHOLE_TEXT = 0x81
_PLAIN = (_WHOLE_TEXT, 0x82)
"""First bytes of frames that are messages of their own: text, and binary (Vonage's sound)."""


class FrameScanner:
    """Follows one direction of a WebSocket, fed in pieces of any size."""

    __slots__ = (
        "_begun",
        "_fragments",
        "_head",
        "_is_open",
        "_max_bytes",
        "_max_fragments",
        "_message",
        "_skip",
        "closed",
        "messages",
    )

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        self._max_bytes = max_bytes
        self._max_fragments = max_fragments
        self._head = b""
        self._skip = 0
        self._message = self._fragments = 0
        self._is_open = False
        self.messages = 0
        """Text and binary messages that were complete so far."""
        self.closed = False
        """Whether a whole close frame has come by."""
        self._begun = 0
        """The first byte of the frame whose payload is still coming; 0: none is."""

    def plain_messages(self, data: bytes) -> tuple[list[str | bytes], bytes]:
        """Split off the whole plain frames that `data` begins with; return them and the rest.

        Plain: a message of its own, masked, 126 bytes to 64 KiB, and if it is text, valid UTF-8.
        The rest is for `feed`.
        """
        messages: list[str | bytes] = []
        at, size = 0, len(data)
        if self._skip or self._head or self._is_open or self.closed:
            return messages, data
        while size - at > 8 and data[at] in _PLAIN and data[at + 1] == 0xFE:
            length = data[at + 2] << 8 | data[at + 3]
            end = at + 8 + length
            if end > size or length > self._max_bytes:
                break
            payload = _unmasked(data[at + 8 : end], data[at + 4 : at + 8])
            try:
                messages.append(payload.decode() if data[at] == _WHOLE_TEXT else payload)
            except UnicodeDecodeError:
                break  # the library knows what to say to that
            at = end
        return messages, data[at:] if at else data

    def feed(self, data: bytes) -> int:
        """Return how many frames begin in `data`.

        Raises:
            RemoteProtocolError: a message is longer than allowed (close code 1009).
        """
        data, self._head = self._head + data, b""
        at, end, frames = self._skip, len(data), 0
        if at <= end:
            self._complete()
        while at < end:
            length_code = data[at + 1] & 0x7F if at + 1 < end else 0
            extra = 2 if length_code == 126 else 8 if length_code == 127 else 0
            masked = at + 1 < end and data[at + 1] & 0x80
            payload = at + 2 + extra + (4 if masked else 0)
            if payload > end:
                self._head, at = data[at:], end
                break
            length = int.from_bytes(data[at + 2 : at + 2 + extra]) if extra else length_code
            frames += 1
            first_byte, at = data[at], payload + length
            try:
                self._begin(first_byte, length)
            except RemoteProtocolError:
                # What follows is still told from it: the peer's close frame above all.
                self._head, self._skip, self._begun = data[at:], max(0, at - end), 0
                raise
            if at <= end:
                self._complete()
        self._skip = at - end
        return frames

    def _begin(self, first_byte: int, length: int) -> None:
        self._begun = first_byte
        opcode = first_byte & 0x0F
        if opcode >= CLOSE:
            return
        if opcode:
            self._message = self._fragments = 0
        self._is_open = not first_byte & 0x80
        self._message += length
        self._fragments += 1
        if self._message > self._max_bytes:
            raise RemoteProtocolError(f"message of more than {self._max_bytes} bytes", 1009)
        if self._fragments > self._max_fragments:
            raise RemoteProtocolError(f"message of more than {self._max_fragments} fragments", 1009)

    def _complete(self) -> None:
        """The payload of the frame that was begun, if one was, is all here."""
        opcode, is_final = self._begun & 0x0F, self._begun & 0x80
        if self._begun and opcode >= CLOSE:
            self.closed = self.closed or opcode == CLOSE
        elif self._begun:
            self.messages += bool(is_final)
        self._begun = 0


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    """Undo a client's masking, as one long integer: the quickest way without another library."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class FrameBudget:
    """A token bucket: `burst` frames at once, then `rate` a second.  Time is an argument."""

    __slots__ = ("_burst", "_level", "_rate", "_strained_since", "_then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._level = burst
        self._then = now
        self._strained_since: float | None = None

    def spend(self, frames: int, now: float) -> float:
        """Take `frames` out; return the seconds to wait before the next are read."""
        self._level = min(self._burst, self._level + (now - self._then) * self._rate) - frames
        self._then = now
        if self._level >= self._rate:
            self._strained_since = None
        if self._level >= 0:
            return 0.0
        if self._strained_since is None:
            self._strained_since = now
        return -self._level / self._rate

    def strained_for(self, now: float) -> float:
        """Return for how many seconds the peer has not been content with its rate."""
        return 0.0 if self._strained_since is None else now - self._strained_since
