"""The documents that tell a carrier what to do with a call: stream it to us, or end it.

Rules that hold here:

* A document is built by a serialiser, never by string formatting; characters that XML 1.0 forbids
  are removed first.  Caller id names are free text that a stranger chose.
* Every document that streams says where the call goes on afterwards: `ended_url`.
* Carriers limit what a stream may be given.  What does not fit is left out, the first come first:
  put the token first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit, urlunsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import msgspec

from ..wire.plivo import pack_headers
from ..wire.vonage import CALL_HEADER

PARAMETER_CHARS = 499
"""A <Parameter>'s name and value together, as on Twilio's page, which the others follow."""

NCCO_HEADER_BYTES = 512
"""All headers of a WebSocket endpoint, as JSON (Vonage's WebSockets guide)."""

EXOTEL_PARAMETERS = 3
EXOTEL_CHARS = 256
"""The URL's query: so many pairs, so long together (Exotel's Voicebot applet page)."""

XML = "text/xml; charset=utf-8"
JSON = "application/json"

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class StreamOrder:
    """What a carrier is told: stream this call to `ws_url`, with `parameters`, then go on.

    `call_sid` is the carrier's own name of the call, from its webhook.
    """

    ws_url: str
    ended_url: str
    call_sid: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AnswerDocument:
    """One kind of document: how to write it, and its media type."""

    stream: Callable[[StreamOrder], bytes]
    hang_up: Callable[[str], bytes]
    """End the call, after saying the words if there are any."""
    dial: Callable[[str], bytes]
    """Let the call go on with a number (E.164); when that is over, so is the call."""
    content_type: str = XML


def texml_stream(order: StreamOrder) -> bytes:
    """TeXML (Telnyx): `<Connect><Stream>`, with mu-law asked for both ways.

    Without `bidirectionalMode` Telnyx expects MP3 files from us; without `codec` the caller's own
    codec comes, which outside North America is often A-law.
    """
    asked = {
        "track": "inbound_track",
        "codec": "PCMU",
        "bidirectionalMode": "rtp",
        "bidirectionalCodec": "PCMU",
        "bidirectionalSamplingRate": "8000",
    }
    return _connect(order, asked)


def cxml_stream(order: StreamOrder) -> bytes:
    """SignalWire's cXML: as TwiML, with the codec said."""
    return _connect(order, {"codec": "PCMU"})


def plivo_stream(order: StreamOrder) -> bytes:
    """Plivo XML: the URL is the element's text.  `keepCallAlive` makes what follows wait for it."""
    response = Element("Response")
    asked = {
        "bidirectional": "true",
        "keepCallAlive": "true",
        "audioTrack": "inbound",
        "contentType": "audio/x-mulaw;rate=8000",
    }
    headers = pack_headers(order.parameters)
    stream = SubElement(response, "Stream", asked | ({"extraHeaders": headers} if headers else {}))
    stream.text = _xml_text(order.ws_url)
    _go_on(response, order)
    return _document(response)


def ncco_stream(order: StreamOrder) -> bytes:
    """NCCO (Vonage): the headers come back in the stream's first message, with the call's name.

    ``eventType: synchronous`` asks `ended_url` for the next NCCO when we close the WebSocket, or
    when it cannot be opened; an empty answer ends the call.
    """
    headers = {CALL_HEADER: _json_text(order.call_sid)}
    for name, value in order.parameters.items():
        longer = {**headers, _json_text(name): _json_text(value)}
        if name != CALL_HEADER and len(_encode(longer)) <= NCCO_HEADER_BYTES:
            headers = longer
    endpoint = {
        "type": "websocket",
        "uri": _json_text(order.ws_url),
        "content-type": "audio/l16;rate=8000",
        "headers": headers,
    }
    connect = {
        "action": "connect",
        "eventType": "synchronous",
        "eventUrl": [_json_text(order.ended_url)],
        "endpoint": [endpoint],
    }
    return _encode([connect])


def exotel_stream(order: StreamOrder) -> bytes:
    """Exotel: the URL that its Voicebot applet asks for, with three parameters in its query.

    Who calls whom is not among them: Exotel's `start` says that.  Nor is `ended_url`: when the
    stream ends the flow goes on to its next applet.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in order.parameters.items():
        longer = [*pairs, (_json_text(name), _json_text(value))]
        fits = len(longer) <= EXOTEL_PARAMETERS and len(_query(longer)) <= EXOTEL_CHARS
        if name not in ("From", "To") and fits:
            pairs = longer
    url = urlsplit(_json_text(order.ws_url))
    query = "&".join(filter(None, (url.query, _query(pairs))))
    return _encode({"url": urlunsplit(url._replace(query=query))})


def xml_hang_up(words: str) -> bytes:
    """TeXML and cXML: `<Say>` and `<Hangup>`."""
    return _hang_up("Say", words)


def plivo_hang_up(words: str) -> bytes:
    """Plivo XML: `<Speak>` and `<Hangup>`."""
    return _hang_up("Speak", words)


def ncco_hang_up(words: str) -> bytes:
    """NCCO: a call ends with its last action, and this has at most one."""
    return _encode([{"action": "talk", "text": _json_text(words)}] if words else [])


def xml_dial(number: str) -> bytes:
    """TeXML, cXML and Plivo XML: `<Dial>`, then `<Hangup>`."""
    response = Element("Response")
    SubElement(SubElement(response, "Dial"), "Number").text = _xml_text(number)
    SubElement(response, "Hangup")
    return _document(response)


def ncco_dial(number: str) -> bytes:
    """NCCO: numbers are written without their plus (Vonage's NCCO reference, `connect`)."""
    endpoint = {"type": "phone", "number": number.lstrip("+")}
    return _encode([{"action": "connect", "endpoint": [endpoint]}])


def exotel_dial(number: str) -> bytes:
    """Exotel: the flow decides who is next, by the applet behind ours."""
    return _encode({})


def exotel_hang_up(words: str) -> bytes:
    """Exotel: no URL.  The applet fails, and its flow says and does what it was told for that."""
    return _encode({})


ANSWERS: Mapping[str, AnswerDocument] = {
    "texml": AnswerDocument(texml_stream, xml_hang_up, xml_dial),
    "plivo-xml": AnswerDocument(plivo_stream, plivo_hang_up, xml_dial),
    "cxml": AnswerDocument(cxml_stream, xml_hang_up, xml_dial),
    "ncco": AnswerDocument(ncco_stream, ncco_hang_up, ncco_dial, JSON),
    "exotel-json": AnswerDocument(exotel_stream, exotel_hang_up, exotel_dial, JSON),
}
"""`AnswerKind` -> document.  Twilio's own, ``twiml``, is `twilio.twiml`."""


def _connect(order: StreamOrder, asked: Mapping[str, str]) -> bytes:
    response = Element("Response")
    url = {"url": _xml_text(order.ws_url)}
    stream = SubElement(SubElement(response, "Connect"), "Stream", url | dict(asked))
    for name, value in order.parameters.items():
        clean_name = _xml_text(name)
        clean = _xml_text(value)[: max(0, PARAMETER_CHARS - len(clean_name))]
        SubElement(stream, "Parameter", {"name": clean_name, "value": clean})
    _go_on(response, order)
    return _document(response)


def _go_on(response: Element, order: StreamOrder) -> None:
    SubElement(response, "Redirect", {"method": "POST"}).text = _xml_text(order.ended_url)


def _hang_up(verb: str, words: str) -> bytes:
    response = Element("Response")
    if words:
        SubElement(response, verb).text = _xml_text(words)
    SubElement(response, "Hangup")
    return _document(response)


def _document(response: Element) -> bytes:
    return bytes(ElementTree.tostring(response, encoding="utf-8", xml_declaration=True))


def _xml_text(text: str) -> str:
    """Return `text` without the characters that XML 1.0 forbids (section 2.2)."""
    return _FORBIDDEN.sub("", text)


def _json_text(text: str) -> str:
    """Return `text` without lone surrogates, which UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()


def _query(pairs: list[tuple[str, str]]) -> str:
    return urlencode(pairs, quote_via=quote)
