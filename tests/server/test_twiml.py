"""What the webhooks answer."""

from __future__ import annotations

from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from server_house import CALL_SID, UPGRADE, MemoryServer, ask, memory_server, post

from voicecore.twilio import twiml


async def answer(house: MemoryServer, path: str, *headers: str, **form: str) -> ElementTree.Element:
    response = await ask(house.connect(), post(path, urlencode(form).encode(), *headers))
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/xml")
    root = ElementTree.fromstring(response.body)
    assert root.tag == "Response"
    return root


def parameters(root: ElementTree.Element) -> dict[str, str]:
    return {p.attrib["name"]: p.attrib["value"] for p in root.iter("Parameter")}


async def test_a_call_is_connected_to_the_stream() -> None:
    given = {"public_url": "https://agent.example.com", "language": "hi-IN"}
    async with memory_server(**given) as house:
        root = await answer(house, "/voice-stream", CallSid=CALL_SID, From="+15550001111", To="+1")
    connect, stream = root.find("Connect"), root.find("Connect/Stream")
    assert connect is not None
    assert stream is not None
    ended = {"action": "https://agent.example.com/voice-stream/ended", "method": "POST"}
    assert connect.attrib == ended
    assert stream.attrib == {
        "url": "wss://agent.example.com/media-stream",
        "statusCallback": "https://agent.example.com/status/stream",
    }
    found = parameters(root)
    assert found.pop("token")
    assert found == {"From": "+15550001111", "To": "+1", "language": "hi-IN"}


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ((), "ws://example.com/media-stream"),
        (("X-Forwarded-Proto: https",), "wss://example.com/media-stream"),
        (("X-Forwarded-Proto: javascript",), "ws://example.com/media-stream"),
    ],
)
async def test_without_a_public_url_the_request_tells(headers: tuple[str, ...], url: str) -> None:
    async with memory_server() as house:
        stream = (await answer(house, "/voice-stream", *headers, CallSid=CALL_SID)).find(
            "Connect/Stream"
        )
    assert stream is not None
    assert stream.attrib["url"] == url


async def test_a_strange_host_gets_no_twiml() -> None:
    request = post("/voice-stream", b"CallSid=CA1").replace(b"example.com", b'"><Dial>')
    async with memory_server() as house:
        assert (await ask(house.connect(), request)).status == 400


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ('"/><Dial>+1900</Dial>', '"/><Dial>+1900</Dial>'),
        ("a\x00b\x08c\x1fd\ufffee\uffff", "abcde"),
        ("नमस्ते 😀", "नमस्ते 😀"),
        ("x" * 1000, "x" * (499 - len("From"))),
    ],
)
async def test_a_caller_chooses_no_markup(name: str, clean: str) -> None:
    async with memory_server() as house:
        root = await answer(house, "/voice-stream", CallSid=CALL_SID, From=name)
    assert parameters(root)["From"] == clean
    assert root.find(".//Dial") is None


def test_surrogates_do_not_reach_xml() -> None:
    ElementTree.fromstring(twiml.stream("wss://x\x00/", "https://x/\ud800", {"From": "\udcff"}))


async def test_full_or_draining_is_said_and_hung_up() -> None:
    async with memory_server(max_calls=1) as house:
        house.ledger.call_began()
        full = await answer(house, "/voice-stream", CallSid=CALL_SID)
        house.ledger.call_over()
        assert (await answer(house, "/voice-stream", CallSid=CALL_SID)).find("Connect") is not None
        call = house.connect()  # or it would be gone at once
        await call.send_all(UPGRADE)
        await call.receive_some()
        house.server.drain()
        draining = await answer(house, "/voice-stream", CallSid=CALL_SID)
    for root in (full, draining):
        assert [verb.tag for verb in root] == ["Say", "Hangup"]


@pytest.mark.parametrize(
    ("ended_by", "verbs"),
    [
        ("agent", ["Hangup"]),
        ("caller", ["Hangup"]),
        ("silence", ["Hangup"]),
        ("server", ["Say", "Hangup"]),
        ("carrier", ["Say", "Hangup"]),
        (None, ["Say", "Hangup"]),
    ],
)
async def test_after_the_stream_never_dead_air(ended_by: str | None, verbs: list[str]) -> None:
    async with memory_server() as house:
        if ended_by is not None:
            house.ledger.note_ending(CALL_SID, ended_by)
        root = await answer(house, "/voice-stream/ended", CallSid=CALL_SID)
    assert [verb.tag for verb in root] == verbs
