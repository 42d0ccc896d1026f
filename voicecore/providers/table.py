"""From the names in the settings to providers: what they are, what is wrong with them, and opened.

A name (`names`) is

* one of `vendors.VENDORS`;
* an entry point of the group `ENTRY_POINTS` in any installed package: a function
  ``opened(settings)``, as a vendor's module has it;
* ``module:attribute``: a factory of one's own that takes the `Settings` and returns a provider, or
  an async context manager that gives one.

Whoever it is, is imported when it is named: who uses one pays for no other.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..contracts import TTS, Delta, Message, SpeechToSpeech, Tool, Transcription
from ..errors import ProviderError, SettingsError
from ..settings import Settings, masked, variable_name
from .cache import CachedTTS, SpeechCache, open_cache
from .fallback import FallbackLLM, FallbackSTT, FallbackTTS
from .names import Named, all_named, hears, named, settings_for, settings_of, too_many
from .vendors import STAGES, VENDORS, Stage

T = TypeVar("T")

ENTRY_POINTS = "voicecore.providers"

_BROKEN = (ImportError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError)
"""What importing somebody's module may raise that is theirs, and no bug of ours."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A provider that is open."""

    named: Named
    provider: Any


Totals = dict[tuple[str, ...], float]
"""What was counted since the start, for the metrics: by name and labels."""


@dataclass(frozen=True, slots=True)
class Providers:
    """Who listens, thinks and speaks in the calls of one server."""

    stt: FallbackSTT
    llm: FallbackLLM
    tts: FallbackTTS
    cache: SpeechCache
    """What the speakers have said before."""
    model: SpeechToSpeech | None = None
    """Who hears and speaks by itself, if that is what was named; then `stt` and `llm` have nobody
    to ask."""

    def failures(self) -> Totals:
        """Return how often which of them has failed since the start."""
        counted: Totals = {}
        for order in (self.stt.order, self.llm.order, self.tts.order):
            for (provider, fault), times in order.failures.items():
                key = ("provider_errors", provider, fault)
                counted[key] = counted.get(key, 0) + times
        return counted


def totals(cache: SpeechCache, sets: Iterable[Providers]) -> Totals:
    """Return what was counted of sets of providers that have one cache."""
    said = cache.statistics()
    counted: Totals = {
        ("cache_hits",): said.hits,
        ("cache_misses",): said.misses,
        ("cache_saved_seconds",): said.saved_s,
        ("cache_bytes",): said.bytes,
    }
    for providers in sets:
        for key, times in providers.failures().items():
            counted[key] = counted.get(key, 0) + times
    return counted


class Unasked:
    """In the place of a recogniser and an LLM where a model hears and speaks by itself."""

    def listen(self, language: str) -> AbstractAsyncContextManager[Transcription]:
        """Do not listen."""
        raise ProviderError("stt", "refused", "the model hears by itself")

    def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AbstractAsyncContextManager[AsyncIterable[Delta]]:
        """Do not reply."""
        raise ProviderError("llm", "refused", "the model speaks by itself")


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """What ``--check`` prints of one provider of a stage; `place` is 0 for the first.

    `key` says whether the vendor's key is there; ``None`` where none is needed.  `problem` is what
    keeps the stage from starting, in one line.
    """

    stage: Stage
    name: str
    what: str
    model: str
    key: bool | None
    problem: str | None
    place: int = 0


@asynccontextmanager
async def open_providers(
    settings: Settings, cache: SpeechCache | None = None
) -> AsyncIterator[Providers]:
    """Open the providers that the settings name; on leaving, nothing of theirs runs any more.

    Their speech is kept in `cache`, or in one of their own.

    Returns at once: what must load, loads in the background.  As it holds a nursery, what is raised
    inside the context may come out in an exception group.

    Raises:
        SettingsError: a line for each name that cannot start.
    """

    async def open_all(stack: AsyncExitStack) -> Providers:
        kept_in = cache
        if kept_in is None:
            kept_in = await stack.enter_async_context(open_cache(settings))
        opened = await _opened(settings, stack)
        members = {
            stage: [(one.named.name, one.provider) for one in opened if one.named.stage == stage]
            for stage in STAGES
        }
        speakers = [one.named for one in opened if one.named.stage == "tts"]

        def cached(place: int, tts: TTS) -> TTS:
            return CachedTTS(tts, kept_in, *_whose_voice(speakers[place], settings))

        model = None
        if hears(settings):
            model = members["llm"][0][1]
            members["stt"] = members["llm"] = [(members["llm"][0][0], Unasked())]
        return Providers(
            FallbackSTT(members["stt"]),
            FallbackLLM(members["llm"]),
            FallbackTTS(members["tts"], [one.voice for one in speakers], cached),
            kept_in,
            model,
        )

    async with _held(settings, open_all) as providers:
        yield providers


@asynccontextmanager
async def open_each(
    settings: Settings, leave_out: Container[str] = ()
) -> AsyncIterator[list[Opened]]:
    """Open the providers that the settings name, each for itself, stage by stage and in order.

    Raises:
        SettingsError: as `open_providers`.
    """
    async with _held(settings, partial(_opened, settings, leave_out=leave_out)) as opened:
        yield opened


