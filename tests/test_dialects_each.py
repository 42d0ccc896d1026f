"""What only one of the other carriers does: its codecs, its order, its acknowledgements."""

from __future__ import annotations

import json
from base64 import b64encode
from itertools import pairwise

import pytest
from dialect_transcripts import (
    EXOTEL_CONNECTED,
    EXOTEL_START,
    MU_LAW,
    PLIVO_CLEARED,
    PLIVO_PLAYED,
    PLIVO_START,
    SIGNALWIRE_CONNECTED,
    SIGNALWIRE_START,
    TELNYX_CONNECTED,
    TELNYX_ERROR,
    TELNYX_START,
    VONAGE_CLEARED,
    VONAGE_CONNECTED,
    exotel_media,
    named,
    payload_of,
    plivo_media,
    started,
    telnyx_media,
)
from hypothesis import given
from hypothesis import strategies as st

from voicecore.audio import mulaw
from voicecore.errors import LocalProtocolError, RemoteProtocolError
from voicecore.wire import exotel
from voicecore.wire.dialects import DIALECTS, Machine
from voicecore.wire.events import (
    Clear,
    Ignored,
    MarkReached,
    Media,
    Play,
    Started,
    Stopped,
)
from voicecore.wire.exotel import ExotelStream
from voicecore.wire.plivo import PlivoStream, pack_headers, unpack_headers
from voicecore.wire.telnyx import HELD_CHUNKS, TelnyxStream
from voicecore.wire.vonage import VonageStream


@pytest.mark.parametrize(
    ("machine", "opening", "ours", "other"),
    [
        (TelnyxStream, [TELNYX_CONNECTED, TELNYX_START], '"PCMU"', '"PCMA"'),
        (TelnyxStream, [TELNYX_CONNECTED, TELNYX_START], "8000", "16000"),
        (TelnyxStream, [TELNYX_CONNECTED, TELNYX_START], '"channels": 1', '"channels": 2'),
        (PlivoStream, [PLIVO_START], "audio/x-mulaw", "audio/x-l16"),
        (PlivoStream, [PLIVO_START], "8000", "16000"),
        (PlivoStream, [PLIVO_START], '"mediaFormat"', '"none"'),
        (ExotelStream, [EXOTEL_CONNECTED, EXOTEL_START], '"8000"', '"16000"'),
        (ExotelStream, [EXOTEL_CONNECTED, EXOTEL_START], "audio/x-raw", "audio/x-alaw"),
        (VonageStream, [VONAGE_CONNECTED], "rate=8000", "rate=44100"),
        (VonageStream, [VONAGE_CONNECTED], "audio/l16", "audio/opus"),
        (VonageStream, [VONAGE_CONNECTED], '"audio/l16;rate=8000"', "7"),
        (
            DIALECTS["signalwire"].machine,
            [SIGNALWIRE_CONNECTED, SIGNALWIRE_START],
            "audio/x-mulaw",
            "L16",
        ),
    ],
)
def test_another_media_format_closes_the_stream(
    machine: type[Machine], opening: list[str], ours: str, other: str
) -> None:
    stream = machine()
    for message in opening[:-1]:
        stream.receive(message)
    assert ours in opening[-1]
    with pytest.raises(RemoteProtocolError, match="media format") as caught:
        stream.receive(opening[-1].replace(ours, other))
    assert caught.value.close_code == 1003


def test_telnyx_reports_our_mistakes_and_the_call_lives() -> None:
    machine = started(named("telnyx"))
    event = machine.receive(TELNYX_ERROR)
    assert event == Ignored("the carrier objects: malformed_frame no payload")
    assert machine.ignored == 1
    assert isinstance(machine.receive(telnyx_media(b"a", track="outbound")), Ignored)


@pytest.mark.parametrize("odd", ['"from": null', '"from": 7', '"from": {"number": 1}'])
def test_an_odd_start_still_begins_a_call(odd: str) -> None:
    machine = TelnyxStream()
    machine.receive(TELNYX_CONNECTED)
    start = TELNYX_START.replace('"from": "+13122010094"', odd)
    start = start.replace('{"token": "t-9"}', "null")
    event = machine.receive(start)
    assert isinstance(event, Started)
    assert event.parameters == {"To": "+13122123456"}


def heard_in_order(*chunks: object) -> list[bytes]:
    machine, heard = started(named("telnyx")), []
    for chunk in chunks:
        letter = bytes((64 + int(str(chunk)),))
        event = machine.receive(telnyx_media(letter, chunk))
        assert isinstance(event, Media)
        heard.append(event.audio)
    return heard


