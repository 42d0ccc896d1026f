"""The speech cache's disk beside the event loop: whatever it does, nobody waits for it for long.

Where threads work, the clock is virtual and stands still: no deadline passes unless a test lets it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voicecore.errors import SettingsError
from voicecore.providers import cache_files
from voicecore.providers.cache import SpeechCache, open_cache, trial
from voicecore.providers.cache_disk import FLUSH_S, QUEUE, READ_S, REST_S, SpeechDisk
from voicecore.providers.cache_files import Rendered, SpeechFiles
from voicecore.settings import Settings

from .test_cache_files import KEY, MB, SPEECH, digest, files, key, path_of, stored


def settings(directory: Path, **values: Any) -> Settings:
    return Settings(_env_file=None, cache_dir=directory, **values)


# Beside the event loop


@asynccontextmanager
async def running(directory: Path, limit_bytes: int = MB) -> AsyncIterator[SpeechCache]:
    cache = SpeechCache(limit_bytes, directory)
    assert cache.disk is not None
    await cache.disk.prepare()
    async with cache.disk.running():
        yield cache


async def written(cache: SpeechCache, path: Path) -> None:
    """Wait until a file is there and the disk has nothing to do."""
    assert cache.disk is not None
    there = path.exists
    while not there() or cache.disk._writers.borrowed_tokens:
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()


async def test_after_a_restart_it_is_all_there(tmp_path: Path, mock_clock: MockClock) -> None:
    async with open_cache(settings(tmp_path)) as cache:
        cache.put(KEY, b"x" * 24_000, 0.25)
    async with open_cache(settings(tmp_path)) as cache:
        assert len(cache) == 0
        for _ in range(3):
            assert await cache.get(KEY) == b"x" * 24_000
        assert await cache.get(key("never said")) is None
        statistics = cache.statistics()
    assert (statistics.hits, statistics.disk_hits, statistics.misses) == (3, 1, 1)
    assert statistics.saved_s == 0.75
    assert statistics.entries == 1


async def test_what_one_has_said_another_knows_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with running(tmp_path) as one, running(tmp_path) as other:
        assert await other.get(KEY) is None
        one.put(KEY, b"x" * 800, 0.25)
        while not path_of(tmp_path).exists():
            await trio.lowlevel.checkpoint()
        assert await other.get(KEY) == b"x" * 800


async def test_a_bad_file_is_a_miss(tmp_path: Path, mock_clock: MockClock) -> None:
    path_of(tmp_path).write_bytes(b"RIFF....WAVE")
    async with running(tmp_path) as cache:
        assert await cache.get(KEY) is None
        assert not path_of(tmp_path).exists()


async def test_what_is_too_long_for_today_is_played_and_not_kept_in_memory(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    files(tmp_path).keep(KEY.digest, Rendered(bytes(100_000), 0.1))
    async with running(tmp_path, 80_000) as cache:
        cache.put(key("short"), b"x" * 800, 0.1)
        assert await cache.get(KEY) == bytes(100_000)
        assert cache.statistics().entries == 1
        assert cache.statistics().evictions == 0


async def test_many_who_read_the_same_at_once_hold_it_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    files(tmp_path).keep(KEY.digest, SPEECH)
    heard: list[bytes | None] = []

    async with running(tmp_path) as cache:

        async def listen() -> None:
            heard.append(await cache.get(KEY))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(listen)
        assert heard == [SPEECH.audio] * 10
        assert cache.statistics().entries == 1
        assert cache.statistics().bytes == len(SPEECH.audio) + 512


async def test_what_is_used_from_memory_stays_young_on_disk(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async with running(tmp_path) as cache:
        cache.put(KEY, b"x" * 800, 0.1)
        await written(cache, path_of(tmp_path))
        now = path_of(tmp_path).stat().st_mtime
        os.utime(path_of(tmp_path), (0, 0))
        mock_clock.jump(3000)
        assert await cache.get(KEY)
        mock_clock.jump(700)
        assert await cache.get(KEY)
    assert path_of(tmp_path).stat().st_mtime >= now


async def test_what_is_cancelled_is_written_still(tmp_path: Path, mock_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with running(tmp_path) as cache:
            for number in range(20):
                cache.put(key(str(number)), b"x" * 800, 0.1)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert stored(tmp_path) == 20


async def test_what_fails_around_it_is_raised_and_the_rest_written(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    async def fail() -> None:
        async with running(tmp_path) as cache:
            cache.put(KEY, b"x" * 800, 0.1)
            raise KeyError

    with pytest.raises(ExceptionGroup) as raised:
        await fail()
    assert raised.group_contains(KeyError, depth=1)
    assert path_of(tmp_path).exists()


class HeldFiles(SpeechFiles):
    """A disk that gives no answer until it is let go."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 64 * MB)
        self.let_go = threading.Event()
        self.asked = 0

    def read(self, digest: bytes) -> Rendered | None:
        self.asked += 1
        assert self.let_go.wait(30)
        return super().read(digest)

    def keep(self, digest: bytes, speech: Rendered) -> None:
        self.asked += 1
        assert self.let_go.wait(30)
        super().keep(digest, speech)


