"""The one table that maps the names in the settings to vendors, and opens those that are named.

A name is one of `VENDORS`, or ``module:attribute``: a factory of one's own that takes the
`Settings` and returns a provider, or an async context manager that gives one.  Vendors are imported
when they are named: who uses one pays for no other.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from ..contracts import LLM, STT, TTS
from ..errors import SettingsError
from ..settings import Settings, variable_name

Stage = Literal["stt", "llm", "tts"]
STAGES: tuple[Stage, ...] = ("stt", "llm", "tts")


@dataclass(frozen=True, slots=True)
class Vendor:
    """What is known of a vendor without importing it.

    Its module has ``opened(settings)``: a context manager that gives a value with the attributes
    named in `models`, each of them a provider.
    """

    module: str
    what: str
    models: dict[Stage, str]
    needs: tuple[str, ...] = ()
    extra: str = ""
    key: str = ""


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
}


@dataclass(frozen=True, slots=True)
class Providers:
    """Who listens, thinks and speaks in the calls of one server."""

    stt: STT
    llm: LLM
    tts: TTS


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """What ``--check`` prints of one stage.

    `key` says whether the vendor's key is there; ``None`` where none is needed.  `problem` is what
    keeps the stage from starting, in one line.
    """

    stage: Stage
    name: str
    what: str
    model: str
    key: bool | None
    problem: str | None


@asynccontextmanager
async def open_providers(settings: Settings) -> AsyncIterator[Providers]:
    """Open the providers that the settings name; on leaving, nothing of theirs runs any more.

    Returns at once: what must load, loads in the background.  As it holds a nursery, what is raised
    inside the context may come out in an exception group.

    Raises:
        SettingsError: a line for each stage that cannot start.
    """
    problems = [info.problem for info in describe(settings) if info.problem]
    if problems:
        raise SettingsError("\n".join(problems))
    refused: SettingsError | None = None
    async with AsyncExitStack() as stack:
        try:
            providers = await _opened(settings, stack)
        except SettingsError as error:  # which a nursery in the stack would wrap
            refused = error
        else:
            yield providers
    if refused is not None:
        raise refused


async def _opened(settings: Settings, stack: AsyncExitStack) -> Providers:
    vendors: dict[str, Any] = {}
    opened: dict[Stage, Any] = {}
    for stage in STAGES:
        name = getattr(settings, stage)
        if ":" in name:
            opened[stage] = await _open_own(name, settings, stack)
            continue
        if name not in vendors:
            module = importlib.import_module(VENDORS[name].module)
            vendors[name] = await stack.enter_async_context(module.opened(settings))
        opened[stage] = getattr(vendors[name], stage)
    return Providers(**opened)


async def trial(settings: Settings) -> list[str]:
    """Return what only the engines know to be wrong with the settings, a line each.

    A vendor's module may have ``trial(settings)`` for that.  Takes as long as engines take to load.
    """
    lines: list[str] = []
    for name in dict.fromkeys(getattr(settings, stage) for stage in STAGES):
        if name in VENDORS:
            module = importlib.import_module(VENDORS[name].module)
            if hasattr(module, "trial"):
                lines += await module.trial(settings)
    return lines


def describe(settings: Settings) -> list[ProviderInfo]:
    """Return what each stage is, and what keeps it from starting; opens nothing."""
    return [_described(stage, settings) for stage in STAGES]


def _described(stage: Stage, settings: Settings) -> ProviderInfo:
    name = getattr(settings, stage)
    model = getattr(settings, f"{stage}_model")
    problem = _problem(stage, name, settings)
    vendor = VENDORS.get(name)
    if vendor is None:
        what = "a provider of your own" if ":" in name else "unknown"
        return ProviderInfo(stage, name, what, model, None, problem)
    key = bool(_secret(settings, vendor.key)) if vendor.key else None
    return ProviderInfo(
        stage, name, vendor.what, model or vendor.models.get(stage, ""), key, problem
    )


def _problem(stage: Stage, name: str, settings: Settings) -> str | None:
    """Return what is wrong with a stage's name, in one line that names the variable."""
    variable = variable_name(stage)
    if ":" in name:
        try:
            _own_factory(name)
        except (ImportError, AttributeError, ValueError) as error:
            return f"{variable}: got {name!r}; {error}"
        return None
    vendor = VENDORS.get(name)
    if vendor is None or stage not in vendor.models:
        known = ", ".join(sorted(known for known in VENDORS if stage in VENDORS[known].models))
        return f"{variable}: got {name!r}; takes {known}, or module:attribute"
    install = f"pip install 'voicecore[{vendor.extra}]'"
    if any(importlib.util.find_spec(needed) is None for needed in vendor.needs):
        return f"{variable}: {name!r} needs the {vendor.extra} engines: {install}"
    if vendor.key and not _secret(settings, vendor.key) and not _elsewhere(settings, name):
        return f"{variable}: {name!r} needs a key: set {variable_name(vendor.key)}"
    return None


def _secret(settings: Settings, field: str) -> str:
    secret = getattr(settings, field)
    return secret.get_secret_value() if secret is not None else ""


def _elsewhere(settings: Settings, name: str) -> bool:
    """Return whether a compatible server is named instead; most of these ask for no key."""
    field = f"{name}_base_url"
    return bool(getattr(settings, field) != Settings.model_fields[field].default)


def _own_factory(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


async def _open_own(name: str, settings: Settings, stack: AsyncExitStack) -> Any:
    made = _own_factory(name)(settings)
    if hasattr(made, "__aenter__"):
        return await stack.enter_async_context(made)
    return made
