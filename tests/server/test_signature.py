"""Twilio's signatures: its own vectors, and every way in which a request is not Twilio's."""

from __future__ import annotations

import pytest
from server_house import AUTH_TOKEN, UPGRADE, ask, memory_server, post
from twilio.request_validator import RequestValidator

from voicecore.server.port.limits import FORM_FIELDS
from voicecore.twilio.signature import Form, SignatureCheck, parse_form, port_variants

BODY = (
    b"CallSid=CA00000000000000000000000000000001&AccountSid=AC00000000000000000000000000000001"
    b"&From=%2B15550001111&To=%2B15550002222&CallStatus=ringing&Direction=inbound"
    b"&ApiVersion=2010-04-01"
)
VOICE = "https://agent.example.com/twilio/voice"
NO_FIELDS = b""
VECTORS = [
    (VOICE, BODY, "2EvkeOTw826YkhQvUPd1J8laDz4="),
    (f"{VOICE}?tenant=7", BODY, "hBLF+uKPW8EI6Qv3nzaiW/H/pfE="),
    ("https://agent.example.com:443/twilio/voice", BODY, "cHEIqo6Zgq3G6QNw8OVmc9YQ6AQ="),
    (f"{VOICE}?CallSid=CA1&From=%2B15550001111", NO_FIELDS, "5hWhrv8WehMQLm02ht5YEDywMQ4="),
    (VOICE, b"A=&B=x", "dCPooyVg+LtrJtSwhJaQW88Calc="),
    ("wss://agent.example.com/twilio/media", NO_FIELDS, "xvt1U/grvHYlCEWzRjPa2jS1ZME="),
    ("wss://agent.example.com/twilio/media/", NO_FIELDS, "cnp2fFeM+UN+lC706hFberqHIEE="),
]


@pytest.mark.parametrize(("url", "body", "signature"), VECTORS)
def test_twilios_vectors(url: str, body: bytes, signature: str) -> None:
    form = parse_form(body, FORM_FIELDS)
    check = SignatureCheck(AUTH_TOKEN)
    assert check.accepts([url], form, signature)
    assert not check.accepts([url], form, signature[:-2] + "A=")
    assert not check.accepts([f"{url}x"], form, signature)
    assert not SignatureCheck("another token").accepts([url], form, signature)


def test_twilios_documented_example() -> None:
    body = (
        b"CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212"
        b"&Caller=%2B14158675309"
    )
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    form = parse_form(body, FORM_FIELDS)
    assert SignatureCheck("12345").accepts([url], form, "RSOYDt4T1cUTdK1PDd93/VVr8B8=")


@pytest.mark.parametrize(
    ("url", "variants"),
    [
        ("https://a.example/x?", {"https://a.example/x?", "https://a.example:443/x?"}),
        ("wss://a.example:443/x", {"wss://a.example/x", "wss://a.example:443/x"}),
        ("http://a.example/", {"http://a.example/", "http://a.example:80/"}),
        ("https://a.example:8443/", {"https://a.example:8443/"}),
        ("https://[::1]/", {"https://[::1]/", "https://[::1]:443/"}),
        ("https://a.example:99999/", {"https://a.example:99999/"}),
    ],
)
def test_default_ports_are_tried_both_ways(url: str, variants: set[str]) -> None:
    assert set(port_variants(url)) == variants


def test_every_value_counts() -> None:
    signed = parse_form(b"A=2&A=1&A=2&B=&C=%E0%A4%A8%20x+y", FORM_FIELDS)
    assert signed == {"A": ["2", "1", "2"], "B": [""], "C": ["न x y"]}
    signature = RequestValidator(AUTH_TOKEN).compute_signature(VOICE, signed)
    check = SignatureCheck(AUTH_TOKEN)
    assert check.accepts([VOICE], signed, signature)
    for other in (b"A=1&A=2&C=%E0%A4%A8%20x+y", b"A=1&B=&C=%E0%A4%A8%20x+y", b"A=2&A=1&B="):
        assert not check.accepts([VOICE], parse_form(other, FORM_FIELDS), signature)


