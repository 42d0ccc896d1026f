"""Every route of the server, in one table, and what the webhooks answer.

A webhook's order of business: is it a form, is it signed, and only then what it wants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ..records.database import Status
from ..twilio import twiml
from ..twilio.signature import Form
from .carrier_routes import CARRIER_ROUTES
from .control import control_routes, leg_routes, outbound
from .house import Answer, House, NamedRoute, Route
from .metrics import CONTENT_TYPE
from .port.http import BadRequest, Request, Response
from .port.paths import find_path
from .port.upgrade import Upgrade, websocket_key
from .port.urls import public_base, websocket_url
from .recordings import recording_routes
from .status import call_status, log_fields, stream_status
from .webhooks import OVER, XML, signed_form

log = logging.getLogger("voicecore.server")


async def voice_stream(house: House, request: Request, body: bytes) -> Answer:
    """A call comes in: connect it to a media stream, or, without room, answer it all the same."""
    form = signed_form(house.admission, request, body)
    call_sid = form.first("CallSid")
    if not call_sid:
        return Response(400, b"no CallSid\n")
    if form.first("CallStatus") in OVER:
        return Response(200, twiml.hang_up(), XML)
    ordered = await outbound.ordered_parameters(house, request, form)
    if ordered is None:
        return Response(200, twiml.hang_up(), XML)
    if house.admission.draining or house.admission.full:
        return await recording_routes.instead_of_stream(house, request, form, ordered)
    base = public_base(request, house.settings.public_url)
    parameters = house.stream_parameters(call_sid, form.first("From"), form.first("To"))
    if (direction := form.first("Direction")).startswith("outbound"):
        parameters["Direction"] = direction
    # The token stays first, and what is ours stays ours.
    parameters = {**parameters, **ordered, **parameters}
    await recording_routes.expect_stream(house, call_sid, parameters)
    house.warm_up()
    media, ended = websocket_url(base, "/media-stream"), f"{base}/voice-stream/ended"
    document = twiml.stream(media, ended, parameters, status_url=f"{base}/status/stream")
    return Response(200, document, XML)


async def status_call(house: House, request: Request, body: bytes) -> Answer:
    """The carrier tells how a call goes."""
    return await _note_status(house, request, body, call_status)


async def status_stream(house: House, request: Request, body: bytes) -> Answer:
    """The carrier tells how a stream goes: nobody else knows why a handshake failed."""
    return await _note_status(house, request, body, stream_status)


async def _note_status(
    house: House, request: Request, body: bytes, read: Callable[[Form], Status]
) -> Answer:
    form = signed_form(house.admission, request, body)
    status = read(form)
    if not status.sid:
        return Response(400, b"no CallSid\n")
    log.info("%s status", status.kind, extra={"call": status.sid, "fields": log_fields(status)})
    if house.records is not None:
        await house.records.note_status(status)
    if status.kind == "call" and status.status in OVER and house.flow is not None:
        await house.flow.end(status.sid)
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
    "/voice-stream/ended": {"POST": recording_routes.stream_ended},
    "/voice-stream/dialled": {"POST": recording_routes.stream_dialled},
    "/voice": {"POST": recording_routes.voice},
    "/voice/recording": {"POST": recording_routes.voice_recording},
    "/voice/digits": {"POST": recording_routes.voice_digits},
    "/voice/recording/wait": {"POST": recording_routes.voice_wait},
    "/status/call": {"POST": status_call},
    "/status/stream": {"POST": status_stream},
    "/media-stream": {"GET": media_stream},
    "/voice-stream/twilio": {"POST": voice_stream},
    "/voice-stream/twilio/ended": {"POST": recording_routes.stream_ended},
    "/media-stream/twilio": {"GET": media_stream},
    **CARRIER_ROUTES,
    "/calls": {"GET": control_routes.list_calls, "POST": outbound.place_call},
    "/status/amd": {"POST": outbound.amd_status},
    "/healthz": {"GET": healthz},
    "/readyz": {"GET": readyz},
    "/metrics": {"GET": metrics},
}
"""By path."""

NAMED_ROUTES: dict[str, dict[str, NamedRoute]] = {
    "/voice/audio/{}.wav": {"GET": recording_routes.voice_audio},
    "/calls/{}": {"GET": control_routes.describe_call},
    "/calls/{}/hangup": {"POST": control_routes.hang_up},
    "/calls/{}/transfer": {"POST": control_routes.transfer},
    "/calls/{}/say": {"POST": control_routes.say},
    "/transfer/{}": {"POST": leg_routes.brief_leg},
    "/transfer/{}/answer": {"POST": leg_routes.leg_answer},
    "/transfer/{}/status": {"POST": leg_routes.leg_status},
    "/transfer/{}/briefing.wav": {"GET": leg_routes.leg_audio},
}


def find_route(request: Request) -> Route:
    """Return what answers a request.  HEAD is GET; h11 leaves the body out.

    Raises:
        BadRequest: 404, or 405 with the methods that are allowed.
    """
    methods = ROUTES.get(request.path) or _named_routes(request.path)
    if methods is None:
        raise BadRequest(404, "not found")
    route = methods.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        allowed = [way for way in methods for way in ((way, "HEAD") if way == "GET" else (way,))]
        raise BadRequest(405, "method not allowed", {"Allow": ", ".join(allowed)})
    return route


def _named_routes(path: str) -> dict[str, Route] | None:
    found = find_path(path, NAMED_ROUTES)
    if found is None:
        return None
    pattern, name = found
    return {
        method: partial(_with_name, route, name) for method, route in NAMED_ROUTES[pattern].items()
    }


async def _with_name(
    route: NamedRoute, name: str, house: House, request: Request, body: bytes
) -> Answer:
    return await route(house, request, body, name)
