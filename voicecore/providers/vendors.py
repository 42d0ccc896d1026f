"""The table of names and vendors: what is known of each without importing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stage = Literal["stt", "llm", "tts"]
STAGES: tuple[Stage, ...] = ("stt", "llm", "tts")


@dataclass(frozen=True, slots=True)
class Vendor:
    """What is known of a vendor without importing it.

    Its module has ``opened(settings)``: a context manager that gives a value with the attributes
    named in `models`, each of them a provider.  `models` are the defaults.
    """

    module: str
    what: str
    models: dict[Stage, str]
    needs: tuple[str, ...] = ()
    extra: str = ""
    key: str = ""
    hears: bool = False
    """Whether its LLM is a model that hears and speaks: nobody else listens then."""

    @property
    def address(self) -> str:
        """The setting that says where it is: beside its key, where it has one."""
        return self.key.replace("_api_key", "_base_url")


VENDORS = {
    "pocketsphinx": Vendor(
        "voicecore.providers.pocketsphinx",
        "PocketSphinx, embedded: English",
        {"stt": "en-us"},
        needs=("pocketsphinx",),
        extra="embedded",
    ),
    "builtin": Vendor(
        "voicecore.providers.builtin", "a host who follows rules, no model", {"llm": "rules"}
    ),
    "espeak": Vendor(
        "voicecore.providers.espeak",
        "eSpeak NG, embedded",
        {"tts": "espeak-ng"},
        needs=("espeakng_loader",),
        extra="embedded",
    ),
    "openai": Vendor(
        "voicecore.providers.openai",
        "OpenAI or a compatible server",
        {"stt": "gpt-4o-mini-transcribe", "llm": "gpt-4o-mini", "tts": "gpt-4o-mini-tts"},
        key="openai_api_key",
    ),
    "openai-realtime": Vendor(
        "voicecore.providers.openai_realtime",
        "OpenAI's Realtime API, which listens and speaks by itself",
        {"llm": "gpt-realtime-1.5"},
        key="openai_api_key",
        hears=True,
    ),
    "deepgram": Vendor(
        "voicecore.providers.deepgram",
        "Deepgram, live recognition and speech",
        {"stt": "nova-3", "tts": "aura-2-thalia-en"},
        key="deepgram_api_key",
    ),
    "assemblyai": Vendor(
        "voicecore.providers.assemblyai",
        "AssemblyAI, live recognition",
        {"stt": "universal-streaming-english"},
        key="assemblyai_api_key",
    ),
    "sarvam": Vendor(
        "voicecore.providers.sarvam",
        "Sarvam, the languages of India",
        {"stt": "saaras:v3-realtime", "tts": "bulbul:v3"},
        key="sarvam_api_key",
    ),
    "anthropic": Vendor(
        "voicecore.providers.anthropic",
        "Anthropic",
        {"llm": "claude-haiku-5-5"},
        key="anthropic_api_key",
    ),
    "elevenlabs": Vendor(
        "voicecore.providers.elevenlabs",
        "ElevenLabs",
        {"tts": "eleven_flash_v2_5"},
        key="elevenlabs_api_key",
    ),
    "cartesia": Vendor(
        "voicecore.providers.cartesia",
        "Cartesia",
        {"tts": "sonic-3"},
        key="cartesia_api_key",
    ),
}
