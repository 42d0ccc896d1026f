"""Twilio's names for things, as far as we put them into URLs: two letters and 32 hex digits."""

from __future__ import annotations

import re

_RECORDING = re.compile(r"RE[0-9a-fA-F]{32}")
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")


def is_recording_sid(sid: str) -> bool:
    """Return whether this can name a recording."""
    return _RECORDING.fullmatch(sid) is not None


def is_account_sid(sid: str) -> bool:
    """Return whether this can name an account."""
    return _ACCOUNT.fullmatch(sid) is not None


def recording_sid(sid: str, url: str) -> str:
    """Return a recording's SID as a request names it, or else its URL's last part; else nothing."""
    candidates = (sid, url.partition("?")[0].rpartition("/")[2])
    return next(filter(is_recording_sid, candidates), "")
