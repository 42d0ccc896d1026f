"""The TTS vendors' own SDKs as judges: of what we send, and of what the fakes say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio

from voicecore.providers import cartesia, elevenlabs

from .fake_openai import Request
from .fake_tts import KEY, TEXT, WIRES, FakeTTS, Wire, speaking, spoken, voice

SDK_IMPORTS = pytest.mark.filterwarnings("ignore:websockets.:DeprecationWarning")
"""Deepgram's SDK knows old names of websockets, too."""

VENDORS = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


def elevenlabs_sdk(url: str, web: httpx.Client) -> bytes:
    from elevenlabs.client import ElevenLabs

    client = ElevenLabs(api_key=KEY, base_url=url, httpx_client=web)
    pieces = client.text_to_speech.stream(
        elevenlabs.VOICE,
        text=TEXT,
        model_id="eleven_flash_v2_5",
        language_code="hi",
        output_format="ulaw_8000",
        request_options={"max_retries": 0},
    )
    return b"".join(pieces)


def cartesia_sdk(url: str, web: httpx.Client) -> bytes:
    from cartesia import Cartesia

    client = Cartesia(api_key=KEY, base_url=url, max_retries=0, http_client=web)
    answer = client.tts.generate(
        model_id="sonic-3",
        transcript=TEXT,
        voice={"id": cartesia.VOICE},
        language="hi",
        output_format={"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000},
    )
    return b"".join(answer.iter_bytes())


def deepgram_sdk(url: str, web: httpx.Client) -> bytes:
    from deepgram import DeepgramClient
    from deepgram.environment import DeepgramClientEnvironment

    places = dict.fromkeys(("base", "production", "agent", "agent_rest"), url)
    environment = DeepgramClientEnvironment(**places)
    client = DeepgramClient(api_key=KEY, environment=environment, httpx_client=web)
    pieces = client.speak.v1.audio.generate(
        text=TEXT,
        model="aura-2-thalia-en",
        encoding="mulaw",
        sample_rate=8000,
        container="none",
        request_options={"max_retries": 0},
    )
    return b"".join(pieces)


def sarvam_sdk(url: str, web: httpx.Client) -> bytes:
    from sarvamai.client import SarvamAI
    from sarvamai.environment import SarvamAIEnvironment

    environment = SarvamAIEnvironment(base=url, creative=url, production=url)
    client = SarvamAI(api_subscription_key=KEY, environment=environment, httpx_client=web)
    pieces = client.text_to_speech.convert_stream(
        text=TEXT,
        language_code="hi-IN",
        model="bulbul:v3",
        speech_sample_rate=8000,
        output_audio_codec="mulaw",
        request_options={"max_retries": 0},
    )
    return b"".join(pieces)


SDKS: dict[str, Callable[[str, httpx.Client], bytes]] = {
    "elevenlabs": elevenlabs_sdk,
    "cartesia": cartesia_sdk,
    "deepgram": deepgram_sdk,
    "sarvam": sarvam_sdk,
}


def by_sdk(name: str, url: str) -> bytes:
    """Have `TEXT` spoken by the vendor's own client; blocks."""
    with httpx.Client(trust_env=False, verify=False) as web:
        return SDKS[name](url, web)


def what_matters(request: Request) -> dict[str, Any]:
    """Return what a vendor's server looks at."""
    credentials = ("authorization", "xi-api-key", "api-subscription-key", "cartesia-version")
    return {
        "path": urlsplit(request.path).path,
        "query": parse_qs(urlsplit(request.path).query),
        "type": request.headers["content-type"],
        "json": json.loads(request.body),
        **{name: request.headers.get(name) for name in credentials},
    }


@SDK_IMPORTS
@VENDORS
async def test_the_vendors_sdk_asks_as_we_do_and_takes_what_the_fake_says(wire: Wire) -> None:
    """Over real sockets, in real time: the SDKs block, each in a thread."""
    with trio.fail_after(30):
        async with FakeTTS(wire, wire.usual()) as fake, speaking(fake) as tts:
            assert await trio.to_thread.run_sync(by_sdk, wire.name, fake.base_url) == voice(0.5)
            assert await spoken(tts, "hi-IN") == voice(0.5)
        assert fake.problems == []
        theirs, ours = map(what_matters, fake.requests)
        assert ours == theirs


@SDK_IMPORTS
@VENDORS
async def test_the_vendors_sdk_reads_the_fakes_errors(wire: Wire) -> None:
    def failure(url: str) -> tuple[int, Any]:
        try:
            by_sdk(wire.name, url)
        except Exception as error:  # noqa: BLE001  each SDK has classes of its own
            return error.status_code, error.body  # type: ignore[attr-defined]
        raise AssertionError("the SDK took an error for speech")

    with trio.fail_after(30):
        async with FakeTTS(wire, wire.refusal(403, "invalid_api_key")) as fake:
            status, body = await trio.to_thread.run_sync(failure, fake.base_url)
    assert status == 403
    assert body == wire.error("invalid_api_key")
