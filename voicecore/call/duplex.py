"""Turns of an agent whose model hears and speaks: sound in, sound out, no text in between.

The call, its player, its history and its rules are the same.  What differs: the model's audio comes
with its words instead of being made from them, and what the caller said is known late, from the
model's own recogniser; an interruption waits for that, to tell a cough from a question.

The model has a memory of its own.  It must hold what the caller heard, no more and no less: every
turn ends by telling it what it does not know.
"""

from __future__ import annotations

import trio

from ..contracts import SpokenAnswer
from ..errors import ProviderError
from .spoken_reply import SpokenReply
from .turn import Outcome, Turn, clean

QUESTION_S = 3.0
"""How long the caller's words may take to become known, once the answer stands."""

UNKNOWN = "[not transcribed]"
"""What stands in the history for words that never became known."""


class SpokenTurn(Turn):
    """One turn with a model that hears and speaks."""

    reply: SpokenReply
    _words: str | None = None
    _is_remembered = False

    @property
    def words(self) -> str | None:
        """What the caller said.  Once an answer to it was heard, that was something."""
        if self._words is None and self.reply.speech.first_sent_at is not None:
            return UNKNOWN
        return self._words

    @words.setter
    def words(self, words: str | None) -> None:
        self._words = words

    @property
    def to_go_on_with(self) -> Turn | None:
        """The turn to resume: not this one if nobody knows that it was one."""
        return self if self.reply.is_begun and self.words is not None else self.interrupted

    def _new_reply(self) -> SpokenReply:
        speech = self._talk.player.new_speech(self.name)
        reply = SpokenReply(self._talk, speech, self.timeline)
        reply.may_act = self.certain
        return reply

    async def _think(self) -> None:
        if self._words is not None:
            self._understood.set()
            # Without words, what the history ends with is to be answered: a tool's result.
            await self.reply.answer(self._words or None)
            return
        if self.interrupted is None:
            self._understood.set()
        with trio.CancelScope() as self._thinking:
            await self.reply.answer(self.utterance, self._learn_words)

    async def _learn_words(self, answer: SpokenAnswer) -> None:
        """Find out what the caller said.  A noise is not worth an answer, if it is not too late."""
        words = UNKNOWN
        with trio.move_on_after(QUESTION_S):
            try:
                words = clean(await answer.question())
            except ProviderError as error:
                self._note_failure(error)
        self.timeline.transcribed = trio.current_time()
        self.words = words
        if words:
            stt = self.timeline.breakdown().get("stt")
            self.timeline.milestone("user said", turn=self.name, text=words, stt=stt)
        elif not self.is_committed or self.interrupted is not None or not self.reply.speech.end:
            self._drop_reply()
        if not self.is_committed:
            self._talk.note_words(words)
        self._understood.set()
        if self.is_committed:
            self._remember_caller()

    def _drop_reply(self) -> None:
        """Nothing was said: nothing is answered, and the model forgets it."""
        self.reply.forget()
        if not self._understood.is_set() or not self.is_committed:  # nobody plays it yet
            self.reply = self._new_reply()
        self._thinking.cancel()

    def _remember_caller(self) -> None:
        """As long as the words are not known, it may have been a noise: tools wait for them."""
        if self.words is not None and not self._is_remembered:
            self._is_remembered = True
            super()._remember_caller()

    def _write_down(self) -> str:
        is_real = self.is_committed and self.words is not None
        if is_real:
            self._remember_caller()
        else:
            self.reply.forget()
        heard = super()._write_down()
        if is_real:
            self.reply.settle(heard, self.outcome is Outcome.HEARD)
        return heard
