"""Who may call in through another carrier, and what strangers get."""

from __future__ import annotations

import logging
from urllib.parse import quote, urlencode

import pytest
from carrier_desk import (
    CALL_SIDS,
    FIELDS,
    NAMES,
    SECRET,
    asks,
    asks_json,
    basic,
    path_of,
    read,
)
from hypothesis import given
from hypothesis import strategies as st
from server_house import AUTH_TOKEN, CALL_SID, UPGRADE, ask, get, memory_server, post

from voicecore.carriers.webhooks import WEBHOOKS
from voicecore.server.carrier_routes import CARRIERS
from voicecore.server.carrier_secret import CarrierSecrets
from voicecore.server.port.http import Request
from voicecore.server.port.limits import FORM_FIELDS
from voicecore.twilio.token import CallProofs
from voicecore.wire.dialects import DIALECTS

each_carrier = pytest.mark.parametrize("name", NAMES)


def media(name: str) -> bytes:
    return UPGRADE.replace(b"/media-stream", f"/media-stream/{name}".encode())


def test_every_dialect_has_its_routes() -> None:
    assert {"twilio", *WEBHOOKS} == set(DIALECTS)
    assert [carrier.name for carrier in CARRIERS] == NAMES


@each_carrier
@pytest.mark.parametrize(
    ("query", "header"),
    [
        (f"?secret={SECRET}", ""),
        ("", basic(SECRET)),
        ("?secret=new%2Fone", ""),
        (f"?secret=wrong&secret={SECRET}", ""),
        ("?secret=wrong", basic("new/one")),
    ],
)
async def test_who_knows_a_secret_may_call(name: str, query: str, header: str) -> None:
    request = asks(name, f"/voice-stream/{name}{query}", *filter(None, [header]))
    async with memory_server(carrier_secret=f" new/one , {SECRET}") as house:
        answer = await ask(house.connect(), request)
    assert answer.status == 200
    assert read(name, answer.body).media_url.startswith(f"ws://example.com/media-stream/{name}")


