"""Speech to speech by OpenAI's Realtime API: mu-law both ways, one session a call.

Whose turn it is, is ours to decide: the caller's utterance is sent when it may be over, with its
pre-roll and without the silence around it, and an answer is asked for.  What was not heard of an
answer is taken out of the model's memory again.  A session that breaks is replaced by one that is
told what was said so far.

* `realtime_wire`: the messages.  `realtime_answer`: one answer; `realtime_items`: its items.
  `realtime_session`: one session; `realtime_memory`: what it is told.

Names: ``VOICECORE_LLM=openai-realtime`` listens as well; the ready-made phrases are spoken by
VOICECORE_TTS (``openai`` knows the same voices).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import trio

from ..contracts import Message, Question, Tool
from ..errors import ProviderError
from ..settings import Settings
from . import realtime_wire as wire
from .access import base_url_of, key_of, websocket_url
from .http import bearer
from .realtime_answer import NAME as NAME
from .realtime_answer import Answer
from .realtime_session import Session
from .redial import Redial
from .warm_sockets import Line, WarmSockets
from .websocket import Connect, Endpoint, connect_tcp

logger = logging.getLogger(__name__)

MODEL = "gpt-realtime-1.5"
VOICE = "marin"
VOICES = frozenset(
    "alloy ash ballad cedar coral echo marin sage shimmer verse".split()  # noqa: SIM905
)
"""A session with any other is refused; VOICECORE_TTS may know more, and have its own."""

MESSAGE_BYTES = 16 << 20
"""The longest message: the API names no bound, and its own client has none."""

SESSION_S = 3.0
"""How long a question may wait for a session that takes it."""

ATTEMPTS = 2
"""To get a session for one question, unless the vendor does not want us."""

"""At most, in every wait but the first: calls that were cut together shall not come back together.
"""


EVERY_LANGUAGE = ""
"""A session is told its language when it is taken."""


class RealtimeDialogue:
    """One call's conversation, as long as `run` runs; `opening` sets its sessions up."""

    def __init__(self, opening: str, sockets: WarmSockets[None]) -> None:
        self._opening = opening
        self._sockets = sockets
        self._session: Session | None = None
        self._redial = Redial(ATTEMPTS)
        """All of them; those in a row in which nothing was answered."""
        """Set by a question: it does not wait for the next attempt's time."""
        self._changed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<RealtimeDialogue {self._session!r}>"

    def feed(self, frame: bytes) -> None:
        """Do nothing: an utterance is sent when it is there, without the silence around it."""

    def said(self, text: str) -> None:
        """Tell the model what the agent has said without it."""
        if self._session is not None:
            self._session.memory.remember(Message("assistant", text))

    def tool_done(self, call_id: str, result: str) -> None:
        """Tell the model what became of a tool call."""
        if self._session is not None:
            self._session.tool_done(call_id, result)

    @asynccontextmanager
    async def answer(
        self, question: Question, messages: Sequence[Message] = ()
    ) -> AsyncIterator[Answer]:
        """Ask for an answer to `question`; see `contracts.Dialogue`."""
        session = await self._ready_session()
        answer = session.ask(question, messages)
        try:
            yield answer
        finally:
            answer.leave()

    async def _ready_session(self) -> Session:
        """Wait for a session, and for the answer before this one to be over."""
        failures = self._redial.failures
        self._redial.ask()
        with trio.move_on_after(SESSION_S):
            while (session := self._session) is None or not session.is_ready:
                if failure := self._redial.hopeless(failures):
                    raise failure
                await self._changed.park()
            return session
        raise ProviderError(NAME, "timeout", f"no session within {SESSION_S:g} s")

    async def run(self) -> None:
        """Keep a session open until cancelled."""
        while True:
            self._redial.fail(failure := await self._converse())
            self._changed.unpark_all()
            logger.warning("session lost: %s", failure)
            await self._redial.wait()

    async def _converse(self) -> ProviderError:
        """Hold one session; return how it ended."""
        try:
            async with self._sockets.open(EVERY_LANGUAGE) as (_, socket):
                self._session = session = Session(socket, self._opening, self._changed.unpark_all)
                self._changed.unpark_all()
                try:
                    return await session.run()
                finally:
                    self._session = None
                    if session.has_answered:
                        self._redial.succeed()
        except ProviderError as error:
            return error


class RealtimeModel:
    """Converses over sessions of its own."""

    def __init__(self, sockets: WarmSockets[None], model: str) -> None:
        self._sockets = sockets
        self._model = model

    @asynccontextmanager
    async def converse(
        self, prompt: str, tools: Sequence[Tool], voice: str, language: str
    ) -> AsyncIterator[RealtimeDialogue]:
        """Open one call's conversation; the session is made in the background."""
        voice = voice if voice in VOICES else VOICE
        opening = wire.session(self._model, prompt, tools, voice, language)
        dialogue = RealtimeDialogue(opening, self._sockets)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialogue.run, name=NAME)
            yield dialogue
            nursery.cancel_scope.cancel()

    async def warm_up(self, language: str) -> None:
        """Connect for a call that will begin in a moment."""
        await self._sockets.warm_up(EVERY_LANGUAGE)


@dataclass(frozen=True, slots=True)
class OpenAIRealtime:
    """What this vendor offers."""

    llm: RealtimeModel


@asynccontextmanager
async def opened(
    settings: Settings, connect: Connect = connect_tcp
) -> AsyncIterator[OpenAIRealtime]:
    """Make the model; nothing is connected before the first call.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    model = settings.llm_model or MODEL
    address = websocket_url(base_url_of(settings, "openai"), "/realtime")
    url = str(httpx.URL(address).copy_merge_params({"model": model}))
    headers = tuple(bearer(key_of(settings, "openai")).items())
    endpoint = Endpoint(NAME, url, headers, message_bytes=MESSAGE_BYTES)
    if settings.tts_voice and settings.tts_voice not in VOICES:
        logger.warning("%s has no voice %r: it speaks as %s", NAME, settings.tts_voice, VOICE)
    async with trio.open_nursery() as nursery:
        line = Line(None, endpoint)
        sockets = WarmSockets(lambda language: line, nursery, connect)
        yield OpenAIRealtime(RealtimeModel(sockets, model))
        nursery.cancel_scope.cancel()
