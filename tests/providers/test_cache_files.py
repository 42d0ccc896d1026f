"""Speech in files: what is believed, what is removed, and how several processes share them."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from voicecore.providers import cache_files
from voicecore.providers.cache import SpeechKey
from voicecore.providers.cache_files import (
    BLOCK_BYTES,
    MAX_SPEECH_BYTES,
    STALE_S,
    Rendered,
    SpeechFiles,
    pack,
    unpack,
)

MB = 1 << 20
KEY = SpeechKey("acme", "m1", "ann", "en-US", "Good day.")
SPEECH = Rendered(bytes(range(256)) * 2, 0.375)


def key(text: str) -> SpeechKey:
    return SpeechKey("acme", "m1", "ann", "en-US", text)


def digest(number: int) -> bytes:
    return key(str(number)).digest


def files(directory: Path, limit_bytes: int = 64 * MB) -> SpeechFiles:
    made = SpeechFiles(directory, limit_bytes)
    made.prepare()
    return made


def path_of(directory: Path, digest: bytes = KEY.digest) -> Path:
    return directory / f"{digest.hex()}.speech"


def stored(directory: Path) -> int:
    """How many entries lie in a directory."""
    return len(list(directory.glob("*.speech")))


def taken(directory: Path) -> int:
    """Bytes that the directory's files take, in whole blocks."""
    return sum(-(-file.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES for file in directory.iterdir())


# The format


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(KEY.digest, pack(KEY.digest, SPEECH)) == SPEECH
    assert unpack(KEY.digest, pack(KEY.digest, Rendered(b"x", 1e9))) is not None


def test_torn_at_any_length_it_is_not_believed() -> None:
    data = pack(KEY.digest, SPEECH)
    assert [n for n in range(len(data)) if unpack(KEY.digest, data[:n]) is not None] == []
    assert unpack(KEY.digest, data + b"\xff") is None
    assert unpack(KEY.digest, data + data) is None


def test_blocks_that_never_reached_the_disk_are_not_believed() -> None:
    data = pack(KEY.digest, SPEECH)
    for start in range(len(data)):
        assert unpack(KEY.digest, data[:start] + bytes(len(data) - start)) is None


def test_one_bad_bit_anywhere_is_not_believed() -> None:
    data = pack(KEY.digest, SPEECH)
    for position in range(len(data)):
        bad = bytearray(data)
        bad[position] ^= 1 << position % 8
        assert unpack(KEY.digest, bytes(bad)) is None


def test_another_keys_and_another_formats_speech_are_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = pack(KEY.digest, SPEECH)
    assert unpack(digest(1), data) is None
    monkeypatch.setattr(cache_files, "FORMAT", cache_files.FORMAT + 1)
    assert unpack(KEY.digest, data) is None


# Files


def test_a_torn_file_is_removed_and_then_written_anew(tmp_path: Path) -> None:
    made, data = files(tmp_path), pack(KEY.digest, SPEECH)
    for length in range(len(data)):
        path_of(tmp_path).write_bytes(data[:length])
        assert made.read(KEY.digest) is None
        assert list(tmp_path.iterdir()) == []
    made.keep(KEY.digest, SPEECH)
    assert made.read(KEY.digest) == SPEECH


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_link(path: Path) -> None:
    other = path.with_name("elsewhere")
    other.write_bytes(pack(KEY.digest, SPEECH))
    path.symlink_to(other)


def _make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def _make_long(path: Path) -> None:
    path.write_bytes(pack(KEY.digest, Rendered(bytes(MAX_SPEECH_BYTES), 0.1)) + b"x")


@pytest.mark.parametrize("make", [_make_pipe, _make_link, _make_socket, _make_long, Path.mkdir])
def test_what_is_no_file_of_ours_is_not_waited_for_and_not_played(
    tmp_path: Path, make: Any
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    made = files(tmp_path)
    make(path_of(tmp_path))
    for _ in range(3):
        assert made.read(KEY.digest) is None
    assert len(os.listdir("/proc/self/fd")) == before
    if make is not Path.mkdir:
        assert not os.path.lexists(path_of(tmp_path))
        made.keep(KEY.digest, SPEECH)
        assert made.read(KEY.digest) == SPEECH


def test_what_it_makes_is_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "speech" / "cache"
    files(directory).keep(KEY.digest, SPEECH)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path_of(directory).stat().st_mode) == 0o600
    assert list(directory.iterdir()) == [path_of(directory)]


def test_a_directory_for_everybody_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o777)
    files(tmp_path)
    assert "anybody on this machine may write" in caplog.text


def fill(made: SpeechFiles, directory: Path, numbers: range, size: int) -> None:
    """Keep so many, each used a minute after the one before."""
    for number in numbers:
        made.keep(digest(number), Rendered(bytes(size), 0.1))
        if path_of(directory, digest(number)).exists():
            os.utime(path_of(directory, digest(number)), (60 * number, 60 * number))


