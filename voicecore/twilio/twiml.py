"""The TwiML that the webhooks answer with, built by the twilio package's serialiser.

Escaping alone does not make well-formed XML: characters that XML 1.0 forbids are removed first.
Caller id names are free text that a stranger chose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from twilio.twiml.voice_response import Gather, VoiceResponse

PARAMETER_CHARS = 499
"""A <Parameter>'s name and value together: fewer than 500 characters (Twilio's <Stream> page)."""

RECORD_SILENCE_S = 1
"""The silence that ends a recording, the least that <Record> takes."""

RECORD_S = 60
"""The longest recording, as any turn of the caller."""

RECORD_KEY = "#"
"""Ends a recording at once; the other keys are the caller's own."""

DIAL_S = 30
"""How long the other side may ring."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LANGUAGE_AND_REGION = re.compile("[A-Za-z]{2,3}-[A-Za-z0-9]{2,4}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the caller hears first: a file, or words for the carrier's own voice, or nothing."""

    url: str = ""
    words: str = ""
    language: str = ""
    """BCP-47; one without a region is none of the carrier's, and is left to it."""
    seconds: float = 5.0
    """How long it lasts; words, about so long."""


def stream(
    ws_url: str, ended_url: str, parameters: Mapping[str, str], status_url: str = ""
) -> bytes:
    """Connect the call to our media stream; when that ends, ask `ended_url` how to go on.

    What happens to the stream is told to `status_url`, if there is one.
    """
    response = VoiceResponse()
    connect = response.connect(action=xml_text(ended_url), method="POST")
    status = {"status_callback": xml_text(status_url)} if status_url else {}
    twiml_stream = connect.stream(url=xml_text(ws_url), **status)
    for name, value in parameters.items():
        clean = xml_text(value)[: PARAMETER_CHARS - len(name)]
        twiml_stream.parameter(name=name, value=clean)
    return serialised(response)


def record(prompt: Prompt, url: str) -> bytes:
    """Listen to the caller; what was recorded goes to `url`.

    So does that nothing was: of a recording without any sound some versions of <Record> say nothing
    and go on with the next verb.
    """
    response = _beginning_with(prompt)
    response.record(
        action=xml_text(url),
        method="POST",
        timeout=RECORD_SILENCE_S,
        max_length=RECORD_S,
        finish_on_key=RECORD_KEY,
        play_beep=False,
        trim="trim-silence",
    )
    response.redirect(xml_text(url), method="POST")
    return serialised(response)


def gather(prompt: Prompt, url: str, count: int | None, terminator: str, timeout_s: float) -> bytes:
    """Let the caller type, also while the prompt is played; what was typed, or nothing, is told
    `url`."""
    response = VoiceResponse()
    collected = response.gather(
        input="dtmf",
        action=xml_text(url),
        method="POST",
        timeout=math.ceil(timeout_s),
        finish_on_key=terminator,
        action_on_empty_result=True,
        **({} if count is None else {"num_digits": count}),
    )
    begin(collected, prompt)
    return serialised(response)


def redirect(prompt: Prompt, url: str) -> bytes:
    """Ask `url` how to go on, once the prompt was heard."""
    response = _beginning_with(prompt)
    response.redirect(xml_text(url), method="POST")
    return serialised(response)


def dial(prompt: Prompt, number: str, conference: str, url: str) -> bytes:
    """Give the call to a number or else a conference; ask `url` how to go on after that.

    Without a `url` that is the call's end.
    """
    response = _beginning_with(prompt)
    after = {"action": xml_text(url), "method": "POST"} if url else {}
    called = response.dial(**after, timeout=DIAL_S)
    if number:
        called.number(xml_text(number))
    else:
        called.conference(xml_text(conference))
    return serialised(response)


def hang_up(words: str = "", prompt: Prompt | None = None) -> bytes:
    """End the call, after saying `words`, or a prompt, if there are any."""
    response = _beginning_with(prompt or Prompt(words=words))
    response.hangup()
    return serialised(response)


def xml_text(text: str) -> str:
    """Return `text` without the characters that XML 1.0 forbids (section 2.2)."""
    return _FORBIDDEN.sub("", text)


def _beginning_with(prompt: Prompt) -> VoiceResponse:
    response = VoiceResponse()
    begin(response, prompt)
    return response


def begin(verb: VoiceResponse | Gather, prompt: Prompt) -> None:
    """Add a prompt to a document, or to what is heard while keys are collected."""
    if prompt.url:
        verb.play(xml_text(prompt.url))
    elif prompt.words:
        known = _LANGUAGE_AND_REGION.fullmatch(prompt.language)
        given = {"language": prompt.language} if known else {}
        verb.say(xml_text(prompt.words), **given)


def serialised(response: VoiceResponse) -> bytes:
    """Return a document's bytes."""
    return str(response).encode()
