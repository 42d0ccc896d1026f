"""The TTS vendors against servers that speak their wires: what is sent, what comes of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio.testing import MockClock

from voicecore.errors import ProviderError, SettingsError
from voicecore.providers import cartesia, elevenlabs, sarvam
from voicecore.settings import Settings

from .fake_openai import Answer, Request, garbage, page, silence
from .fake_tts import (
    CARTESIA,
    DEEPGRAM,
    ELEVENLABS,
    SARVAM,
    TEXT,
    WIRES,
    FakeTTS,
    Wire,
    speaking,
    spoken,
    voice,
)

VENDORS = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for what is under way in the kernel's loopback."""
    return MockClock(autojump_threshold=0.02)


@VENDORS
async def test_mulaw_passes_untouched_and_at_once(wire: Wire, clock: MockClock) -> None:
    answer = wire.usual().slow(pause_s=0.5)
    async with FakeTTS(wire, answer) as fake, speaking(fake) as tts:
        pieces: list[bytes] = []
        began = trio.current_time()
        async with tts.speak(TEXT, "", "en-US") as audio:
            async for piece in audio:
                pieces.append(piece)
                assert trio.current_time() - began == pytest.approx(len(pieces) * 0.5, abs=0.1)
    assert b"".join(pieces) == voice(0.5)
    assert fake.problems == []


@VENDORS
async def test_chunking_changes_nothing(wire: Wire, clock: MockClock) -> None:
    for answer in (wire.usual(0.03).bytewise(), wire.usual(0.03).in_chunks_of(7)):
        async with FakeTTS(wire, answer) as fake, speaking(fake) as tts:
            assert await spoken(tts) == voice(0.03)


@VENDORS
@pytest.mark.parametrize("seconds", [1 / 8000, 11 / 8000])
async def test_the_shortest_speech_is_spoken(seconds: float, wire: Wire, clock: MockClock) -> None:
    async with FakeTTS(wire, wire.usual(seconds)) as fake, speaking(fake) as tts:
        assert await spoken(tts) == voice(seconds)


@VENDORS
async def test_clauses_share_a_connection(wire: Wire, clock: MockClock) -> None:
    async with FakeTTS(wire) as fake, speaking(fake) as tts:
        for _ in range(3):
            assert await spoken(tts) == voice(0.5)
    assert (fake.connections, len(fake.requests)) == (1, 3)


FAULTS: dict[str, tuple[Callable[[Wire], Answer], str, int]] = {
    "401": (lambda wire: wire.refusal(401), "refused: HTTP 401 some_error", 1),
    "403": (lambda wire: wire.refusal(403), "refused: HTTP 403 some_error", 1),
    "404": (lambda wire: wire.refusal(404), "status: HTTP 404 some_error", 1),
    "422": (lambda wire: wire.refusal(422), "status: HTTP 422 some_error", 1),
    "429": (lambda wire: wire.refusal(429, retry_after="3600"), "busy: HTTP 429", 1),
    "500": (lambda wire: wire.refusal(500), "status: HTTP 500 some_error", 2),
    "503": (lambda wire: Answer(status=503), "status: HTTP 503", 2),
    "silence": (lambda wire: silence(), "timeout: no answer within 3 s", 1),
    "head only": (lambda wire: wire.usual().hangs_after(0), "timeout: no answer within 3 s", 1),
    "hang": (lambda wire: wire.usual().hangs_after(2), "timeout: no byte within 3.0 s", 1),
    "cut": (lambda wire: wire.usual().cut_after(2), "cut: the connection broke", 1),
    "cut at once": (lambda wire: wire.usual().cut_after(0), "cut: the connection broke", 2),
    "no HTTP": (lambda wire: garbage(), "cut: the connection broke", 2),
    "HTML": (lambda wire: page(), "garbage: text in place of audio", 1),
    "JSON": (
        lambda wire: Answer(chunks=(b'{"audios": []}',)),
        "garbage: application in place of audio",
        1,
    ),
    "JSON as audio": (
        lambda wire: Answer(content_type=wire.content_type, chunks=(b'{"a', b'udio": ""}')),
        "garbage: text in place of audio",
        1,
    ),
    "MP3": (
        lambda wire: Answer(content_type="audio/mpeg", chunks=(b"\xff\xfb\x90\x64" + bytes(800),)),
        "garbage: compressed audio",
        1,
    ),
    "empty": (lambda wire: Answer(content_type=wire.content_type), "garbage: no audio", 1),
    "gzip": (
        lambda wire: Answer(headers=(("Content-Encoding", "gzip"),), chunks=(b"x",)),
        "garbage: compressed, which",
        1,
    ),
}


