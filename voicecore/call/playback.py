"""The player: the only writer to the line, and the truth about what the caller has heard.

Rules that hold here:

* Frame *n* of a run is due at ``origin + n * 20 ms - lead``, always counted from the origin, never
  from the frame before: an interval timer drifts seconds in a minute (openclaw #119070).  Frames
  leave in pairs, when the first is due: half the wake-ups, and the lead is never less.
* What is late is sent at once until the lead stands again, and no further.
* If the carrier's buffer ran dry meanwhile, the origin moves: what was missed was heard as silence
  and is not made up for by rushing.
* "Speaking" ends with the echo of the last mark, or with the clock if echoes stop.
* Tasks ask (`hold`, `cut`); only `run` writes.
* Without marks the caller's ear is the clock, from the first frame on: what was heard is an
  estimate, early by the carrier's delay, and "speaking" ends `NO_ECHO_PATIENCE_S` behind it.
* Without clear nothing that is out can be taken back.  So little is out (`LEAST_LEAD_S`), a
  barge-in is heard to take that long, and all that was sent counts as heard.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from ..audio import FRAME_BYTES, SAMPLE_RATE
from ..dialogue.spoken import Pace
from ..wire.abilities import Abilities
from ..wire.events import Clear, Command, Mark, Play
from .speech import Alarm, Speech
from .tape import Tap

FRAME_S = FRAME_BYTES / SAMPLE_RATE

PRECISION_S = 0.001
"""What is due this soon is due now: no timer wakes up more exactly."""

ECHO_PATIENCE_S = 2.0
"""How long after the last audio must have been played its mark may take to come back."""

NO_ECHO_PATIENCE_S = 0.25
"""The same once it is clear that this carrier echoes no marks."""

LEAST_LEAD_S = 2 * FRAME_S
"""The lead where nothing can be cleared: one pair of frames.  Jitter of the network is heard."""

ALL_ABILITIES = Abilities()


@dataclass(slots=True)
class PlaybackStatistics:
    """What a call's playback was like.  Seconds, and counts of frames."""

    frames: int = 0
    underruns: int = 0
    """Times the carrier's buffer ran dry inside speech because we were late."""
    starved: int = 0
    """Times it ran dry inside speech because TTS was."""
    silence_s: float = 0.0
    """Silence that the caller heard inside speech through either."""
    lateness_max_s: float = 0.0
    mark_round_trip_s: float = 0.0
    """Of the newest mark: its echo after the moment at which its audio should have been heard."""


