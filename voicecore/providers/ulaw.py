"""Speech that comes as 8 kHz mu-law: the line's own format, passed through untouched.

Servers name types carelessly, so the first bytes decide, as in `pcm`: a type that is no audio at
all is refused by its name; compressed audio and text by how they begin.  In mu-law nearly every
byte is a possible sample, so only beginnings count that no voice has.  A WAV file of mu-law loses
its header; one of PCM is not what was asked for.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..audio import SAMPLE_RATE
from ..errors import ProviderError
from .http import Api, Body, Deadlines

DEADLINES = Deadlines(first_byte=3, idle=3, total=30)

JUDGED_BYTES = 12
"""How many first bytes are judged together: as many as the longest beginning."""

HEADER_BYTES = 4096
"""A WAV file's header at most, with all that stands before the audio."""

_COMPRESSED = (b"ID3", b"OggS", b"fLaC", b"\x1a\x45\xdf\xa3")
_TEXT = (b'{"', b'{ "', b"{\n", b"{\r", b'[{"', b"<!", b"<?xml", b"<html", b"<HTML")
_MULAW_TAG = 7
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)


class NotMulaw(Exception):
    """The bytes are something else; one line that says what."""


class MulawStream:
    """Takes an answer in any cut, gives its samples, a byte each."""

    def __init__(self, content_type: str) -> None:
        """Begin with a media type in lower case, without parameters; may be empty.

        Raises:
            NotMulaw: it names no audio.
        """
        kind, _, name = content_type.partition("/")
        if kind not in ("", "audio") and name != "octet-stream":
            raise NotMulaw(f"{kind} in place of audio" if kind.isalpha() else "no audio")
        if name in ("l16", "x-l16"):
            raise NotMulaw("16-bit PCM")
        self._suspects_mpeg = name in ("mpeg", "mp3", "aac", "aacp", "x-aac", "mp4")
        self._head = bytearray()
        self._begun = False
        self._left: int | None = None
        """Samples that are to come, if a WAV header tells."""

    def feed(self, data: bytes) -> bytes:
        """Return the samples that are there.

        Raises:
            NotMulaw: it is text, compressed, or a WAV file of another kind.
        """
        if not self._begun:
            self._head += data
            if len(self._head) < JUDGED_BYTES or not self._begin():
                return b""
            data, self._head = bytes(self._head), bytearray()
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data

    def end(self) -> bytes:
        """Return what was too short to be judged before.

        Raises:
            NotMulaw: as `feed`, or a WAV file that ended in its header.
        """
        if self._begun:
            return b""
        if not self._begin():
            raise NotMulaw("a WAV file without audio")
        return bytes(self._head)

    def _begin(self) -> bool:
        """Judge the first bytes, and take a WAV header off; return whether audio follows."""
        head = self._head
        if head.startswith(b"RIFF"):
            self._begun = self._read_header()
            return self._begun
        if head.startswith(_TEXT):
            raise NotMulaw("text in place of audio")
        if head.startswith(_COMPRESSED) or head[4:8] == b"ftyp" or self._is_mpeg():
            raise NotMulaw("compressed audio")
        self._begun = True
        return True

    def _is_mpeg(self) -> bool:
        """Return whether this is MP3 or AAC.  Silence in mu-law is 0xFF, so the type has a say."""
        head = self._head
        return self._suspects_mpeg and len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0

    def _read_header(self) -> bool:
        head, at, layout = self._head, 12, b""
        while at + 8 <= len(head):
            kind, size = struct.unpack_from("<4sI", head, at)
            at += 8
            if kind == b"data":
                _check_layout(layout)
                self._left = None if size in _UNKNOWN_SIZES else size
                del head[:at]
                return True
            if at + size > HEADER_BYTES:
                raise NotMulaw("a WAV file with an endless header")
            if kind == b"fmt ":
                layout = bytes(head[at : at + size])
            at += size + size % 2
        return False


def _check_layout(layout: bytes) -> None:
    if len(layout) < 16:
        raise NotMulaw("a WAV file without a format")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", layout)
    if (tag, channels, rate, bits) != (_MULAW_TAG, 1, SAMPLE_RATE, 8):
        raise NotMulaw("a WAV file of another kind than 8 kHz mu-law")


class _Speech:
    """Samples as they come."""

    def __init__(self, provider: str, body: Body) -> None:
        self._provider = provider
        self._body = body
        self._heard = False
        self._ended = False
        try:
            self._mulaw = MulawStream(body.content_type)
        except NotMulaw as error:
            raise ProviderError(provider, "garbage", str(error)) from None

    def __aiter__(self) -> _Speech:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            audio = await self._read()
            if audio:
                self._heard = True
                return audio
        if not self._heard:
            raise ProviderError(self._provider, "garbage", "no audio")
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        try:
            try:
                return self._mulaw.feed(await anext(self._body))
            except StopAsyncIteration:
                self._ended = True
                return self._mulaw.end()
        except NotMulaw as error:
            raise ProviderError(self._provider, "garbage", str(error)) from None


@asynccontextmanager
async def speech(
    api: Api, provider: str, path: str, **content: Any
) -> AsyncIterator[AsyncIterable[bytes]]:
    """Ask for speech (`content` as httpx takes it) and stream it as mu-law, in pieces as they come.

    Raises:
        ProviderError: of any kind, on entry or while iterating.
    """
    async with api.post(path, DEADLINES, **content) as body:
        yield _Speech(provider, body)
