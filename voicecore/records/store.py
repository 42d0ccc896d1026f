"""Brings what calls have told to the disk: their files and their rows.  Blocks: for a thread.

The event loop hands over `Batch`es, some a second, of all calls at once; one transaction writes
their rows.  Whatever fails is said, and costs no other call anything.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ..audio import SAMPLE_RATE
from . import dates
from .database import FINAL, Database, Row, Status
from .files import CallFiles, Sound, make_directory, read_timeline, write_timeline
from .owners import Owner
from .retention import Limits, sweep
from .story import Milestone, Story

FRESH_S = 2.0
"""How often the row of a call says that it is alive: a lost one seems to end by so much early."""

TIMELINE_S = 10.0
"""How often the time line of a call that is up is written, which is all of it each time."""

MOST_AGAIN = 100
"""Calls whose end is kept for another try."""

FLOW_ENDED: Mapping[str, str] = {"completed": "caller"}
"""What a final status makes of a recorded call that nobody has ended: else the carrier did."""


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of a call when it, or a segment of it, begins."""

    sid: str
    flow: str
    carrier: str
    direction: str
    began: datetime
    from_number: str | None = None
    to_number: str | None = None


@dataclass(slots=True)
class Batch:
    """What one call has told since the last one.  `until` is now, in seconds of the segment."""

    sounds: list[Sound] = field(default_factory=list)
    milestones: list[Milestone] = field(default_factory=list)
    until: float = 0.0
    over: bool = False
    """Nothing more of this segment will come."""


class CallPages:
    """What the store knows of one segment of a call.  Made anywhere, used in its thread alone."""

    def __init__(self, facts: CallFacts, *, with_audio: bool) -> None:
        self.facts = facts
        self.story = Story(facts.flow)
        self.row: Row | None = None
        self.files: CallFiles | None = None
        self.offset_s = 0.0
        self.with_audio = with_audio
        self.fresh_until = 0.0
        """Seconds of the segment at which the row should say again that it is alive."""
        self.told_until = 0.0
        """The same of its time line."""

    def __repr__(self) -> str:
        return f"<CallPages {self.facts.sid}>"

    def columns(self, batch: Batch) -> dict[str, Any]:
        """Return what the call's row should say now."""
        bases = {} if self.row is None else self.row.bases
        columns: dict[str, Any] = {
            name: count + bases.get(name, 0) for name, count in self.story.counts.items()
        }
        columns["touched"] = dates.now().timestamp()
        columns["seconds"] = round(self.offset_s + batch.until, 3)
        if self.files is not None:
            columns["bytes"] = self.files.size()
        if batch.over:
            columns["owner"] = None
            if self.story.ended_by is not None:
                columns["ended"] = dates.iso(dates.now())
                columns["ended_by"] = self.story.ended_by
        return columns

    def turn_rows(self) -> Iterable[dict[str, Any]]:
        """Return the turns that have news, as rows."""
        assert self.row is not None
        for name in self.story.changed:
            turn = self.story.turns[name]
            at = None if turn["at"] is None else round(turn["at"] + self.offset_s, 3)
            keys = {"call": self.row.id, "segment": self.row.segment, "turn": name}
            yield {**keys, **turn, "at": at}


def joined(facts: CallFacts, before: sqlite3.Row, *, with_text: bool) -> CallFacts:
    """Return what is known of a call that goes on: what was known when it began counts."""
    return replace(
        facts,
        carrier=before["carrier"],
        direction=before["direction"],
        from_number=before["from_number"] if with_text else None,
        to_number=before["to_number"] if with_text else None,
    )


