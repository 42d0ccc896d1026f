"""The answers of a fake of OpenAI's Realtime API; see `fake_realtime`."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import trio
from trio_websocket import WebSocketConnection

from voicecore.testing import audible

from .fake_realtime_conversation import (
    STILL_ANSWERING,
    Behaviour,
    Conversation,
    Event,
    FakeSession,
    Item,
    shown,
)

WORD_FRAMES = 15
CALL = re.compile(r"<(\w+)( \{[^>]*\})?>")
"""A tool call in an answer."""

RESULT = ", has this result: "
"""How a session is told of tools that were used in another."""

AHEAD_S = 1.0
"""How far the transcript runs ahead of the audio."""


class Model(Conversation):
    """The server's side of one session: the model that answers."""

    def __init__(
        self, socket: WebSocketConnection, behaviour: Behaviour, session: FakeSession
    ) -> None:
        super().__init__(socket, behaviour, session)
        self._responses = self._calls = 0
        self._is_begun = False
        self._making = trio.CancelScope()

    def take_other(self, event: Event) -> None:
        """Take what is about answers."""
        if event["type"] == "response.create":
            self._create_response()
        elif event["type"] == "response.cancel":
            self.nursery.start_soon(self._cancel, event)
        else:
            self.fail("unknown_kind", event)

    def _create_response(self) -> None:
        if self.session.active:
            self.fail(STILL_ANSWERING)
            return
        if self.behaviour.hangs == "answering":
            return
        self._responses += 1
        self.session.active = self.new("resp")
        self.nursery.start_soon(self._respond, self.session.active, self._responses)

    async def _cancel(self, event: Event) -> None:
        active = self.session.active
        is_begun = self._is_begun or not self.behaviour.create_s
        if not active or not is_begun or event.get("response_id", active) != active:
            self.fail("response_cancel_not_active", event)
            return
        scope = self._making
        await trio.sleep(self.behaviour.cancel_s)
        scope.cancel()

    async def _respond(self, response_id: str, number: int) -> None:
        """Make one answer."""
        self._is_begun = False
        self._making = trio.CancelScope()
        self.session.contexts.append(self.session.memory)
        response = self._response(response_id)
        await trio.sleep(self.behaviour.create_s)
        self._is_begun = True
        self.say("response.created", response=response)
        status = self.behaviour.status_of.get(number, "completed")
        text, calls = self._answer()
        output: list[Event] = []
        with self._making:
            await trio.sleep(self.behaviour.think_s)
            if status != "failed" and text:
                await self._speak(response_id, text, output)
            for name, arguments in calls:
                self._call(response_id, name, arguments, output)
        if self._making.cancelled_caught:
            status = "cancelled"
        self.session.active = ""
        self.say("response.done", response=done(response, status, output))
        limits = [{"name": "tokens", "limit": 9, "remaining": 8, "reset_seconds": 1.0}]
        self.say("rate_limits.updated", rate_limits=limits)

    def _answer(self) -> tuple[str, list[tuple[str, str]]]:
        """What to say next, and which tools to call."""
        said: list[str] = []
        goes_on = False
        for item in reversed(self.session.items):
            _, is_told, result = item.text.partition(RESULT)
            if item.role == "user":
                answer = self.behaviour.answer(item.words)
            elif item.role == "output" or (item.role == "system" and is_told):
                answer = self.behaviour.conclude(result if is_told else item.text)
            else:
                goes_on = goes_on or item.role == "system"
                said += item.words.split() if item.role == "assistant" else []
                continue
            text = CALL.sub("", answer)
            if goes_on:
                text = " ".join(text.split()[len(said) :])
            return text.strip(), CALL.findall(answer)
        return self.behaviour.answer(""), []

    async def _speak(self, response_id: str, text: str, output: list[Event]) -> None:
        """Say `text`, in as many pieces as it takes."""
        item = Item(self.new("item"), "assistant", status="in_progress")
        place = {"response_id": response_id, "item_id": item.id, "output_index": len(output)}
        part = {**place, "content_index": 0}
        self._open(item, place)
        self.say("response.content_part.added", **part, part={"type": "audio", "transcript": ""})
        audio = b"".join(audible.say(text, WORD_FRAMES * len(text.split())))
        words = iter(voiced(text, audio))
        at, word = next(words)
        said: list[str] = []
        try:
            for start in range(0, len(audio), self.behaviour.delta_bytes):
                while at <= start + AHEAD_S * 8000:
                    said.append(word)
                    if self.behaviour.deltas:
                        self.say("response.output_audio_transcript.delta", **part, delta=word)
                    at, word = next(words)
                piece = audio[start : start + self.behaviour.delta_bytes]
                item.audio += piece
                item.text = "".join(said)
                delta = base64.b64encode(piece).decode()
                self.say("response.output_audio.delta", **part, delta=delta)
                if self.behaviour.chatty:
                    self.say("response.output_audio.delta", **part, delta="")
                await self._misbehave(len(item.audio) / 8000)
                await trio.sleep(len(piece) / 8000 / self.behaviour.speed)
            item.status = "completed"
        finally:
            item.status = item.status.replace("in_progress", "incomplete")
            transcript = "".join(said)
            self.say("response.output_audio.done", **part)
            self.say("response.output_audio_transcript.done", **part, transcript=transcript)
            shown_part = {"type": "audio", "transcript": transcript}
            self.say("response.content_part.done", **part, part=shown_part)
            self._close(item, place, output)

    def _call(self, response_id: str, name: str, arguments: str, output: list[Event]) -> None:
        """Call a tool."""
        arguments, self._calls = arguments.strip() or "{}", self._calls + 1
        call_id = f"call_{self._calls}"
        item = Item(self.new("item"), "tool", arguments, name=name, call_id=call_id)
        item.status = "in_progress"
        place = {"response_id": response_id, "item_id": item.id, "output_index": len(output)}
        self._open(item, place)
        kind = "response.function_call_arguments"
        self.say(f"{kind}.delta", **place, call_id=call_id, delta=arguments)
        self.say(f"{kind}.done", **place, call_id=call_id, name=name, arguments=arguments)
        item.status = "completed"
        self._close(item, place, output)

    def _open(self, item: Item, place: Event) -> None:
        previous = self.last_id
        self.session.items.append(item)
        place = {name: value for name, value in place.items() if name != "item_id"}
        self.say("response.output_item.added", **place, item=shown(item))
        self.say("conversation.item.added", previous_item_id=previous, item=shown(item))

    def _close(self, item: Item, place: Event, output: list[Event]) -> None:
        place = {name: value for name, value in place.items() if name != "item_id"}
        output.append(shown(item))
        self.say("response.output_item.done", **place, item=shown(item))
        self.say("conversation.item.done", previous_item_id=None, item=shown(item))

    async def _misbehave(self, seconds: float) -> None:
        behaviour = self.behaviour
        for after, message in (
            (behaviour.cut_after_s, None),
            (behaviour.closes_after_s, 1011),
            (behaviour.garbage_after_s, behaviour.garbage),
        ):
            if after is not None and seconds >= after:
                self.put(message)
                await trio.sleep_forever()

    def _response(self, response_id: str) -> Event:
        return {
            "object": "realtime.response",
            "id": response_id,
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": "conv_1",
            "output_modalities": ["audio"],
            "max_output_tokens": 4096,
            "audio": {"output": {"format": {"type": "audio/pcmu"}, "voice": "marin"}},
            "usage": None,
            "metadata": None,
        }


