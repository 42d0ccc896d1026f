"""From arrival times to figures: lateness, jitter, lead, underruns, and distributions of them.

A reply is a list of frames that arrived; frames that arrived in one piece are one *write*.  What
follows from it:

    position   of a frame or a write: milliseconds of the reply before it
    lateness   of a write against the absolute schedule: arrival - max(t0, t0 + position - lead),
               t0 being the arrival of the reply's first frame
    jitter     of two writes past the first lead: how far their distance is from the distance of
               their positions, as an absolute value
    lead       how much the carrier has to play once the write is there
    left       how much it had to play before
    underrun   the buffer ran dry before the frame came: the caller heard a hole inside speech
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BYTES_PER_MS = 8
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
HISTOGRAM_MS = (0.0, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 400, 1e9)
"""Edges of the histograms of lateness and jitter."""


class Reply:
    """The frames of one reply, as they arrived.  Seconds and bytes."""

    __slots__ = ("arrivals", "sizes")

    def __init__(self) -> None:
        self.arrivals = array("d")
        self.sizes = array("I")

    def note(self, at: float, size: int) -> None:
        """Note a frame."""
        self.arrivals.append(at)
        self.sizes.append(size)


def distribution(values: Sequence[float] | Floats) -> dict[str, float]:
    """Return count, minimum, percentiles and maximum; an empty one has only the count."""
    if not len(values):
        return {"n": 0}
    found = np.percentile(values, list(PERCENTILES.values()))
    figures = {"n": len(values), "min": float(np.min(values))}
    figures |= dict(zip(PERCENTILES, found.tolist(), strict=True))
    return figures | {"max": float(np.max(values))}


def histogram(values: Floats) -> list[int]:
    """Return how many values lie between the edges of `HISTOGRAM_MS`."""
    counts, _ = np.histogram(values, HISTOGRAM_MS)
    return [int(count) for count in counts]


def delivery(replies: Sequence[Reply], lead_ms: float) -> dict[str, object]:
    """Return how the replies were delivered.

    `lead_ms` is the sender's; 0: unknown, then it is what most frames had.
    """
    timed = [_timed(reply) for reply in replies if len(reply.arrivals)]
    writes = [_writes(*frames) for frames in timed]
    lefts = [_left(arrival, position) for arrival, position, _ in writes]
    if not lead_ms and writes:
        lead_ms = float(np.percentile(_joined([left[1:] for left in lefts]), 75))
    late, jitter, steady_lefts, leads = [], [], [], []
    for (arrival, position, length), left in zip(writes, lefts, strict=True):
        late.append(arrival - np.maximum(0.0, position - lead_ms))
        steady = position > lead_ms
        steady_lefts.append(left[steady])
        leads.append((np.maximum(left, 0) + length)[steady])
        jitter.append(np.abs(np.diff(arrival) - np.diff(position))[steady[:-1]])
    holes = _joined([_holes(arrival, position) for arrival, position, _ in timed])
    return {
        "frames": sum(len(arrival) for arrival, _, _ in timed),
        "replies": len(timed),
        "lead_ms": lead_ms,
        "lateness": distribution(_joined(late)),
        "lateness_histogram": histogram(_joined(late)),
        "jitter": distribution(_joined(jitter)),
        "jitter_histogram": histogram(_joined(jitter)),
        "lead": distribution(_joined(leads)),
        "left": distribution(_joined(steady_lefts)),
        "underruns": len(holes),
        "silence_ms": float(holes.sum()),
    }


def _timed(reply: Reply) -> tuple[Floats, Floats, Floats]:
    """Return arrivals, positions and lengths in milliseconds."""
    arrivals = (np.array(reply.arrivals) - reply.arrivals[0]) * 1000
    lengths = np.array(reply.sizes) / BYTES_PER_MS
    return arrivals, np.cumsum(lengths) - lengths, lengths


def _writes(arrival: Floats, position: Floats, length: Floats) -> tuple[Floats, Floats, Floats]:
    """Join the frames that arrived in one piece."""
    firsts = np.flatnonzero(np.diff(arrival, prepend=-1.0))
    return arrival[firsts], position[firsts], np.add.reduceat(length, firsts)


def _left(arrival: Floats, position: Floats) -> Floats:
    """What is left to play before each write; negative: so long it was dry.

    A dry buffer plays silence, which is not made up for.
    """
    began = np.maximum.accumulate(arrival - position)
    return np.concatenate(([0.0], began[:-1])) + position - arrival


def _holes(arrival: Floats, position: Floats) -> Floats:
    """How long the buffer was dry before each frame that found it dry."""
    began = np.maximum.accumulate(arrival - position)
    dry = np.diff(began)
    return dry[dry > 0]


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)
