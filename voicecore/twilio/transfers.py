"""The TwiML with which a call is given to a human, and with which the human is asked."""

from __future__ import annotations

from dataclasses import dataclass

from twilio.twiml.voice_response import VoiceResponse

from .twiml import xml_text

ANSWER_S = 8
"""How long a key is waited for, after the briefing."""


@dataclass(frozen=True, slots=True)
class Briefing:
    """What a human hears who was called for a transfer: `audio_url`, or `words` if it is empty."""

    words: str
    language: str
    audio_url: str
    answer_url: str
    """Is asked with the key; without one, when none came."""


def brief(briefing: Briefing) -> bytes:
    """Say the briefing twice, and wait for a key.

    Any key counts: without ``finishOnKey=""`` a # would end the input and be none.
    """
    response = VoiceResponse()
    url = xml_text(briefing.answer_url)
    gather = response.gather(
        input="dtmf", num_digits=1, finish_on_key="", timeout=ANSWER_S, action=url, method="POST"
    )
    for again in (False, True):
        if again:
            gather.pause(length=2)
        if briefing.audio_url:
            gather.play(xml_text(briefing.audio_url))
        else:
            gather.say(xml_text(briefing.words), language=briefing.language)
    response.redirect(url, method="POST")
    return str(response).encode()


def join_conference(name: str) -> bytes:
    """Put a call into the conference in which the two talk; it ends when either leaves."""
    response = VoiceResponse()
    response.dial().conference(
        name, start_conference_on_enter=True, end_conference_on_exit=True, beep="false"
    )
    return str(response).encode()


def dial_number(number: str) -> bytes:
    """Let a call go on with a number."""
    response = VoiceResponse()
    response.dial().number(xml_text(number))
    return str(response).encode()


def say_and_hang_up(words: str, language: str) -> bytes:
    """End a call with a word."""
    response = VoiceResponse()
    response.say(xml_text(words), language=language)
    response.hangup()
    return str(response).encode()
