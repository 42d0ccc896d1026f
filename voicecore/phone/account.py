"""A carrier's account, without I/O: the calls that it knows and the recordings that it keeps.

Bounds: of calls that are over, and of recordings, the oldest are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ..audio import wav
from ..errors import VoicecoreError
from .capture import VoiceCapture
from .progress import ACCOUNT_SID, API_VERSION, Progress, rfc2822, wall_clock
from .verbs import StatusCallback

MAX_CALLS = 1000
MAX_RECORDINGS = 1000
MAX_RECORDED_BYTES = 64 << 20
RECORDING_DELAY_S = 0.4
"""A recording is announced before it can be had: Twilio's action comes some hundred ms early."""


class RestError(VoicecoreError):
    """A request that Twilio's REST API would refuse: an HTTP status and Twilio's own number."""

    def __init__(self, status: int, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.status, self.code, self.reason = status, code, reason

    def as_json(self) -> Mapping[str, object]:
        """Return the body that says so."""
        url = f"https://www.twilio.com/docs/errors/{self.code}"
        return {
            "code": self.code,
            "message": self.reason,
            "more_info": url,
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a call goes on: a document to ask for, or one that is there already."""

    url: str
    method: str = "POST"
    extra: Mapping[str, str] = field(default_factory=dict)
    """What the request for it says beyond the usual."""
    document: bytes | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """Whether a machine has taken the call: asked before the first document, or beside it."""

    callback: StatusCallback | None = None
    """Where the verdict goes; None: into the first document's request."""
    asynchronous: bool = False


@dataclass(frozen=True, slots=True)
class CallOrder:
    """A call that somebody wants placed: what POST …/Calls.json says."""

    caller: str
    called: str
    goal: Goal
    callback: StatusCallback | None = None
    detection: Detection | None = None
    ring_limit_s: float = 60.0


class LiveCall(Protocol):
    """What the REST API can do with a call."""

    progress: Progress

    def redirect(self, goal: Goal) -> None:
        """Leave whatever is going on and go on at `goal`."""

    def end(self, status: str = "completed") -> None:
        """End the call: hang up, or stop ringing."""


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """A recording as the account keeps it: `audio` is 8 kHz mu-law."""

    sid: str
    call_sid: str
    audio: bytes
    seconds: int
    ready_at: float
    """When it can be had, on the caller's clock."""
    made: datetime

    def as_wav(self) -> bytes:
        """Return it as Twilio does: 8 kHz, 16 bit, mono."""
        return wav.telephone_bytes(self.audio)


class Account:
    """One account.  `now` is an argument wherever time counts."""

    def __init__(
        self,
        sid: str = ACCOUNT_SID,
        token: str | None = None,
        recording_delay_s: float = RECORDING_DELAY_S,
    ) -> None:
        self.sid = sid
        self.token = token
        """What requests must present; None: nobody is asked."""
        self.base_url = "http://127.0.0.1"
        """Where its REST API is served."""
        self.recording_delay_s = recording_delay_s
        self.place: Callable[[CallOrder], LiveCall] | None = None
        """Places a call that was ordered; None: nobody here takes calls.  Raises RestError."""
        self._calls: OrderedDict[str, LiveCall] = OrderedDict()
        self._recordings: OrderedDict[str, StoredRecording] = OrderedDict()
        self._recorded_bytes = 0

    def __repr__(self) -> str:
        return f"<Account {self.sid} {len(self._calls)} calls, {len(self._recordings)} recordings>"

    def add(self, call: LiveCall) -> None:
        """Know a call; one that is over may be forgotten for it."""
        self._calls[call.progress.parties.call_sid] = call
        if len(self._calls) > MAX_CALLS:
            over = next((sid for sid, old in self._calls.items() if old.progress.over), None)
            if over is not None:
                del self._calls[over]

    def call(self, sid: str) -> LiveCall:
        """Return a call.

        Raises:
            RestError: there is none.
        """
        if sid not in self._calls:
            raise self.unknown(f"Calls/{sid}")
        return self._calls[sid]

    def keep(self, sid: str, call_sid: str, capture: VoiceCapture, now: float) -> StoredRecording:
        """Keep what was recorded under a new SID; it can be had after the delay."""
        recording = StoredRecording(
            sid=sid,
            call_sid=call_sid,
            audio=capture.audio,
            seconds=round(capture.seconds),
            ready_at=now + self.recording_delay_s,
            made=wall_clock(),
        )
        self._recordings[recording.sid] = recording
        self._recorded_bytes += len(recording.audio)
        while len(self._recordings) > 1 and (
            len(self._recordings) > MAX_RECORDINGS or self._recorded_bytes > MAX_RECORDED_BYTES
        ):
            self._forget(next(iter(self._recordings)))
        return recording

    def recording(self, sid: str, now: float) -> StoredRecording:
        """Return a recording that can be had by now.

        Raises:
            RestError: there is none, or not yet.
        """
        found = self._recordings.get(sid)
        if found is None or found.ready_at > now + 1e-6:
            raise self.unknown(f"Recordings/{sid}")
        return found

    def delete(self, sid: str, now: float) -> None:
        """Delete a recording; raises as `recording`."""
        self._forget(self.recording(sid, now).sid)

    def url(self, sid: str) -> str:
        """Return where a recording is or will be, without a suffix."""
        return f"{self.base_url}/{API_VERSION}/Accounts/{self.sid}/Recordings/{sid}"

    def as_json(self, recording: StoredRecording) -> Mapping[str, object]:
        """Return a recording as the REST API shows it."""
        date = rfc2822(recording.made)
        return {
            "sid": recording.sid,
            "account_sid": self.sid,
            "call_sid": recording.call_sid,
            "api_version": API_VERSION,
            "status": "completed",
            "channels": 1,
            "source": "RecordVerb",
            "duration": str(recording.seconds),
            "date_created": date,
            "date_updated": date,
            "start_time": date,
            "price": None,
            "price_unit": "USD",
            "error_code": None,
            "media_url": self.url(recording.sid),
            "uri": self.url(recording.sid).removeprefix(self.base_url) + ".json",
        }

    def unknown(self, what: str) -> RestError:
        """Return the error for something that is not there."""
        path = f"/{API_VERSION}/Accounts/{self.sid}/{what}"
        return RestError(404, 20404, f"The requested resource {path[:200]} was not found")

    def _forget(self, sid: str) -> None:
        self._recorded_bytes -= len(self._recordings.pop(sid).audio)