def test_telnyx_chunks_are_put_into_order() -> None:
    assert heard_in_order("1", "2", "3") == [b"A", b"B", b"C"]
    assert heard_in_order("1", "3", "2", "4") == [b"A", b"", b"BC", b"D"]
    assert heard_in_order("1", "4", "3", "2") == [b"A", b"", b"", b"BCD"]
    assert heard_in_order(1, 3, 2) == [b"A", b"", b"BC"]


def test_telnyx_does_not_wait_for_what_is_lost() -> None:
    assert heard_in_order("1", "3", "4", "5", "6", "7") == [b"A", b"", b"", b"", b"CDEF", b"G"]
    assert HELD_CHUNKS == 3


def test_telnyx_chunks_that_come_late_or_twice_are_dropped() -> None:
    assert heard_in_order("5", "4", "5", "6", "6") == [b"E", b"", b"", b"F", b""]


def test_telnyx_may_count_anew() -> None:
    assert heard_in_order("90", "91", "1", "2") == [b"\x9a", b"\x9b", b"A", b"B"]


@pytest.mark.parametrize("chunk", [None, "x", "", "-1", "9" * 5000, True, [], 1.5, "²"])
def test_telnyx_audio_without_a_number_is_heard_as_it_comes(chunk: object) -> None:
    machine = started(named("telnyx"))
    for audio in (b"a", b"b"):
        assert machine.receive(telnyx_media(audio, chunk)) == Media(audio)


@given(st.permutations(range(1, 13)))
def test_telnyx_order_never_goes_back(order: list[int]) -> None:
    heard = b"".join(heard_in_order(*order))
    assert heard == bytes(sorted(set(heard)))


def test_plivo_acknowledges_a_clear_and_nobody_counts_it() -> None:
    machine = started(named("plivo"))
    assert isinstance(machine.receive(PLIVO_CLEARED), Ignored)
    assert machine.ignored == 0
    nameless = PLIVO_PLAYED.replace('"streamId":"87654321-4321",', "")
    assert machine.receive(nameless) == MarkReached("m1")
    assert machine.receive('{"event":"stop"}') == Stopped()


