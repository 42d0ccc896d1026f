"""What is deleted, and what is not."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import trio
from records_house import SID, add_calls, directories, inline, settings, virtual_records
from trio.testing import MockClock

from voicecore.records import owners
from voicecore.records.database import Database
from voicecore.records.query import Which, open_log
from voicecore.records.records import open_records
from voicecore.records.retention import MOST_DELETED, Limits, sweep


def aged(directory: Path, count: int, size: int = 0) -> list[str]:
    """Make calls with directories, an hour apart; return their names, the oldest first."""
    add_calls(directory, count, bytes=size)
    with open_log(directory) as log:
        names = [call["directory"] for call in reversed(log.calls(Which()))]
    for name in names:
        (directory / name).mkdir()
        (directory / name / "audio.wav").write_bytes(b"x")
    return names


def swept(directory: Path, **limits: Any) -> bool:
    with closing(Database(directory)) as database:
        return sweep(directory, database, Limits(**limits))


def left(directory: Path) -> list[str]:
    names = [path.name for path in directories(directory)]
    with open_log(directory) as log:
        assert sorted(call["directory"] for call in log.calls(Which())) == names
        assert {turn["sid"] for turn in log.turns(Which())} == {
            call["sid"] for call in log.calls(Which())
        }
    return names


def test_old_calls_are_deleted_and_young_ones_are_not(tmp_path: Path) -> None:
    names = aged(tmp_path, 48)
    assert not swept(tmp_path)
    assert left(tmp_path) == names
    assert not swept(tmp_path, days=1)
    assert left(tmp_path) == names[24:]


def test_of_too_much_the_oldest_is_deleted(tmp_path: Path) -> None:
    names = aged(tmp_path, 10, size=1_000_000)
    assert not swept(tmp_path, total_bytes=4_500_000)
    assert left(tmp_path) == names[6:]


def test_one_sweep_deletes_so_much_and_the_next_the_rest(tmp_path: Path) -> None:
    names = aged(tmp_path, MOST_DELETED + 30)
    assert swept(tmp_path, days=10 / 24)
    assert left(tmp_path) == names[MOST_DELETED:]
    assert not swept(tmp_path, days=10 / 24)
    assert left(tmp_path) == names[-10:]


def words_left(directory: Path) -> list[str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return [path.name for path in paths if b"+1555000" in path.read_bytes()]


def test_of_what_is_deleted_no_byte_can_be_read(tmp_path: Path) -> None:
    with closing(Database(tmp_path)) as database:
        aged(tmp_path, 20)
        assert "calls.sqlite3-wal" in words_left(tmp_path)
        with open_log(tmp_path) as log:
            rows = iter(log._sql.execute("SELECT * FROM calls"))
            next(rows)  # somebody reads, and is not disturbed
            assert not sweep(tmp_path, database, Limits(days=0.001))
            assert len(list(rows)) == 19
        assert not sweep(tmp_path, database, Limits(days=0.001))
        assert words_left(tmp_path) == []


async def test_a_call_that_is_up_is_never_deleted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with virtual_records(tmp_path) as records:
        record = records.begin(SID)
        record.received(b"\x10" * 160, None)
        await records._write()
        assert not swept(tmp_path, days=1e-9, total_bytes=1)
        assert len(directories(tmp_path)) == 1
        record.observe(SID, "call ended", 0, {"reason": "caller"})
        await record.close()
        assert not swept(tmp_path, total_bytes=1)
    assert not directories(tmp_path)


def test_only_what_is_ours_is_deleted(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    names = aged(records, 3)
    (records / "mine").mkdir()
    (records / "20200101T000000Z-orphan").mkdir()
    (records / "20200101T000000Z-link").symlink_to(outside)
    shutil.rmtree(records / names[1])
    (records / names[1]).symlink_to(outside)
    with closing(Database(records)) as database, database.transaction():
        database._sql.execute("UPDATE calls SET directory = '../outside' WHERE sid LIKE '%0'")
    swept(records, days=1e-9)
    assert (outside / "precious").exists()
    assert (records / "mine").exists()
    assert not (records / "20200101T000000Z-orphan").exists()
    assert not (records / names[2]).exists()


def test_owners_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    ours = owners.Owner(tmp_path)
    dead = tmp_path / owners.FOLDER / ("0" * 16)
    dead.touch()
    assert owners.is_alive(tmp_path, ours.name)
    assert not owners.is_alive(tmp_path, dead.name)
    assert not owners.is_alive(tmp_path, "../../etc/passwd")
    owners.forget_dead(tmp_path)
    assert not dead.exists()
    assert owners.is_alive(tmp_path, ours.name)
    ours.close()
    assert not owners.is_alive(tmp_path, ours.name)


async def test_the_server_sweeps_at_start_and_then_now_and_then(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    names = aged(tmp_path, MOST_DELETED + 30)
    async with open_records(settings(tmp_path, record_days=10 / 24), inline):
        await trio.sleep(60)
        assert left(tmp_path) == names[-10:]
