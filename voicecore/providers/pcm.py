"""Speech as servers send it, as 16-bit PCM of one channel: bare, or in a WAV file.

Servers name types carelessly, so the first bytes decide.  What is compressed would be played as
noise, and a header as a click: the one is refused, the other read.
"""

from __future__ import annotations

import struct

import numpy as np

TYPES = frozenset(
    {"", "application/octet-stream", "binary/octet-stream"}
    | {f"audio/{name}" for name in ("pcm", "x-pcm", "l16", "x-l16", "raw")}
    | {f"audio/{name}" for name in ("wav", "x-wav", "wave", "vnd.wave")}
)
"""Media types that may be PCM."""

HEADER_BYTES = 65536
"""A WAV file's header, with all that recorders put before the audio."""

_PCM, _EXTENSIBLE = 1, 0xFFFE
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)


class NotPcm(Exception):
    """The bytes are something else; one line that says what."""


class PcmStream:
    """Takes an answer in any cut.  `rate` is a WAV file's own as soon as `feed` has given audio."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._head = bytearray()
        self._begun = False
        self._stereo = False
        self._left: int | None = None
        """Bytes of audio that are to come, if the file tells."""

    def feed(self, data: bytes) -> bytes:
        """Return the samples that are complete.

        Raises:
            NotPcm: it is compressed, or a WAV file of another kind.
        """
        if not self._begun:
            self._head += data
            if len(self._head) < 4:
                return b""
            if not self._begin():
                return b""
            data, self._head = bytes(self._head), bytearray()
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return self._mono(data) if self._stereo else data

    def end(self) -> bytes:
        """Return what was too short to be judged.

        Raises:
            NotPcm: a WAV file that ended in its header.
        """
        if not self._begun and len(self._head) >= 4:
            raise NotPcm("a WAV file without audio")
        return b"" if self._begun else bytes(self._head)

    def _begin(self) -> bool:
        """Judge the first bytes, and take a header off; return whether audio follows."""
        if self._head.startswith(b"RIFF"):
            self._begun = self._read_header()
            return self._begun
        if self._head.startswith((b"ID3", b"OggS", b"fLaC")) or _is_mpeg(self._head):
            raise NotPcm("compressed audio")
        self._begun = True
        return True

    def _read_header(self) -> bool:
        head, at, layout = self._head, 12, b""
        if len(head) >= 12 and head[8:12] != b"WAVE":
            raise NotPcm("RIFF, but not WAVE")
        while at + 8 <= len(head):
            kind, size = struct.unpack_from("<4sI", head, at)
            at += 8
            if kind == b"data":
                self._take_layout(layout)
                self._left = None if size in _UNKNOWN_SIZES else size
                del head[:at]
                return True
            if at + size > HEADER_BYTES:
                raise NotPcm("a WAV file with an endless header")
            if kind == b"fmt ":
                layout = bytes(head[at : at + size])
            at += size + size % 2
        return False

    def _take_layout(self, layout: bytes) -> None:
        if len(layout) < 16:
            raise NotPcm("a WAV file without a format")
        tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
        if tag == _EXTENSIBLE and len(layout) >= 26:
            (tag,) = struct.unpack_from("<H", layout, 24)
        if tag != _PCM or bits != 16 or channels not in (1, 2) or not 4000 <= rate <= 192000:
            raise NotPcm("a WAV file of another kind than 16-bit PCM")
        self.rate, self._stereo = rate, channels == 2

    def _mono(self, data: bytes) -> bytes:
        self._head += data
        whole = len(self._head) - len(self._head) % 4
        pairs = np.frombuffer(bytes(self._head[:whole]), dtype="<i2").reshape(-1, 2)
        del self._head[:whole]
        return bytes(np.rint(pairs.mean(axis=1)).astype("<i2").tobytes())


def _is_mpeg(head: bytearray) -> bool:
    """Return whether an MP3 or AAC frame begins here.  Quiet samples begin with 0xFF, too."""
    if head[0] != 0xFF:
        return False
    if head[1] & 0xF6 == 0xF0:  # ADTS
        return True
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    known = head[1] >> 5 == 7 and version != 1 and layer in (1, 2)
    return known and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
