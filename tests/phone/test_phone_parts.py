"""Signatures, TwiML, the recording and the network: the phone's pure and small parts."""

from __future__ import annotations

import resource
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from phone_fakes import tone

from voicecore.audio import wav
from voicecore.audio.stereo import FLUSH_FRAMES, StereoRecording
from voicecore.errors import RemoteProtocolError
from voicecore.phone.capture import KeyCapture, VoiceCapture
from voicecore.phone.network import Network, Stall
from voicecore.phone.signing import form_signature, upgrade_signature
from voicecore.phone.twiml import MAX_BYTES, parse
from voicecore.phone.verbs import (
    Connect,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
    StatusCallback,
    Unsupported,
)
from voicecore.phone.webhook import Addresses, origin

TOKEN = "test_auth_token_0123456789abcdef"
FORM = {
    "CallSid": "CA00000000000000000000000000000001",
    "AccountSid": "AC00000000000000000000000000000001",
    "From": "+15550001111",
    "To": "+15550002222",
    "CallStatus": "ringing",
    "Direction": "inbound",
    "ApiVersion": "2010-04-01",
}
HERE = "https://agent.example.com/twilio/voice"


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        (HERE, "2EvkeOTw826YkhQvUPd1J8laDz4="),
        (HERE + "#rc=2", "2EvkeOTw826YkhQvUPd1J8laDz4="),
        (HERE + "?tenant=7", "hBLF+uKPW8EI6Qv3nzaiW/H/pfE="),
        ("https://agent.example.com:443/twilio/voice", "cHEIqo6Zgq3G6QNw8OVmc9YQ6AQ="),
    ],
)
def test_forms_are_signed_as_twilio_signs_them(url: str, signature: str) -> None:
    assert form_signature(TOKEN, url, FORM) == signature


def test_twilios_own_example_and_empty_values() -> None:
    form = {"CallSid": "CA1234567890ABCDE", "Digits": "1234", "From": "+14158675309"}
    form |= {"To": "+18005551212", "Caller": "+14158675309"}
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert form_signature("12345", url, form) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert form_signature(TOKEN, HERE, {"A": "", "B": "x"}) == "dCPooyVg+LtrJtSwhJaQW88Calc="


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_upgrades_are_signed_over_the_wss_form(scheme: str) -> None:
    url = f"{scheme}://agent.example.com/twilio/media"
    assert upgrade_signature(TOKEN, url) == "xvt1U/grvHYlCEWzRjPa2jS1ZME="
    assert upgrade_signature(TOKEN, url + "/") == "cnp2fFeM+UN+lC706hFberqHIEE="


def twiml(body: str) -> tuple[object, ...]:
    return parse(f"<?xml version='1.0'?><Response>{body}</Response>".encode(), HERE)


def test_a_stream_with_parameters_and_action() -> None:
    (verb,) = twiml(
        '<Connect action="after" method="get"><Stream url="wss://agent.example.com/media">'
        '<Parameter name="token" value="a&amp;b"/><Parameter name="lang" value="hi-IN"/>'
        "</Stream></Connect>"
    )
    assert verb == Connect(
        "wss://agent.example.com/media",
        {"token": "a&b", "lang": "hi-IN"},
        "https://agent.example.com/twilio/after",
        "GET",
    )


def test_every_verb_that_the_phone_can_play() -> None:
    verbs = twiml(
        "<Say>One\n  <emphasis>two</emphasis></Say><Play>/a.wav</Play><Pause length='3'/><Pause/>"
        "<Redirect method='POST'>?again=1</Redirect><Hangup/><Reject reason='busy'/><Reject/>"
        "<Enqueue/><Connect><Room>x</Room></Connect><Gather input='speech'/>"
    )
    assert verbs == (
        Say("One two"),
        Play("https://agent.example.com/a.wav"),
        Pause(3),
        Pause(1),
        Redirect(HERE + "?again=1", "POST"),
        Hangup(),
        Reject("busy"),
        Reject("rejected"),
        Unsupported("Enqueue"),
        Unsupported("Connect of Room"),
        Unsupported("Gather of speech"),
    )


def test_recording_with_every_attribute_and_with_none() -> None:
    plain, full = twiml(
        "<Record/>"
        '<Record action="/heard" method="GET" timeout="0" finishOnKey="#" maxLength="1"'
        ' trim="do-not-trim" playBeep="false" recordingStatusCallback="/status"'
        ' recordingStatusCallbackMethod="GET"'
        ' recordingStatusCallbackEvent="in-progress completed"/>'
    )
    assert plain == Record(HERE)
    status = StatusCallback(
        "https://agent.example.com/status", frozenset({"in-progress", "completed"}), "GET"
    )
    heard = "https://agent.example.com/heard"
    assert full == Record(heard, "GET", 0, "#", 2, False, False, status)


