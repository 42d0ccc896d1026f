"""What was said before is free: a cache of rendered speech, around any TTS.

* A sentence is kept once it was streamed to its end without error, and never before.
* Memory is bounded in bytes; what was not used for longest goes first.
* With a directory (`cache_files`), what one process has rendered is there for all, and after a
  restart.  A disk that is slow, full or broken costs its hits and nothing else.

The key is everything that the audio depends on.  Case and punctuation are prosody, and count.
"""

from __future__ import annotations

import os.path
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import trio

from ..audio import SAMPLE_RATE
from ..contracts import TTS, WarmsUp
from ..errors import SettingsError
from ..settings import Settings, variable_name
from .cache_disk import SpeechDisk
from .cache_files import MAX_SPEECH_BYTES, Rendered, SpeechFiles

DIRECTORY_BYTES = 1 << 30
"""A gibibyte: 37 hours of speech."""

ENTRY_BYTES = 512
"""What an entry takes beside its audio: 320 were measured in CPython 3.11."""

SLICE_BYTES = SAMPLE_RATE // 5
"""200 ms: how much of a hit is given at a time, so that a long one is no stall for other calls."""

REFRESH_S = 3600.0
"""What is used from memory is counted as used on disk once in so long."""


def normalised(text: str) -> str:
    """Return `text` as it counts for the key: Unicode NFC, white space collapsed and stripped."""
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True, slots=True)
class SpeechKey:
    """Everything that rendered speech depends on; `text` is normalised on the way in."""

    provider: str
    model: str
    voice: str
    language: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", normalised(self.text))

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for the key: texts are neither held nor written anywhere."""
        digest = sha256()
        for part in (self.provider, self.model, self.voice, self.language, self.text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What the cache is worth.

    `bytes` and `entries` are what is in memory now, all else counts since the start.  `saved_s` is
    the sum over the hits of the seconds that their first audio took when it was rendered.
    `disk_hits` are those of the `hits` that came from the disk; `disk_drops` is what the disk did
    not take.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0
    entries: int = 0
    saved_s: float = 0.0
    disk_hits: int = 0
    disk_drops: int = 0


@dataclass(slots=True)
class _Entry:
    speech: Rendered
    refreshed_at: float = 0.0

    @property
    def size(self) -> int:
        return len(self.speech.audio) + ENTRY_BYTES


class SpeechCache:
    """Rendered speech by key, at most `limit_bytes` in memory; 0: it keeps nothing at all.

    With a `directory` also on disk; then its `disk` must be running, as with `open_cache`.
    """

    def __init__(
        self,
        limit_bytes: int,
        directory: Path | None = None,
        directory_limit_bytes: int = DIRECTORY_BYTES,
    ) -> None:
        self._limit = limit_bytes
        self._used: OrderedDict[bytes, _Entry] = OrderedDict()
        self._bytes = 0
        self._hits = self._disk_hits = self._misses = self._evictions = 0
        self._saved_s = 0.0
        self.disk: SpeechDisk | None = None
        if directory is not None and self.max_audio_bytes:
            self.disk = SpeechDisk(SpeechFiles(directory, directory_limit_bytes))

    def __repr__(self) -> str:
        return f"<SpeechCache {len(self)} entries, {self._bytes} of {self._limit} bytes>"

    def __len__(self) -> int:
        """Return how many entries are in memory."""
        return len(self._used)

    @property
    def max_audio_bytes(self) -> int:
        """Bytes of audio that an entry may have: a minute, and an eighth of the limit."""
        return max(0, min(MAX_SPEECH_BYTES, self._limit // 8 - ENTRY_BYTES))

    def statistics(self) -> CacheStatistics:
        """Return what the cache is worth so far."""
        return CacheStatistics(
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            bytes=self._bytes,
            entries=len(self),
            saved_s=self._saved_s,
            disk_hits=self._disk_hits,
            disk_drops=0 if self.disk is None else self.disk.drops,
        )

    async def get(self, key: SpeechKey) -> bytes | None:
        """Return the mu-law of `key`, if it was kept; from the disk within 0.1 s or not at all."""
        await trio.lowlevel.checkpoint()
        digest = key.digest
        entry = self._used.get(digest)
        if entry is not None:
            self._refresh(digest, entry)
        elif self.disk is not None and (speech := await self.disk.read(digest)) is not None:
            self._disk_hits += 1
            entry = self._insert(digest, speech)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        self._saved_s += entry.speech.first_s
        return entry.speech.audio

    def put(self, key: SpeechKey, audio: bytes, first_s: float) -> None:
        """Keep the mu-law of `key`, whose first audio took `first_s` seconds.

        What is empty or too long is not kept; what is there already stays as it is.
        """
        if not 0 < len(audio) <= self.max_audio_bytes:
            return
        digest = key.digest
        entry = self._insert(digest, Rendered(audio, first_s))
        if self.disk is not None:
            self.disk.keep(digest, entry.speech)

    def _insert(self, digest: bytes, speech: Rendered) -> _Entry:
        entry = _Entry(speech, trio.current_time())
        present = self._used.get(digest)
        if present is not None:  # another call asked for it at the same time
            return present
        if len(speech.audio) > self.max_audio_bytes:  # a file from days of a higher limit
            return entry
        self._bytes += entry.size
        self._used[digest] = entry
        while self._bytes > self._limit:
            _, oldest = self._used.popitem(last=False)
            self._bytes -= oldest.size
            self._evictions += 1
        return entry

    def _refresh(self, digest: bytes, entry: _Entry) -> None:
        """An entry was used: it is now the last to go, here and, once in a while, on disk."""
        self._used.move_to_end(digest)
        if self.disk is not None and trio.current_time() - entry.refreshed_at > REFRESH_S:
            entry.refreshed_at = trio.current_time()
            self.disk.keep(digest, entry.speech)


class CachedTTS:
    """A TTS whose sentences cost their time and money once.

    `provider` and `model` say whose voice it is: together with voice and language they must tell
    apart whatever can sound different, such as two servers of one make.
    """

    def __init__(self, tts: TTS, cache: SpeechCache, provider: str, model: str) -> None:
        self.cache = cache
        self._tts = tts
        self._provider = provider
        self._model = model

    def __repr__(self) -> str:
        return f"<CachedTTS {self._provider} {self._model} {self.cache!r}>"

    def key(self, text: str, voice: str, language: str) -> SpeechKey:
        """Return what a text's speech is kept under."""
        return SpeechKey(self._provider, self._model, voice, language, text)

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterable[bytes]]:
        """Stream `text` as mu-law: from the cache, or from the TTS and into the cache."""
        if not self.cache.max_audio_bytes:
            async with self._tts.speak(text, voice, language) as pieces:
                yield pieces
            return
        key = self.key(text, voice, language)
        audio = await self.cache.get(key)
        if audio is not None:
            async with aclosing(_slices(audio)) as slices:
                yield slices
            return
        copy = _Copy(self.cache.max_audio_bytes)
        async with self._tts.speak(text, voice, language) as pieces:
            async with aclosing(copy.passing(pieces)) as passing:
                yield passing
        # Only here: leaving the stream is also where a provider may say that it was cut.
        if copy.whole is not None:
            self.cache.put(key, *copy.whole)

    async def warm_up(self, language: str) -> None:
        """Let the TTS connect, if it can."""
        if isinstance(self._tts, WarmsUp):
            await self._tts.warm_up(language)


