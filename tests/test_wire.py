"""Twilio's dialect: every message both ways, the state table, and whatever a stranger sends."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.errors import LocalProtocolError, RemoteProtocolError
from voicecore.phone.stream import CallIdentity, CarrierStream
from voicecore.wire.events import (
    Clear,
    Connected,
    Dtmf,
    Ignored,
    Mark,
    MarkReached,
    Media,
    Play,
    Started,
    Stopped,
)
from voicecore.wire.twilio import MAX_IGNORED, TRANSITIONS, MediaStream, StreamState

MZ, CA, AC = "MZ" + "1" * 32, "CA" + "2" * 32, "AC" + "0" * 32
CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": MZ,
    "start": {
        "accountSid": AC,
        "streamSid": MZ,
        "callSid": CA,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t-9"},
    },
}
MEDIA: dict[str, Any] = {
    "event": "media",
    "sequenceNumber": "2",
    "streamSid": MZ,
    "media": {
        "track": "inbound",
        "chunk": "1",
        "timestamp": "121",
        "payload": b64encode(bytes(range(160))).decode(),
    },
}
MARK = {"event": "mark", "sequenceNumber": "34", "streamSid": MZ, "mark": {"name": "t1:1"}}
DTMF = {
    "event": "dtmf",
    "streamSid": MZ,
    "sequenceNumber": "5",
    "dtmf": {"track": "inbound_track", "digit": "5"},
}
STOP = {
    "event": "stop",
    "sequenceNumber": "9",
    "stop": {"accountSid": AC, "callSid": CA},
    "streamSid": MZ,
}
MESSAGES = {
    "connected": CONNECTED,
    "start": START,
    "media": MEDIA,
    "mark": MARK,
    "dtmf": DTMF,
    "stop": STOP,
}


def started() -> MediaStream:
    stream = MediaStream()
    stream.receive(json.dumps(CONNECTED))
    stream.receive(json.dumps(START))
    return stream


def changed(message: dict[str, Any], path: str, value: object) -> str:
    copy = json.loads(json.dumps(message))
    *parents, last = path.split(".")
    target = copy
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(copy)


@pytest.mark.parametrize(
    ("given", "at_ms"),
    [
        ("155", 155),
        (155, 155),
        ("0", 0),
        (..., None),
        (None, None),
        ("", None),
        ("-20", None),
        (-20, None),
        ("1.5", None),
        (1.5, None),
        (True, None),
        ("\u0665", None),
        ("9" * 16, None),
        ("9" * 5000, None),
        (10**15, None),
        (["155"], None),
        ({"ms": {"ms": 1}}, None),
    ],
)
def test_a_timestamp_is_read_if_it_is_one_and_the_sound_is_heard_anyway(
    given: object, at_ms: int | None
) -> None:
    stream = started()
    event = stream.receive(changed(MEDIA, "media.timestamp", given))
    assert event == Media(bytes(range(160)))
    assert isinstance(event, Media)
    assert event.at_ms == at_ms


def test_a_session() -> None:
    stream = MediaStream()
    assert stream.receive(json.dumps(CONNECTED)) == Connected()
    assert stream.receive(json.dumps(START)) == Started(CA, MZ, AC, {"token": "t-9"})
    assert stream.receive(json.dumps(MEDIA)) == Media(bytes(range(160)))
    assert stream.receive(json.dumps(DTMF)) == Dtmf("5")
    assert stream.receive(json.dumps(MARK)) == MarkReached("t1:1")
    assert stream.receive(json.dumps(STOP)) == Stopped()
    assert stream.ignored == 0


def test_what_we_say_is_exactly_what_twilio_takes() -> None:
    stream = started()
    audio = bytes(range(160))
    play = json.loads(stream.send(Play(audio)))
    assert b64decode(play["media"].pop("payload")) == audio
    assert play == {"event": "media", "streamSid": MZ, "media": {}}
    assert json.loads(stream.send(Mark('a"b\\c\u2028ü'))) == {
        "event": "mark",
        "streamSid": MZ,
        "mark": {"name": 'a"b\\c\u2028ü'},
    }
    assert json.loads(stream.send(Clear())) == {"event": "clear", "streamSid": MZ}


@pytest.mark.parametrize("state", list(StreamState))
@pytest.mark.parametrize("event", list(MESSAGES))
def test_the_table_is_the_whole_behaviour(state: StreamState, event: str) -> None:
    stream = MediaStream()
    path = {
        "CONNECTING": [],
        "CONNECTED": ["connected"],
        "STARTED": ["connected", "start"],
        "STOPPED": ["connected", "start", "stop"],
    }[state.name]
    for step in path:
        stream.receive(json.dumps(MESSAGES[step]))
    assert stream.state is state
    result = stream.receive(json.dumps(MESSAGES[event]))
    assert isinstance(result, Ignored) == (event not in TRANSITIONS[state])
    assert stream.state is TRANSITIONS[state].get(event, state)


@pytest.mark.parametrize("command", [Play(bytes(160)), Mark("m"), Clear()])
def test_nothing_is_said_before_start_or_after_stop(command: Play | Mark | Clear) -> None:
    fresh, over = MediaStream(), started()
    over.receive(json.dumps(STOP))
    for stream in (fresh, over):
        with pytest.raises(LocalProtocolError):
            stream.send(command)


@pytest.mark.parametrize("size", [0, 1, 159, 161])
def test_audio_goes_out_in_whole_frames(size: int) -> None:
    with pytest.raises(LocalProtocolError):
        started().send(Play(bytes(size)))


@pytest.mark.parametrize("size", [0, 1, 80, 160, 320, 4000, 48000])
def test_audio_comes_in_at_any_length(size: int) -> None:
    payload = b64encode(bytes(size)).decode()
    event = started().receive(changed(MEDIA, "media.payload", payload))
    assert event == Media(bytes(size))


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        "[" * 100_000,
        '{"event":' * 5000,
        "9" * 5000,
        '{"a":NaN}',
        "\ud800",
        '{"event":"media"}',
        '{"event":"unheard-of"}',
        '{"event":7}',
        '{"no":"event"}',
        changed(MEDIA, "streamSid", "MZ-another"),
        changed(MEDIA, "streamSid", ...),
        changed(MEDIA, "media.payload", "*not base64*"),
        changed(MEDIA, "media.payload", 7),
        changed(MEDIA, "media.payload", "AAA"),
        changed(MEDIA, "media.track", "outbound"),
        changed(MARK, "mark", {}),
        changed(MARK, "streamSid", "MZ"),
        changed(DTMF, "dtmf.digit", "12"),
        changed(DTMF, "dtmf.digit", ""),
        json.dumps(START),
        json.dumps(CONNECTED),
    ],
)
def test_a_bad_message_is_ignored_and_the_call_lives(message: str) -> None:
    stream = started()
    assert isinstance(stream.receive(message), Ignored)
    assert stream.ignored == 1
    assert isinstance(stream.receive(json.dumps(MEDIA)), Media)


def test_unknown_keys_are_no_matter() -> None:
    stream = started()
    assert isinstance(stream.receive(changed(MEDIA, "media.new", {"deep": [1]})), Media)
    assert isinstance(stream.receive(changed(MEDIA, "new", None)), Media)
    assert stream.ignored == 0


def test_fifty_bad_messages_close_the_stream() -> None:
    stream = started()
    for _ in range(MAX_IGNORED - 1):
        stream.receive("nonsense")
    with pytest.raises(RemoteProtocolError) as caught:
        stream.receive("nonsense")
    assert caught.value.close_code == 1008


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (".encoding", "audio/l16"),
        (".sampleRate", 16000),
        (".channels", 2),
        (".encoding", ...),
        (".sampleRate", "8000"),
        (".channels", None),
        ("", ...),
        ("", None),
        ("", []),
        ("", "audio/x-mulaw"),
    ],
)
def test_another_media_format_closes_the_stream(key: str, value: object) -> None:
    stream = MediaStream()
    stream.receive(json.dumps(CONNECTED))
    with pytest.raises(RemoteProtocolError, match="media format") as caught:
        stream.receive(changed(START, f"start.mediaFormat{key}", value))
    assert caught.value.close_code == 1003


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
        max_leaves=10,
    ),
    st.sampled_from(list(MESSAGES)),
)
def test_no_json_breaks_the_machine(value: object, event: str) -> None:
    stream = started()
    for key in MESSAGES[event]:
        stream.receive(json.dumps({**MESSAGES[event], key: value}))
    stream.receive(json.dumps(value))


def test_both_ends_of_the_wire_understand_each_other() -> None:
    carrier, stream = CarrierStream(CallIdentity(CA, MZ)), MediaStream()
    connected, start = map(stream.receive, carrier.open())
    assert isinstance(connected, Connected)
    assert isinstance(start, Started)
    assert stream.receive(carrier.media(b"\x01" * 160)) == Media(b"\x01" * 160)
    assert carrier.receive(stream.send(Play(b"\x02" * 320))) == []
    assert carrier.receive(stream.send(Mark("m1"))) == []
    assert carrier.receive(stream.send(Mark("m2"))) == []
    assert carrier.play()[1] == []
    played, echoes = carrier.play()
    assert played.audio == b"\x02" * 160
    assert [stream.receive(echo) for echo in echoes] == [
        MarkReached("m1"),
        MarkReached("m2"),
    ]
    carrier.receive(stream.send(Play(b"\x03" * 160)))
    carrier.receive(stream.send(Mark("m3")))
    (echo,) = carrier.receive(stream.send(Clear()))
    assert stream.receive(echo) == MarkReached("m3")
    assert stream.receive(carrier.stop()) == Stopped()
    assert carrier.warnings == []
