"""What each carrier says, word by word, as its page shows it; and how its messages are told apart.

A `Carrier` is one dialect's side of a conversation: enough to run the same tests on all of them.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voicecore.audio import mulaw
from voicecore.wire.dialects import DIALECTS, Machine
from voicecore.wire.events import Dtmf, Event, MarkReached, Started

MU_LAW = mulaw.encode(mulaw.decode(bytes(range(160))))
"""A frame with every step of one sign; its negative zero, which PCM does not know, is positive."""

TELNYX_CONNECTED = '{"event":"connected","version":"1.0.0"}'
TELNYX_START = json.dumps(
    {
        "event": "start",
        "sequence_number": "1",
        "stream_id": "32DE0DEA",
        "start": {
            "user_id": "3E6F995F",
            "call_control_id": "v3:T02llQ",
            "call_session_id": "ff55a038",
            "from": "+13122010094",
            "to": "+13122123456",
            "tags": ["TAG1"],
            "client_state": "aGk=",
            "custom_parameters": {"token": "t-9"},
            "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
        },
    }
)
TELNYX_MARK = '{"event":"mark","stream_id":"32DE0DEA","sequence_number":"6","mark":{"name":"m1"}}'
TELNYX_DTMF = (
    '{"event":"dtmf","stream_id":"32DE0DEA","occurred_at":"2026-01-01T00:00:00.000Z",'
    '"sequence_number":"5","dtmf":{"digit":"5"}}'
)
TELNYX_ERROR = (
    '{"event":"error","stream_id":"32DE0DEA",'
    '"payload":{"code":100003,"title":"malformed_frame","detail":"no payload"}}'
)
TELNYX_STOP = (
    '{"event":"stop","sequence_number":"9","stream_id":"32DE0DEA",'
    '"stop":{"user_id":"3E6F995F","call_control_id":"v3:T02llQ"}}'
)

PLIVO_START = json.dumps(
    {
        "event": "start",
        "sequenceNumber": 1,
        "start": {
            "callId": "12345678-1234",
            "streamId": "87654321-4321",
            "accountId": "MAXXXX",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
        },
        "extra_headers": "userId=12345;token=b32xOQWTS",
    }
)
PLIVO_PLAYED = '{"event":"playedStream","sequenceNumber":75,"streamId":"87654321-4321","name":"m1"}'
PLIVO_CLEARED = '{"event":"clearedAudio","sequenceNumber":80,"streamId":"87654321-4321"}'
PLIVO_DTMF = (
    '{"event":"dtmf","sequenceNumber":50,"streamId":"87654321-4321",'
    '"dtmf":{"track":"inbound","digit":"5","timestamp":"1705312250000"}}'
)

EXOTEL_CONNECTED = '{"event":"connected"}'
EXOTEL_START = json.dumps(
    {
        "event": "start",
        "sequence_number": "1",
        "stream_sid": "MZ77",
        "start": {
            "stream_sid": "MZ77",
            "call_sid": "CA77",
            "account_sid": "AC77",
            "from": "+919876543210",
            "to": "+918047491899",
            "custom_parameters": {"token": "t-9"},
            "media_format": {"encoding": "audio/x-raw", "sample_rate": "8000", "bit_rate": "16"},
        },
    }
)
EXOTEL_MARK = '{"event":"mark","sequence_number":"15","stream_sid":"MZ77","mark":{"name":"m1"}}'
EXOTEL_DTMF = (
    '{"event":"dtmf","sequence_number":"7","stream_sid":"MZ77",'
    '"dtmf":{"digit":"5","duration":"100"}}'
)
EXOTEL_STOP = (
    '{"event":"stop","sequence_number":"99","stream_sid":"MZ77",'
    '"stop":{"call_sid":"CA77","account_sid":"AC77","reason":"callended"}}'
)

VONAGE_CONNECTED = (
    '{"event":"websocket:connected","content-type":"audio/l16;rate=8000",'
    '"uuid":"aaaa-bbbb","token":"t-9","age":40}'
)
VONAGE_NOTIFY = '{"event":"websocket:notify","payload":{"name":"m1"}}'
VONAGE_CLEARED = '{"event":"websocket:cleared"}'
VONAGE_DTMF = '{"event":"websocket:dtmf","digit":"5","duration":260}'

SIGNALWIRE_CONNECTED = '{"event":"connected","protocol":"Call","version":"0.2.0"}'
SIGNALWIRE_START = json.dumps(
    {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "sw-1",
        "start": {
            "accountSid": "sw-account",
            "streamSid": "sw-1",
            "callSid": "sw-call",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": "t-9"},
        },
    }
)
SIGNALWIRE_MARK = '{"event":"mark","sequenceNumber":"7","streamSid":"sw-1","mark":{"name":"m1"}}'
SIGNALWIRE_DTMF = (
    '{"event":"dtmf","sequenceNumber":"8","streamSid":"sw-1",'
    '"dtmf":{"track":"inbound_track","digit":"5"}}'
)
SIGNALWIRE_STOP = (
    '{"event":"stop","sequenceNumber":"9","streamSid":"sw-1",'
    '"stop":{"accountSid":"sw-account","callSid":"sw-call"}}'
)


@dataclass(frozen=True)
class Carrier:
    """One dialect's side of a conversation."""

    name: str
    opening: list[str]
    started: Started
    media: Callable[[bytes], str | bytes]
    """Caller's mu-law -> the message that carries it."""
    heard: dict[str, Event]
    """Every other message that a started stream may send, and what it means."""
    sound: Callable[[Any], bytes]
    """Our message that carries sound -> the mu-law in it."""
    mark: object
    """What we say for `Mark("m1")`, as JSON."""
    clear: object
    stop: str | None = None
    """None: the carrier only closes."""


