"""The process in which eSpeak NG speaks: a request in JSON in, mu-law out.

The C interface is that of espeak-ng's `speak_lib.h` (1.52), by ctypes on the library and the voices
that the wheel of espeakng-loader carries.  Its level, -21 dBFS RMS with peaks at -3, is a
telephone's already (ITU-T P.56 measures active speech; -26 to -18 dBov is usual) and is left alone.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any

import espeakng_loader

from ..audio import SAMPLE_RATE, SILENCE_BYTE
from ..audio.resample import MulawEncoder
from .worker import Answer, EngineFault, Job, serve

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the callback runs inside espeak_Synth
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: a missing voice file is an error code
_BUFFER_MS = 50
_POS_CHARACTER = 1
_UTF8 = 1  # espeakCHARS_UTF8, and neither espeakSSML nor espeakPHONEMES: text is only text
_RATE, _PITCH = 1, 3  # espeakRATE, espeakPITCH

WORDS_PER_MINUTE = 160
"""espeak's own 175 is hard to follow at telephone bandwidth."""

PITCH = 45
SENTENCE_PAUSE_S, CLAUSE_PAUSE_S = 0.2, 0.08
"""espeak stops with the last sound; without a pause the next sentence would run into it."""

PIECE_BYTES = SAMPLE_RATE // 5

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class _Voice:
    """The loaded library, which is one voice at a time for the whole process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        path = espeakng_loader.get_data_path().encode()
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, path, _DONT_EXIT)
        if self._rate <= 0:
            raise OSError(f"espeak_Initialize: {self._rate}")
        self._callback = _Callback(self._take)  # kept: C holds the only other reference
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
        self._library.espeak_SetParameter(_PITCH, PITCH, 0)
        self._job: Job | None = None
        self._encoder = MulawEncoder(self._rate)
        self._piece = b""

    def answer(self, request: bytes, job: Job) -> None:
        """Speak one text."""
        wanted = json.loads(request)
        self._choose(wanted["voice"], wanted["language"])
        self._job, self._encoder, self._piece = job, MulawEncoder(self._rate), b""
        text = wanted["text"].replace("\0", " ").encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, _POS_CHARACTER, 0, _UTF8, None, None)
        ended = wanted["text"].rstrip().endswith((".", "!", "?", "।"))
        pause = SENTENCE_PAUSE_S if ended else CLAUSE_PAUSE_S
        job.send(self._piece + self._encoder.flush() + SILENCE_BYTE * int(pause * SAMPLE_RATE))

    def _choose(self, voice: str, language: str) -> None:
        """Set the voice: the one asked for, or the language's, or its main variant's."""
        names = [voice] if voice else [language.lower(), language.partition("-")[0].lower()]
        for name in names:
            if self._library.espeak_SetVoiceByName(name.encode()) == 0:
                return
        raise EngineFault(f"no voice {' or '.join(names)}"[:120])

    def _take(self, samples: Any, count: int, _events: object) -> int:
        """Take the next samples; 1 stops the speech."""
        if not samples or not count:
            return 0
        assert self._job is not None
        self._piece += self._encoder.feed(ctypes.string_at(samples, 2 * count))
        if len(self._piece) >= PIECE_BYTES:
            if self._job.cancelled():
                return 1
            self._job.send(self._piece)
            self._piece = b""
        return 0


def _load() -> Answer:
    return _Voice().answer


if __name__ == "__main__":
    serve(_load)
