"""What a server measures: the calls' milestones, what others count, the event loop itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .meters import Meters

BEAT_S = 0.1
"""How often the event loop is asked how late it is."""

BEATS_A_FOLLOW = 10
WAITING = 1000
"""Milestones kept until the meters have loaded; a second's worth of hundreds of calls."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Totals = Callable[[], Mapping[tuple[str, ...], float]]
"""What others have counted since the start: by a name of `meters.TOTALS` and its labels."""


class Metrics:
    """One process's metrics.  `observe` may be called at once; `run` loads the rest and beats."""

    def __init__(self, totals: Totals = dict) -> None:
        self._totals = totals
        self._meters: Meters | None = None
        self._waiting: deque[tuple[str, Mapping[str, object]]] = deque(maxlen=WAITING)

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        """Take a call's milestone (see `call.timeline.Observer`)."""
        if self._meters is None:
            self._waiting.append((event, fields))
        else:
            self._meters.observe(event, fields)

    async def run(self) -> None:
        """Load the meters, then watch until cancelled."""
        await self._load()
        beats = 0
        while True:
            due = trio.current_time() + BEAT_S
            await trio.sleep_until(due)
            meters = await self._load()
            meters.stall.observe(max(0.0, trio.current_time() - due))
            beats += 1
            if beats % BEATS_A_FOLLOW == 0:
                meters.follow(self._totals())

    async def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        meters = await self._load()
        meters.follow(self._totals())
        return meters.text()

    async def _load(self) -> Meters:
        if self._meters is None:
            # In a thread, behind the open port: what it imports takes a tenth of a second.
            module = await trio.to_thread.run_sync(import_module, f"{__package__}.meters")
            if self._meters is None:
                self._meters = module.Meters()
                while self._waiting:
                    self._meters.observe(*self._waiting.popleft())
        return self._meters