def write_call_timeline(
    pages: CallPages, columns: Mapping[str, Any], callbacks: list[dict[str, Any]]
) -> None:
    """Write a call's time line.  Within a transaction: then no callback comes between."""
    assert pages.row is not None
    if pages.files is None:
        return
    facts = pages.facts
    call = {
        "sid": facts.sid, "from": facts.from_number, "to": facts.to_number,
        "direction": facts.direction, "carrier": facts.carrier, "flow": facts.flow,
        "began": pages.row.began, "ended_by": columns.get("ended_by"),
    }  # fmt: skip
    call |= {name: columns[name] for name in ("seconds", *pages.story.counts)}
    segment = pages.row.segment
    turns = [
        {"turn": name, "segment": segment, **{k: v for k, v in turn.items() if v is not None}}
        for name, turn in pages.story.turns.items()
    ]
    for turn in turns:
        turn["at"] = round(turn["at"] + pages.offset_s, 3)
    earlier = read_timeline(pages.files.directory).get("turns", ()) if segment > 1 else ()
    kept = [turn for turn in earlier if turn.get("segment", 0) < segment]
    pages.files.write_timeline({"call": call, "turns": kept + turns, "callbacks": callbacks})


class Store:
    """One process's way to the disk.  One thread at a time."""

    def __init__(self, directory: Path, limits: Limits, *, with_text: bool) -> None:
        """Make the directory and the log ready.

        Raises:
            OSError, sqlite3.Error: they cannot be used.
        """
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owner = Owner(directory)
        self._limits = limits
        self._with_text = with_text
        self._again: list[tuple[CallPages, Batch]] = []
        try:
            self._database = Database(directory)
        except BaseException:
            self._owner.close()
            raise

    def __repr__(self) -> str:
        return f"<Store {str(self.directory)!r}>"

    def close(self, left: Iterable[CallPages] = ()) -> None:
        """Close the log; calls that are `left` open are lost from now on."""
        for pages in left:
            if pages.files is not None:
                pages.files.close()
        self._database.close()
        self._owner.close()

    def sweep(self) -> bool:
        """Delete what is too old or too much; return whether there is more of it."""
        return sweep(self.directory, self._database, self._limits)

    def write(
        self, batches: Sequence[tuple[CallPages, Batch]], statuses: Sequence[Status] = ()
    ) -> list[str]:
        """Write what calls have told; return what went wrong, a line for each kind of it."""
        failures: dict[str, None] = {}

        def attempt(act: Callable[..., None], *arguments: object) -> None:
            try:
                act(*arguments)
            except OSError as error:
                failures[f"cannot write: {error.strerror or error}"] = None
            except (sqlite3.Error, ValueError) as error:
                failures[f"cannot write the log: {error}"] = None

        for pages, batch in batches:
            if pages.row is None:
                attempt(self._begin, pages)
            if pages.files is not None:
                until = round(batch.until * SAMPLE_RATE)
                # Of a stream nothing is heard behind its end; a webhook's answer is still to come.
                ends = batch.over and pages.facts.flow == "stream"
                attempt(pages.files.write_sounds, batch.sounds, until, ends)
            attempt(self._tell, pages, batch.milestones)
        attempt(self._write_rows, [*self._again, *batches])
        for status in statuses:
            attempt(self._note_status, status)
        for pages, batch in batches:
            if batch.over and pages.files is not None:
                pages.files.close()
        return list(failures)

    def _begin(self, pages: CallPages) -> None:
        """Make a call's row and its directory, or find those that it has."""
        facts = pages.facts
        made = ""
        try:
            with self._database.transaction():
                before = self._database.to_continue(facts.sid, facts.flow)
                if before is None:
                    made = make_directory(self.directory, facts.sid, facts.began)
                    row = self._insert(facts, made)
                else:
                    facts = pages.facts = joined(facts, before, with_text=self._with_text)
                    row = self._continue(facts, before)
        except sqlite3.Error:
            if made:  # it will be tried again
                os.rmdir(self.directory / made)
            raise
        pages.row = row
        pages.offset_s = max(0.0, (facts.began - dates.parse(row.began)).total_seconds())
        directory = self.directory / row.directory
        pages.files = CallFiles(directory, pages.offset_s, with_audio=pages.with_audio)
        if before is not None:
            pages.files.read_timeline()

    def _insert(self, facts: CallFacts, name: str) -> Row:
        began = dates.iso(facts.began)
        row = self._database.insert(
            {
                "sid": facts.sid, "directory": name, "carrier": facts.carrier,
                "flow": facts.flow, "direction": facts.direction,
                "from_number": facts.from_number, "to_number": facts.to_number,
                "began": began, "owner": self._owner.name,
                "touched": dates.now().timestamp(),
            }
        )  # fmt: skip
        return Row(row, 1, name, began)

    def _continue(self, facts: CallFacts, before: sqlite3.Row) -> Row:
        segment = before["segment"] + 1
        self._database.update(
            before["id"],
            before["segment"],
            {
                "segment": segment, "flow": facts.flow, "owner": self._owner.name,
                "from_number": facts.from_number, "to_number": facts.to_number,
                "ended": None, "ended_by": None, "touched": dates.now().timestamp(),
            },
        )  # fmt: skip
        bases = {name: before[name] or 0 for name in Story(facts.flow).counts}
        return Row(before["id"], segment, before["directory"], before["began"], bases)

    def _tell(self, pages: CallPages, milestones: Iterable[Milestone]) -> None:
        """Put milestones into the story, the transcript and the time line."""
        lines = []
        for milestone in milestones:
            at = round(milestone.at + pages.offset_s, 3)
            line = pages.story.take(milestone)
            if line is not None and self._with_text:
                lines.append({**line, "at": at})
            if pages.files is not None:
                entry = {"at": at, "event": milestone.event, **milestone.fields}
                pages.files.add_milestone(entry)
        if pages.files is not None:
            pages.files.append_lines(lines)

    def _write_rows(self, batches: Sequence[tuple[CallPages, Batch]]) -> None:
        """Write turns and rows of calls that have news, or have said nothing for long."""
        due = [
            (pages, batch)
            for pages, batch in batches
            if pages.row is not None
            and (batch.over or pages.story.changed or batch.until >= pages.fresh_until)
        ]
        if not due:
            return
        # Should this fail, ends are written with whatever is written next.
        self._again = [(pages, batch) for pages, batch in due if batch.over][-MOST_AGAIN:]
        written: list[tuple[CallPages, set[str]]] = []
        unwritten: OSError | None = None
        with self._database.transaction():
            for pages, batch in due:
                assert pages.row is not None
                written.append((pages, set(pages.story.changed)))
                self._database.write_turns(pages.turn_rows())
                columns = pages.columns(batch)
                is_ours = self._database.update(pages.row.id, pages.row.segment, columns)
                if is_ours and (batch.over or batch.until >= pages.told_until):
                    pages.told_until = batch.until + TIMELINE_S
                    try:
                        callbacks = self._database.statuses(pages.facts.sid)
                        write_call_timeline(pages, columns, callbacks)
                    except OSError as error:  # the rows shall not suffer
                        unwritten = error
                if batch.until >= pages.fresh_until:
                    pages.fresh_until = batch.until + FRESH_S
        self._again = []
        for pages, names in written:
            pages.story.changed -= names
        if unwritten is not None:
            raise unwritten

    def _note_status(self, status: Status) -> None:
        with self._database.transaction():
            row = self._database.note_status(status)
            if row is not None and status.kind == "call" and status.status in FINAL:
                self._end_flow(row, status)
        if row is None:
            return
        with self._database.transaction():
            directory = self.directory / row["directory"]
            document = read_timeline(directory)
            if document:
                # If the call is up, its own process writes the same within a moment.
                document["callbacks"] = self._database.statuses(status.sid)
                write_timeline(directory, document)

    def _end_flow(self, row: sqlite3.Row, status: Status) -> None:
        """A recorded call, which is up in no process between its webhooks, is over."""
        if row["ended"] is None and row["owner"] is None:
            began = dates.parse(row["began"])
            seconds = max(timedelta(), dates.now() - began).total_seconds()
            self._database.update(
                row["id"],
                row["segment"],
                {
                    "ended": dates.iso(dates.now()), "seconds": round(seconds, 3),
                    "ended_by": FLOW_ENDED.get(status.status, "carrier"),
                },
            )  # fmt: skip
