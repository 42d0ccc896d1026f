"""The carrier's own end of a call that has no stream: it plays, records and collects keys.

An interactive voice response machine: `exchange` is its 20 ms, called by the caller's handset, and
its coroutines start something and wait until those 20 ms have brought it about.  One of them runs
at a time.  Its signals (the beep) are heard, but are no reply: a gap ends with words.
"""

from __future__ import annotations

from collections import deque

import trio

from . import sounds
from .buffer import PlaybackBuffer, Played
from .capture import HANGUP, KeyCapture, VoiceCapture
from .loudness import frames_of
from .turns import Floor, TurnRecorder


class Ivr:
    """One call's.  `log` is that of the handset at the other end."""

    def __init__(self, log: TurnRecorder) -> None:
        self._log = log
        log.floor = Floor.CLOSED
        self._buffer = PlaybackBuffer()
        self._signals: deque[bytes] = deque()
        self._voice: VoiceCapture | None = None
        self._keys: KeyCapture | None = None
        self._played = self._complete = trio.Event()

    def __repr__(self) -> str:
        return f"<Ivr {self._buffer}, {self._voice or self._keys}>"

    @property
    def recording(self) -> VoiceCapture | None:
        """What is being recorded."""
        return self._voice

    def exchange(self, frame: bytes, voiced: bool, keys: str) -> tuple[Played, int]:
        """Let 20 ms pass; a `handset.Exchange`."""
        heard = Played(self._signals.popleft(), 0) if self._signals else self._buffer.play()
        if self._voice is not None and self._voice.take(frame, voiced, keys):
            self._complete.set()
        if self._keys is not None:
            if keys:
                self._buffer.clear()
            if self._keys.take(keys, prompting=bool(self._buffer.queued_bytes)):
                self._complete.set()
        if not self._signals and not self._buffer.queued_bytes:
            self._played.set()
        return heard, 0

    async def play(self, audio: bytes, loops: int = 1) -> None:
        """Have `audio`, mu-law, heard to its end so many times.  Cancelled: it stops at once."""
        for _ in range(loops):
            self._buffer.media(audio)
        await self._sounded()

    async def wait(self, seconds: float) -> None:
        """Have the caller hear nothing for so long."""
        await self.play(sounds.silence(seconds))

    async def record(self, capture: VoiceCapture, *, beep: bool) -> None:
        """Record the caller until the capture is complete, or `hang_up`."""
        if beep:
            self._signals.extend(frames_of(sounds.beep()))
            await self._sounded()
        self._voice, self._complete = capture, trio.Event()
        self._log.give_floor()
        try:
            await self._complete.wait()
        finally:
            self._voice, self._log.floor = None, Floor.CLOSED

    async def collect(self, capture: KeyCapture, prompts: list[tuple[bytes, int]]) -> None:
        """Collect keys until the capture is complete; the first one silences the prompts.

        `prompts` is mu-law, each with how many times it is heard.
        """
        for audio, loops in prompts:
            for _ in range(loops):
                self._buffer.media(audio)
        self._keys, self._complete = capture, trio.Event()
        try:
            await self._complete.wait()
        finally:
            self._keys = None
            self._buffer.clear()

    def hang_up(self) -> bool:
        """End a recording as a caller does who hangs up; say whether there was one."""
        if self._voice is None:
            return False
        self._voice.digits = HANGUP
        self._complete.set()
        return True

    async def _sounded(self) -> None:
        self._played = trio.Event()
        if not self._signals and not self._buffer.queued_bytes:
            return
        try:
            await self._played.wait()
        finally:
            self._signals.clear()
            self._buffer.clear()
