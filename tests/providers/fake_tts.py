"""A server that speaks like each of the TTS vendors, and can misbehave as they do.

    async with FakeTTS(ELEVENLABS, answers_in_turn...) as fake, speaking(fake) as tts: ...

How it answers is `fake_openai`'s; what it takes is the vendor's `Wire`.  `problems` says what a
vendor would have refused in the requests that came.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, urlsplit

from voicecore.contracts import TTS
from voicecore.settings import Settings

from .fake_openai import Answer, FakeOpenAI, Request, Stage

KEY = "k-SECRET"
TEXT = "Hello, नमस्ते."

Fields = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """One vendor's way of asking for speech, as its documentation has it."""

    name: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    fields: dict[str, str]
    """Every field there is, and which of them must be: name -> pattern of its JSON, or "" ."""
    content_type: str
    error: Callable[[str], Fields]
    """The JSON of an error with a code."""

    def usual(self, seconds: float = 0.5) -> Answer:
        """Speech in pieces of 100 ms."""
        return Answer(content_type=self.content_type, chunks=(voice(seconds),)).in_chunks_of(800)

    def refusal(self, status: int, code: str = "some_error", retry_after: str = "") -> Answer:
        """An error as this vendor words it, with a message that quotes the key."""
        headers = (("Retry-After", retry_after),) if retry_after else ()
        return Answer(status=status, chunks=(json.dumps(self.error(code)).encode(),),
                      headers=headers)  # fmt: skip

    def takes(self, target: str) -> bool:
        """Return whether this is the endpoint's address."""
        return re.fullmatch(self.path, urlsplit(target).path) is not None

    def problems(self, request: Request) -> list[str]:
        """Return what the vendor would refuse in a request."""
        query = {name: values for name, [*values] in parse_qs(urlsplit(request.path).query).items()}
        found = [
            f"query {name}: {query.get(name)}"
            for name in query.keys() | self.query.keys()
            if not re.fullmatch(self.query.get(name, "(?!)"), ",".join(query.get(name, [])))
        ]
        found += [
            f"header {name}: {request.headers.get(name)}"
            for name, pattern in self.headers.items()
            if not re.fullmatch(pattern, request.headers.get(name, ""))
        ]
        if request.headers.get("content-type") != "application/json":
            found.append("not JSON")
        content = request.json
        found += [f"unknown field {name}" for name in content.keys() - self.fields.keys()]
        for name, pattern in self.fields.items():
            if pattern and not re.fullmatch(pattern, json.dumps(content.get(name))):
                found.append(f"field {name}: {content.get(name)}")
        return found


def voice(seconds: float) -> bytes:
    """Mu-law that begins quietly, as speech does, and holds every code but few that are loud."""
    count = int(seconds * 8000)
    return (b"\xff\xfb\x7e\xff\xfe" * 8 + bytes(at * at // 7 % 256 for at in range(count)))[:count]


_TEXT = r'".+"'
_INDIAN = r'"(bn|en|gu|hi|kn|ml|mr|od|pa|ta|te)-IN"'

ELEVENLABS = Wire(
    "elevenlabs",
    r"/v1/text-to-speech/[A-Za-z0-9]{20}/stream",
    {"output_format": "ulaw_8000"},
    {"xi-api-key": KEY},
    {"text": _TEXT, "model_id": r'"eleven_\w+"', "language_code": r'"[a-z]{2}"|null',
     "voice_settings": "", "seed": "", "previous_text": "", "next_text": ""},
    "audio/basic",
    lambda code: {"detail": {"status": code, "message": f"bad key {KEY}"}},
)  # fmt: skip
CARTESIA = Wire(
    "cartesia",
    "/tts/bytes",
    {},
    {"authorization": f"Bearer {KEY}", "cartesia-version": "2026-08-14"},
    {"model_id": r'"sonic-[\w.-]+"', "transcript": _TEXT, "voice": r'{"id": "[0-9a-f-]{36}"}',
     "language": '"[a-z]{2}"', "generation_config": "",
     "output_format": '{"container": "raw", "encoding": "pcm_mulaw", "sample_rate": 8000}'},
    "audio/pcm",
    lambda code: {"type": "error", "status_code": 400, "title": "Invalid", "error_code": code,
                  "message": f"bad key {KEY}"},
)  # fmt: skip
DEEPGRAM = Wire(
    "deepgram",
    "/v1/speak",
    {"model": "aura-2-[a-z]+-[a-z]{2}", "encoding": "mulaw", "sample_rate": "8000",
     "container": "none"},
    {"authorization": f"Token {KEY}"},
    {"text": _TEXT},
    "audio/mulaw;rate=8000",
    lambda code: {"err_code": code, "err_msg": f"bad key {KEY}", "request_id": "r"},
)  # fmt: skip
SARVAM = Wire(
    "sarvam",
    "/text-to-speech/stream",
    {},
    {"api-subscription-key": KEY},
    {"text": _TEXT, "language_code": _INDIAN, "speaker": r'"[a-z_]+"|null', "pace": "",
     "model": '"bulbul:(v2|v3|v4-flash)"', "speech_sample_rate": "8000",
     "output_audio_codec": '"mulaw"', "temperature": "", "enable_preprocessing": ""},
    "application/octet-stream",
    lambda code: {"error": {"message": f"bad key {KEY}", "code": code, "request_id": "r"}},
)  # fmt: skip
WIRES = (ELEVENLABS, CARTESIA, DEEPGRAM, SARVAM)


class _Paths(dict[str, Stage]):
    """All addresses of a wire, which are too many to write down."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def get(self, target: str, default: Any = None) -> Any:
        return "tts" if self._wire.takes(target) else default


class FakeTTS(FakeOpenAI):
    """The server of one vendor."""

    def __init__(self, wire: Wire, *script: Answer) -> None:
        super().__init__(tts=script or (wire.usual(),), paths=_Paths(wire))
        self.wire = wire

    async def __aenter__(self) -> FakeTTS:
        await super().__aenter__()
        self.base_url = self.base_url.removesuffix("/v1")
        return self

    @property
    def problems(self) -> list[str]:
        """What the vendor would have refused."""
        return [problem for request in self.requests for problem in self.wire.problems(request)]


@asynccontextmanager
async def speaking(fake: FakeTTS, **settings: str) -> AsyncIterator[TTS]:
    """Open the vendor's adapter, directed to the fake."""
    name = fake.wire.name
    chosen = Settings(
        _env_file=None,
        **{f"{name}_base_url": fake.base_url, f"{name}_api_key": KEY, **settings},
    )
    async with import_module(f"voicecore.providers.{name}").opened(chosen) as vendor:
        yield vendor.tts


async def spoken(
    tts: TTS, language: str = "en-US", voice: str = "", into: list[bytes] | None = None
) -> bytes:
    """Have `TEXT` spoken; `into` keeps what came if it fails."""
    pieces = [] if into is None else into
    async with tts.speak(TEXT, voice, language) as audio:
        async for piece in audio:
            pieces.append(piece)
    return b"".join(pieces)
