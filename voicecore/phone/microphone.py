"""A person as the caller: the computer's microphone and loudspeaker, through sounddevice.

The sound card calls from its own thread, so frames cross in two bounded deques: when one is full
the oldest frame goes, which is also how two clocks that drift apart are kept together.
"""

from __future__ import annotations

from collections import deque
from importlib import import_module
from types import TracebackType
from typing import Any

from ..audio import mulaw
from ..errors import SettingsError
from .buffer import FRAME_BYTES
from .loudness import QUIET_FRAME, is_audible
from .turns import TurnRecorder

BUFFER_FRAMES = 10
ONSET_FRAMES = 3
PAUSE_S = 1.0
"""A second of silence, or a reply, and the next sound is a new utterance."""


class Microphone:
    """A `script.Voice` that is alive, and its ear; a context manager that holds the sound card."""

    def __init__(self) -> None:
        """Find the sound card.

        Raises:
            SettingsError: sounddevice or PortAudio is missing; says how to install it.
        """
        try:
            sounddevice = import_module("sounddevice")
        except (ImportError, OSError) as error:
            raise SettingsError(
                f"--mic needs sounddevice and PortAudio ({error}): "
                "pip install sounddevice, and on Linux apt install libportaudio2"
            ) from None
        self._said: deque[bytes] = deque(maxlen=BUFFER_FRAMES)
        self._heard: deque[bytes] = deque(maxlen=BUFFER_FRAMES)
        self._loud = self._utterances = 0
        self._last_loud = 0.0
        shape = {"samplerate": 8000, "blocksize": FRAME_BYTES, "channels": 1, "dtype": "int16"}
        try:
            self._card = sounddevice.RawStream(callback=self._exchange, **shape)
        except sounddevice.PortAudioError as error:
            raise SettingsError(f"--mic: no usable sound card ({error})") from None

    def __enter__(self) -> Microphone:
        self._card.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._card.close()

    def write(self, said: bytes, heard: bytes) -> None:
        """Let the person hear 20 ms of the agent; a `caller.Ear`."""
        self._heard.append(heard)

    def frame(self, log: TurnRecorder) -> tuple[bytes, bool] | None:
        """Return what the microphone picked up; a person hangs up with Ctrl-C."""
        frame = self._said.popleft() if self._said else QUIET_FRAME
        loud = is_audible(frame)
        self._loud = self._loud + 1 if loud else 0
        if self._loud == ONSET_FRAMES:
            turn = log.turns[-1]
            if turn.said is None or turn.replies or log.now - self._last_loud > PAUSE_S:
                self._utterances += 1
                log.begin(f"you, {self._utterances}")
        if self._loud >= ONSET_FRAMES:
            self._last_loud = log.now
        return frame, self._loud >= ONSET_FRAMES

    def _exchange(self, picked_up: Any, to_play: Any, frames: int, time: Any, status: Any) -> None:
        """Run in the sound card's thread: take a block from the microphone and give one to play."""
        self._said.append(mulaw.encode(bytes(picked_up)))
        heard = self._heard.popleft() if self._heard else QUIET_FRAME
        to_play[:] = mulaw.decode(heard)
