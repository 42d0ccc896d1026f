"""What can happen on a media stream, and what can be said on it, whatever the carrier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Connected:
    """The first message: the carrier speaks the protocol that we expect."""


@dataclass(frozen=True, slots=True)
class Started:
    """The stream belongs to a call now.  `parameters` are the strings that our TwiML put there."""

    call_sid: str
    stream_sid: str
    account_sid: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Media:
    """The caller's sound: raw mu-law of any length.

    `at_ms` is where it begins on the carrier's own clock, whose zero is the carrier's choice; None
    where the carrier does not say.  It is what a stranger says: it may be anything.
    """

    audio: bytes
    at_ms: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MarkReached:
    """Everything sent before this mark was played, or thrown away by a `Clear`."""

    name: str


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key: one of ``0123456789*#``."""

    digit: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stream is over; the carrier closes next."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that means nothing to us, and why.  The call goes on."""

    reason: str


def milliseconds(given: object) -> int | None:
    """Return a carrier's timestamp, a number or a string of one, if it is one.

    Fifteen digits are thirty thousand years; Python would take its time over five thousand.
    """
    if type(given) is str:
        return int(given) if len(given) <= 15 and given.isascii() and given.isdigit() else None
    return given if type(given) is int and 0 <= given < 10**15 else None


Event = Connected | Started | Media | MarkReached | Dtmf | Stopped | Ignored


@dataclass(frozen=True, slots=True)
class Play:
    """Append mu-law to what the caller hears; whole frames of 160 bytes."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """Ask to be told when the caller has heard everything sent so far."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Throw away what the carrier has not played yet.  It echoes the pending marks at once."""


Command = Play | Mark | Clear
