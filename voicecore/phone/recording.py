"""A stereo WAV of a call, written as it happens: caller left, agent right, 8 kHz 16-bit.

The header is brought up to date after each piece of data and never before it, so the file is a
valid WAV at each moment, also after a kill; at most `FLUSH_FRAMES` are lost then.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType

from ..audio import mulaw
from .buffer import FRAME_BYTES

FLUSH_FRAMES = 10
RATE = 8000
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_BYTES_PER_SAMPLE = 4
_MAX_DATA = 0xFFFFFFFF - _HEADER.size


class StereoRecording:
    """An open file.  Writes go to the page cache a few times a second: short enough to be sync."""

    def __init__(self, path: str | Path) -> None:
        """Create or replace the file.

        Raises:
            OSError: it cannot be written.
        """
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._pending = bytearray()
        self._data_bytes = 0
        self.error: str | None = None
        """Why the recording stopped, if it did: a full disk ends it, not the call."""
        try:
            self._write_header()
        except OSError:
            self._file.close()
            raise

    def __enter__(self) -> StereoRecording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, said: bytes, heard: bytes) -> None:
        """Append 20 ms of both sides: 160 bytes of mu-law each."""
        left, right = mulaw.decode(said), mulaw.decode(heard)
        stereo = bytearray(_BYTES_PER_SAMPLE * FRAME_BYTES)
        for byte in (0, 1):
            stereo[byte::4] = left[byte::2]
            stereo[byte + 2 :: 4] = right[byte::2]
        self._pending += stereo
        if len(self._pending) >= FLUSH_FRAMES * len(stereo):
            self._flush()

    def close(self) -> None:
        """Write the rest and close the file.  May be called again."""
        if not self._file.closed:
            self._flush()
            self._file.close()

    def _flush(self) -> None:
        """Write what is pending, data first: until the header follows, it is just not counted."""
        if self.error is None and self._data_bytes + len(self._pending) <= _MAX_DATA:
            try:
                written = self._file.write(self._pending)
                self._data_bytes += written
                del self._pending[:written]
                self._write_header()
                return
            except OSError as error:
                self.error = str(error)
        self._pending.clear()

    def _write_header(self) -> None:
        size, rate = self._data_bytes, RATE * _BYTES_PER_SAMPLE
        shape = (1, 2, RATE, rate, _BYTES_PER_SAMPLE, 16)
        riff = size + _HEADER.size - 8
        header = _HEADER.pack(b"RIFF", riff, b"WAVE", b"fmt ", 16, *shape, b"data", size)
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(0, 2)
