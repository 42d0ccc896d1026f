"""The TwiML with which a call is given to a human, and with which the human is asked."""

from __future__ import annotations

from twilio.twiml.voice_response import VoiceResponse

from .twiml import Prompt, begin, serialised, xml_text

ANSWER_S = 8
"""How long a key is waited for, after the briefing."""


def brief(briefing: Prompt, url: str) -> bytes:
    """Say the briefing twice, and wait for a key; `url` is asked with it, or when none came.

    Any key counts: without ``finishOnKey=""`` a # would end the input and be none.
    """
    response = VoiceResponse()
    gather = response.gather(
        input="dtmf",
        num_digits=1,
        finish_on_key="",
        timeout=ANSWER_S,
        action=xml_text(url),
        method="POST",
    )
    begin(gather, briefing)
    gather.pause(length=2)
    begin(gather, briefing)
    response.redirect(xml_text(url), method="POST")
    return serialised(response)


def join_conference(name: str) -> bytes:
    """Put a call into the conference in which the two talk; it ends when either leaves."""
    response = VoiceResponse()
    response.dial().conference(
        name, start_conference_on_enter=True, end_conference_on_exit=True, beep="false"
    )
    return serialised(response)
