"""Calls that we place: who is called, with which parameters, and what if a machine answers.

An order lies in the store while its call rings, under a name that nobody can guess: the webhook's
URL carries it, so that whichever worker is asked finds the call's parameters.  The same for what a
machine is told: Twilio's verdict may come before the stream has begun, and to another worker.

Rules that hold here: nobody is called twice under one key, and never because we could not know
whether it rang; the calls of an hour are counted over all workers, tried ones included.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from hashlib import sha256
from typing import Literal
from urllib.parse import quote

import msgspec
import trio

from ...errors import RestError
from ...twilio import twiml
from ...twilio.signature import Form
from ...twilio.twiml import Prompt
from ..house import Answer, House
from ..port.http import JSON, Request, Response
from ..port.json_http import UnfitBody, json_body, json_error, json_response
from ..port.paths import query_value
from ..store import Store
from ..webhooks import signed_form
from .admin import refusal
from .numbers import is_number, may_be_called, missing_for_outbound
from .siblings import Leave
from .switchboard import VERDICTS, Switchboard

log = logging.getLogger("voicecore.server")

ORDER_S = 900.0
"""An order: ringing for ten minutes at most, and then the verdict."""

ANSWER_KEPT_S = 24 * 3600.0
"""The answer under an Idempotency-Key."""

FIRST_ANSWER_S, ASK_AGAIN_S = 25.0, 0.1
"""How long a second request under a key waits for the first one's answer, and how it looks."""

MOST_PARAMETERS = 32
NAME_CHARS, VALUE_CHARS = 64, 400
"""Together under the 499 characters that a <Parameter> may have."""

MESSAGE_CHARS = 1000
"""A minute of speech."""

RESERVED = frozenset({"token", "From", "To", "language", "order", "agent", "Direction"})
"""Parameters that are ours to give."""

ORDERS, DIALLED, ANSWERS = "order", "dialled", "answer"
"""Kinds of values in the store: `Order`, `Dialled`, `KeptAnswer`."""

EVENTS = ("initiated", "ringing", "answered", "completed")

BAD_NUMBER = frozenset({21201, 21211, 21214, 21217, 21401, 21421})
NOT_ALLOWED = frozenset({13227, 21215, 21216, 21219, 21264})
"""Twilio's codes: not permitted to this country, blocked, unverified (a trial account's)."""

_NAME = re.compile(rf"\w[\w.-]{{0,{NAME_CHARS - 1}}}", re.ASCII)
_KEY = re.compile(r"[!-~]{1,255}")


class CallOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /calls``."""

    to: str
    agent: str = ""
    parameters: dict[str, str] = {}
    machine_detection: Literal["off", "hang_up", "message"] = "off"
    message: str = ""


class Order(msgspec.Struct):
    """What is kept of an order until its call has begun."""

    parameters: dict[str, str]
    machine_detection: str
    message: str


class Dialled(msgspec.Struct):
    """A call that was placed: until it is answered no worker has it."""

    to: str
    from_: str


class KeptAnswer(msgspec.Struct):
    """The answer to the first request under a key, and what it asked for."""

    asked: bytes
    status: int
    body: bytes
    location: str = ""


async def place_call(house: House, request: Request, body: bytes) -> Answer:
    """``POST /calls``: call somebody."""
    if refused := refusal(house.settings, request):
        return refused
    order = json_body(request, body, CallOrder)
    _check(order)
    if missing := missing_for_outbound(house.settings):
        return json_error(403, f"outbound calls are off: set {', '.join(missing)}")
    if not is_number(order.to):
        return json_error(400, "to: takes a number in E.164, such as +15550001111")
    if not may_be_called(house.settings, order.to):
        return json_error(403, "to: VOICECORE_OUTBOUND_PREFIXES do not allow this number")
    key, asked = idempotency_key(request), sha256(body).digest()
    if key and (kept := await house.store.get(ANSWERS, key)) is not None:
        return _replayed(kept, asked)
    if house.admission.draining or house.admission.full:
        reason = "draining" if house.admission.draining else "full"
        return json_error(503, reason, headers={"Retry-After": "5"})
    board = house.switchboard
    if board is None or board.rest is None:
        return json_error(503, "not ready yet", headers={"Retry-After": "1"})
    wait = house.ledger.place_call(key, board.calls.clock(), house.settings.outbound_per_hour)
    if wait is None:
        return await _first_answer(house, key, asked)
    if wait > 0:
        most = f"VOICECORE_OUTBOUND_PER_HOUR ({house.settings.outbound_per_hour}) is reached"
        return json_error(429, most, headers={"Retry-After": str(math.ceil(wait))})
    return await _dial(board, order, key, asked)


async def _dial(board: Switchboard, order: CallOrder, key: str, asked: bytes) -> Response:
    """Ask Twilio to call; what it says is kept under the key, unless it heard nothing."""
    assert board.rest is not None
    order_id = secrets.token_urlsafe(18)
    kept = {**order.parameters, **({"agent": order.agent} if order.agent else {})}
    value = Order(kept, order.machine_detection, order.message)
    if not await _remember(board.store, ORDERS, order_id, value, ORDER_S):
        board.ledger.forget_placed(key)
        return json_error(503, "no room for the order", headers={"Retry-After": "60"})
    try:
        call = await board.rest.create_call(_fields(board, order, order_id))
    except RestError as error:
        answer = _refused(error)
        fields = {"to": order.to, "why": str(error)}
        log.warning("call not placed", extra={"fields": fields})
        board.observe("", "call placed", 0.0, {"outcome": error.fault})
        if error.was_ignored:
            board.ledger.forget_placed(key)
            return answer
    else:
        log.info("call placed", extra={"call": call.sid, "fields": {"to": order.to}})
        board.observe(call.sid, "call placed", 0.0, {"outcome": "placed"})
        placed = Dialled(order.to, board.settings.outbound_from or "")
        await _remember(board.store, DIALLED, call.sid, placed, ORDER_S)
        said = {"call_sid": call.sid, "status": call.status or "queued", "to": order.to}
        answer = json_response(201, said, {"Location": f"/calls/{quote(call.sid, safe='')}"})
    if key:
        location = answer.headers.get("Location", "")
        given = KeptAnswer(asked, answer.status, answer.body, location)
        await _remember(board.store, ANSWERS, key, given, ANSWER_KEPT_S)
    return answer


def _fields(
    board: Switchboard, order: CallOrder, order_id: str
) -> dict[str, str | tuple[str, ...]]:
    base = board.settings.public_url
    fields: dict[str, str | tuple[str, ...]] = {
        "To": order.to,
        "From": board.settings.outbound_from or "",
        "Url": f"{base}/voice-stream?order={order_id}",
        "StatusCallback": f"{base}/status/call",
        "StatusCallbackEvent": EVENTS,
    }
    if order.machine_detection != "off":
        # Asynchronous: a human is answered at once, not after seconds of listening to them.
        fields |= {
            "MachineDetection": "DetectMessageEnd",
            "AsyncAmd": "true",
            "AsyncAmdStatusCallback": f"{base}/status/amd?order={order_id}",
        }
    return fields


async def _first_answer(house: House, key: str, asked: bytes) -> Response:
    """Wait for what the first request under this key is answered, here or in another worker."""
    with trio.move_on_after(FIRST_ANSWER_S):
        while house.ledger.was_placed(key):
            kept = await house.store.get(ANSWERS, key)
            if kept is not None:
                return _replayed(kept, asked)
            await trio.sleep(ASK_AGAIN_S)
        reason = "the first request under this key was not heard; try again"
        return json_error(503, reason, headers={"Retry-After": "1"})
    reason = "the first request under this key has no answer: its call may have been placed"
    return json_error(409, reason)


def _replayed(kept: bytes, asked: bytes) -> Response:
    answer = msgspec.json.decode(kept, type=KeptAnswer)
    if answer.asked != asked:
        return json_error(422, "this Idempotency-Key was used for something else")
    headers = {"Location": answer.location} if answer.location else {}
    return Response(answer.status, answer.body, JSON, {**headers, "Idempotent-Replayed": "true"})


def _refused(error: RestError) -> Response:
    """Return what a refusal of Twilio's is to whoever asked us."""
    said = {"code": error.code, "message": error.message}
    if error.fault == "busy":
        patience = math.ceil(error.retry_after_s or 5)
        return json_error(503, "Twilio is busy", said, {"Retry-After": str(patience)})
    if error.fault in ("timeout", "cut"):
        return json_error(504, "no answer from Twilio: the call may have been placed", said)
    if error.code in BAD_NUMBER:
        return json_error(400, "to: Twilio takes no such number", said)
    if error.code in NOT_ALLOWED:
        return json_error(403, "to: Twilio does not allow this number", said)
    what = {
        "connect": "Twilio cannot be reached",
        "refused": "Twilio refuses TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN",
    }
    reason = what.get(error.fault, "Twilio did not place the call")
    if error.fault == "garbage" or error.status >= 500:
        reason = "Twilio's answer says nothing: the call may have been placed"
    return json_error(502, reason, said)


