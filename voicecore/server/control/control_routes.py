"""The control routes: which calls are up, what they are like, and what an operator does to them.

Every one may be asked twice: a call that has ended is hung up on without harm, a transfer to the
same number is one.  Every one is answered by whichever worker got it (`switchboard`).
"""

from __future__ import annotations

import logging
from typing import Literal

import msgspec

from ...call.briefing import BRIEFING_CHARS
from ...errors import RestError
from ...twilio import twiml
from ..house import Answer, House
from ..port.http import BadRequest, Refused, Request, Response
from ..port.json_http import UnfitBody, json_body, json_error, json_response
from .admin import refusal
from .live_calls import CallFacts
from .numbers import is_number, may_be_given, missing_for_rest, missing_for_warm_transfers
from .outbound import MESSAGE_CHARS, dialled, idempotency_key, is_speakable
from .siblings import DescribeCall, GiveAway, HangUp, ListCalls, NoteGiven, Report, Say
from .switchboard import Switchboard

log = logging.getLogger("voicecore.server")


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that needs none."""


class SayOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /calls/…/say``."""

    text: str


class TransferOrder(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``POST /calls/…/transfer``."""

    to: str = ""
    name: str = ""
    mode: Literal["cold", "warm"] = "cold"
    briefing: str = ""


async def list_calls(house: House, request: Request, body: bytes) -> Answer:
    """``GET /calls``: the calls that are up, of all workers."""
    board = _board(house, request)
    report = await board.ask(ListCalls())
    silent = {"silent_workers": report.silent} if report.silent else {}
    return json_response(200, {"calls": report.lines, **silent})


async def describe_call(house: House, request: Request, body: bytes, sid: str) -> Answer:
    """``GET /calls/…``: one call, with its turns."""
    board = _board(house, request)
    report = await board.ask(DescribeCall(sid))
    if report.detail is not None:
        return json_response(200, report.detail)
    placed = await dialled(house.store, sid)
    if placed is None:
        return _unknown(report)
    state = "dialling"
    if board.rest is not None:
        try:
            state = (await board.rest.fetch_call(sid)).status or state
        except RestError as error:
            log.info("a call could not be asked about", extra={"fields": {"why": str(error)}})
    return json_response(200, CallFacts(sid=sid, state=state, from_=placed.from_, to=placed.to))


async def hang_up(house: House, request: Request, body: bytes, sid: str) -> Answer:
    """``POST /calls/…/hangup``."""
    board = _board(house, request)
    if body:
        json_body(request, body, Nothing)
    report = await board.ask(HangUp(sid))
    if report.status == "recording" or (
        not report.is_found and await dialled(house.store, sid) is not None
    ):
        return await _by_rest(board, sid, {"Status": "completed"}, "ended")
    if not report.is_found:
        return _unknown(report)
    log.info("hung up by an operator", extra={"call": sid})
    return json_response(200, {"status": "ended"})


async def transfer(house: House, request: Request, body: bytes, sid: str) -> Answer:
    """``POST /calls/…/transfer``."""
    board = _board(house, request)
    order = json_body(request, body, TransferOrder)
    number = _number(house, order)
    warm = order.mode == "warm"
    if warm and (missing := missing_for_warm_transfers(house.settings)):
        return json_error(409, f"a warm transfer needs {', '.join(missing)}")
    report = await board.ask(GiveAway(sid, number, warm, order.briefing))
    if report.status == "recording":
        if warm:
            return json_error(409, "a call in the recording flow can only be transferred cold")
        base = house.settings.public_url
        after = f"{base}/voice-stream/dialled" if base else ""
        document = twiml.dial(twiml.Prompt(), number, "", after).decode()
        given = await _by_rest(board, sid, {"Twiml": document}, "transferring")
        if given.status == 200:
            await board.ask(NoteGiven(sid, number))
        return given
    if report.status == "cannot meet":
        return json_error(409, "a call of this carrier can only be transferred cold")
    if report.status in ("transferring", "connecting"):
        log.info("transfer by an operator", extra={"call": sid, "fields": {"to": number}})
        return json_response(202 if warm else 200, {"status": report.status})
    if report.status == "ended":
        return json_error(409, "the call has ended", {"status": "ended"})
    if report.status == "busy":
        return json_error(409, "the call is being transferred to somebody else")
    if not report.is_found and await dialled(house.store, sid) is not None:
        return json_error(409, "the call has not been answered yet")
    return _unknown(report)


async def say(house: House, request: Request, body: bytes, sid: str) -> Answer:
    """``POST /calls/…/say``: a sentence, in the next pause."""
    board = _board(house, request)
    order = json_body(request, body, SayOrder)
    text, key = order.text.strip(), idempotency_key(request)
    if not text or len(text) > MESSAGE_CHARS or not is_speakable(text):
        return json_error(400, f"text: a line of 1 to {MESSAGE_CHARS} characters")
    report = await board.ask(Say(sid, text, key))
    if report.status == "accepted":
        return json_response(200, {"status": "accepted"})
    if report.status == "reused":
        return json_error(422, "this Idempotency-Key was used for another sentence")
    if report.status == "busy":
        reason = "the agent is not talking yet, or too much waits to be said"
        return json_error(503, reason, headers={"Retry-After": "1"})
    if report.status == "recording":
        return json_error(409, "a call in the recording flow cannot be told anything")
    if report.status == "ended":
        return json_error(409, "the call has ended", {"status": "ended"})
    return _unknown(report)


def _board(house: House, request: Request) -> Switchboard:
    """Return what control works with, to whoever may use it.

    Raises:
        BadRequest: 401, 403, that is somebody else; 404, this server has none.
    """
    if refused := refusal(house.settings, request):
        raise Refused(refused)
    if house.switchboard is None:
        raise BadRequest(404, "not found")
    return house.switchboard


def _number(house: House, order: TransferOrder) -> str:
    """Return to which number a call shall be given.

    Raises:
        UnfitBody: 400, it says none; 403, none that is allowed.
    """
    settings = house.settings
    if bool(order.to) == bool(order.name):
        raise UnfitBody(400, "to or name, one of both")
    if order.name and order.name not in settings.transfer_numbers:
        raise UnfitBody(400, "name: not among VOICECORE_TRANSFERS")
    number = order.to or settings.transfer_numbers[order.name]
    if not is_number(number):
        raise UnfitBody(400, "to: takes a number in E.164, such as +15550001111")
    if not may_be_given(settings, number):
        allow = "VOICECORE_TRANSFERS and VOICECORE_OUTBOUND_PREFIXES"
        raise UnfitBody(403, f"to: {allow} do not allow this number")
    if order.briefing and order.mode == "cold":
        raise UnfitBody(400, 'briefing: only with mode "warm"')
    if len(order.briefing) > BRIEFING_CHARS or not is_speakable(order.briefing):
        raise UnfitBody(400, f"briefing: a line of at most {BRIEFING_CHARS} characters")
    return number


async def _by_rest(board: Switchboard, sid: str, change: dict[str, str], done: str) -> Response:
    """Change a call that has no stream, through the carrier."""
    if missing := missing_for_rest(board.settings):
        return json_error(409, f"a call without a stream needs {', '.join(missing)}")
    if board.rest is None:
        return json_error(503, "not ready yet", headers={"Retry-After": "1"})
    try:
        was_up = await board.rest.update_call(sid, change)
    except RestError as error:
        log.warning("REST failed", extra={"call": sid, "fields": {"why": str(error)}})
        said = {"code": error.code, "message": error.message}
        if error.fault == "busy":
            return json_error(503, "Twilio is busy", said, {"Retry-After": "5"})
        return json_error(502, "Twilio did not do it", said)
    if not was_up and done != "ended":
        return json_error(409, "the call has ended", {"status": "ended"})
    return json_response(200, {"status": done})


def _unknown(report: Report) -> Response:
    if report.silent:
        reason = f"unknown to the workers that answer; {report.silent} do not"
        return json_error(503, reason, headers={"Retry-After": "2"})
    return json_error(404, "no such call")
