"""The human's side of a warm transfer: the webhooks of the leg that rings at their place.

Whichever worker is asked, asks the one that has the caller (`siblings`): that one decides.
"""

from __future__ import annotations

from ...call.briefing import transfer_words
from ...twilio import transfers as documents
from ...twilio import twiml
from ...twilio.twiml import Prompt
from ..house import Answer, House
from ..port.http import Request, Response
from ..port.urls import public_base
from ..webhooks import XML, signed_form, sound
from .siblings import BriefLeg, SettleLeg
from .warm_transfer import AUDIO_KIND, TransferOutcome

ENDINGS: dict[str, TransferOutcome] = {
    "busy": "busy",
    "no-answer": "no-answer",
    "failed": "failed",
}
"""CallStatus -> outcome; whatever else a leg ends with, nobody has taken the call."""


async def brief_leg(house: House, request: Request, body: bytes, id_: str) -> Answer:
    """``POST /transfer/…``: the human has answered; say what it is about."""
    signed_form(house.admission, request, body)
    texts = await _texts(house, BriefLeg(id_))
    if not texts:
        return _gone(house.settings.language)
    words, language, audio = texts
    here = f"{public_base(request, house.settings.public_url)}/transfer/{id_}"
    briefing = Prompt(f"{here}/briefing.wav" if audio else "", words, language)
    return Response(200, documents.brief(briefing, f"{here}/answer"), XML)


async def leg_answer(house: House, request: Request, body: bytes, id_: str) -> Answer:
    """``POST /transfer/…/answer``: a key, or none: a voicemail has none."""
    form = signed_form(house.admission, request, body)
    if not form.first("Digits"):
        await _texts(house, SettleLeg(id_, "declined", is_over=True))
        return Response(200, twiml.hang_up(), XML)
    texts = await _texts(house, SettleLeg(id_, "connected"))
    if not texts or not texts[0]:
        return _gone(texts[1] if texts else house.settings.language)
    return Response(200, documents.join_conference(texts[0]), XML)


async def leg_status(house: House, request: Request, body: bytes, id_: str) -> Answer:
    """``POST /transfer/…/status``: the leg is over, or never came to be."""
    form = signed_form(house.admission, request, body)
    status = form.first("CallStatus")
    if status in ("completed", "canceled", *ENDINGS):
        outcome = ENDINGS.get(status, "declined")
        await _texts(house, SettleLeg(id_, outcome, is_over=True))
    return Response(204)


async def leg_audio(house: House, request: Request, body: bytes, id_: str) -> Answer:
    """``GET /transfer/…/briefing.wav``.  Unsigned: carriers fetch sounds as anybody does."""
    return sound(await house.store.get(AUDIO_KIND, id_))


async def _texts(house: House, errand: BriefLeg | SettleLeg) -> list[str]:
    return [] if house.switchboard is None else (await house.switchboard.ask(errand)).texts


def _gone(language: str) -> Response:
    """There is nobody to talk to any more."""
    prompt = Prompt(words=transfer_words(language).gone, language=language)
    return Response(200, twiml.hang_up(prompt=prompt), XML)