def test_the_oldest_used_go_first(tmp_path: Path) -> None:
    made = files(tmp_path, 64 * BLOCK_BYTES)
    fill(made, tmp_path, range(59), 1000)
    for number in (0, 7):
        assert made.read(digest(number)) is not None
    made.keep(digest(3), Rendered(b"x", 0.1))
    made.trim()
    kept = {number for number in range(59) if path_of(tmp_path, digest(number)).exists()}
    assert {0, 3, 7} <= kept
    assert kept - {0, 3, 7} == set(range(59 - len(kept) + 3, 59))
    assert len(kept) == 64 * 3 // 4


def test_one_process_keeps_to_the_limit(tmp_path: Path) -> None:
    limit, chance = 64 * BLOCK_BYTES, random.Random(7)
    made = files(tmp_path, limit)
    most = 0
    for number in range(400):
        speech = Rendered(bytes(chance.randrange(1, 20_000)), 0.1)
        made.keep(digest(number), speech)
        most = max(most, taken(tmp_path))
        is_kept = made.read(digest(number)) == speech
        assert is_kept == (len(pack(KEY.digest, speech)) <= limit // 16)
    assert limit * 3 // 4 < most <= limit


def test_other_files_are_not_its_business(tmp_path: Path) -> None:
    made = files(tmp_path, 64 * BLOCK_BYTES)
    names = ["README", "a.speech", "0" * 64, "0" * 64 + ".speech.bak", "other.part"]
    for name in names:
        (tmp_path / name).write_bytes(bytes(100 * BLOCK_BYTES))
        os.utime(tmp_path / name, (0, 0))
    path_of(tmp_path, digest(1)).mkdir()
    made.keep(KEY.digest, SPEECH)
    made.trim()
    assert {path.name for path in tmp_path.iterdir()} == {
        *names,
        path_of(tmp_path).name,
        path_of(tmp_path, digest(1)).name,
    }


def test_what_a_dead_writer_has_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    made = files(tmp_path)
    made.keep(KEY.digest, SPEECH)
    now = path_of(tmp_path).stat().st_mtime
    for name, age in (("speech-dead.part", STALE_S + 1), ("speech-alive.part", STALE_S - 1)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (now - age, now - age))
    made.trim()
    assert {path.name for path in tmp_path.iterdir()} == {
        path_of(tmp_path).name,
        "speech-alive.part",
    }


def test_a_file_that_another_has_trimmed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = files(tmp_path, 64 * BLOCK_BYTES)
    fill(made, tmp_path, range(59), 1000)
    real_files, real_replace = made._files, os.replace

    def gone_at_once() -> Iterator[Any]:
        for file in list(real_files()):
            (tmp_path / file.name).unlink()
            yield file

    monkeypatch.setattr(made, "_files", gone_at_once)
    made.trim()
    assert list(tmp_path.iterdir()) == []

    def trimmed_before(source: str, target: Path) -> None:
        os.unlink(source)
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", trimmed_before)
    made.keep(KEY.digest, SPEECH)
    assert list(tmp_path.iterdir()) == []


# Processes


PROGRAM = """
import json, random, resource, sys, trio
from pathlib import Path
from voicecore.errors import SettingsError
from voicecore.providers.cache import SpeechCache, SpeechKey
from voicecore.providers.cache_files import Rendered, SpeechFiles

what, directory, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def key(number):
    return SpeechKey("acme", "m1", "ann", "en-US", str(number))

def audio(number):
    return random.Random(number).randbytes(500 + number * 97 % 5000)

def share():
    files, chance = SpeechFiles(directory, 64 * 4096), random.Random(seed)
    files.prepare()
    wrong = found = 0
    for _ in range(800):
        number = chance.randrange(80)
        speech = files.read(key(number).digest)
        if speech is None:
            files.keep(key(number).digest, Rendered(audio(number), 0.1))
        else:
            found += 1
            wrong += speech.audio != audio(number)
    return {"wrong": wrong, "found": found}

async def fill_up():
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    cache = SpeechCache(1 << 20, directory)
    await cache.disk.prepare()
    async with cache.disk.running():
        for number in range(50):
            cache.put(key(number), bytes(24_000), 0.1)
    hits = [number for number in range(50) if await cache.get(key(number))]
    left = [path.name for path in directory.iterdir()]
    return {"hits": len(hits), "left": left, "drops": cache.disk.drops}

print(json.dumps(share() if what == "share" else trio.run(fill_up)))
"""


@contextmanager
def program(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_share_a_directory(tmp_path: Path) -> None:
    directory = tmp_path / "speech"
    with program("share", directory, 1) as one, program("share", directory, 2) as other:
        for process in (one, other):
            said, complained = process.communicate(timeout=60)
            assert (process.returncode, complained) == (0, "")
            answer = json.loads(said)
            assert answer["wrong"] == 0
            assert answer["found"] > 100
    assert taken(directory) <= 64 * BLOCK_BYTES * (1 + 1 / 16)
    assert not list(directory.glob("*.part"))


def test_a_full_disk_is_one_warning_and_memory_goes_on(tmp_path: Path) -> None:
    with program("full", tmp_path, 0) as process:
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 0
    assert complained == "speech cache: cannot write: File too large; goes on in memory\n"
    answer = json.loads(said)
    assert answer["left"] == []
    assert answer["hits"] == (1 << 20) // (24_000 + 512)
    assert answer["drops"] == 50
