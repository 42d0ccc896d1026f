"""The answer documents, read back as a carrier would; and what hostile callers cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from voicecore.carriers.answers import ANSWERS, StreamOrder
from voicecore.wire.dialects import DIALECTS, AnswerKind
from voicecore.wire.plivo import unpack_headers
from voicecore.wire.vonage import VonageStream

WS_URL = "wss://agent.example.com/media-stream/x"
ENDED_URL = "https://agent.example.com/voice-stream/x/ended?a=1&b=2"
PARAMETERS = {
    "token": "68c.f_x-y." + "a" * 60,
    "From": "+14155550100",
    "To": "+14155550199",
    "language": "hi-IN",
}
ANYTHING = st.text(st.characters(), max_size=600)


def order(parameters: Mapping[str, str] = PARAMETERS, url: str = WS_URL) -> StreamOrder:
    return StreamOrder(url, ENDED_URL, "call-1", parameters)


def xml(kind: str, parameters: Mapping[str, str] = PARAMETERS) -> ElementTree.Element:
    return ElementTree.fromstring(ANSWERS[kind].stream(order(parameters)))


def given_to_stream(kind: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """What a stream is told, as its carrier reads the document."""
    document = ANSWERS[kind].stream(order(parameters))
    match kind:
        case "plivo-xml":
            (stream,) = ElementTree.fromstring(document).findall("Stream")
            return unpack_headers(stream.get("extraHeaders", ""))
        case "ncco":
            headers: dict[str, str] = json.loads(document)[0]["endpoint"][0]["headers"]
            assert headers.pop("uuid") == "call-1"
            return headers
        case "exotel-json":
            query = urlsplit(json.loads(document)["url"]).query
            assert len(query) <= 256
            return dict(parse_qsl(query, keep_blank_values=True))
        case _:
            found = ElementTree.fromstring(document).findall("Connect/Stream/Parameter")
            return {p.attrib["name"]: p.attrib["value"] for p in found}


def test_every_dialect_has_its_answer() -> None:
    wanted = {dialect.answer for dialect in DIALECTS.values()}
    assert wanted == set(get_args(AnswerKind)) == {"twiml", *ANSWERS}


@pytest.mark.parametrize("kind", list(ANSWERS))
def test_the_stream_is_told_everything(kind: str) -> None:
    told = given_to_stream(kind, PARAMETERS)
    known_to_start = {"From", "To"} if kind == "exotel-json" else set()
    assert told == {n: v for n, v in PARAMETERS.items() if n not in known_to_start}


def test_texml_asks_for_mu_law_both_ways() -> None:
    response = xml("texml")
    assert [child.tag for child in response] == ["Connect", "Redirect"]
    (stream,) = response.findall("Connect/Stream")
    assert stream.attrib == {
        "url": WS_URL,
        "track": "inbound_track",
        "codec": "PCMU",
        "bidirectionalMode": "rtp",
        "bidirectionalCodec": "PCMU",
        "bidirectionalSamplingRate": "8000",
    }


def test_cxml_is_twiml_with_a_codec() -> None:
    (stream,) = xml("cxml").findall("Connect/Stream")
    assert stream.attrib == {"url": WS_URL, "codec": "PCMU"}


def test_plivo_keeps_the_call_for_as_long_as_the_stream() -> None:
    response = xml("plivo-xml", {})
    assert [child.tag for child in response] == ["Stream", "Redirect"]
    assert response[0].text == WS_URL
    assert response[0].attrib == {
        "bidirectional": "true",
        "keepCallAlive": "true",
        "audioTrack": "inbound",
        "contentType": "audio/x-mulaw;rate=8000",
    }


@pytest.mark.parametrize("kind", ["texml", "cxml", "plivo-xml"])
def test_xml_says_how_the_call_goes_on(kind: str) -> None:
    (redirect,) = xml(kind).findall("Redirect")
    assert redirect.text == ENDED_URL
    assert redirect.attrib == {"method": "POST"}


def test_ncco_brings_the_call_to_its_stream() -> None:
    document = ANSWERS["ncco"].stream(order())
    (connect,) = json.loads(document)
    assert (connect["action"], connect["eventType"]) == ("connect", "synchronous")
    assert connect["eventUrl"] == [ENDED_URL]
    (endpoint,) = connect["endpoint"]
    assert (endpoint["type"], endpoint["uri"]) == ("websocket", WS_URL)
    # As Vonage says it on the WebSocket: the headers at the top.
    first: dict[str, Any] = {
        "event": "websocket:connected",
        "content-type": endpoint["content-type"],
        **endpoint["headers"],
    }
    event = VonageStream().receive(json.dumps(first))
    assert event.call_sid == "call-1"  # type: ignore[union-attr]
    assert event.parameters == PARAMETERS  # type: ignore[union-attr]


def test_exotel_is_given_three_parameters_and_keeps_the_urls_own() -> None:
    many = {"token": "t", "a": "1", "From": "x", "b": "2", "c": "3"}
    document = ANSWERS["exotel-json"].stream(order(many, WS_URL + "?sample-rate=8000"))
    url = json.loads(document)["url"]
    assert url == WS_URL + "?sample-rate=8000&token=t&a=1&b=2"


@pytest.mark.parametrize("kind", list(ANSWERS))
@given(hostile=ANYTHING, name=st.text(max_size=30))
def test_a_hostile_caller_changes_nothing_but_its_own_name(
    kind: str, hostile: str, name: str
) -> None:
    plain = {"token": "t", "language": "en"}
    assume(name not in ("token", "From", "language"))
    told = given_to_stream(kind, {**plain, "From": hostile, name: hostile})
    assert told.items() >= plain.items()
    assert len(told.keys() - {"token", "language", "From"}) <= 1


@pytest.mark.parametrize("kind", ["texml", "cxml"])
def test_a_parameter_is_shorter_than_500(kind: str) -> None:
    told = given_to_stream(kind, {"From": "x" * 1000, "n" * 600: "y"})
    assert len(told["From"]) == 499 - len("From")
    assert told["n" * 600] == ""


@pytest.mark.parametrize(("kind", "limit"), [("plivo-xml", 512), ("ncco", 512)])
def test_what_does_not_fit_is_left_out_and_the_rest_stays(kind: str, limit: int) -> None:
    told = given_to_stream(kind, {"token": "t", "From": "é" * limit, "language": "en"})
    assert told == {"token": "t", "language": "en"}


@pytest.mark.parametrize("kind", ["texml", "cxml", "plivo-xml"])
@given(words=ANYTHING)
def test_xml_hangs_up_after_any_words(kind: str, words: str) -> None:
    response = ElementTree.fromstring(ANSWERS[kind].hang_up(words))
    verb = "Speak" if kind == "plivo-xml" else "Say"
    assert [child.tag for child in response] == ([verb] if words else []) + ["Hangup"]


def test_words_are_said_as_they_are() -> None:
    words = '<Dial>+1900</Dial> & "more"\x00\ufffe'
    for kind in ("texml", "plivo-xml"):
        response = ElementTree.fromstring(ANSWERS[kind].hang_up(words))
        assert response[0].text == '<Dial>+1900</Dial> & "more"'
    assert json.loads(ANSWERS["ncco"].hang_up("bye")) == [{"action": "talk", "text": "bye"}]
    assert json.loads(ANSWERS["ncco"].hang_up("")) == []
    assert json.loads(ANSWERS["exotel-json"].hang_up("bye")) == {}


def test_documents_say_what_they_are() -> None:
    for kind, document in ANSWERS.items():
        assert ("xml" in document.content_type) == ("xml" in kind)
        assert document.stream(order()).decode()
    assert ANSWERS["texml"].stream(order()).startswith(b"<?xml")