def test_plivo_says_its_format_with_every_sound() -> None:
    said = json.loads(started(named("plivo")).send(Play(MU_LAW)))
    assert said.pop("event") == "playAudio"
    said["media"]["payload"] = ""
    assert said == {
        "media": {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": ""},
    }


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=40), max_size=4))
def test_plivo_headers_bring_back_what_they_took(parameters: dict[str, str]) -> None:
    packed = pack_headers(parameters)
    assert len(packed) <= 512
    assert set(packed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789=,")
    back = unpack_headers(packed.replace(",", ";"))
    assert back.items() <= {
        (name.encode("utf-8", "replace").decode(), value.encode("utf-8", "replace").decode())
        for name, value in parameters.items()
    }
    if sum(len(f"{n}{v}".encode()) for n, v in parameters.items()) < 200:
        assert len(back) == sum(bool(n and v) for n, v in parameters.items())


def test_plivo_headers_of_others_stay_as_they_are() -> None:
    text = "userId=12345;sessionId=abc-xyz; a=b=c;b32x=b32x1!;;=x;y"
    theirs = {"userId": "12345", "sessionId": "abc-xyz", "a": "b=c", "b32x": "b32x1!"}
    assert unpack_headers(text) == theirs
    assert pack_headers({"long": "x" * 600, "token": "t"}) == "token=t"


def test_exotel_is_sent_enough_at_once() -> None:
    machine, frames = started(named("exotel")), exotel.ABILITIES.message_frames
    whole = payload_of(str(machine.send(Play(MU_LAW * frames))))
    assert len(whole) == 3200
    assert mulaw.encode(whole) == MU_LAW * frames
    tail = payload_of(str(machine.send(Play(MU_LAW))))
    assert mulaw.encode(tail) == MU_LAW.ljust(1600, b"\xff")
    most = payload_of(str(machine.send(Play(MU_LAW * 312))))
    assert len(most) % 320 == 0
    assert 99_000 < len(most) <= 100_000


def test_exotel_may_speak_mu_law() -> None:
    machine = ExotelStream()
    machine.receive(EXOTEL_CONNECTED)
    machine.receive(EXOTEL_START.replace("audio/x-raw", "audio/x-mulaw"))
    assert machine.receive(exotel_media(MU_LAW)) == Media(MU_LAW)
    assert payload_of(machine.send(Play(MU_LAW)))[:160] == MU_LAW


@given(st.binary(max_size=999), st.lists(st.integers(0, 999)))
def test_pcm_may_come_in_odd_pieces(pcm: bytes, cuts: list[int]) -> None:
    exotel_stream, vonage_stream = started(named("exotel")), started(named("vonage"))
    bounds = [0, *sorted(cuts), len(pcm)]
    pieces = [pcm[a:b] for a, b in pairwise(bounds)]
    whole = mulaw.encode(pcm[: len(pcm) // 2 * 2])
    for machine, messages in (
        (exotel_stream, map(exotel_media, pieces)),
        (vonage_stream, pieces),
    ):
        events = [machine.receive(message) for message in messages]
        assert b"".join(event.audio for event in events if isinstance(event, Media)) == whole


@given(st.binary(min_size=160, max_size=160))
def test_pcm_brings_mu_law_back(audio: bytes) -> None:
    """Every code but negative zero, which linear PCM does not know."""
    for name in ("exotel", "vonage"):
        machine, carrier = started(named(name)), named(name)
        there = carrier.sound(machine.send(Play(audio)))[:160]
        back = machine.receive(carrier.media(audio))
        assert back == Media(there)
        assert there == audio.replace(b"\x7f", b"\xff")
        assert mulaw.decode(there) == mulaw.decode(audio)


def test_vonage_sound_is_binary_and_one_frame_a_message() -> None:
    machine = started(named("vonage"))
    sound = machine.send(Play(MU_LAW))
    assert isinstance(sound, bytes)
    assert len(sound) == 320
    with pytest.raises(LocalProtocolError):
        machine.send(Play(MU_LAW * 2))
    assert isinstance(machine.receive(VONAGE_CLEARED), Ignored)
    assert machine.ignored == 0
    before = VonageStream()
    assert isinstance(before.receive(bytes(320)), Ignored)


def test_vonage_needs_a_call() -> None:
    for nameless in ("", '"uuid":"",', '"uuid":7,'):
        with pytest.raises(RemoteProtocolError, match="uuid") as caught:
            VonageStream().receive(VONAGE_CONNECTED.replace('"uuid":"aaaa-bbbb",', nameless))
        assert caught.value.close_code == 1008


@pytest.mark.parametrize("rate", [16000, 24000])
def test_vonage_at_other_rates_sends_whole_frames(rate: int) -> None:
    machine = VonageStream()
    machine.receive(VONAGE_CONNECTED.replace("rate=8000", f"rate={rate}"))
    for _ in range(3):
        assert len(machine.send(Play(MU_LAW))) == rate // 50 * 2
    event = machine.receive(bytes(rate // 50 * 2))
    assert event == Media(b"\xff" * 160)
    machine.send(Clear())
    assert machine.send(Play(b"\xff" * 160)) == bytes(rate // 50 * 2)


def test_signalwire_may_call_mu_law_pcmu() -> None:
    machine = DIALECTS["signalwire"].machine()
    machine.receive(SIGNALWIRE_CONNECTED)
    start = SIGNALWIRE_START.replace("audio/x-mulaw", "PCMU")
    assert machine.receive(start) == named("signalwire").started


def test_payloads_are_strict_base64() -> None:
    for name in ("telnyx", "plivo", "signalwire", "exotel"):
        carrier = named(name)
        good = carrier.media(MU_LAW)
        assert isinstance(good, str)
        (payload,) = (json.loads(good)["media"]["payload"],)
        for bad in ("*not base64*", "AAA", b64encode(b"x").decode() + "\n"):
            event = started(carrier).receive(
                json.dumps(json.loads(good.replace(payload, "X"))).replace('"X"', json.dumps(bad))
            )
            assert isinstance(event, Ignored)


@pytest.mark.parametrize("name", ["telnyx", "plivo", "exotel", "vonage"])
def test_audio_goes_out_in_measured_portions(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        started(named(name)).send(Play(MU_LAW * 1501))


def test_sound_has_the_carriers_time_where_that_is_known() -> None:
    telnyx, plivo, exotel_stream = TelnyxStream(), PlivoStream(), ExotelStream()
    for message in (TELNYX_CONNECTED, TELNYX_START):
        telnyx.receive(message)
    plivo.receive(PLIVO_START)
    for message in (EXOTEL_CONNECTED, EXOTEL_START):
        exotel_stream.receive(message)
    assert plivo.receive(plivo_media(MU_LAW)).at_ms == 1705312200000
    assert exotel_stream.receive(exotel_media(bytes(320))).at_ms == 200
    times = [telnyx.receive(telnyx_media(MU_LAW, chunk)).at_ms for chunk in ("1", "3", "2", "4")]
    assert times == [5, None, None, 5]  # what was put back into order has no time of its own
