"""What the carrier takes from the caller, without I/O: a recording for <Record>, keys for <Gather>.

Both are fed 20 ms at a time, and say when they are complete.
"""

from __future__ import annotations

from .buffer import FRAME_BYTES
from .turns import TICK_S
from .verbs import Gather, Record

TRIM_MARGIN = 5
"""Frames of silence left at each end of a trimmed recording: soft consonants are no silence."""

HANGUP = "hangup"
"""What stands for the key when the caller hung up while being recorded."""


class VoiceCapture:
    """One <Record>: the caller's voice until silence, a key, the length or the end of the call."""

    def __init__(self, verb: Record) -> None:
        self.digits = ""
        """The key that ended it; "hangup"; "": it ended by itself."""
        self._timeout = verb.timeout
        self._keys = verb.finish_on_key
        self._max_length = verb.max_length
        self._trim = verb.trim
        self._frames: list[bytes] = []
        self._first_voiced: int | None = None
        self._last_voiced = -1

    def __repr__(self) -> str:
        return f"<VoiceCapture {self.seconds:.2f} s, {self.digits or 'no key'}>"

    @property
    def seconds(self) -> float:
        """How long it lasted, before silence was cut off."""
        return len(self._frames) * TICK_S

    @property
    def full(self) -> bool:
        """Whether it is as long as it may be."""
        return self.seconds >= self._max_length - 1e-6

    @property
    def voiced(self) -> bool:
        """Whether there is speech in it."""
        return self._first_voiced is not None

    @property
    def audio(self) -> bytes:
        """The recording, mu-law; with `trim` from the first to the last voiced frame."""
        frames = self._frames
        if self._trim and self._first_voiced is not None:
            first = max(0, self._first_voiced - TRIM_MARGIN)
            frames = frames[first : self._last_voiced + 1 + TRIM_MARGIN]
        return b"".join(frames)

    def take(self, frame: bytes, voiced: bool, keys: str) -> bool:
        """Take 20 ms of the caller; say whether the recording is complete."""
        assert len(frame) == FRAME_BYTES
        self.digits = next((key for key in keys if key in self._keys), "")
        if self.digits:
            return True
        if voiced:
            self._last_voiced = len(self._frames)
            if self._first_voiced is None:
                self._first_voiced = self._last_voiced
        self._frames.append(frame)
        silent = (len(self._frames) - 1 - self._last_voiced) * TICK_S
        quiet = bool(self._timeout) and silent >= self._timeout - 1e-6
        return quiet or self.full


class KeyCapture:
    """One <Gather>: keys until there are enough, the finishing one, or none for a while."""

    def __init__(self, verb: Gather) -> None:
        self.digits = ""
        """What was pressed, without the key that finished it."""
        self._verb = verb
        self._silent = 0

    def __repr__(self) -> str:
        return f"<KeyCapture {self.digits!r}>"

    def take(self, keys: str, prompting: bool) -> bool:
        """Take what was pressed within 20 ms; say whether that is all.

        While a prompt is heard the wait for the first key has not begun.
        """
        for key in keys:
            if key in self._verb.finish_on_key:
                return True
            self.digits += key
            if len(self.digits) == self._verb.num_digits:
                return True
        waiting = not keys and not prompting
        self._silent = self._silent + 1 if waiting else 0
        return self._silent * TICK_S >= self._verb.timeout - 1e-6
