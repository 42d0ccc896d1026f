"""What each carrier's webhooks call what they say: which call it is, who calls whom.

One table.  A carrier's fields come as a form, as JSON or in the query; whoever reads them hands
over what there was, and other fields mean nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WebhookFields:
    """One carrier's names.  Of several the first that has a value counts."""

    call_sid: str
    caller: tuple[str, ...]
    called: tuple[str, ...]
    over: frozenset[str] = frozenset()
    """What the field ``status`` says when a stream is over; empty: the webhook itself says so."""

    def call_of(self, fields: Mapping[str, str]) -> str:
        """Return the carrier's own name of the call; empty if there is none."""
        return fields.get(self.call_sid, "")

    def numbers_of(self, fields: Mapping[str, str]) -> tuple[str, str]:
        """Return who calls, and whom; empty what is not told."""
        return _first(fields, self.caller), _first(fields, self.called)

    def tells_the_end(self, fields: Mapping[str, str]) -> bool:
        """Return whether a webhook about a stream says that it is over."""
        return not self.over or fields.get("status", "") in self.over


WEBHOOKS: Mapping[str, WebhookFields] = {
    # A form with Twilio's names; CallSid is the call control id, which `start` repeats
    # (developers.telnyx.com/api-reference/callbacks/texml-call-answered).
    "telnyx": WebhookFields("CallSid", ("From",), ("To",)),
    # docs.plivo.com/docs/voice/xml/request
    "plivo": WebhookFields("CallUUID", ("From",), ("To",)),
    # developer.signalwire.com/compatibility-api/xml/voice: Twilio's names, as form or query.
    "signalwire": WebhookFields("CallSid", ("From",), ("To",)),
    # Applets ask by GET (support.exotel.com, "Working with Connect applet (Dynamic URL)"); of the
    # Voicebot applet others report From and To.
    "exotel": WebhookFields("CallSid", ("CallFrom", "From"), ("CallTo", "To")),
    # GET, or POST with JSON; `from_user` instead of `from` when an app calls.  While a connect
    # action is synchronous its URL is told every state of the stream, and an NCCO in answer to
    # "answered" would replace the stream that has just begun.  These are the states after which
    # one is expected (the WebSockets guide's fallback options, and "Connect with fallback NCCO").
    "vonage": WebhookFields(
        "uuid",
        ("from", "from_user"),
        ("to",),
        frozenset({"disconnected", "failed", "unanswered", "timeout", "rejected", "busy"}),
    ),
}
"""Carrier -> its names.  Twilio's are where its signature is checked."""


def _first(fields: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((fields[name] for name in names if fields.get(name)), "")
