"""What carriers that do not sign for us know instead: VOICECORE_CARRIER_SECRET.

It comes in the URL that was configured at the carrier: as ``?secret=…``, or as the password of
``https://any:password@host``, which arrives as HTTP Basic.  It never leaves us again: it stands in
no document, no URL that we hand out, and no log.

A stream's own URL may have it as a password, too, for carriers that can be given that URL at once.
Not in the query: Exotel brings that back as parameters, which are the agent's to read.
"""

from __future__ import annotations

import binascii
from base64 import b64decode

from ..twilio.rotation import is_one_of, secrets_in
from ..twilio.signature import parse_form
from .port.http import Request
from .port.limits import FORM_FIELDS

QUERY_FIELD = "secret"


class CarrierSecrets:
    """One or more secrets, separated by commas: while one is rotated, two are valid."""

    def __init__(self, secrets: str) -> None:
        self._secrets = secrets_in(secrets)

    def __repr__(self) -> str:
        return f"<CarrierSecrets {len(self._secrets)}>"

    def carried_by(self, request: Request) -> bool:
        """Return whether a webhook knows one of them.

        Both places count, and the query may have several: any one that is right is enough.
        """
        given = [*_in_query(request), *_in_basic(request)]
        return any(is_one_of(value, self._secrets) for value in given)

    def password_of(self, request: Request) -> bool:
        """Return whether a request has one of them as its password."""
        return any(is_one_of(value, self._secrets) for value in _in_basic(request))


def _in_query(request: Request) -> list[bytes]:
    try:
        fields = parse_form(request.query.encode(), FORM_FIELDS)
    except ValueError:
        return []
    return [value.encode("utf-8", "surrogateescape") for value in fields.getlist(QUERY_FIELD)]


def _in_basic(request: Request) -> list[bytes]:
    """The password of ``Authorization: Basic`` (RFC 7617), whatever the name."""
    scheme, _, credentials = request.header("authorization").partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        return [b64decode(credentials.strip(), validate=True).partition(b":")[2]]
    except (binascii.Error, ValueError):
        return []
