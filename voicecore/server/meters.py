"""What Prometheus is told, made of the calls' milestones.

Imported by `metrics` behind the open port: the library takes its time to load.  With several
workers, PROMETHEUS_MULTIPROC_DIR must be set before that; every worker then answers for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ..call.timeline import STAGES
from .workers import METERS_DIRECTORY

GAP_S = (0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.2, 5.0, 10.0)
STAGE_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
REACTION_S = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
LATE_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.16, 0.3, 1.0)
STALL_S = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)

GAPS = {
    "response_gap": "Last voiced frame of the caller to first frame of the reply on the wire",
    "recorded_response_gap": "The webhook that tells of a recording to the answer that is its own",
}

TOTALS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "cache_hits": ("voicecore_tts_cache_hits", "Texts whose speech was in the cache", ()),
    "cache_misses": ("voicecore_tts_cache_misses", "Texts that had to be synthesised", ()),
    "cache_saved_seconds": (
        "voicecore_tts_cache_saved_seconds",
        "Waiting for TTS that was saved",
        (),
    ),
    "provider_errors": (
        "voicecore_provider_errors",
        "By provider and kind, those that a fallback made good, too",
        ("provider", "kind"),
    ),
}
"""Counters that follow a total kept elsewhere: name, meaning, labels."""


class Meters:
    """All metrics of one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        given: dict[str, Any] = {"registry": registry}
        self.active = Gauge(
            "voicecore_active_calls", "Calls that are up", multiprocess_mode="livesum", **given
        )
        self.calls = Counter(
            "voicecore_calls", "Calls that are over, by who ended", ["by"], **given
        )
        self.gap, self.recorded_gap = (
            Histogram(f"voicecore_{name}_seconds", meaning, buckets=GAP_S, **given)
            for name, meaning in GAPS.items()
        )
        self.stage = Histogram(
            "voicecore_stage_seconds",
            "Where the response gap goes; stages overlap under speculation",
            ["stage"],
            buckets=STAGE_S,
            **given,
        )
        self.reaction = Histogram(
            "voicecore_barge_in_reaction_seconds",
            "First voiced frame of an interruption to the reply's cancellation",
            buckets=REACTION_S,
            **given,
        )
        self.late = Histogram(
            "voicecore_send_lateness_seconds",
            "The latest frame of each call, against its absolute deadline",
            buckets=LATE_S,
            **given,
        )
        self.mark = Histogram(
            "voicecore_mark_round_trip_seconds",
            "A mark's echo after the moment at which its audio should have been heard",
            buckets=REACTION_S,
            **given,
        )
        self.stall = Histogram(
            "voicecore_event_loop_stall_seconds",
            "How late the event loop woke a timer",
            buckets=STALL_S,
            **given,
        )
        self._make_counters(given)

    def _make_counters(self, given: dict[str, Any]) -> None:
        self.underruns = Counter(
            "voicecore_underruns",
            "Times the carrier's buffer ran dry inside speech: we were late, or TTS was",
            ["cause"],
            **given,
        )
        self.dropped = Counter(
            "voicecore_dropped_frames", "Frames of callers' sound that were not heard", **given
        )
        self.inbound_gaps = Counter(
            "voicecore_inbound_gaps",
            "Times that no sound came for longer than networks stall",
            **given,
        )
        self.speculations = Counter(
            "voicecore_speculations",
            "Replies begun before the end of the turn was certain",
            ["outcome"],
            **given,
        )
        self.tokens = Counter(
            "voicecore_llm_tokens",
            "As the LLM counts them; of lost replies, as we do",
            ["kind"],
            **given,
        )
        self.failures = Counter(
            "voicecore_failed_turns",
            "Turns that ended in an apology, by provider and kind",
            ["provider", "kind"],
            **given,
        )
        self.placed = Counter(
            "voicecore_calls_placed", "Outbound calls asked for, by outcome", ["outcome"], **given
        )
        self.rest_errors = Counter(
            "voicecore_rest_errors", "Of the carrier's REST API, by kind", ["kind"], **given
        )
        self.cache_bytes = Gauge(
            "voicecore_tts_cache_bytes",
            "Speech kept in memory",
            multiprocess_mode="livesum",
            **given,
        )
        self._totals = {name: Counter(*what, **given) for name, what in TOTALS.items()}
        self._seen: dict[tuple[str, ...], float] = {}

    def observe(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count one milestone."""
        take: Callable[[Mapping[str, Any]], None] | None = getattr(
            self, f"_take_{event.replace(' ', '_')}", None
        )
        if take is not None:
            take(fields)

    def _take_stream_started(self, fields: Mapping[str, Any]) -> None:
        self.active.inc()

    def _take_recording_flow_started(self, fields: Mapping[str, Any]) -> None:
        self.active.inc()

    def _take_call_ended(self, fields: Mapping[str, Any]) -> None:
        self.active.dec()
        self.calls.labels(fields["reason"]).inc()
        if fields.get("flow") == "recording":
            return  # what follows is a stream's
        self.underruns.labels("late").inc(fields["underruns"])
        self.underruns.labels("tts").inc(fields["starved"])
        self.dropped.inc(fields["dropped_frames"])
        self.inbound_gaps.inc(fields["inbound_gaps"])
        self.late.observe(fields["late_ms"] / 1000)
        self.mark.observe(fields["mark_ms"] / 1000)

    def _take_turn_done(self, fields: Mapping[str, Any]) -> None:
        gap = self.recorded_gap if fields.get("flow") == "recording" else self.gap
        gap.observe(fields["gap"])
        for stage in STAGES:
            if stage in fields:
                self.stage.labels(stage).observe(fields[stage])
        if fields["speculated"]:
            self.speculations.labels("kept").inc()
        for kind in ("prompt", "cached", "completion"):
            self.tokens.labels(kind).inc(fields.get(f"{kind}_tokens", 0))

    def _take_speculation_lost(self, fields: Mapping[str, Any]) -> None:
        self.speculations.labels("lost").inc()
        self.tokens.labels("lost").inc(fields["tokens"])

    def _take_interrupted(self, fields: Mapping[str, Any]) -> None:
        self.reaction.observe(fields["reaction_ms"] / 1000)

    def _take_provider_failed(self, fields: Mapping[str, Any]) -> None:
        self.failures.labels(fields["provider"], fields["fault"]).inc()

    def _take_call_placed(self, fields: Mapping[str, Any]) -> None:
        self.placed.labels(fields["outcome"]).inc()

    def _take_rest_failed(self, fields: Mapping[str, Any]) -> None:
        self.rest_errors.labels(fields["fault"]).inc()

    def follow(self, totals: Mapping[tuple[str, ...], float]) -> None:
        """Bring the counters of `TOTALS` up to what somebody else has counted."""
        for (name, *labels), total in totals.items():
            if name == "cache_bytes":
                self.cache_bytes.set(total)
                continue
            counter = self._totals[name].labels(*labels) if labels else self._totals[name]
            counter.inc(max(0.0, total - self._seen.get((name, *labels), 0.0)))
            self._seen[name, *labels] = total

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        registry = self._registry
        if os.environ.get(METERS_DIRECTORY):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
