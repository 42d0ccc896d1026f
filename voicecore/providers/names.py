"""What the settings name: each stage's order, and the settings as each of the named sees them.

A stage names one provider, or several, separated by commas: the order in which they are asked.  Its
models, and the voices of speech, are lists that go with it; what a list leaves out is the vendor's
default.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..settings import Settings, variable_name
from .vendors import STAGES, VENDORS, Stage


@dataclass(frozen=True, slots=True)
class Named:
    """One name of a stage, with what the settings say about it; `model` and `voice` may be empty.

    `opening` tells apart those of one vendor that need different settings: all its stages can
    share one opening, two places in the same order cannot.
    """

    stage: Stage
    name: str
    model: str
    voice: str
    opening: int


def hears(settings: Settings) -> bool:
    """Return whether the LLM named is a model that hears and speaks by itself."""
    vendor = VENDORS.get(_listed(settings, "llm")[0])
    return vendor is not None and vendor.hears


def named(settings: Settings, stage: Stage) -> list[Named]:
    """Return a stage's order; nobody's for STT if the model hears by itself."""
    if stage == "stt" and hears(settings):
        return []
    models, voices = _listed(settings, f"{stage}_model"), []
    if stage == "tts":
        voices = _listed(settings, "tts_voice")
    order, before = [], Counter[str]()
    for place, name in enumerate(_listed(settings, stage)):
        model = models[place] if place < len(models) else ""
        voice = voices[place] if place < len(voices) else ""
        order.append(Named(stage, name, model, voice, before[name]))
        before[name] += 1
    return order


def _listed(settings: Settings, field: str) -> list[str]:
    return [item.strip() for item in getattr(settings, field).split(",")]


def all_named(settings: Settings) -> list[Named]:
    """Return all stages' orders, one after the other."""
    return [one for stage in STAGES for one in named(settings, stage)]


def settings_for(settings: Settings, name: str, opening: int) -> Settings:
    """Return the settings as one opening of a vendor sees them: its own models and voice only."""
    mine = [one for one in all_named(settings) if (one.name, one.opening) == (name, opening)]
    return settings_of(settings, mine)


def settings_of(settings: Settings, mine: list[Named]) -> Settings:
    """Return the settings as those see them that stand for `mine`, one name of a stage each."""
    own: dict[str, str] = {f"{stage}_model": "" for stage in STAGES} | {"tts_voice": ""}
    for one in mine:
        own |= {one.stage: one.name, f"{one.stage}_model": one.model}
        if one.stage == "tts":
            own["tts_voice"] = one.voice
    return settings.model_copy(update=own)


def too_many(stage: Stage, settings: Settings) -> str | None:
    """Return what is wrong with the lists that go with a stage's names."""
    names = len(_listed(settings, stage))
    for field in (f"{stage}_model", "tts_voice") if stage == "tts" else (f"{stage}_model",):
        if len(_listed(settings, field)) > names:
            got = f"{variable_name(field)}: got {getattr(settings, field)!r}"
            return f"{got}; takes at most {names}, one for each name in {variable_name(stage)}"
    return None
