"""The other carriers' dialects: every message both ways, whole conversations, and garbage.

What all of them promise is tested on all of them; what only one does, below.
"""

from __future__ import annotations

import json

import pytest
from dialect_transcripts import (
    CARRIERS,
    MU_LAW,
    Carrier,
    named,
    started,
)
from hypothesis import given
from hypothesis import strategies as st

from voicecore.errors import LocalProtocolError, RemoteProtocolError
from voicecore.wire import exotel, plivo, telnyx, vonage
from voicecore.wire.dialects import DIALECTS, Machine
from voicecore.wire.events import (
    Clear,
    Connected,
    Dtmf,
    Event,
    Ignored,
    Mark,
    MarkReached,
    Media,
    Play,
    Stopped,
)
from voicecore.wire.exotel import ExotelStream
from voicecore.wire.json_stream import Transitions
from voicecore.wire.plivo import PlivoStream
from voicecore.wire.telnyx import TelnyxStream
from voicecore.wire.twilio import MAX_IGNORED, StreamState
from voicecore.wire.vonage import VonageStream

TABLES: dict[str, Transitions] = {
    "telnyx": telnyx.TRANSITIONS,
    "plivo": plivo.TRANSITIONS,
    "exotel": exotel.TRANSITIONS,
    "vonage": vonage.TRANSITIONS,
}
each_carrier = pytest.mark.parametrize("carrier", CARRIERS, ids=lambda c: c.name)


def fresh(carrier: Carrier) -> Machine:
    return DIALECTS[carrier.name].machine()


def outcome(machine: Machine, message: str) -> object:
    """What a message leads to: `Event`, or the code that closes the stream."""
    try:
        event = machine.receive(message)
    except RemoteProtocolError as error:
        return error.close_code
    return Event if isinstance(event, Event) else event


def test_every_dialect_is_tested() -> None:
    assert {"twilio", *(carrier.name for carrier in CARRIERS)} == set(DIALECTS)


@each_carrier
def test_a_conversation(carrier: Carrier) -> None:
    machine = fresh(carrier)
    events = [machine.receive(message) for message in carrier.opening]
    assert [type(event) for event in events[:-1]] == [Connected] * (len(events) - 1)
    assert events[-1] == carrier.started
    assert machine.receive(carrier.media(MU_LAW)) == Media(MU_LAW)
    assert carrier.sound(machine.send(Play(MU_LAW)))[:160] == MU_LAW
    assert json.loads(machine.send(Mark("m1"))) == carrier.mark
    for message, meaning in carrier.heard.items():
        assert machine.receive(message) == meaning
    assert json.loads(machine.send(Clear())) == carrier.clear
    assert carrier.sound(machine.send(Play(MU_LAW)))[:160] == MU_LAW
    if carrier.stop is not None:
        assert machine.receive(carrier.stop) == Stopped()
    assert machine.ignored == 0


@each_carrier
def test_mark_names_of_any_characters_come_back(carrier: Carrier) -> None:
    machine, name = started(carrier), 'a"b\\c\u2028ü\x00'
    said = json.loads(machine.send(Mark(name)))
    assert name in (said.get("name"), *(v.get("name") for v in said.values() if type(v) is dict))
    ((echo, _),) = [(m, e) for m, e in carrier.heard.items() if isinstance(e, MarkReached)]
    quoted = json.dumps(name)
    assert machine.receive(echo.replace('"m1"', quoted)) == MarkReached(name)


@each_carrier
@pytest.mark.parametrize("command", [Play(bytes(160)), Mark("m"), Clear()])
def test_nothing_is_said_before_start_or_after_stop(
    carrier: Carrier, command: Play | Mark | Clear
) -> None:
    machines = [fresh(carrier)]
    if carrier.stop is not None:
        over = started(carrier)
        over.receive(carrier.stop)
        machines.append(over)
    for machine in machines:
        with pytest.raises(LocalProtocolError):
            machine.send(command)


@each_carrier
@pytest.mark.parametrize("size", [0, 1, 159, 161])
def test_audio_goes_out_in_whole_frames(carrier: Carrier, size: int) -> None:
    with pytest.raises(LocalProtocolError):
        started(carrier).send(Play(bytes(size)))


@each_carrier
@pytest.mark.parametrize("size", [0, 1, 80, 160, 320, 4000])
def test_audio_comes_in_at_any_length(carrier: Carrier, size: int) -> None:
    audio = (MU_LAW * 25)[:size]
    assert started(carrier).receive(carrier.media(audio)) == Media(audio)


