"""Questions to the log of calls.  Reads only, and may do so while servers write.

What comes back are plain mappings, for tables, JSON and CSV alike.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..call.timeline import STAGES
from . import dates
from .database import NAME, TURN_COLUMNS, is_lost
from .files import read_transcript

CALL_COLUMNS = (
    "sid", "began", "ended", "seconds", "ended_by", "flow", "carrier", "direction", "from", "to",
    "turns", "barge_ins", "underruns", "starved", "dropped_frames", "inbound_gaps", "failures",
    "lost_speculations", "status", "carrier_seconds", "sip_code", "stream_error", "bytes",
    "directory",
)  # fmt: skip
"""What is told of a call.  `ended_by` is "lost" for one whose process is gone, None while it is
up."""

TIMES = ("gap", *STAGES)
"""What percentiles are told of: the whole of a turn's wait, and its parts."""

_AS = {"from": 'from_number AS "from"', "to": 'to_number AS "to"'}
_ENDED_BY = "CASE WHEN ended IS NULL AND lost(owner, touched) THEN 'lost' ELSE ended_by END"
_CALL = ", ".join(
    f"{_ENDED_BY} AS ended_by" if name == "ended_by" else _AS.get(name, name)
    for name in CALL_COLUMNS
)
_TURN = ", ".join(f"t.{name}" for name in ("segment", "turn", *TURN_COLUMNS))


@dataclass(frozen=True, slots=True)
class Which:
    """Which calls are meant: None, any."""

    since: datetime | None = None
    digits: str | None = None
    """Digits in a row in the number that called or was called."""
    ended_by: str | None = None

    def where(self) -> tuple[str, list[object]]:
        """Return a condition on `calls`, and its parameters."""
        conditions, parameters = ["1"], list[object]()
        if self.since is not None:
            conditions.append("began >= ?")
            parameters.append(dates.iso(self.since))
        if self.digits is not None:
            conditions.append("(from_number LIKE ? OR to_number LIKE ?)")
            parameters += [f"%{self.digits}%"] * 2
        if self.ended_by is not None:
            conditions.append(f"{_ENDED_BY} = ?")
            parameters.append(self.ended_by)
        return " AND ".join(conditions), parameters


class CallLog:
    """The log, open for reading.  Made by `open_log`."""

    def __init__(self, directory: Path, sql: sqlite3.Connection) -> None:
        self._directory = directory
        self._sql = sql
        self._sql.row_factory = sqlite3.Row
        sql.create_function(
            "lost", 2, lambda owner, touched: is_lost(directory, owner, touched or 0)
        )

    def calls(self, which: Which, limit: int | None = None) -> list[dict[str, Any]]:
        """Return calls, the newest first: `CALL_COLUMNS`."""
        where, parameters = which.where()
        return self._rows(
            f"SELECT {_CALL} FROM calls WHERE {where} ORDER BY began DESC, id DESC LIMIT ?",
            [*parameters, -1 if limit is None else limit],
        )

    def named(self, sid: str) -> list[dict[str, Any]]:
        """Return the calls of a name, or whose names begin with it: two of them are enough."""
        return self._rows(
            f"SELECT {_CALL} FROM calls WHERE sid = ? ORDER BY id DESC LIMIT 1", [sid]
        ) or self._rows(
            f"SELECT {_CALL} FROM calls WHERE substr(sid, 1, ?) = ? ORDER BY id DESC LIMIT 2",
            [len(sid), sid],
        )

    def turns(self, which: Which) -> list[dict[str, Any]]:
        """Return the turns of calls, in order: their call's `sid`, then `TURN_COLUMNS`."""
        where, parameters = which.where()
        return self._rows(
            f"SELECT sid, {_TURN} FROM turns t JOIN calls ON calls.id = t.call"
            f" WHERE {where} ORDER BY began, calls.id, t.at, t.segment",
            parameters,
        )

    def turns_in(self, directory: str) -> list[dict[str, Any]]:
        """Return the turns of the call that has this directory."""
        return self._rows(
            f"SELECT {_TURN} FROM turns t JOIN calls ON calls.id = t.call"
            " WHERE calls.directory = ? ORDER BY t.at, t.segment",
            [directory],
        )

    def transcript(self, directory: str) -> list[dict[str, Any]]:
        """Return what was said in the call that has this directory, as far as it was kept."""
        return read_transcript(self._directory / directory)

    def latencies(self, which: Which) -> dict[tuple[str, str], list[float]]:
        """Return seconds, sorted, by flow and stage: only where there are any."""
        where, parameters = which.where()
        found: dict[tuple[str, str], list[float]] = {}
        for stage in TIMES:
            rows = self._sql.execute(
                f"SELECT coalesce(t.flow, '-') AS flow, t.{stage} AS seconds FROM turns t"
                f" JOIN calls ON calls.id = t.call"
                f" WHERE t.{stage} IS NOT NULL AND t.gap IS NOT NULL AND {where}"
                f" ORDER BY t.{stage}",
                parameters,
            )
            for row in rows:
                found.setdefault((row["flow"], stage), []).append(row["seconds"])
        return dict(sorted(found.items(), key=lambda item: item[0][0] != "stream"))

    def _rows(self, statement: str, parameters: Sequence[object]) -> list[dict[str, Any]]:
        return [dict(row) for row in self._sql.execute(statement, parameters)]


@contextmanager
def open_log(directory: Path) -> Iterator[CallLog]:
    """Open the log in a record directory.

    Raises:
        FileNotFoundError: there is none.
        sqlite3.Error: it cannot be read.
    """
    path = directory / NAME
    if not path.is_file():
        raise FileNotFoundError(f"no calls are recorded in {directory}")
    sql = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=5)
    try:
        yield CallLog(directory, sql)
    finally:
        sql.close()


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of them lie: the nearest rank, none between."""
    rank = -(-len(ordered) * round(share * 1000) // 1000)  # rounded up
    return ordered[max(0, rank - 1)]
