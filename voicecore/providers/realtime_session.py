"""One session of OpenAI's Realtime API: what waits to be sent, and which answer an event is for.

Two tasks: one sends, one receives.  The one that receives never waits for anything but the server.
A session ends when its connection does, when the server says what cannot be lived with, and when it
does not stop an answer that it was told to stop: only one can be made at a time.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence

import trio

from ..contracts import Message, Question
from ..errors import ProviderError, ProviderFault, leaves
from . import realtime_wire as wire
from .realtime_answer import NAME, Answer
from .realtime_memory import Memory
from .websocket import Refusal, WebSocket

logger = logging.getLogger(__name__)

WAITING = 256
"""Messages to be sent.  More than that, and the session is as good as gone."""

ANSWERS = 16
"""Of the newest, events are taken: the words of a question may come long after its answer."""


class Session:
    """One session; `opening` is its first message.  `on_change` is told when an answer is over."""

    def __init__(self, socket: WebSocket, opening: str, on_change: Callable[[], object]) -> None:
        self.has_answered = False
        self._socket = socket
        self._on_change = on_change
        self._post, self._mail = trio.open_memory_channel[str](WAITING)
        self._answers: deque[Answer] = deque(maxlen=ANSWERS)
        self._committing: deque[Answer] = deque(maxlen=ANSWERS)
        """Answers whose questions are on their way, in order."""
        self.memory = Memory(self._say)
        """What the model is told that it has not heard."""
        self._asked = 0
        self._is_lost = False
        self._verdict: ProviderError | None = None
        self._scope = trio.CancelScope()
        self._say(opening)

    def __repr__(self) -> str:
        return f"<Session {self._asked} asked, is_ready={self.is_ready}>"

    @property
    def is_ready(self) -> bool:
        """Whether an answer can be asked for: the one before it is over."""
        return self._unfinished is None and self._verdict is None

    def tool_done(self, call_id: str, result: str) -> None:
        """Tell the model what became of a tool call.

        A call has one result, and is known to its own session: all else is told as text.
        """
        for answer in self._answers:
            if answer.items.keep_call(call_id):
                self._say(wire.give_result(call_id, result))
                return
        self.memory.remember(Message("tool", result, tool_call_id=call_id))

    def ask(self, question: Question, messages: Sequence[Message]) -> Answer:
        """Ask for an answer; see `contracts.Question`."""
        self.memory.tell(messages)
        self._asked += 1
        answer = Answer(str(self._asked), self._say)
        self._answers.append(answer)
        if question and isinstance(question, bytes):
            self._committing.append(answer)
        answer.ask(question)
        return answer

    async def run(self) -> ProviderError:
        """Talk until it ends; return why."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, name="realtime send")
                    while True:
                        self._take(await self._socket.receive())
        except* ProviderError as group:
            errors = [error for error in leaves(group) if isinstance(error, ProviderError)]
            self._verdict = self._verdict or errors[0]
        finally:
            self._lose(self._verdict or ProviderError(NAME, "cut", "the call is over"))
        assert self._verdict is not None
        return self._verdict

    def _lose(self, error: ProviderError) -> None:
        """With the session, what was being answered is lost, and what nobody has written down."""
        self._is_lost = True
        for answer in self._answers:
            if not answer.is_over:
                answer.fail(error)
            answer.misunderstand(error)
            answer.end()

    def _say(self, message: str) -> None:
        """Send a message; to a session that has ended, nothing need be said."""
        if self._is_lost:
            return
        try:
            self._post.send_nowait(message)
        except trio.WouldBlock:
            self._verdict = ProviderError(NAME, "timeout", f"{WAITING} messages are waiting")
            self._scope.cancel()

    async def _send(self) -> None:
        while True:
            with trio.move_on_at(self._settles_by()) as patience:
                message = await self._mail.receive()
            if not patience.cancelled_caught:
                await self._socket.send(message)
            elif trio.current_time() >= self._settles_by():
                raise ProviderError(NAME, "timeout", "an answer would not stop")

    def _settles_by(self) -> float:
        """When an answer that was left must be over."""
        times = (answer.settles_by for answer in self._answers if not answer.is_over)
        return min(times, default=math.inf)

    def _take(self, message: str | bytes) -> None:
        """Take one message of the server's.

        Raises:
            ProviderError: it cannot be lived with.
        """
        try:
            event = wire.read(message)
            audio = event.audio if event.type == "response.output_audio.delta" else b""
        except wire.Unreadable:
            raise ProviderError(NAME, "garbage", "a message is not what it should be") from None
        match event.type:
            case "response.output_audio.delta":
                if answer := self._answering(event):
                    answer.add_audio(event.item_id, audio)
            case "response.output_audio_transcript.delta":
                if answer := self._answering(event):
                    answer.add_words(event.delta, event.item_id)
            case "response.output_audio_transcript.done":
                if answer := self._answering(event):
                    answer.add_whole_words(event.transcript or "", event.item_id)
            case "response.output_item.added" | "response.output_item.done":
                self._take_item(event)
            case "response.created" | "response.done":
                self._take_response(event)
            case "error":
                self._take_error(event.error or wire.Error())
            case _:
                self._take_question(event)

    @property
    def _unfinished(self) -> Answer | None:
        """The answer that is asked for, or being made; there is one at most."""
        return self._answers[-1] if self._answers and not self._answers[-1].is_over else None

    def _answering(self, event: wire.Event) -> Answer | None:
        """The answer that an event adds to; what comes late for another is no use to anybody."""
        answer = self._unfinished
        return answer if answer is not None and answer.response_id == event.response_id else None

    def _take_item(self, event: wire.Event) -> None:
        answer, item = self._answering(event), event.item
        if answer is None or item is None:
            return
        answer.items.add(item)
        if item.type == "function_call" and event.type == "response.output_item.done":
            call = answer.add_call(item)
            if call is not None:
                self.memory.know(call)

    def _take_response(self, event: wire.Event) -> None:
        answer, response = self._unfinished, event.response or wire.Response()
        if answer is None or answer.response_id not in ("", response.id):
            return
        if not answer.response_id:
            answer.begin(response.id or "")
        if event.type == "response.done":
            self.has_answered = self.has_answered or response.status == "completed"
            answer.finish(response)
            self._on_change()

    def _take_question(self, event: wire.Event) -> None:
        if event.type == "input_audio_buffer.committed":
            if self._committing:
                self._committing.popleft().question_id = event.item_id
            return
        answer = next((a for a in self._answers if a.question_id == event.item_id), None)
        if answer is None or not event.item_id:
            return
        if event.type.endswith("transcription.completed"):
            answer.understand(event.transcript or "")
        elif event.type.endswith("transcription.failed"):
            answer.misunderstand(ProviderError(NAME, "status", "no transcription"))

    def _take_error(self, error: wire.Error) -> None:
        """Most errors are about a moment that has passed, and harmless.

        Raises:
            ProviderError: it means the end of the session.
        """
        name = wire.plain(error.name)
        logger.info("%s: error: %s", NAME, name)
        if (end := _end_of_session(error, name)) is not None:
            raise end
        self._refuse(error, "busy" if error.name in wire.BUSY else "status", name)

    def _refuse(self, error: wire.Error, fault: ProviderFault, detail: str) -> None:
        """An answer will not be made, if the error is about one."""
        answer = self._unfinished
        if answer is None or not _is_about(error, answer):
            return
        answer.fail(ProviderError(NAME, fault, f"not answered: {detail}"))
        if error.event_id == wire.commit_id(answer.number):  # it is asked for all the same
            if answer in self._committing:
                self._committing.remove(answer)
            answer.misunderstand(ProviderError(NAME, fault, f"not heard: {detail}"))
            self._say(wire.clear())
        else:
            answer.end()
            self._on_change()


def _end_of_session(error: wire.Error, name: str) -> ProviderError | None:
    """What cannot be lived with."""
    if error.event_id == wire.SETUP:
        return Refusal(NAME, "status", f"the session was refused {name}".rstrip())
    if error.code in wire.REFUSED or error.type in wire.REFUSED:
        return Refusal(NAME, "refused", name)
    if error.code == wire.UNKNOWN_MODEL:
        return Refusal(NAME, "status", name)
    return ProviderError(NAME, "cut", name) if error.code in wire.EXPIRED else None


def _is_about(error: wire.Error, answer: Answer) -> bool:
    """Whether an error is about asking for an answer."""
    if error.event_id:
        return error.event_id in (wire.commit_id(answer.number), wire.ask_id(answer.number))
    known = error.name in wire.BUSY or error.code == wire.STILL_ANSWERING
    return known and not answer.response_id
