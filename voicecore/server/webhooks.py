"""What all of a carrier's webhooks have in common: a form, its signature, whose call it is."""

from __future__ import annotations

from ..records.database import FINAL
from ..settings import Settings
from ..twilio.signature import Form, parse_form
from .admission import Admission
from .port.http import FORM, BadRequest, Refused, Request, Response
from .port.limits import FORM_FIELDS

XML = "text/xml; charset=utf-8"
WAV = "audio/x-wav"

OVER = frozenset(FINAL)
"""Of a call, what its `CallStatus` is when nobody listens any more."""


def read_form(text: bytes) -> Form:
    """Return the fields of a form, or of a query.

    Raises:
        BadRequest: 400, there are too many.
    """
    try:
        return parse_form(text, FORM_FIELDS)
    except ValueError:
        raise BadRequest(400, "too many fields") from None


def signed_form(admission: Admission, request: Request, body: bytes) -> Form:
    """Return a webhook's form.

    Raises:
        BadRequest: 415, 400, it is none; 403, it is not the carrier's.
    """
    if request.content_type != FORM and (request.content_type or body):
        raise BadRequest(415, "a form, please")
    form = read_form(body)
    if not admission.signed(request, form):
        raise Refused(Response(403))
    return form


def sound(audio: bytes | None) -> Response:
    """Answer with a WAV file, or that there is none.  It is somebody's words: nobody keeps it."""
    if audio is None:
        return Response(404, b"not found\n")
    return Response(200, audio, WAV, {"Cache-Control": "private, no-store"})


def call_parameters(form: Form, settings: Settings) -> dict[str, str]:
    """Return what is known of a call by its webhook, for whoever picks its agent."""
    return {"From": form.first("From"), "To": form.first("To"), "language": settings.language}