async def passes(clock: MockClock, seconds: float) -> None:
    """Let time pass once everybody waits, for the disk too."""
    await wait_all_tasks_blocked(0.01)
    clock.jump(seconds)
    await wait_all_tasks_blocked(0.01)


async def test_a_hung_disk_is_waited_for_once_in_a_while(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    held = HeldFiles(tmp_path)
    files(tmp_path).keep(KEY.digest, SPEECH)
    disk = SpeechDisk(held)
    answers: list[Rendered | None] = []

    async def read() -> None:
        answers.append(await disk.read(KEY.digest))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        while not held.asked:
            await trio.lowlevel.checkpoint()
        await passes(mock_clock, READ_S - 0.01)
        assert answers == []
        await passes(mock_clock, 0.02)
        assert answers == [None]
        for _ in range(10):
            await read()
        assert held.asked == 1
        held.let_go.set()
        mock_clock.jump(REST_S)
        await read()
    assert answers == [None] * 11 + [SPEECH]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "speech cache: cannot read: no answer within 100 ms; goes on in memory"
    ]


async def test_a_late_event_loop_is_no_slow_disk(tmp_path: Path, mock_clock: MockClock) -> None:
    made = files(tmp_path)
    made.keep(KEY.digest, SPEECH)
    begun, may_read, read = threading.Event(), threading.Event(), threading.Event()

    class Told(SpeechDisk):
        def _read_into(self, found: list[Rendered | None], digest: bytes) -> None:
            begun.set()
            assert may_read.wait(30)
            super()._read_into(found, digest)
            read.set()

    disk = Told(made)
    answers: list[Rendered | None] = []

    async def ask() -> None:
        answers.append(await disk.read(KEY.digest))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        while not begun.is_set():
            await trio.lowlevel.checkpoint()
        may_read.set()
        assert read.wait(30)  # which blocks the event loop
        mock_clock.jump(2 * READ_S)
    assert answers == [SPEECH]


async def test_a_slow_disk_drops_what_it_cannot_take(tmp_path: Path, mock_clock: MockClock) -> None:
    held = HeldFiles(tmp_path)
    disk = SpeechDisk(held)
    async with disk.running():
        disk.keep(digest(0), Rendered(b"x", 0.1))
        while not held.asked:
            await trio.lowlevel.checkpoint()
        for number in range(1, 2 * QUEUE):
            disk.keep(digest(number), Rendered(b"x", 0.1))
        assert disk.drops == QUEUE - 1
        held.let_go.set()
    assert stored(tmp_path) == 1 + QUEUE