def test_gather_and_dial() -> None:
    assert twiml(
        "<Gather/><Gather input='dtmf speech' action='k' numDigits='2' timeout='9' finishOnKey=''"
        " actionOnEmptyResult='true'><Say loop='0'>Hi</Say><Play digits='1w'/><Record/></Gather>"
        "<Dial>+15550002222</Dial>"
        "<Dial action='d' timeout='7'><Number>+1</Number><Sip>sip:a@b</Sip></Dial>"
        "<Dial><Conference>Room\n1</Conference></Dial>"
    ) == (
        Gather(HERE),
        Gather(
            "https://agent.example.com/twilio/k",
            prompts=(Say("Hi", 1000), Play("", digits="1w")),
            num_digits=2,
            finish_on_key="",
            timeout=9,
            on_empty=True,
        ),
        Dial(("+15550002222",)),
        Dial(("+1", "sip:a@b"), None, "https://agent.example.com/twilio/d", timeout=7),
        Dial((), "Room 1"),
    )


@pytest.mark.parametrize("verb", ["<Record/>", "<Gather/>", "<Play>/a.wav</Play>", "<Redirect/>"])
def test_twiml_that_came_by_rest_needs_absolute_urls(verb: str) -> None:
    with pytest.raises(RemoteProtocolError, match="URL needs"):
        parse(f"<Response>{verb}</Response>".encode(), "")


def test_a_relative_stream_is_on_the_documents_host() -> None:
    assert twiml('<Connect><Stream url="/media"/></Connect>') == (
        Connect("wss://agent.example.com/media"),
    )


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not TwiML"),
        (b"Hello", "not TwiML"),
        (b"<Response>", "not TwiML"),
        (b"<response/>", "root is <response>"),
        (b"\x00\xff\xfe", "not TwiML"),
        (b"<Response><Say>&nope;</Say></Response>", "not TwiML"),
        (f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><Response>&l8;</Response>'.encode(), "DOCTYPE"),
        ('<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x><Response/>'.encode("utf-16"), "DOCT"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Response/>', "DOCTYPE"),
        (b'<?xml version="1.0" encoding="martian"?><Response/>', "not TwiML"),
        (b"<Response>" + b" " * MAX_BYTES + b"</Response>", "at most"),
        (b"<Response><Connect><Stream/></Connect></Response>", "no url"),
        (b'<Response><Connect><Stream url="wss://h/m?q=1"/></Connect></Response>', "31920"),
        (b'<Response><Connect><Stream url="https://h/m"/></Connect></Response>', "31922"),
        (b'<Response><Connect><Stream url="wss:///m"/></Connect></Response>', "31923"),
        (b'<Response><Connect><Stream url="wss://h:x/m"/></Connect></Response>', "malformed"),
        (b'<Response><Connect><Stream url="wss://[h/m"/></Connect></Response>', "malformed"),
        (b"<Response><Redirect>http://[x</Redirect></Response>", "malformed"),
        (
            b'<Response><Connect><Stream url="wss://h/m"><Parameter name="n" value="'
            + b"v" * 499
            + b'"/></Stream></Connect></Response>',
            "too long",
        ),
    ],
)
def test_what_is_not_twiml_is_refused_in_one_line(document: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as refusal:
        parse(document, HERE)
    assert "\n" not in str(refusal.value)


def test_a_document_of_nothing_but_depth_is_read() -> None:
    depth = 9000
    deep = b"<a>" * depth + b"</a>" * depth
    assert parse(b"<Response>" + deep + b"</Response>", HERE) == (Unsupported("a"),)


NAMES = ["Response", "Connect", "Stream", "Parameter", "Say", "Pause", "Redirect", "Record"]
NAMES += ["Gather", "Dial", "Number", "Conference", "Play", "x:y", "é"]
ATTRIBUTES = ["url", "action", "length", "name", "value", "method", "timeout", "loop", "digits"]
elements = st.recursive(
    st.text(max_size=8),
    lambda inner: st.builds(
        lambda tag, attribute, value, body: f"<{tag} {attribute}='{value}'>{body}</{tag}>",
        st.sampled_from(NAMES),
        st.sampled_from(ATTRIBUTES),
        st.text(max_size=12),
        inner,
    ),
    max_leaves=8,
)


@given(st.one_of(elements.map(lambda text: text.encode(errors="replace")), st.binary(max_size=60)))
@example(b"<Response><Connect><Stream url='//'/></Connect></Response>")
@example("<Response><Pause length='²'/></Response>".encode())
def test_any_document_is_verbs_or_refused(document: bytes) -> None:
    for content in (document, b"<Response>" + document + b"</Response>"):
        try:
            verbs = parse(content, HERE)
        except RemoteProtocolError:
            continue
        assert isinstance(verbs, tuple)


FRAME = b"\xff" * 160


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 120)), max_size=6),
    st.integers(0, 2),
    st.integers(2, 4),
)
def test_a_recording_ends_at_its_silence_or_its_length(
    spells: list[tuple[bool, int]], timeout: int, max_length: int
) -> None:
    voiced = [loud for loud, frames in spells for _ in range(frames)] + [False] * 250
    ends = [n for n in range(50 * timeout, 251) if not any(voiced[n - 50 * timeout : n])]
    expected = min([*ends[:1], 50 * max_length] if timeout else [50 * max_length])
    capture = VoiceCapture(Record(HERE, timeout=timeout, max_length=max_length))
    taken = 1
    while not capture.take(FRAME, voiced[taken - 1], ""):
        taken += 1
    assert taken == expected
    assert capture.seconds == pytest.approx(expected / 50)
    assert capture.voiced == any(voiced[:expected])
    assert len(capture.audio) % 160 == 0
    assert len(capture.audio) <= expected * 160


