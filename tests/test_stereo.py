"""The stereo recording: laid over, gone on with, full of holes, and valid at each moment."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import mulaw, wav
from voicecore.audio.stereo import LEFT, RIGHT, Side, StereoRecording

LOUD = b"\x10"


def samples(path: Path) -> tuple[list[int], list[int]]:
    recording = wav.read(path)
    assert path.stat().st_size == 44 + len(recording.pcm)
    stereo = np.frombuffer(recording.pcm, "<i2").reshape(-1, 2)
    return stereo[:, 0].tolist(), stereo[:, 1].tolist()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lay", "erase", "length"]), st.sampled_from([LEFT, RIGHT]),
            st.integers(-50, 400), st.integers(0, 200),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_it_holds_what_was_laid_into_it(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Side, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("stereo") / "call.wav"
    model: list[list[int]] = [[], []]
    (value,) = np.frombuffer(mulaw.decode(LOUD), "<i2").tolist()

    def fill(side: Side, at: int, size: int, sample: int) -> None:
        for n in range(max(0, at), at + size):
            for channel in model:
                channel.extend([0] * (n + 1 - len(channel)))
            model[side][n] = sample

    with StereoRecording(path) as recording:
        for what, side, at, size in steps:
            if what == "lay":
                recording.lay(side, at, LOUD * size)
                fill(side, at, size, value)
            elif what == "erase":
                recording.erase(side, at, at + size)
                fill(side, at, min(size, len(model[0]) - at), 0)
            else:
                recording.set_length(size)
                model = [(channel + [0] * size)[:size] for channel in model]
            assert samples(path) == (model[0], model[1])
            assert recording.samples == len(model[0])
        assert recording.error is None


def test_it_is_gone_on_with_even_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    with StereoRecording(path) as recording:
        recording.lay(LEFT, 0, LOUD * 100)
    with path.open("ab") as file:
        file.write(bytes(4 * 50 + 3))  # whose header never came, and the last sample is torn
    with StereoRecording(path, resume=True) as recording:
        assert recording.samples == 150
        recording.lay(RIGHT, 120, LOUD * 100)
    left, right = samples(path)
    assert len(left) == 220
    assert all(left[:100])
    assert not any(left[100:])
    assert all(right[120:])
    with StereoRecording(path) as recording:
        assert recording.samples == 0


def test_a_hole_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    with StereoRecording(path, mode=0o600) as recording:
        recording.lay(LEFT, 8000 * 3600, LOUD)
    status = path.stat()
    assert status.st_size > 100_000_000
    assert status.st_blocks * 512 < 100_000
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_it_is_never_longer_than_a_wav_can_be(tmp_path: Path) -> None:
    with StereoRecording(tmp_path / "call.wav") as recording:
        recording.lay(LEFT, 0, LOUD)
        recording.lay(LEFT, 1 << 40, LOUD)
        assert recording.error == "a WAV file cannot be longer"
        assert recording.samples == 1
