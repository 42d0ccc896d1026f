"""What the routes of a server answer from, and what a route is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..records.records import Records
from ..settings import Settings
from .admission import Admission
from .call_state import CallStates
from .control.switchboard import Switchboard
from .ledger import Ledger
from .metrics import Metrics
from .port.http import Request, Response
from .port.upgrade import Upgrade
from .recordings.recording_flow import RecordingFlow
from .store import Store


@dataclass(frozen=True, slots=True)
class House:
    """What the routes answer from."""

    settings: Settings
    admission: Admission
    ledger: Ledger
    store: Store
    metrics: Metrics = field(default_factory=Metrics)
    warm_up: Callable[[], None] = lambda: None
    """Called when a call will begin in a moment."""
    states: CallStates | None = None
    """What is known of calls, whichever worker they reach."""
    flow: RecordingFlow | None = None
    """Where calls go on without a stream; None: a function of the embedder's takes streams only."""
    records: Records | None = None
    """None: calls are not recorded."""
    switchboard: Switchboard | None = None
    """What the control routes work with."""

    def stream_parameters(self, call_sid: str, caller: str, called: str) -> dict[str, str]:
        """Return what a stream is given on its way, and brings back in its `start`."""
        return {
            "token": self.admission.token(call_sid),
            "From": caller,
            "To": called,
            "language": self.settings.language,
        }


Answer = Response | Upgrade
Route = Callable[[House, Request, bytes], Awaitable[Answer]]
NamedRoute = Callable[[House, Request, bytes, str], Awaitable[Answer]]
"""The route of a path with a name in it."""
