"""One answer of OpenAI's Realtime API: filled in by its session, read by its turn.

What becomes of it in the model's memory is settled once the server has said that it is done, and
its turn what was heard of it, in whatever order: nothing can be taken out of an answer that is
still being added to.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import trio

from ..audio import SAMPLE_RATE
from ..contracts import Question, Sound, ToolCall
from ..errors import ProviderError
from . import realtime_wire as wire
from .realtime_items import Items

NAME = "openai-realtime"

QUIET_S = 4.5
"""How long it may take to begin, and to go on."""

SETTLE_S = 1.5
"""How long it may take to stop, once that was asked for: there can be only one."""

MAX_AUDIO_BYTES = 120 * SAMPLE_RATE
"""Ahead of its reader.  It comes many times faster than it is spoken."""

MAX_CHARACTERS = 8000


class Answer:
    """One answer.  `number` is what it was asked for by; `say` sends a message to its session."""

    def __init__(self, number: str, say: Callable[[str], None]) -> None:
        self.number = number
        self.question_id = ""
        """The conversation's item with what it answers, once known."""
        self.response_id = ""
        self.items = Items()
        """What it is in the conversation."""
        self.is_over = False
        """Whether the server is done with it: nothing is added to the conversation any more."""
        self.settles_by = math.inf
        """When it must be over."""
        self._say = say
        self._words: str | None = None
        self._deafness: ProviderError | None = None
        self._failure: ProviderError | None = None
        self._sounds: deque[Sound] = deque()
        self._waiting_bytes = self._characters = 0
        self._speaking = ""
        """The item whose words came last."""
        self._is_left = self._forgets_question = False
        self._is_whole = False
        self._heard_ms: int | None = None
        """What the caller heard of it, if not all."""
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Answer {self.number} {self.response_id} is_over={self.is_over}>"

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> Sound:
        give_up_at = trio.current_time() + QUIET_S
        while not self._sounds:
            if self._failure is not None:
                raise self._failure
            if self.is_over:
                raise StopAsyncIteration
            with trio.move_on_at(give_up_at) as patience:
                await self._changed.park()
            if patience.cancelled_caught:
                raise ProviderError(NAME, "timeout", f"nothing for {QUIET_S:g} s")
        sound = self._sounds.popleft()
        if isinstance(sound, bytes):
            self._waiting_bytes -= len(sound)
        return sound

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been made, and has come."""
        return self._is_whole

    async def question(self) -> str:
        """Return the caller's words; waits until the recogniser has them."""
        while self._words is None:
            if self._deafness is not None:
                raise self._deafness
            await self._changed.park()
        return self._words

    def rest(self) -> list[Sound]:
        """Return what had come and was not taken."""
        return list(self._sounds)

    def heard(self, milliseconds: int) -> None:
        """Cut the answer, in the model's memory, at what was heard."""
        self._heard_ms = milliseconds
        self._settle()

    def forget(self) -> None:
        """Take answer and question out of the model's memory."""
        self._forgets_question = True
        self.heard(0)

    def leave(self) -> None:
        """Nobody reads it any more: if it is still being made, that stops."""
        self._is_left = True
        if not self.is_over:
            self.settles_by = trio.current_time() + SETTLE_S
            self._say(wire.cancel(self.response_id))

    def begin(self, response_id: str) -> None:
        """The server has begun to make it.  A cancel from before may have come too early."""
        self.response_id = response_id
        if self._is_left:
            self._say(wire.cancel(response_id))

    def ask(self, question: Question) -> None:
        """Ask for it.  Of speech, item and words will become known."""
        if question is None:
            self._words = ""
        elif isinstance(question, str):
            self.question_id, self._words = f"typed_{self.number}", question
            self._say(wire.type_in(self.question_id, question))
        elif question:
            for text in wire.say(question, self.number):
                self._say(text)
        else:
            self.question_id, self._words = f"go_on_{self.number}", ""
            self._forgets_question = True  # it is said for this one time
            self._say(wire.go_on(self.question_id))
        self._say(wire.ask(self.number))

    def understand(self, words: str) -> None:
        """The caller's words are known."""
        self._words = words
        self._changed.unpark_all()

    def misunderstand(self, error: ProviderError) -> None:
        """They never will be."""
        self._deafness = error
        self._changed.unpark_all()

    def add_audio(self, item_id: str, audio: bytes) -> None:
        """More of its audio has come."""
        if self._is_left or not audio:
            return
        self.items.add_audio(item_id, len(audio))
        self._waiting_bytes += len(audio)
        if self._waiting_bytes > MAX_AUDIO_BYTES:
            self.fail(ProviderError(NAME, "garbage", "an answer without end"))
        else:
            self._add(audio)

    def add_words(self, text: str, item_id: str) -> None:
        """More of its words have come; those of another item begin with a space."""
        if self._characters and item_id != self._speaking:
            text = f" {text}"
        self._speaking = item_id
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            self.fail(ProviderError(NAME, "garbage", "an answer without end"))
        elif text:
            self._add(text)

    def add_whole_words(self, text: str, item_id: str) -> None:
        """All words of an item have come; they are news only if they did not come in pieces."""
        if item_id != self._speaking:
            self.add_words(text, item_id)

    def add_call(self, item: wire.Item) -> ToolCall | None:
        """It asks for a tool; return the call, unless there are too many."""
        call = self.items.add_call(item)
        if call is not None:
            self._add(call)
        return call

    def finish(self, response: wire.Response) -> None:
        """The server is done with it."""
        error = response.error
        if cost := response.cost:
            self._add(cost)
        if response.status == "failed":
            busy = error.name in wire.BUSY
            detail = f"the answer failed {wire.plain(error.name)}".rstrip()
            self.fail(ProviderError(NAME, "busy" if busy else "status", detail))
        elif response.status == "cancelled":
            self.fail(ProviderError(NAME, "cut", "the answer was stopped"))
        self._is_whole = response.status in ("completed", "incomplete") and not self._is_left
        self.end()

    def fail(self, error: ProviderError) -> None:
        """No more of it is wanted, or will come."""
        self._failure = self._failure or error
        self._changed.unpark_all()

    def end(self) -> None:
        """The server is done with it, or there is no server any more."""
        self.is_over = True
        self._settle()
        self._changed.unpark_all()

    def _add(self, sound: Sound) -> None:
        if not self._is_left and self._failure is None:
            self._sounds.append(sound)
            self._changed.unpark_all()

    def _settle(self) -> None:
        """Let the model remember what the caller heard."""
        if not self.is_over:
            return
        if self._heard_ms is not None:
            for message in self.items.cut(self._heard_ms, self._is_whole):
                self._say(message)
        if self._forgets_question and self.question_id:
            self._say(wire.forget(self.question_id))
            self.question_id = ""