def test_two_tokens_are_valid_while_one_is_rotated() -> None:
    url, body, signature = VECTORS[0]
    form = parse_form(body, FORM_FIELDS)
    assert SignatureCheck(f"new_token, {AUTH_TOKEN}").accepts([url], form, signature)


@pytest.mark.parametrize(
    "settings",
    ["key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", "algorithm=none", "key=,algorithm=", "x"],
)
def test_the_sender_does_not_choose_the_algorithm(settings: str) -> None:
    url, body, signature = VECTORS[0]
    form = parse_form(body, FORM_FIELDS)
    assert not SignatureCheck(AUTH_TOKEN).accepts([url], form, signature, settings)


@pytest.mark.parametrize("signature", ["", "ÿ", "\udcff", "=" * 28])
def test_a_strange_signature_is_no_error(signature: str) -> None:
    assert not SignatureCheck(AUTH_TOKEN).accepts([VOICE], Form(), signature)


def test_what_is_not_utf_8_is_not_twilios_but_can_be_shown() -> None:
    form = parse_form(b"From=%FF%ED%A0%80x&To=\xfe", FORM_FIELDS)
    assert not SignatureCheck(AUTH_TOKEN).accepts([VOICE], form, "A" * 28)
    assert form.first("From").encode().endswith(b"x")
    assert form.first("missing") == ""


async def signed_post(path: str, body: bytes, *headers: str, **given: object) -> int:
    async with memory_server(twilio_auth_token=AUTH_TOKEN, **given) as house:
        return (await ask(house.connect(), post(path, body, *headers))).status


def signature_of(url: str, body: bytes = b"") -> str:
    computed = RequestValidator(AUTH_TOKEN).compute_signature(url, parse_form(body, FORM_FIELDS))
    return f"X-Twilio-Signature: {computed}"


@pytest.mark.parametrize("path", ["/voice-stream", "/voice-stream/ended"])
async def test_every_webhook_wants_a_signature(path: str) -> None:
    public = "https://agent.example.com"
    good = signature_of(f"{public}{path}?a=%20", BODY)
    assert await signed_post(path, BODY, public_url=public) == 403
    assert await signed_post(f"{path}?a=%20", BODY, good, public_url=public) == 200
    assert await signed_post(f"{path}?a=+", BODY, good, public_url=public) == 403
    assert await signed_post(f"{path}?a=%20", BODY + b"&x=", good, public_url=public) == 403


async def test_host_counts_only_without_a_public_url() -> None:
    by_host = signature_of("https://example.com/voice-stream", BODY)
    assert await signed_post("/voice-stream", BODY, by_host) == 200
    public = "https://agent.example.com"
    assert await signed_post("/voice-stream", BODY, by_host, public_url=public) == 403


@pytest.mark.parametrize(
    ("scheme", "status"), [(b"wss", b"101"), (b"https", b"403")], ids=["wss", "https"]
)
async def test_an_upgrade_is_signed_as_wss(scheme: bytes, status: bytes) -> None:
    signature = signature_of(f"{scheme.decode()}://agent.example.com/media-stream").encode()
    given = {"twilio_auth_token": AUTH_TOKEN, "public_url": "https://agent.example.com/"}
    async with memory_server(**given) as house:
        stream = house.connect()
        await stream.send_all(UPGRADE[:-2] + signature.lower()[:19] + signature[19:] + b"\r\n\r\n")
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data"])
async def test_only_forms_are_read(content_type: str) -> None:
    async with memory_server() as house:
        request = post("/voice-stream", b'{"CallSid":"CA1"}', f"Content-Type: {content_type}")
        assert (await ask(house.connect(), request)).status == 415


async def test_a_form_has_an_end() -> None:
    async with memory_server() as house:
        most = b"&".join([b"CallSid=CA1"] * FORM_FIELDS)
        assert (await ask(house.connect(), post("/voice-stream", most))).status == 200
        assert (await ask(house.connect(), post("/voice-stream", most + b"&a"))).status == 400
