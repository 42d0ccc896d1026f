"""Turns of an agent whose model hears and speaks: sound in, sound out, no text in between.

The call, its player, its history and its rules are the same.  What differs: the model's audio comes
with its words instead of being made from them, and what the caller said is known late, from the
model's own recogniser; an interruption waits for that, to tell a cough from a question.

The model has a memory of its own.  It must hold what the caller heard, no more and no less: every
turn ends by telling it what it does not know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from ..audio import SAMPLE_RATE
from ..contracts import Dialogue, Message, Sound, SpokenAnswer, ToolCall, Usage
from ..dialogue.sentences import Clause
from ..errors import ProviderError
from .speech import Speech
from .timeline import TurnTimeline
from .tools import END_CALL
from .transfer import Transfer
from .turn import Conversation, Outcome, Turn, clean
from .voice import Voice
from .writing import FIRST_S, IDLE_S

QUESTION_S = 3.0
"""How long the caller's words may take to become known, once the answer stands."""

UNKNOWN = "[not transcribed]"
"""What stands in the history for words that never became known."""


class SpokenReply:
    """One reply that comes as sound.  Survives being cut, so that it can go on."""

    def __init__(self, talk: Conversation, speech: Speech, timeline: TurnTimeline) -> None:
        assert isinstance(talk.listener, Dialogue)
        self.speech = speech
        self.ends_call = False
        self.voice = Voice(talk.agent, speech, timeline)
        self._history = talk.history
        self._dialogue = talk.listener
        self._answer: SpokenAnswer | None = None
        """What the model makes it of, as long as it may have to be told how much was heard."""
        self._answer_from: int | None = None
        self._answer_until: int | None = None
        """Bytes of the speech that are this answer's: behind a filler, before an apology."""
        self._apology = ""
        self._remembered = ""
        """What of the text the model knows of, apart from its answer."""
        self._rest: deque[Sound] = deque()
        """What has come and is not in the speech yet."""
        self._ready: Clause | None = None
        """A ready text that is not spoken to its end."""
        self._is_begun = self._is_written = False
        self._tokens = 0

    def __repr__(self) -> str:
        return f"<SpokenReply {self.speech.spoken.text!r:.60}>"

    @property
    def is_begun(self) -> bool:
        """Whether there is anything to say, or to think about."""
        return self._is_begun

    @property
    def is_complete(self) -> bool:
        """Whether the speech holds all of it."""
        return self._is_written and not self._rest and self._ready is None

    @property
    def tokens(self) -> int:
        """What the model was asked to make so far."""
        usage = self.voice.timeline.usage
        return self._tokens if usage is None else usage.completion

    @property
    def transfer(self) -> Transfer | None:
        """With whom the call goes on once this was heard: nobody."""
        return None

    def heard(self, position: int | None) -> tuple[list[Message], str]:
        """Return what a history says of it."""
        spoken = self.speech.spoken
        return [], spoken.text if position is None else spoken.heard(position)

    @asynccontextmanager
    async def asked(self, utterance: bytes) -> AsyncIterator[SpokenAnswer]:
        """Ask the model; what comes and is not used by then is kept, for going on.

        Raises:
            ProviderError: it cannot be asked.
        """
        self._is_begun = True
        async with self._dialogue.answer(utterance, self._history.messages) as answer:
            self._answer, self._answer_from = answer, None
            try:
                yield answer
            finally:
                self._rest.extend(answer.rest())
                self._is_written = answer.is_whole

    async def take(self, answer: SpokenAnswer) -> None:
        """Put an answer into the speech, as it comes.

        Raises:
            ProviderError: it failed, or paused for too long.
        """
        sounds, patience = aiter(answer), FIRST_S
        while (sound := await _next(sounds, patience)) is not None:
            patience = IDLE_S
            self._rest.append(sound)
            if isinstance(sound, bytes):
                await self._pour()
        await self._pour()
        if self._answer_from is None and not self.ends_call:
            raise ProviderError("llm", "garbage", "no audio")
        self.speech.spoken.complete()

    async def produce(self, messages: Sequence[Message] | None = None) -> None:
        """Go on: with what had come; then, if that is not all of it, with more.

        Raises:
            ProviderError: the model failed; the speech holds what came before.
        """
        if self._ready is not None:
            await self.say(self._ready.text)
            return
        await self._pour()
        if self._is_written:
            self.speech.spoken.complete()
            return
        self.voice.break_off()
        self._tell(self.speech.spoken.text)  # before it was heard: it must not be said again
        async with self.asked(b"") as answer:
            await self.take(answer)

    async def say(self, text: str) -> None:
        """Make a reply of a ready text.

        Raises:
            ProviderError: the text was not prepared, and TTS failed.
        """
        self._is_begun = self._is_written = True
        self._ready = Clause(text, True)
        await self.voice.speak(self._ready)
        self._ready = None

    async def apologise(self, text: str, audio: bytes) -> None:
        """The model has failed: say this instead; it needs no provider."""
        self._rest.clear()
        self.ends_call, self._apology = False, text
        self._answer_until = self.speech.end
        self.voice.break_off()
        self.voice.ready = {text: audio}
        await self.say(text)

    def forget(self) -> None:
        """It never happened."""
        if self._answer is not None:
            self._answer.forget()
            self._answer = None

    def settle(self, heard: str, is_whole: bool) -> None:
        """Make the model remember what was heard of it: all of it, or only `heard`."""
        if self._answer is None:
            self._tell(heard)
            return
        confirmed = until = self.speech.confirmed
        if self._answer_until is not None:
            until = min(until, self._answer_until)
        if not is_whole:
            start = until if self._answer_from is None else self._answer_from
            self._answer.heard(max(0, until - start) * 1000 // SAMPLE_RATE)
        if confirmed > until:
            self._dialogue.said(self._apology)
        self._answer, self._remembered = None, max(self._remembered, heard, key=len)

    def _tell(self, heard: str) -> None:
        """Tell the model what it does not know of."""
        if self._remembered.startswith(heard):
            return
        self._dialogue.said(heard.removeprefix(self._remembered).strip())
        self._remembered = heard

    async def _pour(self) -> None:
        """Put what has come into the speech."""
        async with self.voice.floor:
            while self._rest:
                await self._put(self._rest.popleft())

    async def _put(self, sound: Sound) -> None:
        timeline = self.voice.timeline
        if isinstance(sound, Usage):
            timeline.usage = sound
        elif isinstance(sound, ToolCall):
            self.ends_call = self.ends_call or sound.name == END_CALL.name
        elif isinstance(sound, str):
            self._tokens += 1
            self.speech.spoken.grow(sound, self.speech.end)
        else:
            if timeline.first_audio is None:
                timeline.first_audio = trio.current_time()
            await self._put_audio(sound)

    async def _put_audio(self, audio: bytes) -> None:
        before = self.speech.end
        if self._answer_from is None:
            self._answer_from = before
        try:
            await self.speech.put(audio)
        except trio.Cancelled:
            self._rest.appendleft(audio[self.speech.end - before :])
            raise


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
        return SpokenReply(self._talk, speech, self.timeline)

    async def _think(self) -> None:
        if self.interrupted is None:
            self._understood.set()
        reply = self.reply
        async with reply.asked(self.utterance) as answer, trio.open_nursery() as nursery:
            nursery.start_soon(self._learn_words, answer, nursery.cancel_scope)
            await reply.take(answer)
            reply.speech.finish()  # though the caller's words may not be known yet

    async def _learn_words(self, answer: SpokenAnswer, scope: trio.CancelScope) -> None:
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
            self._drop_reply(scope)
        if not self.is_committed:
            self._talk.note_words(words)
        self._understood.set()

    def _drop_reply(self, scope: trio.CancelScope) -> None:
        """Nothing was said: nothing is answered, and the model forgets it."""
        self.reply.forget()
        if not self._understood.is_set() or not self.is_committed:  # nobody plays it yet
            self.reply = self._new_reply()
        scope.cancel()

    def _remember_caller(self) -> None:
        if self.words and not self._is_remembered:
            self._is_remembered = True
            self._talk.history.caller_said(self.words)

    def _write_down(self) -> str:
        if self.is_committed:
            self._remember_caller()
        heard = super()._write_down()
        if self.is_committed and self.words is not None:
            self.reply.settle(heard, self.outcome is Outcome.HEARD)
        else:
            self.reply.forget()
        return heard


async def _next(sounds: AsyncIterator[Sound], seconds: float) -> Sound | None:
    with trio.move_on_after(seconds):
        try:
            return await anext(sounds)
        except StopAsyncIteration:
            return None
    raise ProviderError("llm", "timeout", "no sound in time")
