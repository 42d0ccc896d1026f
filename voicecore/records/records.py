"""The records of one server: opened once, told by every call, written by one thread.

    async with open_records(settings) as records:
        record = records.begin(call_sid, flow="stream", parameters={"From": "+1555…"})
        call.tap = record                                   # both sides' sound
        ...                                                 # record.observe: the call's milestones
        await record.close()

A disk that fails or is slow costs records, and one warning for as long as that goes on.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

import trio

from ..errors import SettingsError
from ..settings import Settings, variable_name
from . import dates
from .call_record import CallRecord, Keeps, storable_text
from .database import Status
from .retention import Limits
from .store import Batch, CallFacts, CallPages, Store

log = logging.getLogger("voicecore.records")

FLUSH_S = 0.4
"""How often what calls have told goes to the disk: a kill costs at most a second of sound, half of
which waits for the caller's clock to settle, when a call begins."""

WORK_S = 30.0
"""How long the disk may take before somebody says so."""

SWEEP_S = 600.0
AGAIN_S = 5.0
"""How often old records are looked for, and how soon again if there were too many for once."""

LEAVE_S = 5.0
"""How long the end of the program waits for the disk."""

STATUS_S = 3.0
"""How long a status callback waits for the disk before it is answered."""

QUIET_S = 60.0
"""A failure so long after the last one is news."""

WAITING_STATUSES = 256

NAME_CHARS = 256
"""A carrier's name of a call may be so long; Telnyx's are 60."""

Flow = Literal["stream", "recording"]


RunInThread = Callable[[Callable[[], Any], trio.CapacityLimiter], Awaitable[Any]]
"""Runs what blocks, and returns what that returns."""


