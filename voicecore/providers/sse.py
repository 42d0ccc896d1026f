"""Server-sent events, without I/O: bytes of any chunking in, the data of events out.

After the WHATWG's *event stream* format, as far as chat APIs use it: ``data`` counts, other fields
and comments are skipped; lines end in LF, CR LF or CR; a last event without its blank line is taken
too, for servers forget it.
"""

from __future__ import annotations

MAX_LINE_BYTES = 65536
"""Also of an event of several lines."""


class SSEParser:
    """Parses one stream."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[str] = []
        self._size = 0
        self._after_cr = False
        self._begun = False

    def feed(self, received: bytes) -> list[str]:
        """Take the next bytes; return the data of the events that they complete.

        Raises:
            ValueError: a line or an event is too long, or not UTF-8.
        """
        events: list[str] = []
        if self._after_cr and received:
            received = received.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or received.endswith(b"\r")
        self._line += received
        *lines, rest = self._line.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            self._take(bytes(line), events)
        if len(self._line) > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES} bytes")
        return events

    def end(self) -> list[str]:
        """The stream is over: return the data of an event that was not closed."""
        events: list[str] = []
        if self._line:
            self._take(bytes(self._line), events)
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[str]) -> None:
        if not self._begun:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._begun = True
        if not line:
            if self._data:
                events.append("\n".join(self._data))
            self._data, self._size = [], 0
            return
        self._size += len(line)
        if self._size > MAX_LINE_BYTES:
            raise ValueError(f"an event of more than {MAX_LINE_BYTES} bytes")
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" ").decode())
