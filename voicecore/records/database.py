"""The log of all calls: one SQLite file that any number of processes write.

Rules that hold here:

* Write-ahead logging: readers and writers do not wait for each other, and a process that is killed
  takes nothing along that was committed.
* One call is one row, whatever became of its media.  Who goes on with a call that another process
  has begun raises `segment`; from then on only he may say how it ended.
* Statements are put together of this module's own names; values are always parameters.
* Status callbacks come late, twice, and in any order: they are kept in a table of their own, and
  the call's row is told what the latest of them says.

All of this blocks, and belongs into a thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..call.timeline import STAGES
from . import dates, owners

NAME = "calls.sqlite3"

BUSY_S = 5.0
"""How long a writer waits for another's transaction, which takes milliseconds."""

FORGET_S = 0.5
"""How long what was deleted is waited for: who wipes it holds up all who write."""

CONTINUE_S = 900.0
"""How long after its last sign of life a call can be gone on with: longer than a recording of a
caller may last.  After it, the same name is another call's."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    sid TEXT NOT NULL,             -- the carrier's name of the call
    directory TEXT NOT NULL,       -- where its files are, within the record directory
    carrier TEXT, flow TEXT,       -- "twilio" …; "stream" or "recording"
    direction TEXT,                -- "inbound" or "outbound"
    from_number TEXT, to_number TEXT,
    began TEXT NOT NULL,           -- ISO 8601, UTC
    ended TEXT, seconds REAL, ended_by TEXT,
    turns INTEGER, barge_ins INTEGER, underruns INTEGER, starved INTEGER,
    dropped_frames INTEGER, inbound_gaps INTEGER, failures INTEGER, lost_speculations INTEGER,
    status TEXT, carrier_seconds INTEGER, sip_code INTEGER, stream_error TEXT,
    bytes INTEGER NOT NULL DEFAULT 0,
    segment INTEGER NOT NULL DEFAULT 1,  -- streams and webhooks that it has had
    owner TEXT,                    -- the process that it is up in
    touched REAL NOT NULL          -- its last sign of life, Unix time
);
CREATE INDEX IF NOT EXISTS calls_by_sid ON calls (sid);
CREATE INDEX IF NOT EXISTS calls_by_began ON calls (began);
CREATE TABLE IF NOT EXISTS turns (
    call INTEGER NOT NULL REFERENCES calls (id),
    segment INTEGER NOT NULL, turn TEXT NOT NULL,
    flow TEXT,
    at REAL,                       -- seconds since the call began; so are no others
    gap REAL, endpoint REAL, fetch REAL, stt REAL, llm REAL, clause REAL, tts REAL,
    speculated INTEGER, speculations INTEGER,
    interrupted INTEGER, reaction_ms REAL, heard_s REAL,
    prompt_tokens INTEGER, cached_tokens INTEGER, completion_tokens INTEGER,
    caller_text TEXT, agent_text TEXT,
    PRIMARY KEY (call, segment, turn)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statuses (
    sid TEXT NOT NULL, kind TEXT NOT NULL,   -- "call" or "stream"
    sequence INTEGER NOT NULL, status TEXT NOT NULL,
    received TEXT NOT NULL, seconds INTEGER, sip_code INTEGER, error TEXT,
    PRIMARY KEY (sid, kind, sequence, status)
) WITHOUT ROWID;
PRAGMA user_version = 1;
"""

MOST_STATUSES = 32
"""Of one call: a carrier sends five."""

MOST_STRANGERS = 1000
"""Callbacks about calls that are not here, from one sweep to the next: nobody may fill the disk."""

FINAL = ("completed", "busy", "failed", "no-answer", "canceled")
"""Statuses after which there is no other, whatever their numbers say."""

TURN_COLUMNS = (
    "flow", "at", "gap", *STAGES, "speculated", "speculations",
    "interrupted", "reaction_ms", "heard_s", "prompt_tokens", "cached_tokens",
    "completion_tokens", "caller_text", "agent_text",
)  # fmt: skip

COUNTS = (
    "turns", "barge_ins", "underruns", "starved", "dropped_frames", "inbound_gaps", "failures",
    "lost_speculations",
)  # fmt: skip
"""Columns of a call that add up over its segments."""

_UPSERT_TURN = (
    f"INSERT INTO turns (call, segment, turn, {', '.join(TURN_COLUMNS)})"
    f" VALUES (:call, :segment, :turn, {', '.join(f':{name}' for name in TURN_COLUMNS)})"
    " ON CONFLICT (call, segment, turn) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in TURN_COLUMNS)
)


