"""An agent is a value: who answers, with which words, under which rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import trio

from ..audio.vad import GatedVad
from ..contracts import LLM, STT, TTS, VAD, SpeechToSpeech, WarmsUp
from ..dialogue.sentences import Splitter
from ..dialogue.turns import TurnRules
from ..settings import E164, Settings
from .from_settings import FROM_SETTINGS
from .phrases import Announcement, Phrases, StockWords, default_greeting, stock_words
from .toolbox import Function, OnBargeIn, Toolbox
from .transfer import Transfer

WARM_UP_S = 5.0
"""How long warming up may take; by then the call has begun, warm or not."""


@dataclass(frozen=True, slots=True)
class Persona:
    """What an agent is told to be, and the first thing that it says.

    `language` is BCP-47; ``voice=""`` is the TTS provider's default.  `words` are the sentences
    that need no provider at the time; by default those of the language.
    """

    prompt: str = Settings.model_fields["prompt"].default
    greeting: str = default_greeting("en")
    language: str = "en-US"
    voice: str = ""
    words: StockWords | None = None
    phrases: tuple[str, ...] = ()
    """Sentences that will probably be said: rendered at start, and free whenever they are."""

    @property
    def stock_words(self) -> StockWords:
        """The sentences that must be sayable when every provider is down."""
        return self.words or stock_words(self.language)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long things may last.  Seconds, and counts."""

    idle_prompt_s: float = 10.0
    """Silence on both sides until "are you still there?"; 0: never asked."""
    idle_prompts: int = 2
    max_call_s: float = 3600.0
    speculations: int = 3
    """Replies begun before the turn's end, per turn of the caller."""
    failed_turns: int = 3
    """Failed turns in a row until the agent apologises and hangs up."""
    no_media_s: float = 30.0
    lead_s: float = 0.16
    """How far ahead of the caller's ear playback is sent."""
    filler_s: float = 0.0
    """From the end of the caller's turn to "let me see", if there is nothing else yet; 0: never."""
    speculates_speech: bool = True
    """Whether a speculation also buys speech; else it stops at the LLM's words."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything that a call needs to be answered.  Shared by all its calls; holds no call's state.

    Providers are objects that are open, or names (`FromSettings`) of those that the server opens.
    Served by `voicecore.serve`, what is left at its default is as the settings say.

    `phrases` is the ready-made audio: `prepare` fills it, and calls that come before that render
    what they need themselves.
    """

    stt: STT = FROM_SETTINGS
    llm: LLM = FROM_SETTINGS
    tts: TTS = FROM_SETTINGS
    persona: Persona = field(default_factory=Persona)
    rules: TurnRules = field(default_factory=TurnRules)
    limits: CallLimits = field(default_factory=CallLimits)
    vad: Callable[[], VAD] = GatedVad
    phrases: Phrases = field(default_factory=Phrases)
    tools: Toolbox = field(default_factory=Toolbox)
    """What it can do besides speaking, and besides what every agent can: see `tool`."""
    transfers: Mapping[str, str] = field(default_factory=dict)
    """To whom it may give a call: name to number, in E.164.  The first gets those whose callers it
    cannot help, because its providers fail."""
    model: SpeechToSpeech | None = None
    """Who hears and speaks by itself; then `tts` speaks only what is ready-made, and `stt` and
    `llm` do nothing."""

    def __post_init__(self) -> None:
        """Refuse at once what would otherwise fail in the first call.

        Raises:
            TypeError: a provider that is none, or a persona that is none.
            ValueError: a number to transfer calls to that is none.
        """
        for stage, ability in (("stt", "listen"), ("llm", "reply"), ("tts", "speak")):
            given: object = getattr(self, stage)
            if given is not None and not hasattr(given, ability):
                raise TypeError(f"{stage}: {given!r:.60} cannot {ability}")
        if not isinstance(self.persona, Persona):
            raise TypeError(f"persona: takes a Persona, not {self.persona!r:.60}")
        for name, number in self.transfers.items():
            if not E164.fullmatch(number):
                raise ValueError(f"transfers: {name}: takes a number in E.164, not {number!r:.60}")

    @overload
    def tool(self, function: Function, /) -> Function: ...
    @overload
    def tool(
        self,
        function: None = None,
        /,
        *,
        on_barge_in: OnBargeIn = ...,
        deadline_s: float = ...,
        filler: str = ...,
    ) -> Callable[[Function], Function]: ...
    def tool(self, function: Function | None = None, /, **manners: Any) -> Any:
        """Make an async function one of this agent's tools: `Toolbox.tool`."""
        return self.tools.tool(function, **manners)

    @property
    def giving_up(self) -> Announcement:
        """What is said, and done, when nothing works any more."""
        words = self.persona.stock_words
        for number in self.transfers.values():
            return Announcement(words.connecting, transfer=Transfer(number))
        return Announcement(words.give_up, "agent")

    async def prepare(self) -> None:
        """Render what is known beforehand.  Never raises for a provider's failure."""
        persona = self.persona
        texts = (persona.greeting, *persona.stock_words.texts)
        for phrase in persona.phrases:
            # A model's reply comes to TTS clause by clause.
            splitter = Splitter()
            clauses = (*splitter.feed(phrase), *splitter.flush())
            texts += (phrase, *(clause.text for clause in clauses if clause.text != phrase))
        if self.limits.filler_s:
            texts += persona.stock_words.fillers
        await self.phrases.prepare(self.tts, texts, persona.voice, persona.language)

    async def warm_up(self) -> None:
        """Let the providers connect: a call will begin in a moment.  Never raises for theirs."""
        await self._warm(self.model or self.stt, self.llm, self.tts)

    async def keep_warm(self) -> None:
        """Do the same in a call, whose recogniser is connected: a reply will be asked for."""
        await self._warm(self.llm, self.tts)

    async def _warm(self, *providers: object) -> None:
        with trio.move_on_after(WARM_UP_S):
            async with trio.open_nursery() as nursery:
                for provider in providers:
                    if isinstance(provider, WarmsUp):
                        nursery.start_soon(provider.warm_up, self.persona.language)


def agent_from(
    settings: Settings, stt: STT, llm: LLM, tts: TTS, model: SpeechToSpeech | None = None
) -> Agent:
    """Make the agent that the settings describe, on these providers."""
    greeting = settings.greeting
    if greeting is None:
        greeting = default_greeting(settings.language)
    return Agent(
        stt=stt,
        llm=llm,
        tts=tts,
        model=model,
        persona=Persona(
            prompt=settings.prompt,
            greeting=greeting,
            language=settings.language,
            voice=settings.tts_voice,
            phrases=tuple(filter(None, map(str.strip, settings.cache_phrases.split("|")))),
        ),
        rules=TurnRules(
            window_ms=settings.speech_window_ms,
            end_silence_ms=settings.end_silence_ms,
            pause_ms=0 if settings.speculation == "off" else settings.pause_ms,
            long_silence_ms=settings.long_silence_ms,
            barge_in_ms=settings.barge_in_ms,
            barge_in_key=settings.barge_in_key or "",
        ),
        limits=CallLimits(
            idle_prompt_s=settings.idle_prompt_s,
            idle_prompts=settings.idle_prompts,
            max_call_s=settings.max_call_s,
            lead_s=settings.playback_lead_ms / 1000,
            filler_s=settings.filler_ms / 1000,
            speculates_speech=settings.speculation == "full",
        ),
        vad=lambda: GatedVad(mode=settings.vad_mode),
        transfers=settings.transfer_numbers,
    )