class Player:
    """One call's playback."""

    def __init__(
        self,
        send: Callable[[Sequence[Command]], Awaitable[None]],
        lead_s: float = 0.16,
        abilities: Abilities = ALL_ABILITIES,
        tap: Tap | None = None,
    ) -> None:
        self.statistics = PlaybackStatistics()
        self._tap = tap
        self._send = send
        self._abilities = abilities
        self._lead = lead_s if abilities.clear else min(lead_s, LEAST_LEAD_S)
        self._alarm = Alarm()
        self._pace = Pace()
        self._speech: Speech | None = None
        self._held_since = math.inf
        self._origin = -math.inf
        """When byte 0 of the current speech leaves the carrier's buffer, had it never run dry."""
        self._heard_from = -math.inf
        """The same at the caller's ear, as the newest mark tells: never earlier."""
        self._patience = ECHO_PATIENCE_S if abilities.marks else NO_ECHO_PATIENCE_S
        self._busy_until = -math.inf
        """When what was cut without a clear has been heard to its end."""
        self._must_clear = False
        self._turnstile = trio.Lock()

    def __repr__(self) -> str:
        return f"<Player {self._speech!r}>"

    @property
    def is_speaking(self) -> bool:
        """Whether the caller has not yet heard the end of a reply that began to play."""
        return self._speech is not None

    def new_speech(self, name: str) -> Speech:
        """Return an empty speech that this player can play."""
        return Speech(name, self._alarm, self._pace, self._abilities.message_frames * FRAME_BYTES)

    async def play(self, speech: Speech) -> None:
        """Play a speech until its end was heard.  One at a time: others wait.

        If cancelled, what the carrier has not played yet is cleared.
        """
        async with self._turnstile:
            self._speech = speech
            self._origin = self._heard_from = -math.inf
            self._alarm.ring()
            try:
                await speech.done.wait()
            finally:
                if not speech.done.is_set():
                    self._cut(speech)
                self._speech = None

    def hold(self) -> None:
        """Stop feeding: somebody may be speaking.  What is out already is at most the lead."""
        self._held_since = min(self._held_since, trio.current_time())

    def release(self) -> None:
        """Go on feeding, from the exact byte."""
        if self._held_since <= trio.current_time() and self._speech is not None:
            # The silence since was meant: it is no underrun.
            position = self._speech.sent / SAMPLE_RATE
            self._move_origin(max(self._origin, trio.current_time() - position))
        self._held_since = math.inf
        self._alarm.ring()

    def mark_reached(self, name: str) -> None:
        """Take a mark's echo.  Stale ones change nothing."""
        speech, now = self._speech, trio.current_time()
        if speech is None or not speech.reach(name):
            return
        self._patience = ECHO_PATIENCE_S
        self._heard_from = max(self._heard_from, now - speech.confirmed / SAMPLE_RATE)
        heard_at = self._origin + speech.confirmed / SAMPLE_RATE
        self.statistics.mark_round_trip_s = max(0.0, now - heard_at)
        if speech.is_all_sent and speech.confirmed >= speech.end:
            speech.done.set()

    def heard(self, speech: Speech) -> int:
        """Bytes of `speech` that the caller has heard: by mark, else by the clock; never unsent."""
        if speech is not self._speech or not math.isfinite(self._heard_from):
            return speech.confirmed
        by_clock = int((trio.current_time() - self._heard_from) * SAMPLE_RATE)
        return max(speech.confirmed, min(speech.sent, by_clock))

    def seconds_left(self, speech: Speech) -> float:
        """How long the caller will still hear what was sent of `speech`; by the clock."""
        if speech is not self._speech or not math.isfinite(self._origin):
            return 0.0
        return max(0.0, self._origin + speech.sent / SAMPLE_RATE - trio.current_time())

    async def run(self) -> None:
        """Feed the line for ever.  The only task that writes to it."""
        while True:
            if self._must_clear:
                self._must_clear = False
                await self._send([Clear()])
                continue
            speech, now = self._speech, trio.current_time()
            if speech is None or self._held_since <= now:
                await self._alarm.sleep_until(math.inf)
            elif marks := self._due_marks(speech):
                await self._send(marks)
            elif speech.has_frame:
                due = self._due(speech, now)
                if due > now + PRECISION_S:
                    await self._alarm.sleep_until(due)
                else:
                    await self._feed(speech, now)
            elif speech.is_all_sent:
                await self._await_end(speech, now)
            else:
                await self._alarm.sleep_until(math.inf)

    def _due(self, speech: Speech, now: float) -> float:
        """When the next frame must be sent.  If the carrier's buffer is dry, time begins anew."""
        position = speech.sent / SAMPLE_RATE
        if now > self._origin + position:
            if math.isfinite(self._origin):
                self._count_silence(speech, now - self._origin - position)
            self._move_origin(max(now, self._busy_until) - position)
        return self._origin + position - self._lead

    def _move_origin(self, origin: float) -> None:
        self._origin = origin
        self._heard_from = max(self._heard_from, origin)

    def _count_silence(self, speech: Speech, dry_for: float) -> None:
        """The caller heard silence inside speech: because of us, or because of TTS."""
        if speech.sent == speech.paused_at:
            return  # a tool was being used
        dry_at = trio.current_time() - dry_for
        self.statistics.silence_s += dry_for
        if speech.filled_at >= dry_at - 0.001:
            self.statistics.starved += 1
        else:
            self.statistics.underruns += 1

    async def _feed(self, speech: Speech, now: float) -> None:
        """Send the frames that are due, and the one behind them, with their marks."""
        if speech.first_sent_at is None:
            speech.first_sent_at = now
        start = speech.sent
        dry_at = self._origin + start / SAMPLE_RATE
        commands: list[Command] = []
        while speech.has_frame and self._due(speech, now) <= now + FRAME_S + PRECISION_S:
            commands.append(Play(audio := speech.take_frame()))
            self.statistics.frames += len(audio) // FRAME_BYTES
            commands += self._due_marks(speech)
        if self._tap is not None:
            # Before the line takes it: whoever cuts the speech meanwhile takes it back.
            self._tap.played(_audio(commands), self._origin + start / SAMPLE_RATE)
        await self._send(commands)
        done = trio.current_time()
        self._note_lateness(done - (dry_at - self._lead))
        dry_for = done - dry_at
        if dry_at > now and dry_for > 0:
            # The line took so long for it that the carrier's buffer ran dry meanwhile.
            self._count_silence(speech, dry_for)
            self._move_origin(self._origin + dry_for)
            if self._tap is not None and speech is self._speech:
                self._tap.taken_back(speech.sent - start)
                self._tap.played(_audio(commands), done)

    def _due_marks(self, speech: Speech) -> list[Command]:
        mark = speech.due_mark() if self._abilities.marks else None
        return [] if mark is None else [Mark(mark.name)]

    def _note_lateness(self, late: float) -> None:
        """Keep the worst, apart from where a run begins: there the whole lead is sent at once."""
        if late < self._lead - PRECISION_S:
            self.statistics.lateness_max_s = max(self.statistics.lateness_max_s, late)

    async def _await_end(self, speech: Speech, now: float) -> None:
        """All is sent: wait for the last mark's echo, but not for ever."""
        if speech.confirmed >= speech.end:
            speech.done.set()  # also when there was nothing to hear
        give_up = self._origin + speech.end / SAMPLE_RATE + self._patience
        if now >= give_up:
            if not speech.confirmed:
                self._patience = NO_ECHO_PATIENCE_S
            speech.confirmed = speech.end
            speech.done.set()
        await self._alarm.sleep_until(math.inf if speech.done.is_set() else give_up)

    def _cut(self, speech: Speech) -> None:
        heard = self.heard(speech)
        if speech.first_sent_at is not None and self._abilities.clear:
            self._must_clear = True
        elif speech.first_sent_at is not None:
            self._busy_until = self._origin + speech.sent / SAMPLE_RATE
            heard = speech.sent
        if self._tap is not None and speech.sent > heard:
            self._tap.taken_back(speech.sent - heard)
        speech.cut(heard)
        self._alarm.ring()


def _audio(commands: Sequence[Command]) -> bytes:
    return b"".join(command.audio for command in commands if isinstance(command, Play))