@VENDORS
@pytest.mark.parametrize("fault", FAULTS)
async def test_failures(fault: str, wire: Wire, clock: MockClock) -> None:
    answer, message, requests = FAULTS[fault]
    async with FakeTTS(wire, answer(wire)) as fake, speaking(fake) as tts:
        began = trio.current_time()
        pieces: list[bytes] = []
        with pytest.raises(ProviderError) as failure:
            await spoken(tts, into=pieces)
        assert str(failure.value).startswith(f"{wire.name}: {message}")
        assert "SECRET" not in repr(failure.value)
        assert trio.current_time() - began <= (3.2 if "timeout" in message else 0.5)
        assert b"".join(pieces) == (voice(0.2) if fault in ("hang", "cut") else b"")
        await fake.all_closed()
    assert len(fake.requests) == requests


@VENDORS
async def test_one_quick_retry(wire: Wire, clock: MockClock) -> None:
    async with FakeTTS(wire, wire.refusal(502), wire.usual()) as fake, speaking(fake) as tts:
        assert await spoken(tts) == voice(0.5)
    assert len(fake.requests) == 2


@VENDORS
async def test_nobody_listens(wire: Wire, clock: MockClock) -> None:
    async with FakeTTS(wire) as fake:
        pass
    async with speaking(fake) as tts:
        with pytest.raises(ProviderError, match=f"{wire.name}: connect"):
            await spoken(tts)


@VENDORS
@pytest.mark.parametrize("after_ms", range(0, 700, 100))
async def test_cancelled_anywhere_the_request_is_closed(
    after_ms: int, wire: Wire, clock: MockClock
) -> None:
    """The answer takes 0.75 s: 0.2 to the head, and then chunk by chunk."""
    async with FakeTTS(wire, wire.usual().slow(0.2, 0.11)) as fake, speaking(fake) as tts:
        with trio.move_on_after(after_ms / 1000) as scope:
            await spoken(tts)
        assert scope.cancelled_caught
        await fake.all_closed()
        assert all(request.left for request in fake.requests)


@VENDORS
async def test_a_stream_that_is_left_is_closed(wire: Wire, clock: MockClock) -> None:
    answer = wire.usual().slow(0, 0.1)
    async with FakeTTS(wire, answer) as fake, speaking(fake) as tts:
        for kept in (0, 1, 2):
            async with tts.speak(TEXT, "", "en-US") as audio:
                for _ in range(kept):
                    await anext(aiter(audio))
            await fake.all_closed()
            assert fake.requests[-1].left
        assert await spoken(tts) == voice(0.5)
    gc.collect()


@VENDORS
async def test_a_warm_vendor_is_connected_to(wire: Wire, clock: MockClock) -> None:
    async with FakeTTS(wire) as fake, speaking(fake) as tts:
        await tts.warm_up("en-US")  # type: ignore[attr-defined]
        await trio.testing.wait_all_tasks_blocked()
        opened = fake.connections
        assert await spoken(tts)
        assert fake.requests[0].connection <= opened == fake.connections
    assert len(fake.requests) == 1


async def asked(wire: Wire, language: str = "en-US", voice: str = "", model: str = "") -> Request:
    """Return what the adapter sends, which the vendor would not refuse."""
    async with FakeTTS(wire) as fake, speaking(fake, tts_model=model) as tts:
        await spoken(tts, language, voice)
    assert fake.problems == []
    return fake.requests[0]


