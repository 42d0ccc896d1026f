"""How Twilio signs what it asks of us (twilio.com/docs/usage/webhooks/webhooks-security).

A form is signed over its URL and its sorted parameters; an upgrade over its URL alone, in the form
with scheme ``wss`` that stood in the TwiML.
"""

from __future__ import annotations

from collections.abc import Mapping

from twilio.request_validator import RequestValidator

SIGNATURE_HEADER = "x-twilio-signature"


def form_signature(token: str, url: str, form: Mapping[str, str]) -> str:
    """Sign a POSTed form.  `url` is as configured at the carrier; its fragment does not count."""
    return _sign(token, url.partition("#")[0], form)


def upgrade_signature(token: str, url: str) -> str:
    """Sign a media stream's WebSocket upgrade; ``ws`` counts as the ``wss`` it stands in for."""
    scheme, colon, rest = url.partition("://")
    return _sign(token, {"ws": "wss"}.get(scheme, scheme) + colon + rest, {})


def _sign(token: str, url: str, form: Mapping[str, str]) -> str:
    signature: str = RequestValidator(token).compute_signature(url, dict(form))
    return signature
