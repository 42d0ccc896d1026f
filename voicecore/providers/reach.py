"""Whether the providers can be reached: one small request to each, all at once, before any call.

Everything goes through the contracts: what is tried here is what a call will do, and a provider of
one's own is tried as any other.  Latency is the time to the first of the answer, a connection that
has to be made included.  Embedded engines are not started for this, which takes longer than all
the rest; of them, what their settings get wrong is found.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import trio

from ..audio import FRAME_BYTES, SILENCE_FRAME
from ..contracts import LLM, STT, TTS, Message, SpeechToSpeech
from ..errors import ProviderError
from ..settings import Settings, variable_name
from . import cache
from .guard import failure_in
from .names import Named, all_named, named
from .table import Opened, is_elsewhere, open_each, trial_of
from .vendors import VENDORS

REQUEST_S = 5.0
"""For each request: a call does not wait longer either."""

ALL_S = 7.5
"""For all of it, closing included: an operator is waiting."""

SILENCE = SILENCE_FRAME * 15
"""0.3 s: the shortest that every recogniser takes."""

_NOT_REACHED = ("connect", "timeout")


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of one provider.

    `failure` is what it answered, if that was no answer; `mistake` what is wrong with the settings
    of an engine, in one line.
    """

    named: Named
    latency_ms: float
    failure: ProviderError | None = None
    mistake: str | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether it is in this process or on this machine, and nothing was sent anywhere."""
        return is_engine(self.named)

    @property
    def is_reachable(self) -> bool:
        """Whether anybody answered at all."""
        return self.failure is None or self.failure.fault not in _NOT_REACHED

    @property
    def is_authorised(self) -> bool | None:
        """Whether the key is accepted; `None`: not known."""
        if self.failure is None:
            return True
        return False if self.failure.fault == "refused" else None


def is_engine(one: Named) -> bool:
    """Whether this is an embedded engine, which takes its time to load."""
    return one.name in VENDORS and bool(VENDORS[one.name].extra)


async def reach(settings: Settings) -> list[Reached]:
    """Try each provider that the settings name, in their order.  Takes `ALL_S` at most.

    Raises:
        SettingsError: as `open_providers`; it may be in a group.
    """
    order = all_named(settings)
    results: dict[Named, Reached] = {}

    async def ask(one: Opened) -> None:
        results[one.named] = await _reached(one, settings.language)

    async def try_engine(one: Named) -> None:
        began = trio.current_time()
        mistakes = await trial_of(one, settings)
        latency_ms = (trio.current_time() - began) * 1000
        results[one] = Reached(one, latency_ms, mistake="\n".join(mistakes) or None)

    with trio.move_on_after(ALL_S):
        async with trio.open_nursery() as engines:
            for one in filter(is_engine, order):
                engines.start_soon(try_engine, one, name=f"try {one.name}")
            leave_out = {one.name for one in order if is_engine(one)}
            async with open_each(settings, leave_out) as opened, trio.open_nursery() as requests:
                for each in opened:
                    requests.start_soon(ask, each, name=f"reach {each.named.name}")
    return [results.get(one) or _late(one) for one in order]


def complaints(everybody: list[Reached], settings: Settings) -> list[str]:
    """Return what keeps calls from being answered as the settings say: a line for each variable to
    look at.  A fallback that cannot be reached keeps none.
    """
    lines = cache.trial(settings)
    for reached in everybody:
        one = reached.named
        if reached.mistake:
            lines.append(reached.mistake)
        elif reached.failure and one == named(settings, one.stage)[0]:
            lines.append(f"{_variable(reached, settings)}: {one.stage} by {reached.failure}")
    return lines


def _variable(reached: Reached, settings: Settings) -> str:
    name = reached.named.name
    if name in VENDORS and VENDORS[name].key:
        if reached.is_authorised is False:
            return variable_name(VENDORS[name].key)
        if not reached.is_reachable and is_elsewhere(settings, name):
            return variable_name(VENDORS[name].address)
    return variable_name(reached.named.stage)


async def _converses(model: SpeechToSpeech, voice: str, language: str) -> bool:
    async with model.converse("Say OK.", (), voice, language) as dialogue:
        async with dialogue.answer(SILENCE) as answer:
            async for _ in answer:
                return True
    return False


async def _reached(one: Opened, language: str) -> Reached:
    hears = one.named.name in VENDORS and VENDORS[one.named.name].hears
    request: Callable[[], Coroutine[Any, Any, bool]] = {
        "stt": lambda: _listens(one.provider, language),
        "llm": lambda: (
            _converses(one.provider, one.named.voice, language) if hears else _thinks(one.provider)
        ),
        "tts": lambda: _speaks(one.provider, one.named.voice, language),
    }[one.named.stage]
    began = trio.current_time()
    failure: ProviderError | None = None
    with trio.move_on_after(REQUEST_S) as patience:
        try:
            if not await request():
                failure = ProviderError(one.named.name, "garbage", "an empty answer")
        except (ProviderError, BaseExceptionGroup) as error:
            failure = failure_in(error)
            if failure is None:
                raise
    if patience.cancelled_caught:
        return _late(one.named)
    return Reached(one.named, (trio.current_time() - began) * 1000, failure)


def _late(named: Named) -> Reached:
    detail = f"nothing within {REQUEST_S:g} s"
    return Reached(named, REQUEST_S * 1000, ProviderError(named.name, "timeout", detail))


async def _listens(stt: STT, language: str) -> bool:
    """A moment of silence, fed as a call does and asked for: no words are the right answer."""
    async with stt.listen(language) as transcription:
        for start in range(0, len(SILENCE), FRAME_BYTES):
            transcription.feed(SILENCE[start : start + FRAME_BYTES])
        await transcription.transcript(SILENCE)
    return True


async def _thinks(llm: LLM) -> bool:
    prompt = (Message("system", "Answer with one word."), Message("user", "Say OK."))
    async with llm.reply(prompt, ()) as deltas:
        async for delta in deltas:
            if isinstance(delta, str) and delta:
                return True
    return False


async def _speaks(tts: TTS, voice: str, language: str) -> bool:
    async with tts.speak("OK", voice, language) as audio:
        async for piece in audio:
            if piece:
                return True
    return False
