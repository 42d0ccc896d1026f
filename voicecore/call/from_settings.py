"""What stands in an agent for providers that are not open yet.

    agent = Agent(persona=Persona(prompt="…"))                     those that the settings name
    agent = Agent(stt=FromSettings("openai"), persona=…)  those, with the settings' keys

The server opens them, once for all agents that want the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NoReturn

from ..contracts import Delta, Message, Tool, Transcription
from ..errors import LocalProtocolError


@dataclass(frozen=True, slots=True)
class FromSettings:
    """Providers by name, as VOICECORE_STT, _LLM or _TTS would have them, and their models.

    Empty: as these variables say.
    """

    names: str = ""
    models: str = ""

    def listen(self, language: str) -> AbstractAsyncContextManager[Transcription]:
        """Fail: nothing is open."""
        self._complain()

    def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AbstractAsyncContextManager[AsyncIterable[Delta]]:
        """Fail: nothing is open."""
        self._complain()

    def speak(
        self, text: str, voice: str, language: str
    ) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        """Fail: nothing is open."""
        self._complain()

    def _complain(self) -> NoReturn:
        raise LocalProtocolError("this agent's providers are not open: voicecore.serve opens them")


FROM_SETTINGS = FromSettings()