@given(st.text("0123456789*#", max_size=8), st.integers(0, 5), st.sampled_from(["#", "", "09"]))
def test_keys_are_gathered_up_to_enough_or_the_finishing_one(
    keys: str, num_digits: int, finish: str
) -> None:
    capture = KeyCapture(Gather(HERE, num_digits=num_digits, finish_on_key=finish, timeout=1))
    left = list(keys)
    while left and not capture.take(left.pop(0), False):
        pass
    wanted = keys
    for key in finish:
        wanted = wanted.partition(key)[0]
    if num_digits:
        wanted = wanted[:num_digits]
    assert capture.digits == wanted
    # Whatever was pressed, a second without a key ends it, but not while a prompt is heard.
    waiting = KeyCapture(Gather(HERE, timeout=1))
    assert not any(waiting.take("", True) for _ in range(100))
    assert [waiting.take("", False) for _ in range(50)] == [False] * 49 + [True]


def test_a_recording_is_valid_at_each_moment(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    said, heard = tone(0.02, 1000), tone(0.02, 3000)
    with StereoRecording(path) as recording:
        for n in range(1, 35):
            recording.write(said, heard)
            now = wav.read(path)
            assert now.channels == 2
            assert len(now.pcm) == n // FLUSH_FRAMES * FLUSH_FRAMES * 640
            assert path.stat().st_size == 44 + len(now.pcm)
    whole = wav.read(path)
    assert whole.seconds == pytest.approx(34 * 0.02)
    samples = memoryview(whole.pcm).cast("h")
    assert max(samples[0::2]) == pytest.approx(1000, rel=0.05)
    assert max(samples[1::2]) == pytest.approx(3000, rel=0.05)


def test_a_recording_that_cannot_begin_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        StereoRecording(tmp_path / "nowhere" / "call.wav")


def test_a_full_disk_ends_the_recording_and_not_the_call(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with StereoRecording(path) as recording:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
            for _ in range(100):
                recording.write(tone(0.02), tone(0.02))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert recording.error is not None
    assert 0.2 <= wav.read(path).seconds <= 10000 / 32000


def test_a_network_without_faults_delays_nothing() -> None:
    network = Network(0.0, [], Random(1))
    assert [network.arrival(n / 50) for n in range(9)] == [n / 50 for n in range(9)]


@given(
    st.floats(0, 0.5),
    st.lists(st.builds(Stall, st.floats(0, 5), st.floats(0, 3)), max_size=4),
    st.integers(),
)
def test_no_message_overtakes_another(jitter: float, stalls: list[Stall], seed: int) -> None:
    network = Network(jitter, stalls, Random(seed))
    sent = [n / 50 for n in range(200)]
    arrivals = [network.arrival(at) for at in sent]
    assert arrivals == sorted(arrivals)
    assert all(arrival >= at for arrival, at in zip(arrivals, sent, strict=True))


def test_where_a_proxied_server_is_dialled_and_what_is_signed() -> None:
    there = Addresses("http://127.0.0.1:8000", "https://agent.example.com")
    assert there.signed("http://127.0.0.1:8000/voice") == "https://agent.example.com/voice"
    assert there.signed("ws://127.0.0.1:8000/media") == "wss://agent.example.com/media"
    assert there.dialled("https://agent.example.com/after?x=1") == "http://127.0.0.1:8000/after?x=1"
    assert there.dialled("wss://agent.example.com/media") == "ws://127.0.0.1:8000/media"
    assert (
        there.dialled("wss://agent.example.com.evil.org/m") == "wss://agent.example.com.evil.org/m"
    )


def test_a_plain_server_is_dialled_plain_on_its_own_port_only() -> None:
    there = Addresses(origin("http://127.0.0.1:8000/voice-stream"))
    assert there.dialled("wss://127.0.0.1:8000/media") == "ws://127.0.0.1:8000/media"
    assert there.dialled("wss://127.0.0.1:8001/media") == "wss://127.0.0.1:8001/media"
    assert there.signed("http://127.0.0.1:8000/voice") == "http://127.0.0.1:8000/voice"
    tls = Addresses(origin("https://agent.example.com/voice"))
    assert tls.dialled("wss://agent.example.com/media") == "wss://agent.example.com/media"