async def in_thread(work: Callable[[], Any], limiter: trio.CapacityLimiter) -> Any:
    """Run `work` in a thread.  Who no longer waits for it lets it go on alone."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)


class Records:
    """All records of one process.  Made by `open_records`."""

    def __init__(
        self, store: Store, keeps: Keeps, run: RunInThread, thread: trio.CapacityLimiter
    ) -> None:
        self._store = store
        self._keeps = keeps
        self._run_in_thread = run
        self._thread = thread
        self._records: list[CallRecord] = []
        self._statuses: list[tuple[Status, trio.Event]] = []
        self._wanted = trio.Event()
        self._life = trio.CancelScope(shield=True)
        self._writing = trio.Lock()
        self._failed_at = -math.inf

    def __repr__(self) -> str:
        return f"<Records {len(self._records)} calls, {self._store!r}>"

    def begin(
        self,
        call_sid: str,
        *,
        flow: Flow = "stream",
        parameters: Mapping[str, str] | None = None,
        carrier: str = "twilio",
    ) -> CallRecord:
        """Begin the record of a call, or go on with it if there is one: now, without waiting.

        `parameters` may say `From`, `To` and `Direction` (`outbound…`, or it is inbound).
        """
        given = parameters or {}
        direction = given.get("Direction", "")

        def number(name: str) -> str | None:
            return storable_text(given.get(name, ""), 64) or None if self._keeps.text else None

        facts = CallFacts(
            sid=storable_text(call_sid, NAME_CHARS),
            flow=flow,
            carrier=carrier,
            direction="outbound" if direction.startswith("outbound") else "inbound",
            began=dates.now(),
            from_number=number("From"),
            to_number=number("To"),
        )
        record = CallRecord(facts, self._keeps, self._wake)
        self._records.append(record)
        self._wake()
        return record

    async def note_status(self, status: Status) -> None:
        """Keep a status callback of a call, whoever has or had it; wait for that, not for long."""
        written = trio.Event()
        if len(self._statuses) < WAITING_STATUSES:
            self._statuses.append((status, written))
            self._wake()
            with trio.move_on_after(STATUS_S):
                await written.wait()

    async def run(self) -> None:
        """Write until told to leave.  Who is cancelled around us waits for that."""
        with self._life:
            while True:
                with trio.move_on_after(FLUSH_S if self._records else math.inf):
                    await self._wanted.wait()
                self._wanted = trio.Event()
                await self._write()

    async def sweep(self) -> None:
        """Delete what is too old or too much, now and then."""
        while True:
            has_more = await self._work(self._store.sweep)
            await trio.sleep(AGAIN_S if has_more else SWEEP_S)

    async def leave(self) -> None:
        """Write what is left, for `LEAVE_S` at most; then `run` returns."""
        with trio.move_on_after(LEAVE_S, shield=True):
            await self._write()
            await self._work(partial(self._store.close, [r.pages for r in self._records]))
        self._life.cancel()

    def _wake(self) -> None:
        self._wanted.set()

    async def _write(self) -> None:
        async with self._writing:
            await self._write_batches()

    async def _write_batches(self) -> None:
        batches = [(record, record.take_batch()) for record in self._records]
        statuses, self._statuses = self._statuses, []
        given: list[tuple[CallPages, Batch]] = [(record.pages, batch) for record, batch in batches]
        work = partial(self._store.write, given, [status for status, _ in statuses])
        for failure in await self._work(work) or ():
            self._fail(failure)
        for record, batch in batches:
            if batch.over:
                self._records.remove(record)
                record.written.set()
                if record.dropped_bytes:
                    self._fail(f"{record.dropped_bytes} bytes of sound were too much at once")
                if record.dropped_milestones:
                    self._fail(f"{record.dropped_milestones} milestones were too many at once")
        for _, written in statuses:
            written.set()

    async def _work(self, work: Callable[[], Any]) -> Any:
        """Let the thread do something; return what it returns, None if it did not."""
        with trio.move_on_after(WORK_S) as patience:
            try:
                done = await self._run_in_thread(work, self._thread)
            except (OSError, sqlite3.Error, ValueError) as error:
                self._fail(str(error))
                return None
        if patience.cancelled_caught:
            self._fail(f"the disk gave no answer in {WORK_S:.0f} s")
            return None
        return done

    def _fail(self, why: str) -> None:
        """Something was not recorded: say so, once for as long as it goes on."""
        if trio.current_time() > self._failed_at + QUIET_S:
            log.warning("calls are not recorded: %s", why)
        self._failed_at = trio.current_time()


@asynccontextmanager
async def open_records(
    settings: Settings, run: RunInThread = in_thread
) -> AsyncIterator[Records | None]:
    """Open the records that the settings ask for; None if they ask for none.

    What is not written on leaving is written first, as far as the disk lets us within `LEAVE_S`;
    calls whose record is still open then count as lost.

    `run` is `in_thread`, or what stands for it where time is virtual and no thread's.

    Raises:
        SettingsError: VOICECORE_RECORD_DIR cannot be used.
    """
    if settings.record_dir is None:
        yield None
        return
    thread = trio.CapacityLimiter(1)
    with trio.move_on_after(WORK_S) as patience:
        store = await run(partial(open_store, settings), thread)
    if patience.cancelled_caught:
        raise _unusable(settings, f"the disk gave no answer in {WORK_S:.0f} s")
    records = Records(store, Keeps(settings.record_audio, settings.record_text), run, thread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(records.run, name="write records")
        nursery.start_soon(records.sweep, name="sweep records")
        try:
            yield records
        finally:
            await records.leave()
            nursery.cancel_scope.cancel()


def open_store(settings: Settings) -> Store:
    """Open what VOICECORE_RECORD_DIR names.  Blocks.

    Raises:
        SettingsError: it cannot be used.
    """
    assert settings.record_dir is not None
    limits = Limits(settings.record_days, round(settings.record_gb * 1e9))
    try:
        return Store(settings.record_dir, limits, with_text=settings.record_text)
    except (OSError, sqlite3.Error) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise _unusable(settings, why or str(error)) from None


def _unusable(settings: Settings, why: str) -> SettingsError:
    got = f"{variable_name('record_dir')}: got {str(settings.record_dir)!r}"
    return SettingsError(f"{got}; takes a directory that can be written: {why}")


def check_directory(settings: Settings) -> None:
    """Try whether records can be written, if the settings ask for any.  Blocks.

    Raises:
        SettingsError: VOICECORE_RECORD_DIR cannot be used.
    """
    if settings.record_dir is not None:
        open_store(settings).close()