def telnyx_media(audio: bytes, chunk: object = None, track: str = "inbound") -> str:
    media = {"track": track, "timestamp": "5", "payload": b64encode(audio).decode()}
    if chunk is not None:
        media["chunk"] = chunk  # type: ignore[assignment]
    message = {"event": "media", "sequence_number": "4", "stream_id": "32DE0DEA", "media": media}
    return json.dumps(message)


def plivo_media(audio: bytes) -> str:
    media = {
        "track": "inbound",
        "timestamp": "1705312200000",
        "chunk": 41,
        "payload": b64encode(audio).decode(),
    }
    head = {"event": "media", "sequenceNumber": 42, "streamId": "87654321-4321"}
    return json.dumps({**head, "media": media, "extra_headers": "userId=12345"})


def exotel_media(pcm: bytes) -> str:
    media = {"chunk": "2", "timestamp": "200", "payload": b64encode(pcm).decode()}
    head = {"event": "media", "sequence_number": "3", "stream_sid": "MZ77"}
    return json.dumps({**head, "media": media})


def signalwire_media(audio: bytes) -> str:
    media = {"track": "inbound", "chunk": "1", "payload": b64encode(audio).decode()}
    head = {"event": "media", "sequenceNumber": "2", "streamSid": "sw-1"}
    return json.dumps({**head, "media": media})


def payload_of(message: str) -> bytes:
    return b64decode(json.loads(message)["media"]["payload"], validate=True)


CARRIERS = [
    Carrier(
        "telnyx",
        [TELNYX_CONNECTED, TELNYX_START],
        Started(
            "v3:T02llQ",
            "32DE0DEA",
            "3E6F995F",
            {"From": "+13122010094", "To": "+13122123456", "token": "t-9"},
        ),
        telnyx_media,
        {TELNYX_MARK: MarkReached("m1"), TELNYX_DTMF: Dtmf("5")},
        payload_of,
        {"event": "mark", "mark": {"name": "m1"}},
        {"event": "clear"},
        TELNYX_STOP,
    ),
    Carrier(
        "plivo",
        [PLIVO_START],
        Started("12345678-1234", "87654321-4321", "MAXXXX", {"userId": "12345", "token": "t-9"}),
        plivo_media,
        {PLIVO_PLAYED: MarkReached("m1"), PLIVO_DTMF: Dtmf("5")},
        payload_of,
        {"event": "checkpoint", "streamId": "87654321-4321", "name": "m1"},
        {"event": "clearAudio", "streamId": "87654321-4321"},
    ),
    Carrier(
        "signalwire",
        [SIGNALWIRE_CONNECTED, SIGNALWIRE_START],
        Started("sw-call", "sw-1", "sw-account", {"token": "t-9"}),
        signalwire_media,
        {SIGNALWIRE_MARK: MarkReached("m1"), SIGNALWIRE_DTMF: Dtmf("5")},
        payload_of,
        {"event": "mark", "streamSid": "sw-1", "mark": {"name": "m1"}},
        {"event": "clear", "streamSid": "sw-1"},
        SIGNALWIRE_STOP,
    ),
    Carrier(
        "exotel",
        [EXOTEL_CONNECTED, EXOTEL_START],
        Started(
            "CA77",
            "MZ77",
            "AC77",
            {"From": "+919876543210", "To": "+918047491899", "token": "t-9"},
        ),
        lambda audio: exotel_media(mulaw.decode(audio)),
        {EXOTEL_MARK: MarkReached("m1"), EXOTEL_DTMF: Dtmf("5")},
        lambda message: mulaw.encode(payload_of(message)),
        {"event": "mark", "stream_sid": "MZ77", "mark": {"name": "m1"}},
        {"event": "clear", "stream_sid": "MZ77"},
        EXOTEL_STOP,
    ),
    Carrier(
        "vonage",
        [VONAGE_CONNECTED],
        Started("aaaa-bbbb", "aaaa-bbbb", "", {"token": "t-9"}),
        mulaw.decode,
        {VONAGE_NOTIFY: MarkReached("m1"), VONAGE_DTMF: Dtmf("5")},
        mulaw.encode,
        {"action": "notify", "payload": {"name": "m1"}},
        {"action": "clear"},
    ),
]


def started(carrier: Carrier) -> Machine:
    machine = DIALECTS[carrier.name].machine()
    for message in carrier.opening:
        machine.receive(message)
    return machine


def named(name: str) -> Carrier:
    return next(carrier for carrier in CARRIERS if carrier.name == name)