@dataclass(frozen=True, slots=True)
class Status:
    """One status callback.  `kind` is "call" or "stream"; what the carrier did not say is None."""

    sid: str
    kind: str
    status: str
    sequence: int = 0
    seconds: int | None = None
    sip_code: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Row:
    """One call's row as one segment of it knows it."""

    id: int
    segment: int
    directory: str
    began: str
    bases: Mapping[str, int] = field(default_factory=dict)
    """What the segments before have counted."""


class Database:
    """The log, open for writing.  One thread at a time."""

    def __init__(self, directory: Path) -> None:
        """Open the log, or make it, for its owner's eyes only.

        Raises:
            OSError: the file cannot be made.
            sqlite3.Error: it is no such log, or cannot be written.
        """
        self._directory = directory
        self._strangers = 0
        with _alone(directory):
            self._sql = _connect(directory / NAME)

    def close(self) -> None:
        """Close the log."""
        self._sql.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of it, or nothing; meanwhile nobody else writes.

        Raises:
            sqlite3.Error: it cannot be done.
        """
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._sql.in_transaction:  # a full disk has rolled it back already
                self._sql.execute("ROLLBACK")
            raise
        self._sql.execute("COMMIT")

    def to_continue(self, sid: str, flow: str) -> sqlite3.Row | None:
        """Return the row of this call if it is one that `flow` may go on with.

        A call whose stream broke goes on as a recording before anybody notices that; but a stream
        that begins while one of the same name is up is another call's, whoever sends it.
        """
        row: sqlite3.Row | None = self._sql.execute(
            "SELECT * FROM calls WHERE sid = ? ORDER BY id DESC LIMIT 1", (sid,)
        ).fetchone()
        if row is None or row["touched"] < dates.now().timestamp() - CONTINUE_S:
            return None
        is_up = row["ended"] is None and owners.is_alive(self._directory, row["owner"] or "")
        return None if is_up and flow == "stream" else row

    def insert(self, call: Mapping[str, Any]) -> int:
        """Add a call; return its row's id."""
        columns = ", ".join(call)
        values = ", ".join(f":{name}" for name in call)
        cursor = self._sql.execute(f"INSERT INTO calls ({columns}) VALUES ({values})", dict(call))
        self._tell_status(str(call["sid"]))
        return int(cursor.lastrowid or 0)

    def update(self, row: int, segment: int, changes: Mapping[str, Any]) -> bool:
        """Change a call's row, if no later segment has it by now; return whether that is so."""
        assignments = ", ".join(f"{name} = :{name}" for name in changes)
        cursor = self._sql.execute(
            f"UPDATE calls SET {assignments} WHERE id = :_id AND segment = :_segment",
            {**changes, "_id": row, "_segment": segment},
        )
        return cursor.rowcount > 0

    def write_turns(self, turns: Iterable[Mapping[str, Any]]) -> None:
        """Add turns, or replace them: each has `call`, `segment`, `turn` and `TURN_COLUMNS`."""
        self._sql.executemany(_UPSERT_TURN, turns)

    def note_status(self, status: Status) -> sqlite3.Row | None:
        """Keep a status callback; return the call's row, if there is one."""
        row: sqlite3.Row | None = self._sql.execute(
            "SELECT * FROM calls WHERE sid = ? ORDER BY id DESC LIMIT 1", (status.sid,)
        ).fetchone()
        self._strangers += row is None
        kept = self._sql.execute("SELECT count(*) FROM statuses WHERE sid = ?", (status.sid,))
        has_room = row is not None or self._strangers <= MOST_STRANGERS
        if has_room and kept.fetchone()[0] < MOST_STATUSES:
            self._sql.execute(
                "INSERT OR IGNORE INTO statuses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    status.sid, status.kind, status.sequence, status.status,
                    dates.iso(dates.now()), status.seconds, status.sip_code, status.error,
                ),
            )  # fmt: skip
        self._tell_status(status.sid)
        return row

    def statuses(self, sid: str) -> list[dict[str, Any]]:
        """Return the status callbacks of a call, in their order, without what is not there."""
        rows = self._sql.execute(
            "SELECT kind, sequence, status, received, seconds, sip_code, error FROM statuses"
            " WHERE sid = ? ORDER BY kind, sequence, received", (sid,)
        )  # fmt: skip
        return [{name: row[name] for name in row.keys() if row[name] is not None} for row in rows]  # noqa: SIM118

    def _tell_status(self, sid: str) -> None:
        """Tell the newest call of this name what its callbacks say, the latest of each kind."""
        latest = f"""
            SELECT %s FROM statuses s WHERE s.sid = :sid AND s.kind = '%s' AND s.%s IS NOT NULL
            ORDER BY s.status IN {FINAL} DESC, s.sequence DESC, s.received DESC LIMIT 1
        """
        self._sql.execute(
            f"""
            UPDATE calls SET
                status = ({latest % ("s.status", "call", "status")}),
                carrier_seconds = ({latest % ("s.seconds", "call", "seconds")}),
                sip_code = ({latest % ("s.sip_code", "call", "sip_code")}),
                stream_error = ({latest % ("s.error", "stream", "error")})
            WHERE id = (SELECT max(id) FROM calls WHERE sid = :sid)
              AND EXISTS (SELECT 1 FROM statuses WHERE sid = :sid)
            """,
            {"sid": sid},
        )

    def end_lost(self) -> None:
        """Write an end to calls whose process is gone, and to recordings that nobody goes on with.

        Their last sign of life was their end.
        """
        open_calls = self._sql.execute(
            "SELECT id, segment, owner, flow, touched FROM calls WHERE ended IS NULL"
        ).fetchall()
        for row in open_calls:
            if is_lost(self._directory, row["owner"], row["touched"]):
                self._sql.execute(
                    "UPDATE calls SET ended = strftime('%Y-%m-%dT%H:%M:%fZ', touched, 'unixepoch'),"
                    " seconds = coalesce(seconds,"
                    " max(0, round(touched - (julianday(began) - 2440587.5) * 86400, 3))),"
                    " ended_by = 'lost', owner = NULL"
                    " WHERE id = ? AND segment = ? AND ended IS NULL",
                    (row["id"], row["segment"]),
                )

    def oldest_ended(self, limit: int) -> list[sqlite3.Row]:
        """Return the calls that ended first."""
        return self._sql.execute(
            "SELECT id, sid, directory, ended, bytes FROM calls WHERE ended IS NOT NULL"
            " ORDER BY ended LIMIT ?", (limit,)
        ).fetchall()  # fmt: skip

    def has_directory(self, name: str) -> bool:
        """Return whether some call's files are there."""
        found = self._sql.execute("SELECT 1 FROM calls WHERE directory = ? LIMIT 1", (name,))
        return found.fetchone() is not None

    def delete(self, row: int, sid: str) -> None:
        """Delete a call, its turns, and its callbacks if they are nobody else's."""
        self._sql.execute("DELETE FROM turns WHERE call = ?", (row,))
        self._sql.execute("DELETE FROM calls WHERE id = ?", (row,))
        self._sql.execute(
            "DELETE FROM statuses WHERE sid = :sid"
            " AND NOT EXISTS (SELECT 1 FROM calls WHERE sid = :sid)",
            {"sid": sid},
        )

    def forget_statuses(self, age: timedelta) -> None:
        """Delete callbacks about calls that never were here."""
        self._strangers = 0
        self._sql.execute(
            "DELETE FROM statuses WHERE received < ?"
            " AND NOT EXISTS (SELECT 1 FROM calls WHERE calls.sid = statuses.sid)",
            (dates.iso(dates.now() - age),),
        )

    def forget_deleted(self) -> None:
        """Wipe what was deleted out of the write-ahead log, unless somebody is reading from it."""
        self._sql.execute(f"PRAGMA busy_timeout = {round(FORGET_S * 1000)}")
        try:
            self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._sql.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")

    def total_bytes(self) -> int:
        """Return what the calls' files take, and what is in use of the log itself."""
        files = self._sql.execute("SELECT coalesce(sum(bytes), 0) FROM calls").fetchone()[0]
        pages, free, size = (
            self._sql.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int(files + (pages - free) * size)


def is_lost(directory: Path, owner: str | None, touched: float) -> bool:
    """Return whether a call that has no end will never get one."""
    if owner:
        return not owners.is_alive(directory, owner)
    return touched < dates.now().timestamp() - CONTINUE_S


def _connect(path: Path) -> sqlite3.Connection:
    with suppress(FileExistsError):
        # Only a new one: who closes a file that SQLite has open takes SQLite's locks away.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    sql = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    sql.row_factory = sqlite3.Row
    try:
        sql.execute("PRAGMA journal_mode = WAL")
        # A kill loses nothing; a power cut, at worst, the last moments.
        sql.execute("PRAGMA synchronous = NORMAL")
        sql.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        sql.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    except sqlite3.Error:
        sql.close()
        raise
    return sql


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Open the log one process at a time: SQLite does not wait while its journal's kind changes."""
    file = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