@each_carrier
@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 100_000,
        '{"event":' * 5000,
        "9" * 5000,
        '{"a":NaN}',
        "\ud800",
        '{"event":"media"}',
        '{"event":"unheard-of"}',
        '{"event":"audio"}',
        '{"event":7}',
        '{"event":[]}',
        '{"no":"event"}',
    ],
)
def test_garbage_is_ignored_and_the_call_lives(carrier: Carrier, message: str) -> None:
    machine = started(carrier)
    assert isinstance(machine.receive(message), Ignored)
    assert machine.ignored == 1
    assert isinstance(machine.receive(carrier.media(MU_LAW)), Media)


@each_carrier
def test_a_second_opening_is_ignored(carrier: Carrier) -> None:
    machine = started(carrier)
    for message in carrier.opening:
        assert isinstance(machine.receive(message), Ignored)
    assert machine.ignored == len(carrier.opening)
    assert machine.receive(carrier.media(MU_LAW)) == Media(MU_LAW)


@each_carrier
def test_fifty_bad_messages_close_the_stream(carrier: Carrier) -> None:
    machine = started(carrier)
    for _ in range(MAX_IGNORED - 1):
        machine.receive("nonsense")
    with pytest.raises(RemoteProtocolError) as caught:
        machine.receive("nonsense")
    assert caught.value.close_code == 1008


@each_carrier
def test_a_message_of_another_stream_is_ignored(carrier: Carrier) -> None:
    machine, sid = started(carrier), carrier.started.stream_sid
    for message in carrier.heard:
        if sid in message:
            assert isinstance(machine.receive(message.replace(sid, "another")), Ignored)
    with_sid = [message for message in carrier.heard if sid in message]
    assert machine.ignored == len(with_sid) == (0 if carrier.name == "vonage" else 2)


@each_carrier
def test_what_is_not_a_digit_is_ignored(carrier: Carrier) -> None:
    machine = started(carrier)
    ((press, _),) = [(m, e) for m, e in carrier.heard.items() if isinstance(e, Dtmf)]
    for digit in ('"A"', '"12"', '""', "5", "[]", "null"):
        assert isinstance(machine.receive(press.replace('"5"', digit)), Ignored)
    assert machine.receive(press.replace('"5"', '"#"')) == Dtmf("#")


@pytest.mark.parametrize("name", list(TABLES))
@pytest.mark.parametrize("state", list(StreamState))
def test_the_table_is_the_whole_behaviour(name: str, state: StreamState) -> None:
    carrier, table = named(name), TABLES[name]
    messages = [*carrier.opening, *carrier.heard, carrier.media(MU_LAW)]
    messages += [carrier.stop] if carrier.stop else []
    for message in messages:
        event = "audio" if isinstance(message, bytes) else json.loads(message)["event"]
        machine = DIALECTS[name].machine()
        path = {StreamState.CONNECTING: 0, StreamState.CONNECTED: 1}.get(state, 2)
        for step in carrier.opening[:path]:
            machine.receive(step)
        if state is StreamState.STOPPED and carrier.stop:
            machine.receive(carrier.stop)
        assert isinstance(machine, TelnyxStream | PlivoStream | ExotelStream | VonageStream)
        if machine.state is not state:
            assert not table[state]  # a state that this carrier does not know
            continue
        ignored = isinstance(machine.receive(message), Ignored)
        assert ignored == (event not in table[state])
        assert machine.state is table[state].get(event, state)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(), c, max_size=3),
    max_leaves=8,
)


@given(carrier=st.sampled_from(CARRIERS), value=JSON, data=st.data())
def test_no_json_breaks_a_machine(carrier: Carrier, value: object, data: st.DataObject) -> None:
    said = [m for m in (*carrier.opening, *carrier.heard, carrier.stop) if m is not None]
    message = json.loads(data.draw(st.sampled_from(said)))
    key = data.draw(st.sampled_from(list(message)))
    inner = message[key]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(list(inner)))] = value
    else:
        message[key] = value
    for machine in (fresh(carrier), started(carrier)):
        for text in (json.dumps(message), json.dumps(value)):
            assert outcome(machine, text) in (Event, 1003, 1008)


@given(carrier=st.sampled_from(CARRIERS), noise=st.binary() | st.text())
def test_no_bytes_break_a_machine(carrier: Carrier, noise: bytes | str) -> None:
    for machine in (fresh(carrier), started(carrier)):
        assert isinstance(machine.receive(noise), Event)
