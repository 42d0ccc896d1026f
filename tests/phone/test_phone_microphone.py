"""A person as the caller, on a sound card made of plain Python."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from phone_fakes import tone

from voicecore.audio import mulaw
from voicecore.errors import SettingsError
from voicecore.phone.buffer import PlaybackBuffer
from voicecore.phone.loudness import QUIET_FRAME
from voicecore.phone.microphone import BUFFER_FRAMES, Microphone
from voicecore.phone.turns import TurnRecorder


class SoundCard:
    """Stands where `sounddevice.RawStream` does; `block` is 20 ms of its life."""

    last: SoundCard

    def __init__(self, callback: Callable[..., None], **shape: Any) -> None:
        self.shape, self._callback = shape, callback
        self.open = False
        SoundCard.last = self

    def start(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False

    def block(self, picked_up: bytes) -> bytes:
        to_play = bytearray(320)
        self._callback(mulaw.decode(picked_up), memoryview(to_play), 160, None, None)
        return mulaw.encode(bytes(to_play))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> type[SoundCard]:
    module = ModuleType("sounddevice")
    module.RawStream, module.PortAudioError = SoundCard, OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return SoundCard


def test_sound_goes_through_both_ways(card: type[SoundCard]) -> None:
    log, loud = TurnRecorder(), tone(0.02)
    with Microphone() as microphone:
        assert card.last.open
        assert card.last.shape["samplerate"] == 8000
        microphone.write(QUIET_FRAME, loud)
        assert card.last.block(loud) == loud
        assert microphone.frame(log) == (loud, False)
        assert microphone.frame(log) == (QUIET_FRAME, False)
    assert not card.last.open


def test_a_persons_words_become_turns(card: type[SoundCard]) -> None:
    log, buffer = TurnRecorder(), PlaybackBuffer()
    with Microphone() as microphone:
        for _ in range(2):
            for frame in [tone(0.02)] * 10 + [QUIET_FRAME] * 60:
                card.last.block(frame)
                said = microphone.frame(log)
                assert said is not None
                log.tick(said[1], buffer.play())
    assert [turn.said for turn in log.turns] == [None, "you, 1", "you, 2"]


def test_a_card_that_nobody_empties_keeps_the_newest(card: type[SoundCard]) -> None:
    with Microphone() as microphone:
        for n in range(50):
            card.last.block(bytes([n]) * 160)
        assert microphone.frame(TurnRecorder()) == (bytes([50 - BUFFER_FRAMES]) * 160, False)


def test_without_sounddevice_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SettingsError, match="pip install sounddevice"):
        Microphone()
