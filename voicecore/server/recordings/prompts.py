"""What the recording flow's callers hear, as files that the carrier fetches.

A file's name cannot be guessed, and is all that it takes to hear it: carriers do not sign these
requests.  Any worker serves it; after a while it is gone.  What cannot be rendered in time is words
for the carrier's own voice.
"""

from __future__ import annotations

import logging
import secrets
from functools import partial

import trio

from ...audio import SAMPLE_RATE, wav
from ...call.agent import Agent
from ...twilio.twiml import Prompt
from ..port.boundary import attempted
from ..store import VALUE_BYTES, Store

log = logging.getLogger("voicecore.server")

AUDIO_S = 600.0
"""How long a file is there: the carrier fetches it at once, or after what is played before it."""

AUDIO_PATH = "/voice/audio/"

MOST_BYTES = VALUE_BYTES // 2 - 1024
"""Of mu-law: its WAV file has 16 bits a sample, and a head.  Nearly nine minutes."""

_KIND = "audio"


class Prompts:
    """Makes prompts of what an agent says; `store` is where the files are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_preparing = False

    async def prompt(self, agent: Agent, base: str, text: str, audio: bytes) -> Prompt:
        """Return `audio` as a file on our origin `base`, or else `text` in the agent's voice."""
        if not audio and not text:
            return Prompt(seconds=0)
        if not audio:
            audio = await self._phrase(agent, text) or b""
        if not audio:
            return Prompt(words=text, language=agent.persona.language)
        name = secrets.token_urlsafe(16)
        await trio.lowlevel.checkpoint()  # to make the file takes a moment of its own
        try:
            await self._store.put(_KIND, name, wav.telephone_bytes(audio[:MOST_BYTES]), AUDIO_S)
        except OSError as error:  # a full disk
            log.warning("audio is not kept", extra={"fields": {"why": str(error)}})
            return Prompt(words=text, language=agent.persona.language)
        return Prompt(url=f"{base}{AUDIO_PATH}{name}.wav", seconds=len(audio) / SAMPLE_RATE)

    async def prepare(self, agent: Agent) -> None:
        """Render what the recording flow may have to say at once, if nobody does yet."""
        if self._is_preparing:
            return
        self._is_preparing = True
        words = agent.persona.stock_words
        try:
            for text in (
                *words.fillers,
                words.unheard,
                *words.texts,
                words.cut_off,
                words.no_answer,
            ):
                await self._phrase(agent, text)
        finally:
            self._is_preparing = False

    async def _phrase(self, agent: Agent, text: str) -> bytes | None:
        persona = agent.persona
        spoken = (agent.tts, text, persona.voice, persona.language)
        return await attempted("a phrase", partial(agent.phrases.rendered, *spoken))


async def published(store: Store, name: str) -> bytes | None:
    """Return the WAV file of a name; None: there is none, or no longer."""
    return await store.get(_KIND, name)
