"""The records of calls in the recording flow: a segment for each piece of work, by whoever does it.

Two webhooks of one call may be answered by two workers.  Each begins a segment where it takes the
call up and closes it where it lets go; the records put them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio

from ...call.timeline import Observer
from ...records.call_record import CallRecord
from ...records.records import Records


class FlowRecords:
    """The segments of one worker; without `records` there are none.  `observe` is told as well."""

    def __init__(self, records: Records | None = None, observe: Observer | None = None) -> None:
        self._records = records
        self._observe = observe
        self._open: dict[str, CallRecord] = {}
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<FlowRecords {list(self._open)!r:.80}>"

    def write_in(self, nursery: trio.Nursery) -> None:
        """Wait for the disk in tasks of `nursery`: no caller should."""
        self._nursery = nursery

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        """Take a milestone (see `call.timeline.Observer`)."""
        if self._observe is not None:
            self._observe(call_sid, event, at, fields)
        if call_sid in self._open:
            # A segment counts its own turns; what the end of a call says is of all of it.
            own = {name: value for name, value in fields.items() if name != "turns"}
            self._open[call_sid].observe(call_sid, event, at, own)

    def open(self, call_sid: str, parameters: Mapping[str, str]) -> None:
        """Begin a segment, if none is open."""
        if self._records is not None and call_sid not in self._open:
            record = self._records.begin(call_sid, flow="recording", parameters=parameters)
            self._open[call_sid] = record

    @contextmanager
    def closing(self, call_sid: str) -> Iterator[None]:
        """Close, at the end, whatever segment was opened in here."""
        try:
            yield
        finally:
            record = self._open.pop(call_sid, None)
            if record is not None and self._nursery is not None:
                self._nursery.start_soon(record.close, name="record")

    def heard(self, call_sid: str, audio: bytes, ended_ago: float) -> None:
        """Take what the caller has said, and how long ago."""
        if call_sid in self._open:
            self._open[call_sid].heard_utterance(audio, ended_ago)

    def said(self, call_sid: str, audio: bytes) -> None:
        """Take what the caller is about to hear."""
        if call_sid in self._open:
            self._open[call_sid].said_utterance(audio)
