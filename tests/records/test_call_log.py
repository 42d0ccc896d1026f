"""The log of calls: several writers, and callbacks in any order."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from records_house import SID, directories, only, rows, timeline, virtual_records
from trio.testing import MockClock

from voicecore.records.database import Database, Status
from voicecore.records.query import Which, open_log
from voicecore.records.records import Records

ROOT = Path(__file__).parents[2]

WRITER = """
import sys, trio
sys.path[:0] = [{here!r}]
from pathlib import Path
from records_house import settings
from voicecore.records.records import open_records

async def main():
    async with open_records(settings(Path({directory!r}))) as records:
        for n in range(30):
            record = records.begin(f"CA-{name}-{{n}}")
            record.received(b"\\x10" * 160, n * 20)
            record.observe("", "user said", 0, {{"turn": "t1", "text": "hello"}})
            record.observe("", "call ended", 0, {{"reason": "agent"}})
            await record.close()

trio.run(main)
"""


def test_three_processes_open_and_write_one_log(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER.format(
                here=str(Path(__file__).parent), directory=str(tmp_path), name=name)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
        )
        for name in "abc"
    ]  # fmt: skip
    for writer in writers:
        assert writer.communicate(timeout=60) == (None, "")
    with open_log(tmp_path) as log:
        calls = log.calls(Which())
        assert len(calls) == len(log.turns(Which())) == len(directories(tmp_path)) == 90
    assert {call["ended_by"] for call in calls} == {"agent"}


def call_status(status: str, sequence: int, **more: Any) -> Status:
    return Status(SID, "call", status, sequence, **more)


STATUSES = [
    call_status("initiated", 0),
    call_status("ringing", 1),
    call_status("in-progress", 2),
    call_status("completed", 3, seconds=41, sip_code=200),
    Status(SID, "stream", "stream-error", error="31920 handshake"),
]


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (3, 4, 1, 0, 2), (4, 3, 2, 1, 0, 3, 0)])
@pytest.mark.parametrize("when", ["before", "during", "after"])
async def test_callbacks_come_in_any_order_and_at_any_time(
    order: tuple[int, ...], when: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    async def tell(records: Records) -> None:
        for n in order:
            await records.note_status(STATUSES[n])

    async with virtual_records(tmp_path) as ours, virtual_records(tmp_path) as theirs:
        if when == "before":
            await tell(theirs)
        record = ours.begin(SID)
        record.observe(SID, "stream started", 0, {})
        await ours._write()
        if when == "during":
            await tell(theirs)
        record.observe(SID, "call ended", 0, {"reason": "caller"})
        await record.close()
        if when == "after":
            await tell(theirs)
    (row,) = rows(tmp_path)
    assert (row["status"], row["carrier_seconds"], row["sip_code"]) == ("completed", 41, 200)
    assert row["stream_error"] == "31920 handshake"
    assert row["ended_by"] == "caller"
    callbacks = timeline(only(tmp_path))["callbacks"]
    assert [callback["status"] for callback in callbacks] == [
        "initiated", "ringing", "in-progress", "completed", "stream-error",
    ]  # fmt: skip
    assert [m["event"] for m in timeline(only(tmp_path))["milestones"]] == [
        "stream started", "call ended",
    ]  # fmt: skip


async def test_a_recorded_call_that_nobody_ends_is_ended_by_the_carrier(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with virtual_records(tmp_path) as records:
        record = records.begin(SID, flow="recording")
        record.observe(SID, "user said", 0, {"turn": "t1", "text": "hello"})
        await record.close()
        assert rows(tmp_path)[0]["ended_by"] is None
        await records.note_status(call_status("completed", 1, seconds=12))
    (row,) = rows(tmp_path)
    assert (row["ended_by"], row["status"]) == ("caller", "completed")


async def test_strangers_callbacks_do_not_fill_the_disk(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    with closing(Database(tmp_path)) as database, database.transaction():
        for n in range(1500):
            database.note_status(Status(f"x{n}", "call", "ringing"))
        for n in range(100):
            database.note_status(Status("x1", "call", "ringing", n))
        assert len(database.statuses("x1")) == 1
        assert database.statuses("x999")
        assert not database.statuses("x1001")
        database.forget_statuses(timedelta(0))
        assert not database.statuses("x1")