class _Copy:
    """What one stream has given so far, as long as it is short enough to be kept."""

    def __init__(self, limit_bytes: int) -> None:
        self.whole: tuple[bytes, float] | None = None
        """All of the audio, and the seconds to its first; once the stream has come to its end."""
        self._limit = limit_bytes
        self._began = trio.current_time()

    async def passing(self, pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
        """Pass the pieces on, at the pace of who takes them."""
        copy, first_s = bytearray(), 0.0
        async for piece in pieces:
            if piece and not copy:
                first_s = trio.current_time() - self._began
            if len(copy) <= self._limit:
                copy += piece
            yield piece
        if len(copy) <= self._limit:
            self.whole = (bytes(copy), first_s)


async def _slices(audio: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(audio), SLICE_BYTES):
        await trio.lowlevel.checkpoint()
        yield audio[start : start + SLICE_BYTES]


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[SpeechCache]:
    """Open the cache that the settings describe; on leaving, what waits for the disk is written.

    Raises:
        SettingsError: VOICECORE_CACHE_DIR cannot be used.
    """
    cache = SpeechCache(settings.cache_mb << 20, _directory(settings))
    if cache.disk is None:
        yield cache
        return
    try:
        await cache.disk.prepare()
    except OSError as error:
        raise SettingsError(_complaint(settings, error)) from None
    async with cache.disk.running():
        yield cache


def trial(settings: Settings) -> list[str]:
    """Return what is wrong with VOICECORE_CACHE_DIR, in one line, if anything is; makes nothing."""
    where = _directory(settings)
    while where is not None and not os.path.lexists(where):
        where = where.parent
    if where is None or not settings.cache_mb:
        return []
    if not where.is_dir():
        return [_complaint(settings, NotADirectoryError(0, f"{where} is no directory"))]
    if not os.access(where, os.R_OK | os.W_OK | os.X_OK):
        return [_complaint(settings, PermissionError(0, f"{where} is not ours to write"))]
    return []


def _directory(settings: Settings) -> Path | None:
    """The directory, absolute; ``~`` in a .env has met no shell yet."""
    if settings.cache_dir is None:
        return None
    return Path(os.path.abspath(os.path.expanduser(settings.cache_dir)))


def _complaint(settings: Settings, error: OSError) -> str:
    return f"{variable_name('cache_dir')}: got {str(settings.cache_dir)!r}; {error.strerror}"
