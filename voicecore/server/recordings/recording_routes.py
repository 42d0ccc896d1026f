"""The webhooks of the recording flow, and of a call whose stream is over.

A call goes on here when its stream could not be had or has failed, and only then: a stream that
somebody has ended is the call's end.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from ...twilio import twiml
from ...twilio.sids import recording_sid
from ...twilio.signature import Form
from ..house import House
from ..port.http import Request, Response
from ..port.paths import query_value
from ..port.urls import public_base
from ..webhooks import OVER, XML, call_parameters, signed_form, sound
from ..words import BROKEN, BUSY, ENDED_WELL
from .flow_calls import Visit
from .prompts import published
from .recorded_turns import turn_key
from .recording_flow import Recorded, RecordingFlow, dial

log = logging.getLogger("voicecore.server")

DIGITS = 32
"""As many keys as can be asked for."""

IDEMPOTENCY = "i-twilio-idempotency-token"
DIALLED_WELL = frozenset({"completed", "answered"})
Document = Callable[[RecordingFlow, Visit], Awaitable[bytes]]


async def voice(house: House, request: Request, body: bytes) -> Response:
    """A call comes in, and is to be answered by recordings."""
    form = signed_form(house.admission, request, body)
    return await _spoken(house, request, form, RecordingFlow.begin)


async def voice_recording(house: House, request: Request, body: bytes) -> Response:
    """The caller has spoken, or has not."""
    form = signed_form(house.admission, request, body)
    recorded = _recorded(house, request, form)
    return await _answered(house, request, form, lambda flow, visit: flow.answer(visit, recorded))


async def voice_digits(house: House, request: Request, body: bytes) -> Response:
    """The caller has typed what was asked for, or has not."""
    form = signed_form(house.admission, request, body)
    digits = "".join(key for key in form.first("Digits")[:DIGITS] if key in "0123456789*#")
    recorded = replace(_recorded(house, request, form), digits=digits)
    return await _answered(house, request, form, lambda flow, visit: flow.answer(visit, recorded))


async def voice_wait(house: House, request: Request, body: bytes) -> Response:
    """The caller has heard that it takes a moment."""
    form = signed_form(house.admission, request, body)
    key, held = query_value(request, "turn"), query_value(request, "held")
    count = int(held) if held.isascii() and held.isdigit() and len(held) < 4 else 0
    return await _answered(house, request, form, lambda flow, visit: flow.wait(visit, key, count))


async def voice_audio(house: House, request: Request, body: bytes, name: str) -> Response:
    """What the caller is to hear.  Unsigned: to know the name is enough."""
    return sound(await published(house.store, name))


async def expect_stream(house: House, call_sid: str, parameters: Mapping[str, str]) -> None:
    """A call is about to get a stream: should that not come about, nothing was said in it."""
    states = None if house.flow is None else house.states
    if states is not None and await states.load(call_sid) is None:
        await states.save(call_sid, states.new(parameters))


async def stream_ended(house: House, request: Request, body: bytes) -> Response:
    """The stream is over: so is the call, or it is somebody else's now, or it goes on here."""
    form = signed_form(house.admission, request, body)
    call_sid = form.first("CallSid")
    state = None if house.states is None else await house.states.load(call_sid)
    ended_by = house.ledger.ending(call_sid) or ("" if state is None else state.ended_by)
    if ended_by == "transfer" and state is not None and state.transfer is not None:
        if form.first("CallStatus") not in OVER:
            document = dial(
                twiml.Prompt(), state.transfer, public_base(request, house.settings.public_url)
            )
            return Response(200, document, XML)
    elif ended_by not in ENDED_WELL:
        goes_on = RecordingFlow.go_on if state is None else RecordingFlow.begin
        return await _spoken(house, request, form, goes_on)
    return await _over(house, call_sid)


async def stream_dialled(house: House, request: Request, body: bytes) -> Response:
    """Whoever the call was given to has finished, or was not to be had."""
    form = signed_form(house.admission, request, body)
    if form.first("DialCallStatus") in DIALLED_WELL:
        return await _over(house, form.first("CallSid"))
    return await _spoken(house, request, form, RecordingFlow.go_on_unanswered)


async def instead_of_stream(
    house: House, request: Request, form: Form, ordered: Mapping[str, str]
) -> Response:
    """There is no place for a stream: the call is answered at once all the same.

    `ordered` are the parameters of a call that we have placed ourselves.
    """
    log.info("no place for a stream", extra={"call": form.first("CallSid")})
    if house.flow is None:
        return Response(200, twiml.hang_up(BUSY), XML)

    async def begin(flow: RecordingFlow, visit: Visit) -> bytes:
        given = {**ordered, **visit.parameters}
        return await flow.begin(replace(visit, parameters=given))

    return await _spoken(house, request, form, begin)


async def _spoken(house: House, request: Request, form: Form, document: Document) -> Response:
    """Answer a webhook that has nothing of the caller's in it: alike, however often it comes."""
    token = request.header(IDEMPOTENCY)
    if not token:
        return await _answered(house, request, form, document)

    async def once(flow: RecordingFlow, visit: Visit) -> bytes:
        make = partial(document, flow, visit)
        return await flow.turns.once(visit.call_sid, f"{request.path} {token}", make)

    return await _answered(house, request, form, once)


async def _answered(house: House, request: Request, form: Form, document: Document) -> Response:
    """Answer a webhook with what the flow says, if there is a flow, and still a call."""
    call_sid = form.first("CallSid")
    if form.first("CallStatus") in OVER or form.first("Digits") == "hangup":
        return await _over(house, call_sid)
    if house.flow is None:
        return Response(200, twiml.hang_up(BROKEN), XML)
    if not call_sid:
        return Response(400, b"no CallSid\n")
    base = public_base(request, house.settings.public_url)
    visit = Visit(call_sid, base, call_parameters(form, house.settings))
    return Response(200, await document(house.flow, visit), XML)


async def _over(house: House, call_sid: str) -> Response:
    """The call is over: nothing of it is left here."""
    if house.flow is not None and call_sid:
        await house.flow.end(call_sid)
    return Response(200, twiml.hang_up(), XML)


def _recorded(house: House, request: Request, form: Form) -> Recorded:
    """Return what was recorded.  One that cannot be named is no recording.

    Whose account it is, is ours to know; a form's word counts if there is none in the settings:
    it is signed, or there is no password that could be sent to the wrong place.
    """
    sid = recording_sid(form.first("RecordingSid"), form.first("RecordingUrl"))
    what = sid or request.header(IDEMPOTENCY) or secrets.token_hex(16)
    account = house.settings.twilio_account_sid or form.first("AccountSid")
    return Recorded(turn_key(form.first("CallSid"), what), account, sid)
