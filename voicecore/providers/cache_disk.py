"""The speech cache's disk, as seen from the event loop: never waited for long, and never missed.

* Reads have a deadline that is shorter than a TTS; writes wait in a bounded queue.
* A disk that fails or is too slow is left alone for a while, with one warning until it works again.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from .cache_files import Rendered, SpeechFiles

logger = logging.getLogger(__name__)

READ_S = 0.1
"""How long a caller waits for the disk: about as long as for a quick vendor's first audio."""

WORK_S = 30.0
"""How long the writer waits for the disk."""

REST_S = 60.0
"""A disk that failed or was too slow is left alone for so long."""

FLUSH_S = 2.0
"""How long a cache that is closed waits for the disk to take the rest."""

QUEUE, QUEUE_BYTES = 256, 4 << 20
"""What waits to be written, at most; when full, the newest is not written, and counted."""

READERS = 4

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class _Patience:
    """Who fails is left alone for a while; there is one warning until it works again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failed_at: float | None = None

    @property
    def is_resting(self) -> bool:
        """Whether it failed a moment ago."""
        return self._failed_at is not None and trio.current_time() < self._failed_at + REST_S

    def fail(self, why: str) -> None:
        """It has failed."""
        if self._failed_at is None:
            logger.warning("speech cache: %s: %s; goes on in memory", self._what, why)
        self._failed_at = trio.current_time()

    def succeed(self) -> None:
        """It works."""
        if self._failed_at is not None:
            logger.info("speech cache: %s: works again", self._what)
        self._failed_at = None


class SpeechDisk:
    """Speech on disk, as the event loop sees it: reads have a deadline, writes do not wait."""

    def __init__(self, files: SpeechFiles) -> None:
        self.drops = 0
        """Entries that were not written: the disk was too slow, full or broken."""
        self._files = files
        self._reading, self._writing = _Patience("cannot read"), _Patience("cannot write")
        self._readers, self._writers = trio.CapacityLimiter(READERS), trio.CapacityLimiter(1)
        self._send, self._receive = trio.open_memory_channel[tuple[bytes, Rendered]](QUEUE)
        self._waiting = 0
        self._life = trio.CancelScope(shield=True)
        self._finished = trio.Event()

    def __repr__(self) -> str:
        return f"<SpeechDisk {self._files!r}>"

    async def prepare(self) -> None:
        """Make the directory ready.  A full disk is no failure: it may not stay so.

        Raises:
            OSError: the directory cannot be used.
        """
        try:
            with trio.fail_after(WORK_S):
                await trio.to_thread.run_sync(
                    self._files.prepare, abandon_on_cancel=True, limiter=self._writers
                )
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            self._writing.fail(str(error.strerror))
        except trio.TooSlowError:
            raise OSError(errno.ETIMEDOUT, f"the disk gave no answer in {WORK_S:.0f} s") from None

    async def read(self, digest: bytes) -> Rendered | None:
        """Return the speech of a key, if the disk has it, and quickly."""
        if self._reading.is_resting:
            return None
        found: list[Rendered | None] = []
        with trio.move_on_after(READ_S):
            try:
                await trio.to_thread.run_sync(
                    self._read_into, found, digest, abandon_on_cancel=True, limiter=self._readers
                )
            except OSError as error:
                self._reading.fail(str(error.strerror))
                return None
        if not found:  # if there is an answer, it was the event loop that was late, not the disk
            self._reading.fail(f"no answer within {READ_S * 1000:.0f} ms")
            return None
        self._reading.succeed()
        return found[0]

    def _read_into(self, found: list[Rendered | None], digest: bytes) -> None:
        found.append(self._files.read(digest))

    def keep(self, digest: bytes, speech: Rendered) -> None:
        """Have the speech of a key written; if it is on disk already, count it as used."""
        try:
            if self._waiting + len(speech.audio) > QUEUE_BYTES:
                raise trio.WouldBlock
            self._send.send_nowait((digest, speech))
        except (trio.WouldBlock, trio.ClosedResourceError):
            self.drops += 1
        else:
            self._waiting += len(speech.audio)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what is to be kept; on leaving, what is still waiting, within `FLUSH_S`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run, name="speech cache")
            try:
                yield
            finally:
                self._send.close()
                with trio.move_on_after(FLUSH_S, shield=True):
                    await self._finished.wait()
                self._life.cancel()

    async def _run(self) -> None:
        """Write until nothing more comes.  Who is cancelled around us waits for `running`'s end."""
        with self._life, self._receive:
            await self._work(self._files.trim)
            async for digest, speech in self._receive:
                self._waiting -= len(speech.audio)
                if not await self._work(partial(self._files.keep, digest, speech)):
                    self.drops += 1
        self._finished.set()

    async def _work(self, work: Callable[[], None]) -> bool:
        """Let the writer's thread do something, if the disk works; return whether it did."""
        if self._writing.is_resting:
            await trio.lowlevel.checkpoint()
            return False
        with trio.move_on_after(WORK_S):
            try:
                await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._writers)
            except OSError as error:
                self._writing.fail(str(error.strerror))
                return False
            self._writing.succeed()
            return True
        self._writing.fail(f"no answer within {WORK_S:.0f} s")
        return False
