"""A caller's line as a live recogniser gets it: a frame every 20 ms, words inside."""

from __future__ import annotations

import trio

from voicecore.audio import FRAME_BYTES, SILENCE_FRAME
from voicecore.contracts import Transcription
from voicecore.testing import audible

FRAME_S = 0.02
PRE_ROLL = 15 * FRAME_BYTES


class CallerLine:
    """Feeds what the caller says, in time with the clock, and remembers it."""

    def __init__(self, transcription: Transcription) -> None:
        self.audio = bytearray()
        self._transcription = transcription
        self._next = trio.current_time()

    async def feed(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._transcription.feed(frame)
            self.audio += frame
            self._next = max(self._next, trio.current_time()) + FRAME_S
            await trio.sleep_until(self._next)

    async def pause(self, seconds: float) -> None:
        await self.feed([SILENCE_FRAME] * round(seconds / FRAME_S))

    async def say(self, text: str, seconds: float | None = None) -> None:
        seconds = 0.3 * len(text.split()) if seconds is None else seconds
        await self.feed(audible.say(text, round(seconds / FRAME_S)))

    async def turn(self, text: str, pause: float = 0.1) -> bytes:
        """Say `text` after some silence, and pause; return the utterance, with its pre-roll."""
        await self.pause(0.6)
        start = len(self.audio) - PRE_ROLL
        await self.say(text)
        await self.pause(pause)
        return bytes(self.audio[start:])

    async def words(self, utterance: bytes) -> str:
        """Ask for the words of `utterance` while the line goes on in silence."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pause, 60)
            transcript = await self._transcription.transcript(utterance)
            nursery.cancel_scope.cancel()
        return transcript.text
