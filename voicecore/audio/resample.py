"""Linear PCM of any rate to another, as a stream, by soxr.

Two rules hold here.  The result does not depend on how the input is cut: vendors chunk as their
network likes.  And silence stays silence: soxr dithers its 16-bit output (noise of one step, and
another noise for another chunking), so it is given floats and rounding is done here.
"""

from __future__ import annotations

import numpy as np
import soxr

from . import SAMPLE_RATE, mulaw


class Resampler:
    """Resamples one channel of 16-bit little-endian PCM.

    The filter needs the future: until `flush`, 75 to 160 ms stay inside (24 and 48 kHz to 8 kHz).
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        if from_rate <= 0 or to_rate <= 0:
            raise ValueError(f"rates are positive, not {from_rate} and {to_rate} Hz")
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._rest = b""
        self._stream = self._fresh()

    def __repr__(self) -> str:
        return f"<Resampler {self.from_rate} to {self.to_rate} Hz>"

    def feed(self, pcm: bytes) -> bytes:
        """Take PCM of any length, half samples too; return what is ready of the result."""
        if self._rest:
            pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % 2
        self._rest = pcm[whole:]
        if self._stream is None:
            return pcm[:whole]
        return self._resampled(pcm[:whole], last=False)

    def flush(self) -> bytes:
        """Return the rest of the result; what is fed next begins a new signal.

        Half a sample at the very end is lost: a torn stream is no reason to fail.
        """
        self._rest = b""
        if self._stream is None:
            return b""
        tail = self._resampled(b"", last=True)
        self._stream = self._fresh()
        return tail

    def _fresh(self) -> soxr.ResampleStream | None:
        if self.from_rate == self.to_rate:
            return None
        return soxr.ResampleStream(self.from_rate, self.to_rate, 1, "float32", "HQ")

    def _resampled(self, pcm: bytes, *, last: bool) -> bytes:
        assert self._stream is not None
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
        result = self._stream.resample_chunk(samples, last=last)
        return bytes(np.clip(np.rint(result), -32768, 32767).astype("<i2"))


class MulawEncoder:
    """Compresses a stream of 16-bit little-endian PCM of any rate to 8 kHz mu-law."""

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(rate, SAMPLE_RATE)

    def __repr__(self) -> str:
        return f"<MulawEncoder from {self._resampler.from_rate} Hz>"

    def feed(self, pcm: bytes) -> bytes:
        """Take PCM of any length, half samples too; return the mu-law that is ready."""
        return mulaw.encode(self._resampler.feed(pcm))

    def flush(self) -> bytes:
        """Return the rest of the mu-law; what is fed next begins a new signal."""
        return mulaw.encode(self._resampler.flush())
