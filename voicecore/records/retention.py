"""What is deleted, and when: by age, and by how much room all records take.

Rules that hold here:

* The oldest ended calls go first, directory and row; a call that is up never goes.
* One sweep does a bounded piece of work, and says whether there is more.
* What is deleted is gone: its bytes in the log are overwritten as soon as nobody reads there.
* Only what is named as our directories are is deleted, whatever the log or the disk says.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import dates
from .database import Database
from .files import NAME, directory_bytes
from .owners import forget_dead

MOST_DELETED = 100
"""Calls that one sweep deletes."""

ORPHANED_H = 26
"""A directory that no row names is nobody's once no call can be so long."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How old records may be, in days, and how much room they may take, in bytes; 0: any."""

    days: float = 0
    total_bytes: int = 0


def sweep(directory: Path, database: Database, limits: Limits) -> bool:
    """End calls whose process is gone; delete what is too old or too much.

    Returns whether there is more to delete.

    Raises:
        OSError, sqlite3.Error: the disk fails.
    """
    with database.transaction():
        database.end_lost()
        database.forget_statuses(timedelta(days=1))
    forget_dead(directory)
    if not limits.days and not limits.total_bytes:
        return False
    try:
        return _delete_oldest(directory, database, limits)
    finally:
        database.forget_deleted()


def _delete_oldest(directory: Path, database: Database, limits: Limits) -> bool:
    """Delete what is too old or too much; return whether there is more of it."""
    orphans = sorted(_orphans(directory, database))
    oldest = dates.iso(dates.now() - timedelta(days=limits.days)) if limits.days else ""
    total = database.total_bytes() + sum(size for _, _, size in orphans)
    calls = [
        (row["ended"], row["directory"], row["bytes"], row)
        for row in database.oldest_ended(MOST_DELETED + 1)
    ]
    ended = sorted([*calls, *((*orphan, None) for orphan in orphans)], key=lambda old: old[0])
    for number, (when, name, size, row) in enumerate(ended):
        if when >= oldest and not 0 < limits.total_bytes < total:
            return False
        if number == MOST_DELETED:
            return True
        if not _deleted(directory, name):
            continue  # not ours to delete: its row stays, for somebody to see
        if row is not None:
            with database.transaction():
                database.delete(row["id"], row["sid"])
        total -= size
    return False


def _orphans(directory: Path, database: Database) -> Iterator[tuple[str, str, int]]:
    """Directories of calls that no row names: when they were made, their names, their sizes."""
    before = dates.now() - timedelta(hours=ORPHANED_H)
    with os.scandir(directory) as entries:
        for entry in entries:
            if not NAME.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(ValueError):
                made = datetime.strptime(entry.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                if made < before and not database.has_directory(entry.name):
                    yield dates.iso(made), entry.name, directory_bytes(directory / entry.name)


def _deleted(directory: Path, name: str | None) -> bool:
    """Delete one call's directory, through no link; return whether there is none any more."""
    if name is None or not NAME.fullmatch(name):
        return True
    shutil.rmtree(directory / name, ignore_errors=True)
    return not os.path.lexists(directory / name)
