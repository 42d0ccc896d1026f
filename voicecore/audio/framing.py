"""Audio of any chunking into whole 20 ms frames: what a carrier is sent and a VAD can judge."""

from __future__ import annotations

from . import FRAME_BYTES, SILENCE_BYTE


class Framer:
    """Cuts a stream of mu-law into frames of 160 bytes.

    The remainder waits for the next `feed`; only `flush`, at the end of an utterance, pads it.
    """

    def __init__(self) -> None:
        self._rest = b""

    def __repr__(self) -> str:
        return f"<Framer {len(self._rest)} bytes pending>"

    @property
    def pending(self) -> int:
        """Bytes that wait for the rest of their frame: 0 to 159."""
        return len(self._rest)

    def feed(self, audio: bytes) -> list[bytes]:
        """Take mu-law of any length; return the frames that are now whole, in order."""
        if self._rest:
            audio = self._rest + audio
        whole = len(audio) - len(audio) % FRAME_BYTES
        self._rest = audio[whole:]
        return [audio[at : at + FRAME_BYTES] for at in range(0, whole, FRAME_BYTES)]

    def flush(self) -> bytes | None:
        """Return the tail, padded with silence to a frame, or ``None`` if nothing is pending."""
        if not self._rest:
            return None
        tail, self._rest = self._rest, b""
        return tail.ljust(FRAME_BYTES, SILENCE_BYTE)
