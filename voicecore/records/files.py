"""One call's directory: its name, its sound, its transcript, its time line.

All of this blocks, and belongs into a thread.  Everything is for its owner only: it is what people
said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from ..audio import SAMPLE_RATE
from ..audio.stereo import Side, StereoRecording

AUDIO, TRANSCRIPT, TIMELINE = "audio.wav", "transcript.jsonl", "timeline.json"

SID_CHARS = 64
MOST_NAMESAKES = 1000

NAME = re.compile(r"\d{8}T\d{6}Z-[A-Za-z0-9_-]{1,90}")
"""What a call's directory is called: when it began, and the carrier's name of it."""

MOST_MILESTONES = 10_000
"""In one time line; there are about ten a turn."""

LONGEST_S = 86400 + 3600
"""No call is longer; a position beyond it is a mistake of some clock."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Sound that lies on one side of the recording from sample `at` on."""

    side: Side
    at: int
    audio: bytearray


@dataclass(frozen=True, slots=True)
class Erased:
    """Sound that was not heard after all."""

    side: Side
    at: int
    until: int


Sound = Laid | Erased


def directory_name(sid: str, began: datetime) -> str:
    """Return a name that is safe whatever the carrier's name of the call is made of."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", sid)[:SID_CHARS] or "call"
    if plain != sid:  # two that look alike now are still two
        plain += "-" + blake2b(sid.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return f"{began:%Y%m%dT%H%M%SZ}-{plain}"


def make_directory(records: Path, sid: str, began: datetime) -> str:
    """Make a new call's directory, for its owner's eyes only; return its name.

    Raises:
        OSError: it cannot be made.
    """
    name = directory_name(sid, began)
    for number in range(MOST_NAMESAKES):
        unique = f"{name}-{number + 1}" if number else name
        with suppress(FileExistsError):
            os.mkdir(records / unique, 0o700)
            return unique
    raise FileExistsError(f"{MOST_NAMESAKES} calls of the same name in the same second")


class CallFiles:
    """The files of one call.  `offset_s` is how long it had lasted when this segment began."""

    def __init__(self, directory: Path, offset_s: float, *, with_audio: bool) -> None:
        self.directory = directory
        self.milestones: list[dict[str, Any]] = []
        self.unwritten = 0
        """Milestones that were too many."""
        self._offset = round(min(max(0.0, offset_s), LONGEST_S) * SAMPLE_RATE)
        self._with_audio = with_audio
        self._recording: StereoRecording | None = None
        self._least_length = 0
        self._has_failed = False

    def __repr__(self) -> str:
        return f"<CallFiles {self.directory.name}>"

    def write_sounds(self, sounds: Iterable[Sound], until: int, ends: bool) -> None:
        """Bring the recording up to sample `until` of this segment; if it `ends` there, no further.

        Raises:
            OSError: it cannot be written; told once, and nothing is written from then on.
        """
        if not self._with_audio or self._has_failed:
            return
        try:
            recording = self._open_recording()
            for sound in sounds:
                at = min(sound.at, until + SAMPLE_RATE) + self._offset
                if isinstance(sound, Laid):
                    recording.lay(sound.side, at, sound.audio)
                else:
                    recording.erase(sound.side, at, sound.until + self._offset)
            length = min(until, LONGEST_S * SAMPLE_RATE) + self._offset
            if ends or length > recording.samples:
                recording.set_length(max(length, self._least_length))
            if recording.error is not None:
                raise OSError(recording.error)
        except OSError:
            self._has_failed = True
            raise

    def _open_recording(self) -> StereoRecording:
        if self._recording is None:
            path = self.directory / AUDIO
            self._recording = StereoRecording(path, resume=True, mode=0o600)
            self._least_length = self._recording.samples  # what was before is not ours to cut
        return self._recording

    def append_lines(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append to the transcript.

        Raises:
            OSError: it cannot be written.
        """
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if data:
            file = os.open(
                self.directory / TRANSCRIPT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            with open(file, "wb") as stream:
                stream.write(data)

    def add_milestone(self, milestone: dict[str, Any]) -> None:
        """Keep a milestone for the time line."""
        if len(self.milestones) < MOST_MILESTONES:
            self.milestones.append(milestone)
        else:
            self.unwritten += 1

    def read_timeline(self) -> None:
        """Go on with the time line of the segments before, if there is one that can be read."""
        self.milestones = list(read_timeline(self.directory).get("milestones", ()))

    def write_timeline(self, facts: Mapping[str, Any]) -> None:
        """Write the time line anew: `facts`, then the milestones.

        Raises:
            OSError: it cannot be written; the old one stays.
        """
        document = {**facts, "milestones": self.milestones}
        if self.unwritten:
            document["milestones_left_out"] = self.unwritten
        write_timeline(self.directory, document)

    def size(self) -> int:
        """Return how much room the files take, in bytes."""
        return directory_bytes(self.directory)

    def close(self) -> None:
        """Close the recording."""
        if self._recording is not None:
            self._recording.close()


def read_timeline(directory: Path) -> dict[str, Any]:
    """Return a time line, empty if there is none that can be read."""
    try:
        document = msgspec.json.decode((directory / TIMELINE).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    return document if isinstance(document, dict) else {}


def write_timeline(directory: Path, document: Mapping[str, Any]) -> None:
    """Replace a time line, at once.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    unfinished = directory / f"{TIMELINE}.part"
    data = msgspec.json.format(msgspec.json.encode(document), indent=1)
    try:
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(file, "wb") as stream:
            stream.write(data + b"\n")
        os.replace(unfinished, directory / TIMELINE)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise


def read_transcript(directory: Path) -> list[dict[str, Any]]:
    """Return a transcript's lines; one that a crash has torn is left out."""
    lines: list[dict[str, Any]] = []
    try:
        content = (directory / TRANSCRIPT).read_bytes()
    except OSError:
        return lines
    for line in content.splitlines():
        with suppress(msgspec.DecodeError):
            decoded = msgspec.json.decode(line)
            if isinstance(decoded, dict):
                lines.append(decoded)
    return lines


def directory_bytes(directory: Path) -> int:
    """Return how much room a call's files take on disk: holes in a recording take none."""
    total = 0
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
