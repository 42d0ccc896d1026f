"""What the built-in tools can do in the reply that they are used in.

On a line that is live the caller's keys come to us, and we know what was heard.  Where the carrier
plays and collects by itself (the recording flow), there is no such line: then what is wanted is
noted here, and becomes the carrier's next instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from ..audio import SAMPLE_RATE
from ..audio.dtmf import tones
from .keypad import Keypad
from .playback import Player
from .toolbox import CallInfo
from .transfer import Operator, Transfer
from .voice import Voice


@dataclass(frozen=True, slots=True)
class LiveLine:
    """A call's line, as far as tools must know it."""

    player: Player
    keypad: Keypad


@dataclass(frozen=True, slots=True)
class Desk:
    """What the tools of one call work with."""

    info: Callable[[], CallInfo]
    spare: trio.Nursery
    """Where tools run that an interruption spares; of the call's length."""
    tool_done: Callable[[str, str], None]
    """Takes a result that its turn did not live to see: the tool call's id, and the text."""
    line: LiveLine | None = None
    operator: Callable[[], Operator | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Gather:
    """Keys that the carrier shall collect: so many, or until a key, or until nothing comes."""

    call_id: str
    """The tool call that they are the result of."""
    count: int | None
    terminator: str
    timeout_s: float


ALMOST_S = 0.1
"""How soon to ask again while words are on their way to be spoken."""


class Hands:
    """One reply's."""

    def __init__(
        self,
        desk: Desk,
        voice: Voice,
        hush: Callable[[], None],
        has_words: Callable[[], bool],
    ) -> None:
        self.ends_call = False
        self.transfer: Transfer | None = None
        """With whom the call goes on, once this reply was heard."""
        self.gather: Gather | None = None
        """What the carrier must collect, once this reply was heard."""
        self.desk = desk
        self.hush = hush
        """Breaks off what is being said before a tool's result."""
        self._voice = voice
        self._has_words = has_words

    @property
    def is_last(self) -> bool:
        """Whether this reply is the last of this call here, or for now."""
        return self.ends_call or self.transfer is not None or self.gather is not None

    @property
    def is_all_spoken(self) -> bool:
        """Whether no words wait to be spoken."""
        return not self._has_words()

    def reset(self) -> None:
        """Nothing was asked for."""
        self.ends_call, self.transfer, self.gather = False, None, None

    async def press(self, keys: str) -> None:
        """Let the other side hear keys, behind what was said before.

        Raises:
            ValueError: one of them is no key.
        """
        await self._voice.sound(tones(keys))

    def seconds_left(self) -> float:
        """How long the caller will hear what was said so far; more than 0 while there is more."""
        speech = self._voice.speech
        if self.desk.line is None:
            return 0.0
        left = self.desk.line.player.seconds_left(speech)
        left = max(left, (speech.end - speech.sent) / SAMPLE_RATE)
        return left if self.is_all_spoken else max(left, ALMOST_S)
