"""How each carrier asks for a call and reads the answer, as its documentation shows it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit
from xml.etree import ElementTree

from dialect_transcripts import Carrier, named
from server_house import get, post

SECRET = "carriers-secret-0123456789"

FIELDS: Mapping[str, Mapping[str, str]] = {
    "telnyx": {
        "AccountSid": "f5586561-8ff0-4291-a51b-c7dfe4139ff9",
        "CallSid": "v3:T02llQ",
        "CallSidLegacy": "v3:T02llQ",
        "ConnectionId": "1234567890",
        "From": "+13122010094",
        "To": "+13122123456",
    },
    "plivo": {
        "CallUUID": "12345678-1234",
        "From": "13122010094",
        "To": "13122123456",
        "CallStatus": "ringing",
        "Direction": "inbound",
    },
    "signalwire": {
        "CallSid": "sw-call",
        "AccountSid": "sw-account",
        "From": "+13122010094",
        "To": "+13122123456",
    },
    "exotel": {
        "CallSid": "CA77",
        "CallFrom": "+919876543210",
        "CallTo": "+918047491899",
        "Direction": "incoming",
        "Created": "2026-01-01 10:00:00",
    },
    "vonage": {
        "to": "442079460000",
        "from": "447700900000",
        "uuid": "aaaa-bbbb",
        "conversation_uuid": "CON-aaaa-bbbb",
    },
}

BY_GET = frozenset({"exotel", "vonage"})
"""Carriers that ask by GET unless they are told otherwise."""


def basic(password: str) -> str:
    return f"Authorization: Basic {b64encode(f'voice:{password}'.encode()).decode()}"


def asks(
    name: str,
    target: str = "",
    *headers: str,
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """The request with which a carrier asks `target`: its webhook, unless another is given."""
    form = FIELDS[name] if fields is None else fields
    target = target or f"/voice-stream/{name}?secret={SECRET}"
    if name in BY_GET:
        return get(f"{target}{'&' if '?' in target else '?'}{urlencode(form)}", *headers)
    return post(target, urlencode(form).encode(), *headers)


def asks_json(target: str, fields: Mapping[str, object]) -> bytes:
    return post(target, json.dumps(fields).encode(), "Content-Type: application/json")


@dataclass
class Ordered:
    """What a document tells a carrier to do with a call: stream it, or end it with words."""

    media_url: str = ""
    ended_url: str = ""
    words: str = ""
    given: Any = field(default_factory=dict)
    """What the stream shall bring back, in the form in which the carrier keeps it."""


def read(name: str, document: bytes) -> Ordered:
    """Read a document as its carrier would."""
    if name == "exotel":
        url = json.loads(document).get("url", "")
        return Ordered(url, given=dict(parse_qsl(urlsplit(url).query)))
    if name == "vonage":
        (action,) = json.loads(document) or [{"action": ""}]
        if action["action"] != "connect":
            return Ordered(words=action.get("text", ""))
        (endpoint,) = action["endpoint"]
        assert endpoint["type"] == "websocket"
        return Ordered(endpoint["uri"], action["eventUrl"][0], given=endpoint["headers"])
    root = ElementTree.fromstring(document)
    ordered = Ordered(ended_url=root.findtext("Redirect", ""))
    ordered.words = root.findtext("Say", "") or root.findtext("Speak", "")
    if name == "plivo" and (stream := root.find("Stream")) is not None:
        ordered.media_url, ordered.given = stream.text or "", stream.get("extraHeaders")
    elif (stream := root.find("Connect/Stream")) is not None:
        ordered.media_url = stream.attrib["url"]
        ordered.given = {p.attrib["name"]: p.attrib["value"] for p in stream}
    return ordered


def opening(carrier: Carrier, ordered: Ordered) -> list[str]:
    """The stream's first messages, with what the document gave it."""
    *before, start = carrier.opening
    message = json.loads(start)
    match carrier.name:
        case "telnyx" | "exotel":
            message["start"]["custom_parameters"] = ordered.given
        case "signalwire":
            message["start"]["customParameters"] = ordered.given
        case "plivo":
            message["extra_headers"] = ordered.given.replace(",", ";")
        case _:
            head = {key: message[key] for key in ("event", "content-type")}
            message = head | ordered.given
    return [*before, json.dumps(message)]


def path_of(url: str) -> str:
    """A URL's request target."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


NAMES = list(FIELDS)
CALL_SIDS = {name: named(name).started.call_sid for name in NAMES}
