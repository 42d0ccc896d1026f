"""A reply that comes as sound: the model's answers and, between them, the tools that they ask for.

The counterpart of `reply`: the same tools, used by the same rules, and the same rounds.  Two tasks:
one asks, hears what the model makes as fast as it comes, and uses the tools; the other puts the
sound into the speech, which takes it at the pace of the caller's ear.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from ..contracts import Dialogue, Message, Question, Sound, SpokenAnswer, ToolCall, Usage
from ..dialogue.sentences import Clause
from ..errors import ProviderError
from .hands import Hands
from .inflow import Inflow
from .recollection import Part, Recollection
from .rounds import Rounds
from .speech import Speech
from .timeline import TurnTimeline
from .tool_use import ToolUse
from .tools import END_CALL
from .transfer import Transfer
from .turn import Conversation
from .voice import Voice
from .writing import FIRST_S, IDLE_S

Learn = Callable[[SpokenAnswer], Awaitable[None]]


class SpokenReply:
    """One reply in the making.  Survives being cut, so that it can go on."""

    def __init__(self, talk: Conversation, speech: Speech, timeline: TurnTimeline) -> None:
        assert isinstance(talk.listener, Dialogue)
        self.speech = speech
        self.is_begun = False
        """Whether there is anything to say, or to think about."""
        self.may_act: trio.Event | None = None
        """What tools wait for: a speculation that is lost must have done nothing."""
        self.voice = Voice(talk.agent, speech, timeline)
        self._inflow = Inflow(self.voice)
        self.hands = Hands(talk.desk, self.voice, self._hush, lambda: not self._inflow.is_empty)
        self._stock_words = talk.agent.persona.stock_words
        self._history = talk.history
        self._dialogue = talk.listener
        self._memory = Recollection(talk.listener, speech)
        self._tools = ToolUse(talk.agent, self.hands, self.voice)
        self._rounds = Rounds()
        self._question: Question = b""
        """What the model is asked next."""
        self._ready: Clause | None = None
        """A ready text that is not spoken to its end.  Nothing comes behind it."""
        self._is_round_made = False
        """Whether the answer of this round has come to its end."""

    def __repr__(self) -> str:
        return f"<SpokenReply {self.speech.spoken.text!r:.60}>"

    @property
    def is_complete(self) -> bool:
        """Whether the speech holds all of it."""
        return self._inflow.is_closed and self._inflow.is_empty and self._ready is None

    @property
    def tokens(self) -> int:
        """What the model was asked to make so far."""
        usage = self.voice.timeline.usage
        return self._inflow.pieces if usage is None else usage.completion

    @property
    def ends_call(self) -> bool:
        """Whether the call is over once this was heard."""
        return self.hands.ends_call

    @property
    def transfer(self) -> Transfer | None:
        """With whom the call goes on once this was heard."""
        return self.hands.transfer

    def heard(self, position: int | None) -> tuple[list[Message], str]:
        """Return what a history says of it: messages, and the last words."""
        spoken = self.speech.spoken
        return self._rounds.heard(spoken.heard_by_step(position), spoken.heard_by_step())

    async def answer(self, question: Question, learn: Learn | None = None) -> None:
        """Make a reply to `question`; `learn` finds out which words they were, meanwhile.

        Raises:
            ExceptionGroup[ProviderError]: the model failed; the speech holds what came before.
        """
        self.is_begun, self._question = True, question
        await self._make(learn)

    async def produce(self, messages: Sequence[Message] | None = None) -> None:
        """Go on: with what had come; then, if that is not all of it, with more.

        Raises:
            ProviderError: a ready text was not prepared, and TTS failed.
            ExceptionGroup[ProviderError]: the model failed; the speech holds what came before.
        """
        await (self._make(None) if self._ready is None else self.say(self._ready.text))

    async def say(self, text: str) -> None:
        """Make a reply of a ready text.

        Raises:
            ProviderError: the text was not prepared, and TTS failed.
        """
        self.is_begun = True
        self._ready = Clause(text, True, self._rounds.step)
        await self.voice.speak(self._ready)
        self._ready = None
        self._inflow.close()

    async def apologise(self, text: str, audio: bytes) -> None:
        """The model has failed: say this instead; it needs no provider."""
        self._inflow.clear()
        self.hands.reset()
        self.voice.break_off()
        self.voice.ready = {text: audio}
        self._memory.add_own(text)
        await self.say(text)

    def forget(self) -> None:
        """It never happened."""
        self._memory.forget()
        self._rounds = Rounds()

    def settle(self, heard: str, is_whole: bool) -> None:
        """Make the model remember what was heard of it, all or only `heard`, and what was done."""
        self._memory.note_results(self._rounds.runs)
        self._memory.settle(heard, is_whole)

    async def _make(self, learn: Learn | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._inflow.run, name="inflow")
            while not self._inflow.is_closed:
                if not self._is_round_made and not self._rounds.runs:
                    await self._ask(learn, nursery)
                    learn = None
                if not self._rounds.runs or await self._use_tools(nursery):
                    await self._finish()

    async def _ask(self, learn: Learn | None, nursery: trio.Nursery) -> None:
        """Have the model answer, and hear all of it."""
        await self._catch_up()
        question, self._question = self._question, b""
        before, last = self.heard(None)  # for a model that has lost its memory
        messages = self._history.with_reply(self.speech.name, last, before)
        async with self._dialogue.answer(question, messages) as answer:
            part = self._memory.begin(answer, self._rounds.step)
            if learn is not None:
                nursery.start_soon(learn, answer, name="words")
            try:
                await self._hear(answer, part)
                self._is_round_made = True
            except ProviderError:
                await self._inflow.drained()  # what has come is said before the apology
                raise
            finally:
                for sound in answer.rest():
                    self._keep(sound, part)
                self._is_round_made = self._is_round_made or answer.is_whole
                if self._is_round_made:
                    self._inflow.add(None, part)

    async def _catch_up(self) -> None:
        """Tell the model what is still to be said of a reply that was cut, before it is asked."""
        if self.speech.end and self._memory.is_settled:
            await self._inflow.drained()
            self.voice.break_off()
            self._memory.tell(self.speech.spoken.text)  # it must not be said again

    async def _hear(self, answer: SpokenAnswer, part: Part) -> None:
        sounds, patience = aiter(answer), FIRST_S
        while (sound := await _next(sounds, patience)) is not None:
            patience = IDLE_S
            self._keep(sound, part)

    def _keep(self, sound: Sound, part: Part) -> None:
        """Take what has come; too much of it is a `ProviderError`."""
        timeline = self.voice.timeline
        if isinstance(sound, Usage):
            timeline.usage = sound if timeline.usage is None else timeline.usage + sound
        elif not isinstance(sound, ToolCall):
            self._inflow.add(sound, part)
        elif sound.name == END_CALL.name:
            self.hands.ends_call = True
        elif self._rounds.may_use_tools:
            self._rounds.want(self._tools.run_of(sound))

    async def _use_tools(self, nursery: trio.Nursery) -> bool:
        """Use the tools of this round; return whether nothing is left to be said then."""
        if self.may_act is not None:
            await self.may_act.wait()
        self.voice.step = self._rounds.step
        is_last = await self._tools.use(self._rounds.runs, nursery)
        self._memory.note_results(self._rounds.runs)
        self._rounds.advance()
        self._is_round_made, self._question = is_last, None
        return is_last

    async def _finish(self) -> None:
        """All has come.  Nobody is hung up on, or given away, without a word.

        Raises:
            ProviderError: there is nothing to be heard, and should be.
        """
        is_silent = not self._inflow.has_audio
        if is_silent and (self.hands.ends_call or self.hands.transfer is not None):
            await self._inflow.drained()
            words = self._stock_words
            text = words.goodbye if self.hands.ends_call else words.connecting
            self._memory.add_own(text)
            await self.say(text)
        elif is_silent and not (self._rounds.step and self._rounds.may_use_tools):
            # After a tool's result there may be nothing left to say; else there must be.
            raise ProviderError("llm", "garbage", "no audio")
        self._inflow.close()

    def _hush(self) -> None:
        """Break off what is being said in this round: the caller has begun to type."""
        self._rounds.hush()
        self._inflow.clear()
        self.voice.break_off()
        self.speech.take_back()
        self._memory.hush()


async def _next(sounds: AsyncIterator[Sound], seconds: float) -> Sound | None:
    with trio.move_on_after(seconds):
        try:
            return await anext(sounds)
        except StopAsyncIteration:
            return None
    raise ProviderError("llm", "timeout", "no sound in time")
