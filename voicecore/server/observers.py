"""Who watches a server's calls: its metrics, and its records if there are any."""

from __future__ import annotations

from dataclasses import dataclass

from ..records.records import Records
from .metrics import Metrics


@dataclass(frozen=True, slots=True)
class Observers:
    """What `serve_lines` needs of those who are told by the calls."""

    metrics: Metrics
    records: Records | None = None
    """None: calls are not recorded."""
