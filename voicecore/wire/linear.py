"""Mu-law to a carrier that speaks 16-bit linear PCM, and back.

Little-endian both ways.  At 8 kHz nothing but the code changes, and mu-law comes through unharmed.
At a multiple of it the rate does too, by a short filter that answers every frame with a whole one:
the streaming resampler that voices go through keeps up to 115 ms to itself, which a telephone
conversation cannot spare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audio import SAMPLE_RATE, mulaw

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TAPS_PER_STEP = 32
"""Length of the filter in samples at 8 kHz: 2 ms of delay.  It is flat to 3.4 kHz, where telephone
speech ends, and 50 dB down at 4.6, where the mirror of that begins."""


class LinearPcm:
    """One call's PCM, both ways.  `rate` is 8000 Hz or a small multiple of it."""

    def __init__(self, rate: int = SAMPLE_RATE) -> None:
        if rate < SAMPLE_RATE or rate % SAMPLE_RATE:
            raise ValueError(f"{rate} Hz is no multiple of {SAMPLE_RATE} Hz")
        self.rate = rate
        self._steps = rate // SAMPLE_RATE
        self._half_sample = b""
        self._in = RateFilter(self._steps) if self._steps > 1 else None
        self._out = RateFilter(self._steps) if self._steps > 1 else None
        mulaw.encode(b"\0\0")  # builds its table now, and not between two frames

    def __repr__(self) -> str:
        return f"<LinearPcm {self.rate} Hz>"

    def to_mulaw(self, pcm: bytes) -> bytes:
        """Take PCM of any length, half samples too: the other half comes with the next message."""
        pcm = self._half_sample + pcm
        whole = len(pcm) - len(pcm) % 2
        self._half_sample = pcm[whole:]
        pcm = pcm[:whole]
        return mulaw.encode(pcm if self._in is None else self._in.lower(pcm))

    def from_mulaw(self, audio: bytes) -> bytes:
        """Return `audio` as PCM: two bytes a sample, `rate` samples a second, none kept back."""
        pcm = mulaw.decode(audio)
        return pcm if self._out is None else self._out.raise_rate(pcm)

    def clear(self) -> None:
        """Forget what was said: the next audio is another reply's."""
        if self._out is not None:
            self._out.forget()


class RateFilter:
    """Multiplies or divides the rate of a stream of 16-bit PCM by a whole number.

    A windowed sinc, with the stream's last samples as its memory.  One direction an instance.
    """

    def __init__(self, steps: int) -> None:
        import numpy as np

        length = _TAPS_PER_STEP * steps + 1
        middle = (length - 1) / 2
        taps = np.sinc((np.arange(length) - middle) / steps) * np.hamming(length)
        self._taps: npt.NDArray[np.float64] = taps / taps.sum()
        self._steps = steps
        self._before = np.zeros(length - 1)
        self._phase = 0

    def __repr__(self) -> str:
        return f"<RateFilter by {self._steps}>"

    def forget(self) -> None:
        """Begin a new signal: nothing of the one before is heard in it."""
        self._before = self._before * 0
        self._phase = 0

    def lower(self, pcm: bytes) -> bytes:
        """Keep one sample in `steps` of what is left below half the new rate."""
        from numpy import frombuffer

        samples = frombuffer(pcm, dtype="<i2")
        filtered = self._filtered(samples.astype(float))[self._phase :: self._steps]
        self._phase = (self._phase - len(samples)) % self._steps
        return _rounded(filtered)

    def raise_rate(self, pcm: bytes) -> bytes:
        """Return `steps` samples for each."""
        import numpy as np

        spread = np.zeros(len(pcm) // 2 * self._steps)
        spread[:: self._steps] = np.frombuffer(pcm, dtype="<i2")
        return _rounded(self._filtered(spread) * self._steps)

    def _filtered(self, samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        import numpy as np

        if not len(samples):
            return samples
        known = np.concatenate((self._before, samples))
        self._before = known[len(samples) :]
        return np.convolve(known, self._taps, "valid")


def _rounded(samples: npt.NDArray[np.float64]) -> bytes:
    import numpy as np

    return bytes(np.clip(np.rint(samples), -32768, 32767).astype("<i2"))
