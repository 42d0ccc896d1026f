"""Runs of frames for the turn detector, and what it makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType

from voicecore.audio import FRAME_BYTES
from voicecore.audio.voicing import Voicing
from voicecore.dialogue.turns import Detector, TurnEvent, TurnHint

V, F, S = Voicing.VOICED, Voicing.FAINT, Voicing.SILENT


def frame(number: int) -> bytes:
    return number.to_bytes(4, "big") * (FRAME_BYTES // 4)


def number(audio: bytes, at: int) -> int:
    return int.from_bytes(audio[at * FRAME_BYTES :][:4], "big")


Hints = Mapping[int, TurnHint]


def run(
    detector: Detector, *runs: tuple[Voicing, int], hints: Hints = MappingProxyType({})
) -> list[tuple[int, TurnEvent]]:
    """Hear runs of frames; return each event with the number of the frame that brought it.

    `hints` are those of a recogniser, by the number of the frame with which they come.
    """
    voicings = list(itertools.chain.from_iterable([v] * n for v, n in runs))
    return [
        (index, event)
        for index, voicing in enumerate(voicings)
        for event in detector.hear(frame(index), voicing, hints.get(index))
    ]


def kinds(events: list[tuple[int, TurnEvent]]) -> list[type[TurnEvent]]:
    return [type(event) for _, event in events]
