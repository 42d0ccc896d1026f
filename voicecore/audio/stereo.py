"""A stereo WAV of a call, written as it happens: caller left, agent right, 8 kHz 16-bit.

The header is brought up to date after each piece of data and never before it, so the file is a
valid WAV at each moment, also after a kill.  What was not said is silence: a hole takes no room.
"""

from __future__ import annotations

import os
import struct
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal

from . import FRAME_BYTES, SAMPLE_RATE, mulaw

FLUSH_FRAMES = 10
"""What `write` keeps back, at most."""

Side = Literal[0, 1]
LEFT: Side = 0
RIGHT: Side = 1

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_BYTES_PER_SAMPLE = 4
_MAX_DATA = 0xFFFFFFFF - _HEADER.size


class StereoRecording:
    """An open file.  It is appended to (`write`), or one side is laid into it (`lay`, `erase`).

    Writes go to the page cache: short enough to be sync for one call; a server uses a thread.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, mode: int = 0o666) -> None:
        """Create or replace the file; with `resume`, go on with what is there.

        `mode` is its permissions, of which the process's umask takes its part.

        Raises:
            OSError: it cannot be written.
        """
        how = "r+" if resume and os.path.exists(path) else "w+"
        self._file = FileIO(path, how, opener=lambda name, flags: os.open(name, flags, mode))
        self._pending = bytearray()
        self._data_bytes = 0
        self.error: str | None = None
        """Why the recording stopped, if it did: a full disk ends it, not the call."""
        try:
            size = self._file.seek(0, 2)
            self._data_bytes = max(0, size - _HEADER.size) // _BYTES_PER_SAMPLE * _BYTES_PER_SAMPLE
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

    @property
    def samples(self) -> int:
        """How long it is."""
        return self._data_bytes // _BYTES_PER_SAMPLE

    def write(self, said: bytes, heard: bytes) -> None:
        """Append 20 ms of both sides: 160 bytes of mu-law each."""
        stereo = bytearray(_BYTES_PER_SAMPLE * FRAME_BYTES)
        _weave(stereo, LEFT, said)
        _weave(stereo, RIGHT, heard)
        self._pending += stereo
        if len(self._pending) >= FLUSH_FRAMES * len(stereo):
            self._flush()

    def lay(self, side: Side, at: int, audio: bytes | bytearray) -> None:
        """Lay mu-law onto one side from sample `at` on, over what is there; the other stays."""
        if at < 0:
            at, audio = 0, audio[-at:]
        if not audio or self.error is not None:
            return
        try:
            stereo = self._read(at, len(audio))
            _weave(stereo, side, audio)
            self._write(at * _BYTES_PER_SAMPLE, stereo)
        except OSError as error:
            self.error = str(error)

    def erase(self, side: Side, at: int, until: int) -> None:
        """Put silence onto one side, as far as there is anything."""
        self.lay(side, at, b"\xff" * (min(until, self.samples) - at))

    def set_length(self, samples: int) -> None:
        """Let it be so long: what is missing is silence, what is beyond is cut off."""
        size = min(samples * _BYTES_PER_SAMPLE, _MAX_DATA // _BYTES_PER_SAMPLE * _BYTES_PER_SAMPLE)
        if self.error is not None or size == self._data_bytes:
            return
        try:
            if size < self._data_bytes:
                self._data_bytes = size
                self._write_header()
                self._file.truncate(_HEADER.size + size)
            else:
                self._file.truncate(_HEADER.size + size)
                self._data_bytes = size
                self._write_header()
        except OSError as error:
            self.error = str(error)

    def close(self) -> None:
        """Write the rest and close the file.  May be called again."""
        if not self._file.closed:
            self._flush()
            self._file.close()

    def _flush(self) -> None:
        """Write what is pending, as much of it as there is room for."""
        pending, self._pending = self._pending, bytearray()
        if pending and self.error is None:
            try:
                self._write(self._data_bytes, pending)
            except OSError as error:
                self.error = str(error)

    def _read(self, at: int, samples: int) -> bytearray:
        """Return both sides from sample `at` on; beyond the end there is silence."""
        stereo = bytearray(samples * _BYTES_PER_SAMPLE)
        if at < self.samples:
            self._file.seek(_HEADER.size + at * _BYTES_PER_SAMPLE)
            self._file.readinto(stereo)
        return stereo

    def _write(self, at: int, data: bytearray) -> None:
        """Write data at byte `at`: until the header follows, what is beyond it is not counted."""
        if at + len(data) > _MAX_DATA:
            self.error = "a WAV file cannot be longer"
            return
        self._file.seek(_HEADER.size + at)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        finally:
            end = at + len(data) - len(view)
            if end > self._data_bytes:
                self._data_bytes = end - end % _BYTES_PER_SAMPLE
                self._write_header()

    def _write_header(self) -> None:
        size, rate = self._data_bytes, SAMPLE_RATE * _BYTES_PER_SAMPLE
        shape = (1, 2, SAMPLE_RATE, rate, _BYTES_PER_SAMPLE, 16)
        riff = size + _HEADER.size - 8
        header = _HEADER.pack(b"RIFF", riff, b"WAVE", b"fmt ", 16, *shape, b"data", size)
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(0, 2)


def _weave(stereo: bytearray, side: Side, audio: bytes | bytearray) -> None:
    """Put mu-law onto one side of as many samples."""
    pcm = mulaw.decode(bytes(audio))
    stereo[2 * side :: 4] = pcm[::2]
    stereo[2 * side + 1 :: 4] = pcm[1::2]
