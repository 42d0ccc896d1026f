"""One call's live recognition: always listening, reconnecting, asked for words at each pause.

A session runs from the first frame on.  When it drops, another is opened, and hears again what is
not known yet: what was fed and what is final are both counted, so that is exact.  When none can be
had, the next question is a `ProviderError`, and the one after that tries again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from ..audio import SAMPLE_RATE
from ..contracts import Transcript, TurnHint
from ..errors import ProviderError
from .live_dialect import Dialect
from .live_session import Ear, Question, Session
from .live_words import Ask, confidence, joined
from .redial import Redial
from .websocket import WebSocket

logger = logging.getLogger(__name__)

ANSWER_S = 5.0
"""How long an utterance may wait for its words, a reconnect included; one that was never fed also
as long as it takes to say it, for some vendors take audio hardly faster."""

GRACE_S = 0.3
"""What a final transcript may come later than an interim one that reaches as far."""

LITTLE, LITTLE_S = SAMPLE_RATE // 4, 1.5
"""So little audio a vendor may let go of without a word about it, when asked to finish; that is
believed after so long.  It matters only where no more audio comes, not even silence."""

SILENT_S = 2.0
"""A session that says nothing for so long to somebody who waits is dead."""

ATTEMPTS = 3
"""Failures that one question for words waits through."""

MAX_CHARACTERS = 4000

PAUSE = SAMPLE_RATE * 16 // 100
"""How much of an utterance's end is silence when its words are asked for: 100 ms of pause, a
frame's delay, and as much again as words are timed inexactly."""

Open = Callable[[], AbstractAsyncContextManager[tuple[Dialect, WebSocket]]]
"""Connects, or takes a connection that is open."""


class LiveCall:
    """A `LiveTranscription`, as long as `run` runs."""

    def __init__(self, provider: str, connection: Open) -> None:
        self._provider = provider
        self._connection = connection
        self._ear = Ear()
        self._session: Session | None = None
        self._is_fed = False
        self._begun = trio.Event()
        self._redial = Redial(ATTEMPTS)

    def feed(self, frame: bytes) -> None:
        """Take the next frame of the line.  Never blocks; the oldest audio is let go of."""
        ear = self._ear
        ear.held.append(frame)
        self._is_fed = True
        if self._session is None:
            self._begun.set()
            ear.forget()
        elif self._session.wants(ear.held.end):
            ear.more.set()

    @property
    def partial(self) -> str:
        """The words of the present utterance as far as they are known."""
        return joined(self._ear.words.present)[:MAX_CHARACTERS]

    async def standing(self, utterance: bytes) -> str:
        """Wait until words are known to where the last pause of `utterance` began."""
        await trio.lowlevel.checkpoint()
        while not (self._is_fed and utterance):
            await self._ear.changed.park()
        end = self._ear.held.end_of(utterance)
        while not (words := self._ear.words.standing(utterance, end, PAUSE)):
            await self._ear.changed.park()
        return joined(words)[:MAX_CHARACTERS]

    def hint(self) -> TurnHint | None:
        """Return the next conclusion about the turn that was not returned yet."""
        return self._ear.hints.popleft() if self._ear.hints else None

    @property
    def dropped(self) -> int:
        """Bytes of audio that were let go of before they were sent."""
        return self._ear.dropped

    async def transcript(self, utterance: bytes) -> Transcript:
        """Return the words of `utterance`, which ends with what was fed last, or shortly before.

        If that, or a part of it, was never fed, it is sent now.

        Raises:
            ProviderError: no session can be had, or its vendor does not answer.
        """
        if not utterance:
            return Transcript("")
        patience = ANSWER_S if self._is_fed else ANSWER_S + len(utterance) / SAMPLE_RATE
        question = Question(self._ask(utterance), trio.current_time())
        self._ear.question = question
        self._redial.ask()
        for event in (self._begun, self._ear.more):
            event.set()
        try:
            with trio.move_on_after(patience):
                await self._wait_for(question)
                question.ask.answered = True
                words = self._ear.words.words_of(question.ask)
                return Transcript(joined(words)[:MAX_CHARACTERS], confidence(words))
        finally:
            if self._ear.question is question:
                self._ear.question = None
        raise ProviderError(self._provider, "timeout", f"no words within {patience:g} s")

    def _ask(self, utterance: bytes) -> Ask:
        if self._is_fed:
            ask = self._ear.words.ask(utterance, self._ear.held.end_of(utterance))
            if not self._ear.lacks(ask):
                return ask
        return self._ear.feed_again(utterance)

    async def _wait_for(self, question: Question) -> None:
        """Wait until the words of an utterance are there."""
        failures = self._redial.failures
        while not self._is_answered(question):
            if failure := self._redial.hopeless(failures):
                raise failure
            with trio.move_on_at(self._next_look(question)):
                await self._ear.changed.park()
            if self._session is not None and trio.current_time() >= self._dead_at(question):
                self._session.give_up(ProviderError(self._provider, "timeout", "a silent session"))

    def _is_answered(self, question: Question) -> bool:
        now, words, session = trio.current_time(), self._ear.words, self._session
        missing = question.target - words.reached
        if words.covered >= question.target:
            return True
        if missing <= 0 and now >= question.began + GRACE_S:
            return True
        if session is None:
            return False
        if session.settled >= question.target or (missing <= 0 and session.rules.interims_stand):
            return True
        if not session.has_asked(question):
            return False
        patience = min(session.rules.quiet_s, LITTLE_S if missing <= LITTLE else math.inf)
        if session.rules.quiet_s < math.inf and session.heard_at < session.finalised_at:
            return False
        return now >= session.finalised_at + patience

    def _next_look(self, question: Question) -> float:
        """When time alone may answer a question."""
        times = [question.began + GRACE_S]
        if (session := self._session) is not None:
            times.append(self._dead_at(question))
            if session.has_asked(question):
                times += [session.finalised_at + s for s in (LITTLE_S, session.rules.quiet_s)]
        now = trio.current_time()
        return min((time for time in times if time > now), default=math.inf)

    def _dead_at(self, question: Question) -> float:
        """When the session's silence means that it is dead."""
        session = self._session
        if session is None:
            return math.inf
        if session.rules.quiet_s < math.inf:
            silent = session.has_asked(question) and session.heard_at < session.finalised_at
            return session.finalised_at + session.rules.quiet_s if silent else math.inf
        if session.sent < question.target:
            return math.inf  # it has not heard all yet, and may have nothing to say
        return max(question.began, session.opened_at, session.heard_at) + SILENT_S

    async def run(self) -> None:
        """Keep a session going, from the first frame or question on."""
        await self._begun.wait()
        while True:
            self._redial.fail(failure := await self._converse())
            self._ear.changed.unpark_all()
            logger.warning("live session lost: %s", failure)
            await self._redial.wait()

    async def _converse(self) -> ProviderError:
        """Hold one session; return how it ended."""
        try:
            async with self._connection() as (dialect, socket):
                self._session = session = Session(self._ear, dialect, socket)
                self._ear.changed.unpark_all()
                try:
                    return await session.run()
                finally:
                    self._session = None
                    if session.has_heard_words:
                        self._redial.succeed()
        except ProviderError as error:
            return error
