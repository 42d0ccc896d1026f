"""One reply's audio between TTS and the caller's ear.

A `Speech` is written by one turn (`put`, `end_sentence`, `finish`) and read by one player.  It
holds what was not sent yet, at most `AHEAD_BYTES` of it, and what was sent but is not known to have
been heard, so that a reply that was cut by a cough can go on from the exact byte.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import trio

from ..audio import FRAME_BYTES, SAMPLE_RATE, SILENCE_BYTE
from ..dialogue.spoken import Pace, Spoken

AHEAD_BYTES = SAMPLE_RATE
"""One second of audio ahead of the player: the leash on speculation, and on TTS bills."""

REFILL_BYTES = SAMPLE_RATE // 5
"""A producer that waits for space is woken for 200 ms of it, not for each frame."""

MARK_BYTES = SAMPLE_RATE
"""At least one mark a second: playback truth is never staler than that."""

UNHEARD_BYTES = 10 * SAMPLE_RATE
"""Sent audio that is kept for going on after a cough.  Marks let go of it within a second or two; a
carrier that echoes none must not make us keep a whole reply."""


class Alarm:
    """Sleep until a time, or until somebody rings."""

    def __init__(self) -> None:
        self._sleep: trio.CancelScope | None = None

    async def sleep_until(self, time: float) -> None:
        """Sleep until `time` on trio's clock or the next `ring`, whichever comes first."""
        with trio.CancelScope(deadline=time) as self._sleep:
            await trio.sleep_forever()
        self._sleep = None

    def ring(self) -> None:
        """Wake the sleeper, if there is one.  What woke it is for the sleeper to find out."""
        if self._sleep is not None:
            self._sleep.cancel()


@dataclass(frozen=True, slots=True)
class PendingMark:
    """A mark on its way: everything before byte `position` precedes it."""

    name: str
    position: int


class Speech:
    """One reply's audio.  Positions are bytes of mu-law since the reply began."""

    def __init__(
        self,
        name: str,
        player: Alarm,
        pace: Pace,
        message_bytes: int = FRAME_BYTES,
        is_live: bool = True,
    ) -> None:
        self.name = name
        self.is_live = is_live
        """Whether it is heard while it is made; else when all of it is there."""
        self.spoken = Spoken(pace)
        self.sent = 0
        """Everything before this byte is on the wire."""
        self.confirmed = 0
        """Everything before this byte was heard."""
        self.first_sent_at: float | None = None
        self.filled_at = 0.0
        """When audio last became available after there was none."""
        self.paused_at = -1
        """The byte before which silence is meant, because the agent uses a tool."""
        self.done = trio.Event()
        """Set once the caller has heard all of it."""
        self.pending: deque[PendingMark] = deque()
        self._audio = bytearray()
        self._base = 0
        self._sentences: deque[int] = deque()
        self._marked = 0
        self._marks = 0
        self._finished = False
        self._player = player
        self._message_bytes = message_bytes
        self._space = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Speech {self.name} {self.sent}/{self.end} bytes, heard {self.confirmed}>"

    @property
    def end(self) -> int:
        """Bytes produced so far."""
        return self._base + len(self._audio)

    @property
    def has_frame(self) -> bool:
        """Whether a whole message waits to be sent, or the shorter one at the end."""
        waiting = self.end - self.sent
        is_tail = self._finished or self.paused_at == self.end
        return waiting >= self._message_bytes or (is_tail and waiting > 0)

    @property
    def is_all_sent(self) -> bool:
        """Whether the player has nothing left to send, now or later."""
        return self._finished and self.sent >= self.end

    def begin_again(self) -> None:
        """Throw away what was put, none of which was sent."""
        assert not self.sent
        self.spoken.begin_again()
        self._audio.clear()
        self._sentences.clear()
        self._space.unpark_all()

    async def put(self, audio: bytes) -> None:
        """Append mu-law of any length; wait while a second of it is ahead of the player."""
        view = memoryview(audio)
        while view:
            while (space := AHEAD_BYTES - (self.end - self.sent)) <= 0:
                await self._space.park()
            was_empty = not self.has_frame
            self._audio += view[:space]
            view = view[space:]
            self.spoken.extend(self.end)
            if was_empty and self.has_frame:
                self.filled_at = trio.current_time()
                self._player.ring()
        await trio.lowlevel.checkpoint()

    def pause(self) -> None:
        """What comes next takes its time: what is there is padded to whole frames, and marked."""
        if self.end:
            self._pad()
            self.end_sentence()
            self.paused_at = self.end
            self._player.ring()

    def take_back(self) -> None:
        """Throw away what was not sent yet: the caller shall not hear it."""
        del self._audio[self.sent - self._base :]
        while self._sentences and self._sentences[-1] > self.sent:
            self._sentences.pop()
        self.spoken.truncate(self.sent)
        self._space.unpark_all()
        self.pause()

    def end_sentence(self) -> None:
        """A sentence ends at the last byte that was put; a mark will say when it was heard."""
        if not self._sentences or self._sentences[-1] < self.end:
            self._sentences.append(self.end)

    def finish(self) -> None:
        """Nothing more will come: the tail is padded to a whole frame, and is a sentence's end."""
        if not self._finished:
            self._pad()
            self.end_sentence()
            self._finished = True
            self._player.ring()

    def take_frame(self) -> bytes:
        """Return the next message's audio, whole frames, and count it as sent."""
        start = self.sent - self._base
        frame = bytes(self._audio[start : start + self._message_bytes])
        self.sent += len(frame)
        if self.sent - self._base > UNHEARD_BYTES:
            self._forget(self.sent - UNHEARD_BYTES)
        if self.end - self.sent <= AHEAD_BYTES - REFILL_BYTES:
            self._space.unpark_all()
        return frame

    def due_mark(self) -> PendingMark | None:
        """Return the mark that must follow the last sent frame, if one is due; once."""
        due = self.sent - self._marked >= MARK_BYTES
        while self._sentences and self._sentences[0] <= self.sent:
            self._sentences.popleft()
            due = True
        if not due or self._marked == self.sent:
            return None
        self._marked = self.sent
        self._marks += 1
        mark = PendingMark(f"{self.name}:{self._marks}", self.sent)
        self.pending.append(mark)
        return mark

    def reach(self, name: str) -> bool:
        """Note a mark's echo; false if it is stale (cleared, or another turn's)."""
        if all(mark.name != name for mark in self.pending):
            return False
        while (mark := self.pending.popleft()).name != name:
            pass
        self.confirmed = mark.position
        self._forget(mark.position)
        return True

    def cut(self, heard: int) -> None:
        """The carrier threw away what it had not played: only `heard` bytes were heard."""
        self.pending.clear()
        self.confirmed = max(self.confirmed, heard)
        self._forget(self.confirmed)

    def rewind(self) -> None:
        """Go back to the first frame that was not heard, to go on from there after a `cut`."""
        self.sent = max(self._base, self.confirmed - self.confirmed % FRAME_BYTES)
        self.confirmed = self.sent
        self._marked = min(self._marked, self.sent)
        if self._finished and (not self._sentences or self._sentences[-1] < self.end):
            self._sentences.append(self.end)

    def _pad(self) -> None:
        self._audio += SILENCE_BYTE * (-self.end % FRAME_BYTES)

    def _forget(self, position: int) -> None:
        """Let go of audio before `position`, to the frame: it will never be played again."""
        keep_from = position - position % FRAME_BYTES
        if keep_from > self._base:
            del self._audio[: keep_from - self._base]
            self._base = keep_from
