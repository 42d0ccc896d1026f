"""Rendered speech in files: one an entry, shared by any number of processes without a lock.

* A file appears under its name whole: it is written under another name, then renamed, at once.
* A file is believed only if its header fits its name, its length and its checksum.  What was torn
  by a power cut or put there by somebody else is removed when it is met, and never played; so
  nothing needs to be flushed to the platter.
* Oldest used go first; a file's time of use is its modification time.  Everybody may trim at any
  time: a file that is gone is a file that somebody else has trimmed.

All of this blocks, and belongs into threads; `cache_disk` stands between it and the event loop.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ..audio import SAMPLE_RATE

logger = logging.getLogger(__name__)

MAX_SPEECH_BYTES = 60 * SAMPLE_RATE
"""A minute.  What is longer is no sentence, and will not be said again."""

FORMAT = 1
"""To be raised whenever the same key would mean other audio: older files are then not believed."""

BLOCK_BYTES = 4096
"""Files take whole blocks of a disk."""

STALE_S = 600.0
"""An unfinished file this much older than the newest has lost its writer."""

SCAN_FILES, SCAN_PAUSE_S = 50, 0.001
"""Who looks through thousands of files lets the event loop have Python to itself now and then: the
loop then wakes 1.5 ms late (95 of 100 times, 20,000 files) instead of 6 to 10."""

_HEADER = struct.Struct(">8sHII32s16s")
"""Magic, format, milliseconds to the first audio, length, the key's digest, checksum of it all."""
_MAGIC = b"vcspeech"
_MAX_FILE_BYTES = _HEADER.size + MAX_SPEECH_BYTES
_CHECKSUM_BYTES = 16
_SUFFIX, _PART = ".speech", ".part"
_OURS = re.compile(rf"[0-9a-f]{{64}}\{_SUFFIX}|speech-\w+\{_PART}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Speech, 8 kHz mu-law, and the seconds that its first audio took when it was rendered."""

    audio: bytes
    first_s: float


def pack(digest: bytes, speech: Rendered) -> bytes:
    """Return the contents of a key's file."""
    first_ms = min(round(speech.first_s * 1000), 0xFFFFFFFF)
    fields = (_MAGIC, FORMAT, first_ms, len(speech.audio), digest)
    return _HEADER.pack(*fields, _checksum(fields, speech.audio)) + speech.audio


def unpack(digest: bytes, data: bytes) -> Rendered | None:
    """Return the speech in a key's file, or ``None`` if this is no such file, or not whole."""
    if len(data) <= _HEADER.size:
        return None
    *fields, checksum = _HEADER.unpack_from(data)
    magic, version, first_ms, length, key = fields
    audio = data[_HEADER.size :]
    if (magic, version, length, key) != (_MAGIC, FORMAT, len(audio), digest):
        return None
    if checksum != _checksum(tuple(fields), audio):
        return None
    return Rendered(audio, first_ms / 1000)


def _checksum(fields: tuple[object, ...], audio: bytes) -> bytes:
    head = _HEADER.pack(*fields, bytes(_CHECKSUM_BYTES))
    return blake2b(head + audio, digest_size=_CHECKSUM_BYTES).digest()


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    used: float
    size: int

    @property
    def digest(self) -> bytes:
        return b"" if self.name.endswith(_PART) else bytes.fromhex(self.name[: -len(_SUFFIX)])


class SpeechFiles:
    """A directory of speech, at most `limit_bytes` on disk.  Blocks: for threads.

    One process keeps to the limit; several may pass it by a sixteenth each until one of them looks.
    """

    def __init__(self, directory: Path, limit_bytes: int) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._written = 0

    def __repr__(self) -> str:
        return f"<SpeechFiles {str(self._directory)!r}>"

    def prepare(self) -> None:
        """Make the directory, if there is none, for our eyes only; try to write into it.

        Raises:
            OSError: it cannot be used.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file, name = self._unfinished()
        os.close(file)
        os.unlink(name)
        if self._directory.stat().st_mode & stat.S_IWOTH:
            logger.warning(
                "speech cache: anybody on this machine may write into %s, and so speak to callers",
                self._directory,
            )

    def read(self, digest: bytes) -> Rendered | None:
        """Return the speech of a key, and count it as used.  What is damaged is removed.

        Raises:
            OSError: the disk fails.
        """
        path = self._path(digest)
        try:
            data = _contents(path)
        except FileNotFoundError:
            return None
        speech = None if data is None else unpack(digest, data)
        with suppress(OSError):  # gone meanwhile, or a disk that only reads
            if speech is None:
                os.unlink(path)
            else:
                os.utime(path, follow_symlinks=False)
        return speech

    def keep(self, digest: bytes, speech: Rendered) -> None:
        """Write the speech of a key; if it is there already, count it as used.  Trim when due.

        Raises:
            OSError: the disk fails, or is full.
        """
        size = _on_disk(_HEADER.size + len(speech.audio))
        if size > self._limit // 16:
            return
        path = self._path(digest)
        try:
            os.utime(path, follow_symlinks=False)
        except FileNotFoundError:
            self._write(path, pack(digest, speech))
            self._written += size
            if self._written > self._limit // 16:
                self.trim()

    def trim(self) -> None:
        """Remove what its writer has left unfinished, and above 7/8 of the limit the oldest used.

        Raises:
            OSError: the disk fails.
        """
        self._written = 0
        files = list(self._files())
        # The newest file tells the disk's own time, which need not be ours.
        newest = max((file.used for file in files), default=0.0)
        total = sum(file.size for file in files)
        for file in files:
            if not file.digest and newest - file.used > STALE_S:
                self._remove(file)
                total -= file.size
        if total > self._limit * 7 // 8:
            files.sort(key=lambda file: file.used)
            for file in files:
                if total <= self._limit * 3 // 4:
                    break
                self._remove(file)
                total -= file.size

    def _remove(self, file: _File) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._directory / file.name)

    def _path(self, digest: bytes) -> Path:
        return self._directory / (digest.hex() + _SUFFIX)

    def _unfinished(self) -> tuple[int, str]:
        """Open a new file that only its owner may read; return its descriptor and its path."""
        return tempfile.mkstemp(prefix="speech-", suffix=_PART, dir=self._directory)

    def _write(self, path: Path, data: bytes) -> None:
        file, unfinished = self._unfinished()
        try:
            with open(file, "wb") as stream:
                stream.write(data)
            with suppress(FileNotFoundError):  # somebody took us for dead
                os.replace(unfinished, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)

    def _files(self) -> Iterator[_File]:
        """Our files in the directory; all others are not our business."""
        with os.scandir(self._directory) as entries:
            for number, entry in enumerate(entries, 1):
                if number % SCAN_FILES == 0:
                    time.sleep(SCAN_PAUSE_S)
                if _OURS.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield _File(entry.name, status.st_mtime, _on_disk(status.st_size))


def _on_disk(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _contents(path: Path) -> bytes | None:
    """Return what is in a file, or so much of it that it is too much; ``None`` if it is none.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: the disk fails.
    """
    try:
        # Not through a link, and without waiting for the other end of a pipe.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(file, "rb", closefd=False) as stream:
            return stream.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(file)
