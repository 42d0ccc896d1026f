"""TwiML's verbs as values: what a document asks the carrier to do, with every default filled in.

URLs are absolute; times are seconds.  Defaults are those of twilio.com/docs/voice/twiml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_LOOPS = 1000
"""What ``loop="0"``, for ever, comes to."""


@dataclass(frozen=True, slots=True)
class Say:
    """Text that the carrier itself speaks."""

    text: str
    loop: int = 1


@dataclass(frozen=True, slots=True)
class Play:
    """A sound file that the carrier fetches, or with `digits` the tones of these keys."""

    url: str
    loop: int = 1
    digits: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Redirect:
    """Go on with another document."""

    url: str
    method: str


@dataclass(frozen=True, slots=True)
class Hangup:
    """End the call."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Do not even answer the call."""

    reason: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a bidirectional media stream; when it has ended go on at `action`, if there is one."""

    stream_url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    action: str | None = None
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class StatusCallback:
    """Where the carrier reports which events of a call or of a recording."""

    url: str
    events: frozenset[str] = frozenset({"completed"})
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Record:
    """Record the caller, then go on at `action`: what follows in the document is never reached."""

    action: str
    method: str = "POST"
    timeout: float = 5.0
    """Silence that ends the recording; 0: none does."""
    finish_on_key: str = "1234567890*#"
    max_length: float = 3600.0
    play_beep: bool = True
    trim: bool = True
    """Whether silence at both ends is cut off."""
    callback: StatusCallback | None = None


@dataclass(frozen=True, slots=True)
class Gather:
    """Collect keys, also while the nested `prompts` are heard, and take them to `action`."""

    action: str
    method: str = "POST"
    prompts: tuple[Say | Play | Pause, ...] = ()
    num_digits: int = 0
    """How many keys are enough; 0: as many as come."""
    finish_on_key: str = "#"
    timeout: float = 5.0
    on_empty: bool = False
    """Whether `action` is asked when no key was pressed; if not, the next verb follows."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Hand the call over to somebody else, or to a conference."""

    targets: tuple[str, ...]
    conference: str | None = None
    action: str | None = None
    method: str = "POST"
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A verb that this phone cannot play."""

    name: str


Verb = (
    Say | Play | Pause | Redirect | Hangup | Reject | Connect | Record | Gather | Dial | Unsupported
)
