"""Who may have a call: the signature, the one-time token, and a free place.

A place is taken by `start`, not by a socket: twenty silent sockets are not a full house.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ..errors import CallRefused
from ..settings import Settings
from ..twilio.signature import Form, SignatureCheck
from ..twilio.token import StreamTokens
from ..wire.events import Started
from .http import Request
from .ledger import Ledger
from .limits import TOKEN_S
from .urls import request_urls

Admit = Callable[[Started], None]
"""Lets a stream become a call, or raises `CallRefused`."""

SIGNATURE = "x-twilio-signature"
SIGNATURE_SETTINGS = "x-twilio-webhooks-signature-settings"
TRY_AGAIN_LATER = 1013


class Admission:
    """One server's door.

    `clock` is `trio.current_time` moved to the machine's time of day: workers must agree on it.
    """

    def __init__(self, settings: Settings, ledger: Ledger, clock: Callable[[], float]) -> None:
        secret = settings.twilio_auth_token
        tokens = secret.get_secret_value() if secret is not None else ""
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._check = SignatureCheck(tokens) if tokens else None
        self._tokens = StreamTokens(tokens, ledger, TOKEN_S)
        self._leaving = trio.Event()

    @property
    def draining(self) -> bool:
        """Whether the server is on its way out: no new calls."""
        return self._leaving.is_set()

    @property
    def full(self) -> bool:
        """Whether every place is taken."""
        most = self._settings.max_calls
        return 0 < most <= self._ledger.calls

    def drain(self) -> None:
        """Let no more calls in."""
        self._leaving.set()

    async def wait_draining(self) -> None:
        """Wait until somebody asks the server to leave."""
        await self._leaving.wait()

    def signed(self, request: Request, form: Form, *, websocket: bool = False) -> bool:
        """Return whether Twilio signed this request; always, if there is no auth token."""
        if self._check is None:
            return True
        return self._check.accepts(
            request_urls(request, self._settings.public_url, websocket=websocket),
            form,
            request.header(SIGNATURE),
            request.header(SIGNATURE_SETTINGS),
        )

    def token(self, call_sid: str) -> str:
        """Make the token that this call's stream will present."""
        return self._tokens.issue(call_sid, self._clock())

    @contextmanager
    def place(self) -> Iterator[Admit]:
        """Give a stream the right to ask for one place, and take the place back at the end."""
        taken = False

        def admit(started: Started) -> None:
            nonlocal taken
            if self._check is not None and not self._redeemed(started):
                raise CallRefused("no valid token", 1008)
            if self.full:
                raise CallRefused("every place is taken", TRY_AGAIN_LATER)
            self._ledger.call_began()
            taken = True

        try:
            yield admit
        finally:
            if taken:
                self._ledger.call_over()

    def _redeemed(self, started: Started) -> bool:
        token = started.parameters.get("token", "")
        return self._tokens.redeem(token, started.call_sid, self._clock())
