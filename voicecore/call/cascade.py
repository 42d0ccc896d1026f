"""Turns of an agent that listens, thinks and speaks in three stages: words to words to speech.

A live recogniser's words often stand at the pause, before they are final: the reply is begun with
them, and begun again if they turn out to be others.  Nothing is played before they are final.
"""

from __future__ import annotations

import trio

from ..contracts import LiveTranscription, Transcription
from ..dialogue.history import same_words
from ..errors import ProviderError
from .reply import Reply
from .turn import Turn, clean


class CascadeTurn(Turn):
    """One turn, from the caller's words to the agent's."""

    def _new_reply(self) -> Reply:
        speech = self._talk.player.new_speech(self.name)
        reply = Reply(self._talk.agent, speech, self.timeline, self._talk.desk)
        self._hold_back(reply)
        return reply

    def _hold_back(self, reply: Reply) -> None:
        """Use tools only when everything is certain, and pay for TTS then, if the agent wants."""
        reply.writing.may_act = self.certain
        if not self._talk.agent.limits.speculates_speech:
            reply.may_speak = self.gate

    async def _think(self) -> None:
        if self.words is not None:
            self._understood.set()
            history = self._talk.history
            said = history.with_caller(self.words) if self.words else history.messages
            await self.reply.produce(said)
            return
        async with trio.open_nursery() as nursery:
            guess = _Guess()
            if self._talk.agent.rules.pause_ms:
                nursery.start_soon(self._try, guess, name="guess")
            try:
                self.words = await self._transcribe()
            except ProviderError:
                await self._take_back(guess)
                raise
            if self.words and not self.is_committed:
                self._talk.note_words(self.words)
            if not guess.is_right(self.words):
                await self._take_back(guess)
                self.timeline.transcribed = trio.current_time()
            # Before anybody plays the reply: it may become another.
            is_taken_over = bool(self.words) and not guess.words and await self._take_over()
            self._understood.set()
            if not self.words:
                return
            stt = self.timeline.breakdown().get("stt")
            self.timeline.milestone("user said", turn=self.name, text=self.words, stt=stt)
            if is_taken_over:
                await self.reply.produce()
            elif not guess.words:
                await self.reply.produce(self._talk.history.with_caller(self.words))

    async def _try(self, guess: _Guess) -> None:
        """Begin the reply with words that are not final, as soon as there are any."""
        listener = self._talk.listener
        if not isinstance(listener, LiveTranscription):
            return
        guess.left = trio.Event()
        with guess.scope:
            words = clean(await listener.standing(self.utterance))
            has_answer = self._lost is not None and same_words(self._lost.words or "", words)
            if words and not has_answer and not guess.scope.cancel_called:
                guess.words = words
                self.timeline.transcribed = trio.current_time()
                await self.reply.produce(self._talk.history.with_caller(words))
        guess.left.set()

    async def _take_back(self, guess: _Guess) -> None:
        """The caller said something else, or nothing: what was begun for the guess never was."""
        guess.scope.cancel()
        if guess.left is not None:
            await guess.left.wait()
        if not guess.words:
            return
        self._talk.log.milestone("guess taken back", tokens=self.reply.tokens)
        self.timeline.begin_again()
        self.reply = self._new_reply()
        guess.words = ""

    async def _take_over(self) -> bool:
        """Take the reply of the lost speculation if nothing was said since: it was paid for."""
        lost, self._lost = self._lost, None
        if lost is None or not same_words(lost.words or "", self.words or ""):
            return False
        reply = lost.reply
        if not isinstance(reply, Reply) or not reply.is_written:
            return False
        await lost.finished.wait()
        reply.move_to(self.timeline)
        self._hold_back(reply)
        self.reply = reply
        return True

    async def _transcribe(self) -> str:
        patience = self._talk.words_s
        with trio.move_on_after(patience):
            assert isinstance(self._talk.listener, Transcription)
            transcript = await self._talk.listener.transcript(self.utterance)
            return clean(transcript.text)
        raise ProviderError("stt", "timeout", f"nothing for {patience:.1f} s")


class _Guess:
    """A reply that is begun with words that are not final."""

    def __init__(self) -> None:
        self.words = ""
        """The words that it was begun with; empty if it was not."""
        self.scope = trio.CancelScope()
        self.left: trio.Event | None = None
        """Set when nothing of it runs any more; None if nothing ever did."""

    def is_right(self, words: str) -> bool:
        """Whether these, the final ones, are the words."""
        return bool(self.words) and same_words(self.words, words)
