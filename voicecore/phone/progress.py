"""How far a call has come, without I/O: its status, its dates, and its forms and JSON.

    queued -> ringing -> in-progress -> completed
    queued, ringing -> busy, no-answer, failed, canceled

A status that has been passed does not come back.  Dates are of the wall clock, for the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

API_VERSION = "2010-04-01"
ACCOUNT_SID = "AC" + "0" * 31 + "1"
FINAL = frozenset({"completed", "busy", "no-answer", "failed", "canceled"})
EVENTS = {"queued": "initiated", "ringing": "ringing", "in-progress": "answered"}
"""Status -> what a status callback calls it; all that are final are called completed."""

_ORDER = ("queued", "ringing", "in-progress")


def wall_clock() -> datetime:
    """Return the date of now, for records: nothing waits for it."""
    return datetime.now(UTC)


def rfc2822(date: datetime) -> str:
    """Write a date as Twilio does: ``Thu, 27 Nov 2026 19:14:03 +0000``."""
    return format_datetime(date)


@dataclass(frozen=True, slots=True)
class Parties:
    """Who calls whom, under which SID."""

    call_sid: str
    caller: str
    called: str
    account_sid: str = ACCOUNT_SID
    direction: str = "inbound"


class Progress:
    """One call's status, from its creation to its end."""

    def __init__(self, parties: Parties) -> None:
        self.parties = parties
        self.status = "queued"
        self.answered_by: str | None = None
        """Who took the call, as far as was asked: human, machine_start …"""
        self.created = self.updated = wall_clock()
        self.started: datetime | None = None
        self.ended: datetime | None = None
        self.seconds = 0.0
        """How long the call lasted, from its answer; kept by whoever has the clock."""

    def __repr__(self) -> str:
        return f"<Progress {self.parties.call_sid} {self.status}>"

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self.status in FINAL

    @property
    def answered(self) -> bool:
        """Whether somebody took the call, now or before it ended."""
        return self.started is not None

    def reach(self, status: str) -> str | None:
        """Come to a status; return its event's name, None: the call was there, or beyond it."""
        if self.over or (status in _ORDER and self._passed(status)):
            return None
        self.status, self.updated = status, wall_clock()
        if status == "in-progress":
            self.started = self.updated
        if status in FINAL:
            self.ended = self.updated
        return EVENTS.get(status, "completed")

    def form(self, status: str | None = None) -> dict[str, str]:
        """Return the parameters that every request about this call has."""
        who = self.parties
        return {
            "AccountSid": who.account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": who.call_sid,
            "CallStatus": status or self.status,
            "Called": who.called,
            "Caller": who.caller,
            "Direction": who.direction,
            "From": who.caller,
            "To": who.called,
        }

    def event_form(self, event: str, number: int) -> dict[str, str]:
        """Return what a status callback carries; `number` counts the call's callbacks from 0."""
        form = self.form("initiated" if event == "initiated" else None)
        form |= {
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(number),
            "Timestamp": rfc2822(self.updated),
        }
        if self.over:
            seconds = round(self.seconds)
            form |= {"CallDuration": str(seconds), "Duration": str(-(-seconds // 60))}
            form |= {"SipResponseCode": _SIP.get(self.status, "200")}
        return form

    def as_json(self) -> Mapping[str, object]:
        """Return the call as the REST API shows it: numbers are strings, dates RFC 2822."""
        who = self.parties
        uri = f"/{API_VERSION}/Accounts/{who.account_sid}/Calls/{who.call_sid}"
        return {
            "sid": who.call_sid,
            "account_sid": who.account_sid,
            "api_version": API_VERSION,
            "status": self.status,
            "direction": who.direction,
            "to": who.called,
            "from": who.caller,
            "to_formatted": _formatted(who.called),
            "from_formatted": _formatted(who.caller),
            "answered_by": self.answered_by,
            "caller_name": None,
            "forwarded_from": None,
            "parent_call_sid": None,
            "phone_number_sid": None,
            "group_sid": None,
            "trunk_sid": None,
            "queue_time": "0",
            "date_created": rfc2822(self.created),
            "date_updated": rfc2822(self.updated),
            "start_time": self.started and rfc2822(self.started),
            "end_time": self.ended and rfc2822(self.ended),
            "duration": str(round(self.seconds)) if self.over else None,
            "price": None,
            "price_unit": "USD",
            "annotation": None,
            "uri": f"{uri}.json",
            "subresource_uris": {
                "recordings": f"{uri}/Recordings.json",
                "streams": f"{uri}/Streams.json",
            },
        }

    def _passed(self, status: str) -> bool:
        return self.status != "queued" and _ORDER.index(status) <= _ORDER.index(self.status)


_SIP = {"busy": "486", "no-answer": "480", "failed": "404", "canceled": "487"}


def _formatted(number: str) -> str:
    digits = number.removeprefix("+1")
    if not (number.startswith("+1") and digits.isdigit() and len(digits) == 10):
        return number
    return f"({digits[:3]}) {digits[3:6]}-{digits[6:]}"
