"""The routes of the carriers beside Twilio: the same calls, in the carriers' own words.

Rules that hold here:

* Who may is decided by the URL and the head, before the body means anything: these carriers do not
  sign for us.  The secret is asked for where a call begins; the stream's `start` brings back the
  token of our answer, and the URL that we are asked at the end carries a proof of its own.
* A carrier's name is the last part of its paths, and picks its dialect, its document and the names
  of its fields.  Nothing else knows which carrier it is.
* GET or POST, form or JSON: what the operator chose in the carrier's console.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from ..carriers.answers import ANSWERS, AnswerDocument, StreamOrder
from ..carriers.webhooks import WEBHOOKS, WebhookFields
from ..wire.dialects import DIALECTS, Dialect
from ..wire.json_stream import UNREADABLE, string_pairs
from .house import Answer, House, Route
from .port.http import FORM, JSON, BadRequest, Request, Response
from .port.paths import query_value
from .port.upgrade import Upgrade, websocket_key
from .port.urls import public_base, websocket_url
from .webhooks import read_form
from .words import BROKEN, BUSY, ENDED_WELL, LOST

log = logging.getLogger("voicecore.server")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True)
class Carrier:
    """One carrier: what it speaks, what it is answered with, and what it calls things."""

    dialect: Dialect
    document: AnswerDocument
    fields: WebhookFields

    @property
    def name(self) -> str:
        """The last part of its paths."""
        return self.dialect.name

    def answer(self, document: bytes) -> Response:
        """Return a document as this carrier reads it."""
        return Response(200, document, self.document.content_type)


async def voice_stream(carrier: Carrier, house: House, request: Request, body: bytes) -> Answer:
    """A call comes in: connect it to a media stream, or say that there is no room."""
    if not house.admission.invited(request):
        return Response(403)
    fields = given_fields(request, body)
    call_sid = carrier.fields.call_of(fields)
    if not call_sid:
        return Response(400, f"no {carrier.fields.call_sid}\n".encode())
    if house.admission.draining or house.admission.full:
        log.info("call turned away", extra={"call": call_sid})
        return carrier.answer(carrier.document.hang_up(BUSY))
    base = public_base(request, house.settings.public_url)
    proof = urlencode({"call": call_sid, "proof": house.admission.proof(call_sid)}, quote_via=quote)
    order = StreamOrder(
        ws_url=websocket_url(base, f"/media-stream/{carrier.name}"),
        ended_url=f"{base}/voice-stream/{carrier.name}/ended?{proof}",
        call_sid=call_sid,
        parameters=house.stream_parameters(call_sid, *carrier.fields.numbers_of(fields)),
    )
    house.warm_up()
    return carrier.answer(carrier.document.stream(order))


async def stream_ended(carrier: Carrier, house: House, request: Request, body: bytes) -> Answer:
    """The stream is over.  If the agent ended it the call is, too; else the caller is told.

    Which call it is the proven URL says: what the carrier says may name the stream's own leg.
    """
    proven = _proven_call(house, request)
    if not proven and not house.admission.invited(request):
        return Response(403)
    fields = given_fields(request, body)
    if not carrier.fields.tells_the_end(fields):
        return Response(204)
    call_sid = proven or carrier.fields.call_of(fields)
    ended_by = house.ledger.ending(call_sid)
    if ended_by == "transfer" and house.states is not None:
        state = await house.states.load(call_sid)
        if state is not None and state.transfer is not None:
            return carrier.answer(carrier.document.dial(state.transfer.number))
    # Some of them close the socket when the caller hangs up, and say no more.
    wanted = ended_by in ENDED_WELL or ended_by == LOST
    return carrier.answer(carrier.document.hang_up("" if wanted else BROKEN))


async def media_stream(carrier: Carrier, house: House, request: Request, body: bytes) -> Answer:
    """The carrier's WebSocket.  Who it is its password says, or its `start` has to prove."""
    key = websocket_key(request)
    if not house.admission.takes_carriers():
        return Response(403)
    if house.admission.draining or house.admission.full:
        return Response(503, b"no room\n", headers={"Retry-After": "5"})
    return Upgrade(key, carrier.dialect, house.admission.has_password(request))


def _proven_call(house: House, request: Request) -> str:
    """Return the call that a URL of ours is about; empty if the URL is none."""
    call_sid = query_value(request, "call")
    return call_sid if house.admission.proves(query_value(request, "proof"), call_sid) else ""


def given_fields(request: Request, body: bytes) -> dict[str, str]:
    """Return what a webhook says, in its query and its body; the body's word counts.

    Raises:
        BadRequest: 400 if it cannot be read, 415 if it is neither a form nor JSON.
    """
    form = read_form(request.query.encode())
    fields = {name: form.first(name) for name in form}
    if request.content_type == FORM or not body:
        form = read_form(body)
        return fields | {name: form.first(name) for name in form}
    if request.content_type != JSON:
        raise BadRequest(415, "a form or JSON, please")
    try:
        return fields | string_pairs(_decode(body))
    except UNREADABLE:
        raise BadRequest(400, "malformed JSON") from None


def _routes(carrier: Carrier) -> dict[str, dict[str, Route]]:
    comes, ended = partial(voice_stream, carrier), partial(stream_ended, carrier)
    return {
        f"/voice-stream/{carrier.name}": {"GET": comes, "POST": comes},
        f"/voice-stream/{carrier.name}/ended": {"GET": ended, "POST": ended},
        f"/media-stream/{carrier.name}": {"GET": partial(media_stream, carrier)},
    }


CARRIERS = tuple(
    Carrier(DIALECTS[name], ANSWERS[DIALECTS[name].answer], fields)
    for name, fields in WEBHOOKS.items()
)

CARRIER_ROUTES: dict[str, dict[str, Route]] = {
    path: methods for carrier in CARRIERS for path, methods in _routes(carrier).items()
}
"""Path -> method -> route, of every carrier beside Twilio."""