@pytest.mark.parametrize(
    ("model", "language", "code"),
    [
        ("", "hi-IN", "hi"),
        ("eleven_turbo_v2_5", "EN-gb", "en"),
        ("eleven_v3", "ta", "ta"),
        ("", "fil-PH", None),
        ("eleven_multilingual_v2", "hi-IN", None),
        ("eleven_flash_v2", "en-US", None),
    ],
)
async def test_elevenlabs_is_told_the_language_if_its_model_takes_it(
    model: str, language: str, code: str | None, clock: MockClock
) -> None:
    request = await asked(ELEVENLABS, language, model=model)
    assert request.json.get("language_code") == code
    assert request.json["model_id"] == (model or "eleven_flash_v2_5")


@pytest.mark.parametrize(
    ("language", "tag"),
    [("hi-IN", "hi-IN"), ("hi", "hi-IN"), ("en-US", "en-IN"), ("or-IN", "od-IN"), ("ta", "ta-IN")],
)
async def test_sarvam_has_tags_of_its_own(language: str, tag: str, clock: MockClock) -> None:
    request = await asked(SARVAM, language)
    assert request.json["language_code"] == tag
    assert "speaker" not in request.json  # each model has its own default


@pytest.mark.parametrize(
    ("model", "voice", "language", "name"),
    [
        ("", "", "en-US", "aura-2-thalia-en"),
        ("", "", "es-MX", "aura-2-celeste-es"),
        ("", "", "hi-IN", "aura-2-thalia-en"),
        ("aura-2-orion-en", "", "es-MX", "aura-2-orion-en"),
        ("aura-2-orion-en", "Hera", "en-GB", "aura-2-hera-en"),
        ("", "aura-2-zeus-en", "de-DE", "aura-2-zeus-en"),
    ],
)
async def test_a_voice_of_deepgram_is_a_model(
    model: str, voice: str, language: str, name: str, clock: MockClock
) -> None:
    request = await asked(DEEPGRAM, language, voice, model)
    assert parse_qs(urlsplit(request.path).query)["model"] == [name]


async def test_cartesia_is_told_the_language(clock: MockClock) -> None:
    request = await asked(CARTESIA, "pt-BR", "a0e99841-438c-4a64-b679-ae501e7d6091", "sonic-3.5")
    assert request.json["language"] == "pt"
    assert request.json["voice"] == {"id": "a0e99841-438c-4a64-b679-ae501e7d6091"}
    assert request.json["model_id"] == "sonic-3.5"


async def test_a_voice_stays_within_its_place_in_the_address(clock: MockClock) -> None:
    async with FakeTTS(ELEVENLABS) as fake, speaking(fake) as tts:
        with pytest.raises(ProviderError, match="HTTP 404"):
            await spoken(tts, voice="../../v1/user?x=")
    assert fake.requests[0].path.startswith("/v1/text-to-speech/..%2F..%2Fv1%2Fuser%3Fx%3D/stream?")


@pytest.mark.parametrize("vendor", [elevenlabs, cartesia, sarvam])
async def test_without_a_key_no_header_is_sent(vendor: Any, clock: MockClock) -> None:
    wire = next(wire for wire in WIRES if wire.name == vendor.NAME)
    async with FakeTTS(wire) as fake:
        settings = Settings(_env_file=None, **{f"{wire.name}_base_url": fake.base_url})
        async with vendor.opened(settings) as opened:
            await spoken(opened.tts)
    names = {"authorization", "xi-api-key", "api-subscription-key"}
    assert not names & fake.requests[0].headers.keys()


@pytest.mark.parametrize("vendor", [elevenlabs, cartesia, sarvam])
async def test_a_key_that_no_header_can_carry_is_the_operators_mistake(vendor: Any) -> None:
    settings = Settings(_env_file=None, **{f"{vendor.NAME}_api_key": "kéy"})
    with pytest.raises(SettingsError, match="takes printable ASCII") as refusal:
        async with vendor.opened(settings):
            pass
    assert "kéy" not in str(refusal.value)
