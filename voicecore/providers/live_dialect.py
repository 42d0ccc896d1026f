"""What tells one live recogniser from another, without any I/O.

The engine (`live`) connects, sends, receives, keeps alive, reconnects, replays, and chooses the
words of an utterance.  A vendor is a `Dialect`, one object for each session: it knows where to
connect, how audio is put into messages, and what the messages that come back say.

    class Parrot:                                       # a whole vendor
        rules = Rules(finalise=('{"type": "flush"}',), keep_alive='{"type": "ping"}')

        def __init__(self, key: str, language: str) -> None:
            url = f"wss://parrot.example/listen?language={language}"
            self.endpoint = Endpoint("parrot", url, (("Authorization", key),), '{"type": "bye"}')

        def audio(self, mulaw: bytes) -> bytes: ...
        def receive(self, message: str | bytes) -> Iterable[Event]: ...

    async with open_live_stt("parrot", lambda language: Parrot(key, language)) as stt: ...

All times of a dialect are seconds of *its* stream: 0 is the first byte given to `audio`, and every
8000 bytes given to it are one second.  Where that lies in the call, the engine knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..contracts import TurnHint
from ..errors import ProviderError, ProviderFault
from .websocket import Endpoint


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is to be written, or more where the vendor times no single words."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Words:
    """What is said in the stretch of the stream from `start_s` to `end_s`; maybe nothing.

    An interim stretch (`is_final` false) replaces the interim stretch before it.  A final one
    replaces what was known of its time, and its end is how far the stream is done with: nothing
    before it will be sent again after a reconnect.
    """

    words: tuple[Word, ...]
    start_s: float
    end_s: float
    is_final: bool

    @classmethod
    def of(cls, text: str, start_s: float, end_s: float, is_final: bool) -> Words:
        """Make it from a text whose words have no times."""
        words = (Word(text.strip(), start_s, end_s),) if text.strip() else ()
        return cls(words, start_s, end_s, is_final)


@dataclass(frozen=True, slots=True)
class Finalized:
    """The answer to `Rules.finalise` is complete.  Comes behind the `Words` that it completes."""


@dataclass(frozen=True, slots=True)
class Hint:
    """The vendor has concluded something about the turn."""

    hint: TurnHint


@dataclass(frozen=True, slots=True)
class Failed:
    """The vendor says that it failed, or says what nobody understands: the session ends.

    A `websocket.Refusal` is not tried again before the next utterance.
    """

    error: ProviderError


Event = Words | Finalized | Hint | Failed


@dataclass(frozen=True, slots=True)
class Rules:
    """How a vendor wants to be spoken to, in values."""

    opening: tuple[str, ...] = ()
    """Messages to begin with."""

    least_bytes: int = 480
    most_bytes: int = 2000
    """Audio in one message.  Less than `least_bytes` is sent only when an utterance has ended and
    `sends_tail` allows it; more than the least is sent when a backlog is caught up with."""
    sends_tail: bool = True

    speed: float = math.inf
    """Seconds of audio that may be sent in a second, on average since the session began."""

    finalise: tuple[str, ...] = ()
    """Asks for the words of everything that was sent."""
    finalise_after_s: float = 0.0
    """How long an utterance may wait for its words by themselves before that is asked."""

    quiet_s: float = math.inf
    """Silence of the vendor, after `finalise`, that means: there are no words.  Infinite for
    vendors who answer to silence too; theirs is the silence of a dead session."""

    interims_stand: bool = False
    """Whether an interim stretch up to the utterance's end is as good as a final one."""

    keep_alive: str = ""
    """Sent after `keep_alive_s` in which nothing else was; where there is no such message, that
    much silence is."""
    keep_alive_s: float = 3.0

    close_faults: Mapping[int, ProviderFault] = field(default_factory=dict)
    """Close codes that mean more than a cut; ``refused`` and ``busy`` are not tried again before
    the next utterance."""


class Dialect(Protocol):
    """One session's language.  Made anew for each session; any method may keep state."""

    @property
    def rules(self) -> Rules:
        """The same for all sessions of a vendor."""

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect, with which headers, and what to say before leaving."""

    def audio(self, mulaw: bytes) -> str | bytes:
        """Put audio, never empty, into a message.  What is rendered is sent, in this order."""

    def receive(self, message: str | bytes) -> Iterable[Event]:
        """Understand a message.  Unknown kinds say nothing; what cannot be read is `Failed`."""
