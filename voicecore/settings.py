"""Every setting: its name, unit, default and reason.

A field ``end_silence_ms`` is the variable ``VOICECORE_END_SILENCE_MS``; the few that carry another
name (Twilio's and the vendors' own) say so.  Flags win over the environment, the environment over
``.env``.  Units are in the names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError


def _variable(name: str, **options: Any) -> Any:
    """A field whose variable has no VOICECORE_ prefix: the vendors' tools read it too."""
    return Field(validation_alias=AliasChoices(name.lower(), name), **options)


class Settings(BaseSettings):
    """The settings of one server.  A value: frozen, and checked as a whole when made."""

    model_config = SettingsConfigDict(
        env_prefix="VOICECORE_",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    # Where to listen
    host: str = "0.0.0.0"  # noqa: S104  a carrier calls in from any public address
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    public_url: str | None = None
    log_format: Literal["text", "json"] = "text"
    log_text: bool = True

    # Who may call in
    twilio_account_sid: str | None = _variable("TWILIO_ACCOUNT_SID", default=None)
    twilio_auth_token: SecretStr | None = _variable("TWILIO_AUTH_TOKEN", default=None)
    twilio_base_url: str = _variable("TWILIO_BASE_URL", default="https://api.twilio.com")
    carrier_secret: SecretStr | None = None
    admin_token: SecretStr | None = None

    # Whom we call, and to whom calls may be given
    outbound_from: str | None = None
    outbound_prefixes: str = ""  # separated by commas; without, no call is placed
    outbound_per_hour: Annotated[int, Field(ge=1, le=10000)] = 60
    transfers: str = ""  # name=+number, separated by commas

    # What is kept of a call (see records/)
    record_dir: Path | None = None
    record_audio: bool = True
    record_text: bool = True
    record_days: Annotated[float, Field(ge=0, le=36500)] = 0
    record_gb: Annotated[float, Field(ge=0, le=1000000)] = 0

    # Who answers
    agent: str | None = None
    stt: str = "pocketsphinx"
    llm: str = "builtin"
    tts: str = "espeak"
    stt_model: str = ""
    llm_model: str = ""
    tts_model: str = ""
    tts_voice: str = ""
    language: str = "en-US"
    greeting: str | None = None  # the language's own, see call/phrases.py
    prompt: str = (
        "You are a friendly phone agent. Your words are spoken aloud: answer in one to three"
        " short sentences, without lists, markup or emoji. Ask when you did not understand."
    )
    openai_api_key: SecretStr | None = _variable("OPENAI_API_KEY", default=None)
    openai_base_url: str = _variable("OPENAI_BASE_URL", default="https://api.openai.com/v1")
    deepgram_api_key: SecretStr | None = _variable("DEEPGRAM_API_KEY", default=None)
    deepgram_base_url: str = _variable("DEEPGRAM_BASE_URL", default="https://api.deepgram.com")
    assemblyai_api_key: SecretStr | None = _variable("ASSEMBLYAI_API_KEY", default=None)
    assemblyai_base_url: str = _variable(
        "ASSEMBLYAI_BASE_URL", default="https://streaming.assemblyai.com"
    )
    anthropic_api_key: SecretStr | None = _variable("ANTHROPIC_API_KEY", default=None)
    anthropic_base_url: str = _variable("ANTHROPIC_BASE_URL", default="https://api.anthropic.com")
    elevenlabs_api_key: SecretStr | None = _variable("ELEVENLABS_API_KEY", default=None)
    elevenlabs_base_url: str = _variable("ELEVENLABS_BASE_URL", default="https://api.elevenlabs.io")
    cartesia_api_key: SecretStr | None = _variable("CARTESIA_API_KEY", default=None)
    cartesia_base_url: str = _variable("CARTESIA_BASE_URL", default="https://api.cartesia.ai")
    sarvam_api_key: SecretStr | None = _variable("SARVAM_API_KEY", default=None)
    sarvam_base_url: str = _variable("SARVAM_BASE_URL", default="https://api.sarvam.ai")

    # How a turn is heard (see dialogue/turns.py)
    vad_mode: Annotated[int, Field(ge=0, le=3)] = 3
    speech_window_ms: Annotated[int, Field(ge=100, le=3000)] = 600
    end_silence_ms: Annotated[int, Field(ge=100, le=5000)] = 300
    long_silence_ms: Annotated[int, Field(ge=0, le=5000)] = 1200
    pause_ms: Annotated[int, Field(ge=0, le=2000)] = 100
    speculation: Literal["off", "llm", "full"] = "full"
    barge_in_ms: Annotated[int, Field(ge=0, le=2000)] = 160
    barge_in_key: str | None = None

    # How a reply is played (see call/playback.py)
    playback_lead_ms: Annotated[int, Field(ge=40, le=1000)] = 160
    filler_ms: Annotated[int, Field(ge=0, le=10000)] = 0

    # What was said before (see providers/cache.py)
    cache_mb: Annotated[int, Field(ge=0, le=65536)] = 64
    cache_dir: Path | None = None
    cache_phrases: str = ""  # separated by |

    # How long things may last
    idle_prompt_s: Annotated[float, Field(ge=0, le=600)] = 10
    idle_prompts: Annotated[int, Field(ge=0, le=10)] = 2
    max_call_s: Annotated[float, Field(gt=0, le=86400)] = 3600
    max_calls: Annotated[int, Field(ge=0)] = 0
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30

    @field_validator("language")
    @classmethod
    def _language_is_a_tag(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", value):
            raise ValueError("takes a language such as en-US")
        return value

    @field_validator("barge_in_key")
    @classmethod
    def _key_is_a_key(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch("[0-9*#]", value):
            raise ValueError("takes one key of 0123456789*#")
        return value

    @field_validator("outbound_from")
    @classmethod
    def _number_is_e164(cls, value: str | None) -> str | None:
        if value is not None and not E164.fullmatch(value):
            raise ValueError("takes a number such as +15550001111")
        return value

    @field_validator("outbound_prefixes")
    @classmethod
    def _prefixes_are_beginnings_of_numbers(cls, value: str) -> str:
        if not all(re.fullmatch(r"\+[1-9][0-9]{0,14}", prefix) for prefix in _parts(value)):
            raise ValueError("takes beginnings of numbers such as +1,+4930")
        return value

    @field_validator("transfers")
    @classmethod
    def _transfers_are_names_and_numbers(cls, value: str) -> str:
        for part in _parts(value):
            name, _, number = part.partition("=")
            if not re.fullmatch(r"\w[\w -]{0,39}", name.strip()) or not E164.fullmatch(
                number.strip()
            ):
                raise ValueError("takes names and numbers such as sales=+15550002222")
        return value

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What numbers that are called may begin with."""
        return tuple(_parts(self.outbound_prefixes))

    @property
    def transfer_numbers(self) -> dict[str, str]:
        """To whom a call may be given: name to number, in the order in which they are written."""
        pairs = (part.partition("=") for part in _parts(self.transfers))
        return {name.strip(): number.strip() for name, _, number in pairs}

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_origin(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _is_web_address(value) or any(mark in value for mark in "@?#"):
            raise ValueError("takes an origin such as https://agent.example.com")
        return value.rstrip("/")

    @field_validator(
        "openai_base_url",
        "deepgram_base_url",
        "assemblyai_base_url",
        "anthropic_base_url",
        "elevenlabs_base_url",
        "cartesia_base_url",
        "sarvam_base_url",
        "twilio_base_url",
    )
    @classmethod
    def _base_is_a_url(cls, value: str, info: ValidationInfo) -> str:
        if not _is_web_address(value):
            default = cls.model_fields[str(info.field_name)].default
            raise ValueError(f"takes a URL such as {default}")
        return value.rstrip("/")


E164 = re.compile(r"\+[1-9][0-9]{6,14}")
"""A telephone number as ITU-T E.164 writes it; no country's is shorter."""


def _parts(value: str) -> list[str]:
    """Return what is between the commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


def _is_web_address(value: str) -> bool:
    """Return whether this is an http URL with a host, in printable ASCII."""
    if not re.fullmatch(r"[!-~]+", value):  # urlsplit would drop line breaks without a word
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    host = parts.netloc.rpartition("@")[2]
    known = parts.scheme in ("http", "https") and _HOST_AND_PORT.fullmatch(host) is not None
    return known and port != 0


def masked(value: str) -> str:
    """Return a text without the name and the password in its URL."""
    return re.sub(r"(?<=//).*@", "…@", value, flags=re.DOTALL)


def variable_name(field: str) -> str:
    """Return the environment variable of a field: ``port`` is ``VOICECORE_PORT``."""
    info = Settings.model_fields.get(field.lower())
    if info is not None and isinstance(info.validation_alias, AliasChoices):
        return str(info.validation_alias.choices[-1])
    return field.upper() if field.isupper() else f"VOICECORE_{field.upper()}"


def load(**flags: Any) -> Settings:
    """Read flags (``None`` means not given), the environment and ``.env``.

    Raises:
        SettingsError: one line per bad variable: its name, what it got, and what it takes.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            name = variable_name(str(problem["loc"][0])) if problem["loc"] else "settings"
            got = problem.get("input")
            shown = "a secret value" if name.endswith(("KEY", "TOKEN")) else masked(repr(got))[:80]
            own = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: got {shown}; {_takes(str(problem['loc'][0]), own)}")
        raise SettingsError("\n".join(lines)) from None
    except UnicodeDecodeError as error:
        raise SettingsError(f".env: is not UTF-8: {error.reason} at byte {error.start}") from None


def _takes(field: str, message: str) -> str:
    """Say what a field takes; `message` is what there is to say of it otherwise."""
    info = next(
        (info for name, info in Settings.model_fields.items() if _is_called(name, field)), None
    )
    if info is None:
        return message
    if info.annotation is bool:
        return "takes on or off"
    if info.annotation not in (int, float):
        choices = get_args(info.annotation)
        words = all(isinstance(choice, str) for choice in choices)
        return f"takes {' or '.join(choices)}" if choices and words else message
    kind = "a whole number" if info.annotation is int else "a number"
    least = next((rule.ge for rule in info.metadata if isinstance(rule, Ge)), None)
    above = next((rule.gt for rule in info.metadata if isinstance(rule, Gt)), None)
    most = next((rule.le for rule in info.metadata if isinstance(rule, Le)), None)
    if above is not None:
        return f"takes {kind} above {above} and up to {most}"
    if most is None:
        return f"takes {kind} of at least {least}"
    return f"takes {kind} from {least} to {most}"


def _is_called(name: str, location: str) -> bool:
    return location.lower() in (name, variable_name(name).lower())
