"""Words inside audio: what a test says can be read back from the bytes that arrived.

A word lies in the one frame at which it has been said to its end; the frames before it are just
loud.  Cut the audio anywhere, and exactly the words that were whole are left.
"""

from __future__ import annotations

from ..audio import FRAME_BYTES, SILENCE_FRAME

LOUD_FRAME = b"\x10" * FRAME_BYTES
_MARK = 0x01


def say(text: str, frames: int) -> list[bytes]:
    """Return `text` as so many frames, its words spread along them by their length."""
    audio = [LOUD_FRAME] * frames
    words, position = text.split(), 0
    for word in words:
        position += len(word) + 1
        at = max(0, min(frames, round(frames * position / (len(text) + 1))) - 1)
        audio[at] = _with_word(word, audio[at])
    return audio


def words(audio: bytes) -> list[str]:
    """Return the words in some audio of whole frames."""
    found: list[str] = []
    for start in range(0, len(audio) - FRAME_BYTES + 1, FRAME_BYTES):
        found += words_in_frame(audio[start : start + FRAME_BYTES])
    return found


def words_in_frame(frame: bytes) -> list[str]:
    """Return the words that end in one frame; none, as a rule."""
    if frame[0] != _MARK:
        return []
    return frame[2 : 2 + frame[1]].decode().split()


def is_loud(frame: bytes) -> bool:
    """Whether there is anything to hear in a frame."""
    return frame != SILENCE_FRAME


def _with_word(word: str, frame: bytes) -> bytes:
    text = " ".join([*words_in_frame(frame), word]).encode()
    return (bytes([_MARK, len(text)]) + text).ljust(FRAME_BYTES, LOUD_FRAME[:1])
