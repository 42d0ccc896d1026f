"""What a carrier reports about a call while it goes on beside it: status, recordings, verdicts.

Each report goes its own way, so that a slow receiver delays neither the call nor the next report;
they may arrive in any order, as Twilio's do.  At most `MAX_WAITING` wait to be sent: what comes
beyond is dropped, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from ..errors import LineClosed, RemoteProtocolError
from .verbs import StatusCallback
from .webhook import Webhooks

MAX_WAITING = 100


@dataclass(frozen=True, slots=True)
class _Report:
    callback: StatusCallback
    form: Mapping[str, str]
    at: float


class Callbacks:
    """One call's reports.  `deliver` runs beside the call and ends after `close`."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """Reports that were not taken, a line each."""
        self._posted, self._due = trio.open_memory_channel[_Report](MAX_WAITING)

    def post(self, callback: StatusCallback, form: Mapping[str, str], at: float = 0.0) -> None:
        """Have something reported, not before `at` on trio's clock."""
        try:
            self._posted.send_nowait(_Report(callback, form, at))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.problems.append(f"callback to {callback.url} dropped: too many wait")

    def close(self) -> None:
        """Say that nothing more will be posted."""
        self._posted.close()

    async def deliver(self, webhooks: Webhooks) -> None:
        """Send what is posted, to the last one.  Raises nothing of the receivers' making."""
        async with self._due, trio.open_nursery() as nursery:
            async for report in self._due:
                nursery.start_soon(self._send, webhooks, report)

    async def _send(self, webhooks: Webhooks, report: _Report) -> None:
        await trio.sleep_until(max(report.at, trio.current_time()))
        try:
            await webhooks.notify(report.callback.method, report.callback.url, report.form)
        except (LineClosed, RemoteProtocolError) as error:
            self.problems.append(f"callback: {error}")