@each_carrier
@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("", ""),
        ("?secret=", ""),
        ("?secret=,", ""),
        (f"?secret={SECRET[:-1]}", ""),
        (f"?secret={SECRET}x", ""),
        (f"?secret={quote('geheim€')}&secret=%ff%00", ""),
        (f"?Secret={SECRET}", ""),
        (f"?token={SECRET}", ""),
        ("?" + "&".join(["a=1"] * (FORM_FIELDS + 1)) + f"&secret={SECRET}", ""),
        ("", basic("wrong")),
        ("", basic("")),
        ("", f"Authorization: Bearer {SECRET}"),
        ("", f"Authorization: Basic {SECRET}"),
        ("", "Authorization: Basic \xff\xfe"),
        ("", basic(SECRET).replace("Basic ", "Basic  \t") + "!"),
    ],
)
async def test_strangers_get_an_empty_403(
    name: str, query: str, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = asks(name, f"/voice-stream/{name}{query}", *filter(None, [header]))
    async with memory_server(carrier_secret=SECRET) as house:
        answer = await ask(house.connect(), request)
        ended = await ask(house.connect(), request.replace(name.encode(), f"{name}/ended".encode()))
    assert (answer.status, answer.body) == (403, b"")
    assert (ended.status, ended.body) == (403, b"")
    assert {r.message for r in caplog.records if r.levelno >= logging.WARNING} == {
        "a carrier was refused: its URL has no valid VOICECORE_CARRIER_SECRET"
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_other_text_is_the_secret(text: str, secret: str) -> None:
    secrets = CarrierSecrets(secret)
    mine = [part.strip() for part in secret.split(",") if part.strip()]
    target = "/x?" + urlencode({"secret": text}, errors="replace")
    assert secrets.carried_by(Request("GET", target, "1.1", ())) == (text in mine)


@each_carrier
async def test_a_carrier_without_a_secret_is_refused_where_twilio_must_sign(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with memory_server(twilio_auth_token=AUTH_TOKEN) as house:
        for request in (asks(name), asks(name, f"/voice-stream/{name}/ended"), media(name)):
            answer = await ask(house.connect(), request)
            assert (answer.status, answer.body) == (403, b"")
    lines = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert lines == ["a carrier was refused: VOICECORE_CARRIER_SECRET is not set"] * 3


async def test_twilio_without_a_token_is_refused_where_carriers_have_a_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    form = f"CallSid={CALL_SID}".encode()
    async with memory_server(carrier_secret=SECRET) as house:
        for request in (post("/voice-stream", form), UPGRADE, media("twilio")):
            answer = await ask(house.connect(), request)
            assert (answer.status, answer.body) == (403, b"")
    lines = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert lines == ["Twilio was refused: TWILIO_AUTH_TOKEN is not set"] * 3


@pytest.mark.parametrize("name", [*NAMES, "twilio"])
async def test_with_nothing_set_the_door_is_open(name: str) -> None:
    form = f"CallSid={CALL_SID}".encode()
    twilio = name == "twilio"
    webhook = post("/voice-stream/twilio", form) if twilio else asks(name, f"/voice-stream/{name}")
    async with memory_server() as house:
        assert (await ask(house.connect(), webhook)).status == 200
        ended = webhook.replace(f"/{name}".encode(), f"/{name}/ended".encode(), 1)
        assert (await ask(house.connect(), ended)).status == (204 if name == "vonage" else 200)
        stream = house.connect()
        await stream.send_all(media(name))
        assert (await stream.receive_some(12)).startswith(b"HTTP/1.1 101")


@each_carrier
async def test_what_is_no_webhook_is_told_so(name: str) -> None:
    where = f"/voice-stream/{name}?secret={SECRET}"
    call = WEBHOOKS[name].call_sid
    async with memory_server(carrier_secret=SECRET) as house:
        for request, status in [
            (get(where), 400),
            (post(where, b""), 400),
            (asks_json(where, {call: 7}), 400),
            (asks_json(where, {call: "c1"}), 200),
            (post(where, b"{", "Content-Type: application/json"), 400),
            (post(where, b'["a"]', "Content-Type: application/json"), 400),
            (post(where, b"[" * 60_000, "Content-Type: application/json"), 400),
            (post(where, b"x", "Content-Type: text/plain"), 415),
            (post(where, b"a=1&" * (FORM_FIELDS + 1)), 400),
            (post(where, f"{call}=c1".encode()).replace(b"POST", b"PUT"), 405),
        ]:
            answer = await ask(house.connect(), request)
            assert answer.status == status, request[:200]
    assert answer.headers["allow"] == "GET, HEAD, POST"


@each_carrier
async def test_a_proof_is_good_for_its_own_call(name: str) -> None:
    where = f"/voice-stream/{name}/ended"
    over = {"status": "disconnected"}
    async with memory_server(carrier_secret=SECRET) as house:
        house.ledger.note_ending(CALL_SIDS[name], "agent")
        proof = house.admission.proof(CALL_SIDS[name])
        for call, given_proof, status in [
            (CALL_SIDS[name], proof, 200),
            ("another-call", proof, 403),
            (CALL_SIDS[name], proof[:-1], 403),
            (CALL_SIDS[name], "", 403),
            ("", "", 403),
            (CALL_SIDS[name], "\u20ac", 403),
            (CALL_SIDS[name], CallProofs("").prove(CALL_SIDS[name]), 403),
        ]:
            target = f"{where}?{urlencode({'call': call, 'proof': given_proof})}"
            answer = await ask(house.connect(), asks_json(target, over))
            assert answer.status == status, (call, given_proof)
        # Whoever knows the secret need not have been given a proof: the fields name the call.
        named = {**FIELDS[name], **over}
        answer = await ask(house.connect(), asks_json(f"{where}?secret={SECRET}", named))
        assert (answer.status, read(name, answer.body).words) == (200, "")


async def test_what_callers_choose_stays_data() -> None:
    hostile = '"/><Hangup/>\x00\u2028' + "&call=other" * 3
    for name in NAMES:
        fields = {key: value + hostile for key, value in FIELDS[name].items()}
        async with memory_server(carrier_secret=SECRET) as house:
            answer = await ask(house.connect(), asks(name, fields=fields))
            order = read(name, answer.body)
            if order.ended_url:
                request = asks_json(path_of(order.ended_url), {"status": "failed"})
                assert (await ask(house.connect(), request)).status == 200
        assert answer.status == 200
        assert order.media_url.startswith(f"ws://example.com/media-stream/{name}")


async def test_the_secret_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with memory_server(carrier_secret=SECRET, max_calls=1) as house:
        house.ledger.call_began()
        for name in NAMES:
            await ask(house.connect(), asks(name))
            await ask(house.connect(), asks(name, "", basic(SECRET), fields={}))
            await ask(house.connect(), asks(name, f"/nowhere?secret={SECRET}"))
            await ask(house.connect(), asks(name, f"/voice-stream/{name}?secret={SECRET}x"))
            await ask(house.connect(), b"\x00" + asks(name))
    assert "call turned away" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(house.admission._secrets)
