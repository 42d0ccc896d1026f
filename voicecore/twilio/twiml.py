"""The TwiML that the webhooks answer with, built by the twilio package's serialiser.

Escaping alone does not make well-formed XML: characters that XML 1.0 forbids are removed first.
Caller id names are free text that a stranger chose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from twilio.twiml.voice_response import VoiceResponse

PARAMETER_CHARS = 499
"""A <Parameter>'s name and value together: fewer than 500 characters (Twilio's <Stream> page)."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
    return _document(response)


def hang_up(words: str = "") -> bytes:
    """End the call, after saying `words` if there are any."""
    response = VoiceResponse()
    if words:
        response.say(xml_text(words))
    response.hangup()
    return _document(response)


def xml_text(text: str) -> str:
    """Return `text` without the characters that XML 1.0 forbids (section 2.2)."""
    return _FORBIDDEN.sub("", text)


def _document(response: VoiceResponse) -> bytes:
    return str(response).encode()
