"""WAV files: 16-bit PCM in and out, mu-law in.

Reading forgives what streaming writers do (their sizes are 0 or 0xFFFFFFFF, for the length was not
known yet) and what recorders do that died in mid-file (the last sample is torn).  The standard
library's `wave` writes; it cannot read, for it knows no mu-law.

numpy is loaded when something has to be mixed or resampled: a server that only writes needs none.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import SAMPLE_RATE, mulaw

_PCM, _MULAW, _EXTENSIBLE = 1, 7, 0xFFFE
"""Format tags of RFC 2361 and of Microsoft's WAVEFORMATEXTENSIBLE."""

_UNKNOWN_SIZES = (0, 0xFFFFFFFF)

_TAKES = "a WAV file of 16-bit PCM or 8-bit mu-law"


@dataclass(frozen=True, slots=True)
class Wav:
    """A recording: `pcm` is 16-bit little-endian, the channels of a sample side by side."""

    rate: int
    channels: int
    pcm: bytes

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return len(self.pcm) / (2 * self.channels * self.rate)

    def __repr__(self) -> str:
        return f"<Wav {self.seconds:.2f} s, {self.rate} Hz, {self.channels} channels>"


def read(source: str | Path | bytes) -> Wav:
    """Read a file by its path, or a file's content.

    Raises:
        ValueError: not a WAV file, or one of another encoding; names the file.
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return _parse(source, "WAV data")
    return _parse(Path(source).read_bytes(), str(source))


def read_telephone(source: str | Path | bytes) -> bytes:
    """Read any WAV as 8 kHz mu-law: mixed down to one channel, resampled, compressed.

    Raises:
        ValueError: as `read`.
        OSError: as `read`.
    """
    from .resample import MulawEncoder

    recording = read(source)
    encoder = MulawEncoder(recording.rate)
    return encoder.feed(mixed_down(recording.pcm, recording.channels)) + encoder.flush()


def mixed_down(pcm: bytes, channels: int) -> bytes:
    """Return whole samples of several channels as their mean, one channel."""
    if channels == 1:
        return pcm
    import numpy as np

    samples = np.frombuffer(pcm, dtype="<i2").reshape(-1, channels)
    return bytes(np.rint(samples.mean(axis=1)).astype("<i2"))


def to_bytes(recording: Wav) -> bytes:
    """Return the content of a WAV file, PCM."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(recording.channels)
        out.setsampwidth(2)
        out.setframerate(recording.rate)
        out.writeframes(recording.pcm)
    return file.getvalue()


def telephone_bytes(audio: bytes) -> bytes:
    """Return 8 kHz mu-law as the content of a WAV file, 16-bit PCM."""
    return to_bytes(Wav(SAMPLE_RATE, 1, mulaw.decode(audio)))


def write(path: str | Path, recording: Wav) -> None:
    """Write a WAV file, PCM; an existing one is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    Path(path).write_bytes(to_bytes(recording))


def _parse(content: bytes, name: str) -> Wav:
    """Put a recording together from the two chunks that matter, ``fmt `` and ``data``."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError(f"{name}: not a WAV file; takes {_TAKES}")
    layout: tuple[int, int, int] | None = None
    for kind, body in _chunks(content):
        if kind == b"fmt ":
            layout = _layout(body, name)
        elif kind == b"data":
            if layout is None:
                raise ValueError(f"{name}: its data come before their format; takes {_TAKES}")
            tag, channels, rate = layout
            width = channels * (1 if tag == _MULAW else 2)
            whole = body[: len(body) - len(body) % width]
            return Wav(rate, channels, mulaw.decode(whole) if tag == _MULAW else whole)
    raise ValueError(f"{name}: no audio in it; takes {_TAKES}")


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Walk a RIFF file.  A chunk that claims more than there is has what there is."""
    at = 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        at += 8
        if kind == b"data" and size in _UNKNOWN_SIZES:
            size = len(content) - at
        yield kind, content[at : at + size]
        at += size + size % 2


def _layout(body: bytes, name: str) -> tuple[int, int, int]:
    """Return the format tag, the channels and the rate, if they are ones we take."""
    if len(body) < 16:
        raise ValueError(f"{name}: its format is torn; takes {_TAKES}")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack_from("<H", body, 24)
    if (tag, bits) not in ((_PCM, 16), (_MULAW, 8)):
        raise ValueError(f"{name}: format {tag} with {bits} bits a sample; takes {_TAKES}")
    if not channels or not rate:
        raise ValueError(f"{name}: {channels} channels at {rate} Hz; takes {_TAKES}")
    return tag, channels, rate
