"""Every route of the server, in one table, and what the webhooks answer.

A webhook's order of business: is it a form, is it signed, and only then what it wants.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..call.agents import Agents
from ..records.database import Status
from ..records.records import Records
from ..settings import Settings
from ..twilio import twiml
from ..twilio.signature import Form, parse_form
from .admission import Admission
from .carrier_routes import CARRIER_ROUTES
from .http import BadRequest, Request, Response
from .ledger import Ledger
from .limits import FORM_FIELDS
from .metrics import CONTENT_TYPE, Metrics
from .status import call_status, log_fields, stream_status
from .store import Store
from .upgrade import Upgrade, websocket_key
from .urls import public_base, websocket_url
from .words import BROKEN, BUSY, ENDED_WELL

log = logging.getLogger("voicecore.server")

FORM = "application/x-www-form-urlencoded"
XML = "text/xml; charset=utf-8"


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
    agents: Agents | None = None
    """Who answers; None: a function of the embedder's, which takes streams only."""
    records: Records | None = None
    """None: calls are not recorded."""

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


async def voice_stream(house: House, request: Request, body: bytes) -> Answer:
    """A call comes in: connect it to a media stream, or say that there is no room."""
    form = _signed_form(house, request, body)
    if isinstance(form, Response):
        return form
    call_sid = form.first("CallSid")
    if not call_sid:
        return Response(400, b"no CallSid\n")
    if house.admission.draining or house.admission.full:
        log.info("call turned away", extra={"call": call_sid})
        return Response(200, twiml.hang_up(BUSY), XML)
    base = public_base(request, house.settings.public_url)
    parameters = house.stream_parameters(call_sid, form.first("From"), form.first("To"))
    if (direction := form.first("Direction")).startswith("outbound"):
        parameters["Direction"] = direction
    house.warm_up()
    media, ended = websocket_url(base, "/media-stream"), f"{base}/voice-stream/ended"
    document = twiml.stream(media, ended, parameters, status_url=f"{base}/status/stream")
    return Response(200, document, XML)


async def stream_ended(house: House, request: Request, body: bytes) -> Answer:
    """The stream is over.  If the agent ended it the call is, too; else the caller is told."""
    form = _signed_form(house, request, body)
    if isinstance(form, Response):
        return form
    wanted = house.ledger.ending(form.first("CallSid")) in ENDED_WELL
    return Response(200, twiml.hang_up("" if wanted else BROKEN), XML)


async def status_call(house: House, request: Request, body: bytes) -> Answer:
    """The carrier tells how a call goes."""
    return await _note_status(house, request, body, call_status)


async def status_stream(house: House, request: Request, body: bytes) -> Answer:
    """The carrier tells how a stream goes: nobody else knows why a handshake failed."""
    return await _note_status(house, request, body, stream_status)


async def _note_status(
    house: House, request: Request, body: bytes, read: Callable[[Form], Status]
) -> Answer:
    form = _signed_form(house, request, body)
    if isinstance(form, Response):
        return form
    status = read(form)
    if not status.sid:
        return Response(400, b"no CallSid\n")
    log.info("%s status", status.kind, extra={"call": status.sid, "fields": log_fields(status)})
    if house.records is not None:
        await house.records.note_status(status)
    return Response(204)


async def media_stream(house: House, request: Request, body: bytes) -> Answer:
    """The carrier's WebSocket."""
    key = websocket_key(request)
    if not house.admission.signed(request, Form(), websocket=True):
        return Response(403)
    if house.admission.draining or house.admission.full:
        return Response(503, b"no room\n", headers={"Retry-After": "5"})
    return Upgrade(key)


async def healthz(house: House, request: Request, body: bytes) -> Answer:
    """The process is alive."""
    return Response(200, b"ok\n")


async def readyz(house: House, request: Request, body: bytes) -> Answer:
    """The server takes calls."""
    if house.admission.draining:
        return Response(503, b"draining\n")
    return Response(503, b"full\n") if house.admission.full else Response(200, b"ready\n")


async def metrics(house: House, request: Request, body: bytes) -> Answer:
    """What was measured, for Prometheus."""
    return Response(200, await house.metrics.text(), CONTENT_TYPE)


ROUTES: dict[str, dict[str, Route]] = {
    "/voice-stream": {"POST": voice_stream},
    "/voice-stream/ended": {"POST": stream_ended},
    "/status/call": {"POST": status_call},
    "/status/stream": {"POST": status_stream},
    "/media-stream": {"GET": media_stream},
    "/voice-stream/twilio": {"POST": voice_stream},
    "/voice-stream/twilio/ended": {"POST": stream_ended},
    "/media-stream/twilio": {"GET": media_stream},
    **CARRIER_ROUTES,
    "/healthz": {"GET": healthz},
    "/readyz": {"GET": readyz},
    "/metrics": {"GET": metrics},
}


def find_route(request: Request) -> Route:
    """Return what answers a request.  HEAD is GET; h11 leaves the body out.

    Raises:
        BadRequest: 404, or 405 with the methods that are allowed.
    """
    methods = ROUTES.get(request.path)
    if methods is None:
        raise BadRequest(404, "not found")
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        allowed = ", ".join(["GET", "HEAD"] if "GET" in methods else list(methods))
        raise BadRequest(405, "method not allowed", {"Allow": allowed})
    return route


def _signed_form(house: House, request: Request, body: bytes) -> Form | Response:
    content_type = request.header("content-type").partition(";")[0].strip().lower()
    if content_type != FORM and (content_type or body):
        return Response(415, b"a form, please\n")
    try:
        form = parse_form(body, FORM_FIELDS)
    except ValueError:
        return Response(400, b"too many fields\n")
    return form if house.admission.signed(request, form) else Response(403)