def voiced(text: str, audio: bytes) -> Iterator[tuple[float, str]]:
    """Where in the audio each word ends, as a piece of the text; then infinity."""
    frames = [audio[at : at + 160] for at in range(0, len(audio), 160)]
    ends = [n * 160 for n, frame in enumerate(frames) for _ in audible.words_in_frame(frame)]
    for number, (end, word) in enumerate(zip(ends, text.split(), strict=True)):
        yield end, word if number == 0 else f" {word}"
    yield float("inf"), ""


def done(response: Event, status: str, output: list[Event]) -> Event:
    """A response that is over."""
    reasons = {"cancelled": "client_cancelled", "incomplete": "max_output_tokens"}
    details: Event | None = None
    if status in reasons:
        details = {"type": status, "reason": reasons[status]}
    elif status == "failed":
        error = {"type": "server_error", "code": "rate_limit_exceeded", "message": "sk-SECRET"}
        details = {"type": "failed", "error": error}
    usage = {
        "total_tokens": 120,
        "input_tokens": 100,
        "output_tokens": 20,
        "input_token_details": {
            "text_tokens": 60,
            "audio_tokens": 40,
            "image_tokens": 0,
            "cached_tokens": 64,
            "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": 5, "audio_tokens": 15},
    }
    return {**response, "status": status, "status_details": details, "output": output,
            "usage": usage}  # fmt: skip
