"""What webhooks send: forms, and only signed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ..twilio.signature import Form, parse_form
from .http import Request, Response
from .limits import FORM_FIELDS

if TYPE_CHECKING:
    from .routes import House

FORM = "application/x-www-form-urlencoded"
XML = "text/xml; charset=utf-8"


def signed_form(house: House, request: Request, body: bytes) -> Form | Response:
    """Return a webhook's form; or what it is answered, if it is none or nobody's."""
    content_type = request.header("content-type").partition(";")[0].strip().lower()
    if content_type != FORM and (content_type or body):
        return Response(415, b"a form, please\n")
    try:
        form = parse_form(body, FORM_FIELDS)
    except ValueError:
        return Response(400, b"too many fields\n")
    return form if house.admission.signed(request, form) else Response(403)


def query_value(request: Request, name: str) -> str:
    """Return a value of a URL's query, empty if there is none, or not one."""
    try:
        values = parse_qs(request.query, max_num_fields=FORM_FIELDS).get(name, [])
    except ValueError:
        return ""
    return values[0] if len(values) == 1 else ""