async def test_what_waits_for_the_disk_is_bounded_in_bytes(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    held = HeldFiles(tmp_path)
    disk = SpeechDisk(held)
    async with disk.running():
        for number in range(40):
            disk.keep(digest(number), Rendered(bytes(400_000), 0.1))
        assert disk.drops == 30
        held.let_go.set()
        while stored(tmp_path) < 10:
            await trio.lowlevel.checkpoint()
        for number in range(40, 60):
            disk.keep(digest(number), Rendered(bytes(400_000), 0.1))
            while not path_of(tmp_path, digest(number)).exists() and disk.drops == 30:
                await trio.lowlevel.checkpoint()
        assert disk.drops == 30
    assert stored(tmp_path) == 30


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_hung_disk_does_not_keep_the_server_from_ending(
    tmp_path: Path, mock_clock: MockClock, is_cancelled: bool
) -> None:
    held = HeldFiles(tmp_path)
    disk = SpeechDisk(held)
    over = trio.Event()

    async def use() -> None:
        with trio.CancelScope() as scope:
            async with disk.running():
                disk.keep(KEY.digest, SPEECH)
                while not held.asked:
                    await trio.lowlevel.checkpoint()
                if is_cancelled:
                    scope.cancel()
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        while not held.asked:
            await trio.lowlevel.checkpoint()
        await passes(mock_clock, FLUSH_S - 0.1)
        assert not over.is_set()
        await passes(mock_clock, 0.2)
        assert over.is_set()
    held.let_go.set()


async def test_a_directory_that_vanishes_is_one_warning_until_it_is_back(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    directory = tmp_path / "speech"
    async with running(directory) as cache:
        assert cache.disk is not None

        async def put(number: int) -> None:
            drops = cache.statistics().disk_drops
            cache.put(key(str(number)), b"x" * 800, 0.1)
            there = path_of(directory, digest(number)).exists
            while not there() and cache.statistics().disk_drops == drops:
                await trio.lowlevel.checkpoint()
            if there():
                await written(cache, path_of(directory, digest(number)))

        await put(0)
        path_of(directory, digest(0)).unlink()
        directory.rmdir()
        for number in range(1, 5):
            await put(number)
            mock_clock.jump(REST_S)
        directory.mkdir()
        await put(5)
        assert [await cache.get(key(str(number))) for number in range(6)] == [b"x" * 800] * 6
        assert cache.statistics().disk_drops == 4
    assert [record.getMessage() for record in caplog.records] == [
        "speech cache: cannot write: No such file or directory; goes on in memory",
        "speech cache: cannot write: works again",
    ]


# At start


@pytest.mark.parametrize("bad", ["a file", "below a file"])
async def test_an_unusable_directory_is_the_operators_mistake(
    tmp_path: Path, bad: str, mock_clock: MockClock
) -> None:
    (tmp_path / "file").write_text("")
    given = settings(tmp_path / "file" if bad == "a file" else tmp_path / "file" / "speech")
    with pytest.raises(SettingsError) as refused:
        async with open_cache(given):
            pass
    [line] = trial(given)
    for complaint in (line, str(refused.value)):
        assert complaint.startswith(f"VOICECORE_CACHE_DIR: got {str(given.cache_dir)!r}; ")
        assert "\n" not in complaint


async def test_a_disk_that_is_full_at_start_keeps_nobody_from_calling(
    tmp_path: Path,
    mock_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(**where: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_files.tempfile, "mkstemp", full)
    async with open_cache(settings(tmp_path)) as cache:
        cache.put(KEY, b"x" * 800, 0.1)
        assert await cache.get(KEY) == b"x" * 800
    assert caplog.text.count("No space left on device; goes on in memory") == 1


async def test_trying_makes_nothing_and_home_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trial(settings(Path("~/speech"))) == []
    assert os.listdir(tmp_path) == []
    async with open_cache(settings(Path("~/speech"))):
        assert os.listdir(tmp_path) == ["speech"]


async def test_without_a_cache_there_is_no_directory(tmp_path: Path) -> None:
    directory = tmp_path / "speech"
    async with open_cache(settings(directory, cache_mb=0)) as cache:
        cache.put(KEY, b"x" * 800, 0.1)
        assert await cache.get(KEY) is None
    assert not directory.exists()
    directory.write_text("")
    assert trial(settings(directory)) != []
    assert trial(settings(directory, cache_mb=0)) == []