@asynccontextmanager
async def _held(
    settings: Settings, enter: Callable[[AsyncExitStack], Awaitable[T]]
) -> AsyncIterator[T]:
    """Give what `enter` makes, if nothing is wrong with the settings; close it on leaving."""
    problems = [info.problem for info in describe(settings) if info.problem]
    if problems:
        raise SettingsError("\n".join(problems))
    refused: SettingsError | None = None
    async with AsyncExitStack() as stack:
        try:
            held = await enter(stack)
        except SettingsError as error:  # which a nursery in the stack would wrap
            refused = error
        else:
            yield held
    if refused is not None:
        raise refused


def _whose_voice(one: Named, settings: Settings) -> tuple[str, str]:
    """Return what tells a speaker's renderings from another's: who it is, where, and its model."""
    vendor = VENDORS.get(one.name)
    if vendor is None:
        return one.name, one.model
    address = masked(getattr(settings, vendor.address, ""))
    return f"{one.name} {address}".rstrip(), one.model or vendor.models[one.stage]


async def _opened(
    settings: Settings, stack: AsyncExitStack, leave_out: Container[str] = ()
) -> list[Opened]:
    vendors: dict[tuple[str, int], Any] = {}
    opened: list[Opened] = []
    for one in all_named(settings):
        opening = one.name, one.opening
        if one.name in leave_out:
            continue
        if ":" in one.name:
            made = _own_factory(one.name)(settings_of(settings, [one]))
            if hasattr(made, "__aenter__"):
                made = await stack.enter_async_context(made)
            opened.append(Opened(one, made))
            continue
        if opening not in vendors:
            context = _opener(one.name)(settings_for(settings, *opening))
            vendors[opening] = await stack.enter_async_context(context)
        if not hasattr(vendors[opening], one.stage):
            raise SettingsError(
                f"{variable_name(one.stage)}: got {one.name!r}; that has no {one.stage}"
            )
        opened.append(Opened(one, getattr(vendors[opening], one.stage)))
    return opened


async def trial_of(one: Named, settings: Settings) -> list[str]:
    """Return what only the vendor can tell to be wrong with the settings, a line each.

    Its module may have ``trial(settings)`` for that.  Takes as long as an engine takes to load.
    """
    module = importlib.import_module(VENDORS[one.name].module)
    if not hasattr(module, "trial"):
        return []
    lines: list[str] = await module.trial(settings_for(settings, one.name, one.opening))
    return lines


def describe(settings: Settings) -> list[ProviderInfo]:
    """Return what each provider is, and what keeps it from starting; opens nothing."""
    return [
        _described(one, place, settings)
        for stage in STAGES
        for place, one in enumerate(named(settings, stage))
    ]


def _described(one: Named, place: int, settings: Settings) -> ProviderInfo:
    problem = _problem(one, settings)
    if problem is None and place == 0:
        problem = too_many(one.stage, settings)
    vendor = VENDORS.get(one.name)
    if vendor is None:
        return ProviderInfo(one.stage, one.name, _whose(one.name), one.model, None, problem, place)
    key = bool(_secret(settings, vendor.key)) if vendor.key else None
    model = one.model or vendor.models.get(one.stage, "")
    return ProviderInfo(one.stage, one.name, vendor.what, model, key, problem, place)


def _whose(name: str) -> str:
    if ":" in name:
        return "a provider of your own"
    entry = _entry_point(name)
    if entry is None:
        return "unknown"
    return "installed" if entry.dist is None else f"from {entry.dist.name} {entry.dist.version}"


def _problem(one: Named, settings: Settings) -> str | None:
    """Return what is wrong with a name, in one line that names the variable."""
    variable, name = variable_name(one.stage), one.name
    vendor = VENDORS.get(name)
    if vendor is None and (":" in name or _entry_point(name)):
        try:
            _own_factory(name) if ":" in name else _opener(name)
        except _BROKEN as error:
            return f"{variable}: got {name!r}; {str(error).partition(chr(10))[0]}"
        return None
    if vendor is not None and vendor.hears and len(named(settings, one.stage)) > 1:
        return f"{variable}: {name!r} stands alone: it has no fallback"
    if vendor is None or one.stage not in vendor.models:
        return f"{variable}: got {name!r}; takes {_takes(one.stage)}, or module:attribute"
    install = f"pip install 'voicecore[{vendor.extra}]'"
    if any(importlib.util.find_spec(needed) is None for needed in vendor.needs):
        return f"{variable}: {name!r} needs the {vendor.extra} engines: {install}"
    if vendor.key and not _secret(settings, vendor.key) and not is_elsewhere(settings, name):
        return f"{variable}: {name!r} needs a key: set {variable_name(vendor.key)}"
    return None


def _takes(stage: Stage) -> str:
    """Return the names that a stage takes; what other packages' entry points offer, they know."""
    known = {name for name, vendor in VENDORS.items() if stage in vendor.models}
    known |= {entry.name for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    return ", ".join(sorted(known))


def _secret(settings: Settings, field: str) -> str:
    secret = getattr(settings, field)
    return secret.get_secret_value() if secret is not None else ""


def is_elsewhere(settings: Settings, name: str) -> bool:
    """Return whether a compatible server is named instead; most of these ask for no key."""
    field = VENDORS[name].address
    return bool(getattr(settings, field) != Settings.model_fields[field].default)


def _own_factory(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _entry_point(name: str) -> importlib.metadata.EntryPoint | None:
    return next(iter(importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)), None)


def _opener(name: str) -> Any:
    """Return a vendor's ``opened``.  The package's own names cannot be taken by others."""
    if name in VENDORS:
        return importlib.import_module(VENDORS[name].module).opened
    entry = _entry_point(name)
    assert entry is not None, "checked before anything is opened"
    return entry.load()
