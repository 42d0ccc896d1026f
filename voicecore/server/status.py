"""Status callbacks: what the carrier says of a call and of its stream, in its own time and order.

They may reach any worker, twice, late, and for calls that never had a stream: a failed handshake is
explained nowhere else.  Each is a line in the log, and goes to the call's record if there is one.
"""

from __future__ import annotations

import re

from ..records.database import Status
from ..twilio.signature import Form

SID_CHARS = 256
TEXT_CHARS = 200

_NUMBER = re.compile(r"[0-9]{1,9}")


def call_status(form: Form) -> Status:
    """Return what a callback says of a call (Twilio's "Call resource", status callbacks)."""
    return Status(
        sid=_text(form, "CallSid", SID_CHARS),
        kind="call",
        status=_text(form, "CallStatus"),
        sequence=_number(form, "SequenceNumber") or 0,
        seconds=_number(form, "CallDuration"),
        sip_code=_number(form, "SipResponseCode"),
        error=_text(form, "ErrorMessage") or _text(form, "ErrorCode") or None,
    )


def stream_status(form: Form) -> Status:
    """Return what a callback says of a stream (Twilio's <Stream> page, statusCallback)."""
    return Status(
        sid=_text(form, "CallSid", SID_CHARS),
        kind="stream",
        status=_text(form, "StreamEvent"),
        error=_text(form, "StreamError") or None,
    )


def log_fields(status: Status) -> dict[str, object]:
    """Return what a log line says of a callback."""
    fields = {
        "status": status.status,
        "sequence": status.sequence,
        "seconds": status.seconds,
        "sip_code": status.sip_code,
        "error": status.error,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _text(form: Form, name: str, most: int = TEXT_CHARS) -> str:
    return form.first(name)[:most].replace("\0", "")


def _number(form: Form, name: str) -> int | None:
    text = form.first(name)
    return int(text) if _NUMBER.fullmatch(text) else None
