"""Who may have a call: the signature or the secret, the one-time token, and a free place.

Twilio signs; other carriers carry a secret.  With neither TWILIO_AUTH_TOKEN nor
VOICECORE_CARRIER_SECRET everybody may call in.  With one of them, whoever would be known by the
other is refused: nobody locks one door to leave the other open.

A place is taken by `start`, not by a socket: twenty silent sockets are not a full house.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ..errors import CallRefused
from ..settings import Settings
from ..twilio.signature import Form, SignatureCheck
from ..twilio.token import CallProofs, StreamTokens
from ..wire.events import Started
from .carrier_secret import CarrierSecrets
from .ledger import Ledger
from .port.http import Request
from .port.limits import TOKEN_S
from .port.urls import request_urls

log = logging.getLogger("voicecore.server")

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
        auth_tokens, secrets = (
            "" if given is None else given.get_secret_value()
            for given in (settings.twilio_auth_token, settings.carrier_secret)
        )
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        self._check = SignatureCheck(auth_tokens) if auth_tokens else None
        self._secrets = CarrierSecrets(secrets) if secrets else None
        ours = f"{auth_tokens}\n{secrets}"
        self._tokens = StreamTokens(ours, ledger, TOKEN_S)
        self._proofs = CallProofs(ours)
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
        """Return whether Twilio signed this request; always, if nobody has to prove anything."""
        if self._check is None:
            if self._secrets is not None:
                log.warning("Twilio was refused: TWILIO_AUTH_TOKEN is not set")
            return self._secrets is None
        return self._check.accepts(
            request_urls(request, self._settings.public_url, websocket=websocket),
            form,
            request.header(SIGNATURE),
            request.header(SIGNATURE_SETTINGS),
        )

    def takes_carriers(self) -> bool:
        """Return whether those who do not sign can be told from strangers, or need not be."""
        known = self._secrets is not None or self._check is None
        if not known:
            log.warning("a carrier was refused: VOICECORE_CARRIER_SECRET is not set")
        return known

    def invited(self, request: Request) -> bool:
        """Return whether a request carries the carriers' secret; always, if nobody has to."""
        if self._secrets is None:
            return self.takes_carriers()
        carried = self._secrets.carried_by(request)
        if not carried:
            log.warning("a carrier was refused: its URL has no valid VOICECORE_CARRIER_SECRET")
        return carried

    def has_password(self, upgrade: Request) -> bool:
        """Return whether a stream's upgrade carries the carriers' secret itself."""
        return self._secrets is not None and self._secrets.password_of(upgrade)

    def proof(self, call_sid: str) -> str:
        """Make what lets a carrier ask about this call later, without the secret."""
        return self._proofs.prove(call_sid)

    def proves(self, proof: str, call_sid: str) -> bool:
        """Return whether a URL about this call is one that we handed out."""
        return self._proofs.holds(proof, call_sid)

    def token(self, call_sid: str) -> str:
        """Make the token that this call's stream will present."""
        return self._tokens.issue(call_sid, self._clock())

    @contextmanager
    def place(self, is_known: bool = False) -> Iterator[Admit]:
        """Give a stream the right to ask for one place, and take the place back at the end.

        Of one that is known no token is asked.
        """
        taken = False

        def admit(started: Started) -> None:
            nonlocal taken
            if not (is_known or self._is_open or self._redeemed(started)):
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

    @property
    def _is_open(self) -> bool:
        return self._check is None and self._secrets is None

    def _redeemed(self, started: Started) -> bool:
        token = started.parameters.get("token", "")
        return self._tokens.redeem(token, started.call_sid, self._clock())