def _check(order: CallOrder) -> None:
    """Refuse what JSON's types allow and a call does not.

    Raises:
        UnfitBody: 400.
    """
    if len(order.parameters) > MOST_PARAMETERS:
        raise UnfitBody(400, f"parameters: at most {MOST_PARAMETERS}")
    for name, value in order.parameters.items():
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise UnfitBody(400, f"parameters: {name!r:.80} is no name that can be given")
        if len(value) > VALUE_CHARS or not is_speakable(value):
            raise UnfitBody(400, f"parameters.{name}: a line of at most {VALUE_CHARS} characters")
    if order.agent and (len(order.agent) > NAME_CHARS or not is_speakable(order.agent)):
        raise UnfitBody(400, f"agent: a name of at most {NAME_CHARS} characters")
    if order.machine_detection == "message" and not order.message.strip():
        raise UnfitBody(400, "message: what is left on the machine")
    if order.machine_detection != "message" and order.message:
        raise UnfitBody(400, 'message: only with machine_detection "message"')
    if len(order.message) > MESSAGE_CHARS or not is_speakable(order.message):
        raise UnfitBody(400, f"message: a line of at most {MESSAGE_CHARS} characters")


def is_speakable(text: str) -> bool:
    """Return whether a text has no control characters in it."""
    return text.isprintable()


def idempotency_key(request: Request) -> str:
    """Return the key that a request may be repeated under; empty if it has none.

    Raises:
        UnfitBody: 400, it is malformed.
    """
    key = request.header("idempotency-key")
    if key and not _KEY.fullmatch(key):
        raise UnfitBody(400, "Idempotency-Key: up to 255 visible ASCII characters")
    return key


async def ordered_parameters(house: House, request: Request, form: Form) -> dict[str, str] | None:
    """Return what an order adds to a call's parameters; None if the call should end at once.

    It should when a machine has answered that nobody has anything to say to: Twilio says so in this
    webhook if whoever placed the call had it wait for that (no ``AsyncAmd``).
    """
    order_id = query_value(request, "order")
    order = await _order(house.store, order_id)
    if order_id and order is None:
        log.warning("an order is not known any more", extra={"call": form.first("CallSid")})
    answered_by = form.first("AnsweredBy")
    if answered_by == "fax" or answered_by.startswith("machine"):
        parting = "" if order is None else parting_words(order, answered_by)
        if parting == "":
            return None
        if parting is not None:
            await _remember(house.store, VERDICTS, form.first("CallSid"), parting, ORDER_S)
    return {} if order is None else {**order.parameters, "order": order_id}


async def amd_status(house: House, request: Request, body: bytes) -> Answer:
    """``POST /status/amd``: who has answered a call, a human or a machine."""
    form = signed_form(house.admission, request, body)
    call_sid, order_id = form.first("CallSid"), query_value(request, "order")
    answered_by = form.first("AnsweredBy")
    log.info("answered", extra={"call": call_sid, "fields": {"by": answered_by}})
    order = await _order(house.store, order_id)
    if order is None or house.switchboard is None:
        return Response(204)
    parting = parting_words(order, answered_by)
    if parting is not None:
        # First written down, then told: a stream that begins in between finds one or the other.
        await _remember(house.store, VERDICTS, call_sid, parting, ORDER_S)
        report = await house.switchboard.ask(Leave(call_sid, parting))
        if report.status == "recording":
            await _leave_through_rest(house.switchboard, call_sid, parting)
    return Response(204)


async def _leave_through_rest(board: Switchboard, call_sid: str, parting: str) -> None:
    """End a call that has no stream; what is left on the machine, the carrier's voice says."""
    prompt = Prompt(words=parting, language=board.settings.language)
    try:
        if board.rest is not None:
            document = twiml.hang_up(prompt=prompt).decode()
            await board.rest.update_call(call_sid, {"Twiml": document})
    except RestError as error:
        log.warning("REST failed", extra={"call": call_sid, "fields": {"why": str(error)}})


def parting_words(order: Order, answered_by: str) -> str | None:
    """Return what is said before hanging up on who has answered; None: nobody is hung up on."""
    if order.machine_detection == "off":
        return None
    if answered_by == "fax":
        return ""
    if not answered_by.startswith("machine"):
        return None  # human, or unknown, which may be one
    return order.message if order.machine_detection == "message" else ""


async def _order(store: Store, order_id: str) -> Order | None:
    kept = await store.get(ORDERS, order_id) if order_id else None
    return None if kept is None else msgspec.json.decode(kept, type=Order)


async def dialled(store: Store, call_sid: str) -> Dialled | None:
    """Return a call that was placed, if it is one, for as long as it may ring."""
    kept = await store.get(DIALLED, call_sid)
    return None if kept is None else msgspec.json.decode(kept, type=Dialled)


async def _remember(store: Store, kind: str, key: str, value: object, seconds: float) -> bool:
    """Keep a value; false if that cannot be, such as on a full disk: what was done stays done."""
    try:
        await store.put(kind, key, msgspec.json.encode(value), seconds)
    except OSError as error:
        log.warning("cannot be kept", extra={"fields": {"what": kind, "why": f"{error!r:.150}"}})
        return False
    return True
