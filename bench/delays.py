"""What the vendors of a bench say, and how long they and the carrier take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from voicecore.dialogue.sentences import Splitter

TOKENS = (
    "Good", " question", ",", " let", " me", " look", " that", " up", " for", " you", " and",
    " call", " you", " back", " today", ".",
)  # fmt: skip
"""The reply, as a model's tokenizer cuts it."""

PIECE_S, PACE = 0.1, 5
"""The voice gives so much at once, and speaks so many times as fast as one listens."""

CHARACTERS_PER_S, SHORTEST_S = 90, 0.6
"""How long what it says is, and how long at least."""


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

    @property
    def reply_ms(self) -> float:
        """When the reply's last token comes."""
        return self.llm_ms + self.token_ms * (len(TOKENS) - 1)

    @property
    def speech_ms(self) -> float:
        """How long the voice takes to give a whole reply, if it is asked for all of it at once."""
        seconds = max(SHORTEST_S, len("".join(TOKENS)) / CHARACTERS_PER_S)
        return self.tts_ms + (math.ceil(seconds / PIECE_S) - 1) * PIECE_S / PACE * 1000


@dataclass(frozen=True)
class Carrier:
    """How long a carrier takes that records and plays files.  Milliseconds.

    The first is what the server's TwiML says; the others are assumed.
    """

    silence_ms: float = 1000
    """That ends a recording."""
    upload_ms: float = 200
    """From there until the recording is kept."""
    webhook_ms: float = 100
    """Until the server hears of it."""
    download_ms: float = 300
    """From the server's request for the recording to the recording."""

    @property
    def early_ms(self) -> float:
        """From the caller's last sound to the webhook."""
        return self.silence_ms + self.upload_ms + self.webhook_ms

    @property
    def total_ms(self) -> float:
        """All of it: what a caller waits before anybody hears a word."""
        return self.early_ms + self.download_ms


CARRIER = Carrier()


def _clause_token() -> int:
    splitter = Splitter()
    return next(at for at, token in enumerate(TOKENS) if splitter.feed(token))
