"""What the vendors of a bench say, and how long they take for it."""

from __future__ import annotations

from dataclasses import dataclass

from voicecore.dialogue.sentences import Splitter

TOKENS = (
    "Good", " question", ",", " let", " me", " look", " that", " up", " for", " you", " and",
    " call", " you", " back", " today", ".",
)  # fmt: skip
"""The reply, as a model's tokenizer cuts it."""


@dataclass(frozen=True)
class Delays:
    """How long the vendors take.  Milliseconds."""

    stt_ms: float = 0
    live_ms: float = 0
    llm_ms: float = 0
    token_ms: float = 0
    tts_ms: float = 0

    @property
    def clause_ms(self) -> float:
        """When the token comes with which the reply's first clause stands."""
        return self.llm_ms + self.token_ms * _clause_token()


def _clause_token() -> int:
    splitter = Splitter()
    return next(at for at, token in enumerate(TOKENS) if splitter.feed(token))
