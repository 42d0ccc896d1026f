"""From arrival times to figures: lateness, jitter, lead, underruns, and distributions of them.

A reply is a list of arrivals.  What follows from it:

    position   of a frame: milliseconds of the reply before it
    lateness   of a frame against the absolute schedule: arrival - max(t0, t0 + position - lead),
               t0 being the arrival of the reply's first frame
    jitter     of two frames past the first lead: how far their distance is from the distance of
               their positions, as an absolute value
    lead       how much the carrier has to play once the frame is there
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
    leads = [_lead(*reply) for reply in timed]
    if not lead_ms and leads:
        before = [lead - length for lead, (_, _, length) in zip(leads, timed, strict=True)]
        lead_ms = float(np.percentile(_joined(before), 75))
    steady = [lead[position > lead_ms] for lead, (_, position, _) in zip(leads, timed, strict=True)]
    late = [_lateness(arrival, position, lead_ms) for arrival, position, _ in timed]
    jitter = [_jitter(arrival, position, lead_ms) for arrival, position, _ in timed]
    holes = _joined([_holes(arrival, position) for arrival, position, _ in timed])
    return {
        "frames": sum(len(arrival) for arrival, _, _ in timed),
        "replies": len(timed),
        "lead_ms": lead_ms,
        "lateness": distribution(_joined(late)),
        "lateness_histogram": histogram(_joined(late)),
        "jitter": distribution(_joined(jitter)),
        "jitter_histogram": histogram(_joined(jitter)),
        "lead": distribution(_joined(steady)),
        "underruns": len(holes),
        "silence_ms": float(holes.sum()),
    }


def _timed(reply: Reply) -> tuple[Floats, Floats, Floats]:
    """Return arrivals, positions and lengths in milliseconds."""
    arrivals = (np.array(reply.arrivals) - reply.arrivals[0]) * 1000
    lengths = np.array(reply.sizes) / BYTES_PER_MS
    return arrivals, np.cumsum(lengths) - lengths, lengths


def _lateness(arrival: Floats, position: Floats, lead_ms: float) -> Floats:
    return arrival - np.maximum(0.0, position - lead_ms)


def _jitter(arrival: Floats, position: Floats, lead_ms: float) -> Floats:
    steady = position[:-1] > lead_ms
    return np.abs(np.diff(arrival) - np.diff(position))[steady]


def _lead(arrival: Floats, position: Floats, length: Floats) -> Floats:
    """What is to be played after each frame.  A dry buffer plays silence, which is not made up."""
    began = np.maximum.accumulate(arrival - position)
    return began + position + length - arrival


def _holes(arrival: Floats, position: Floats) -> Floats:
    """How long the buffer was dry before each frame that found it dry."""
    began = np.maximum.accumulate(arrival - position)
    dry = np.diff(began)
    return dry[dry > 0]


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)
