"""The conversation of a fake of OpenAI's Realtime API; see `fake_realtime`.

It hears the words that are in the audio (`voicecore.testing.audible`), and remembers what the API
remembers: items are added, cut and deleted, and every response tells what it was made from.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from voicecore.testing import audible

STILL_ANSWERING = "conversation_already_has_active_response"
"""The API does not say which message it is about."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Behaviour:
    """How one connection goes.  Numbers of answers count from 1 on each connection."""

    refuses: bool = False  # the connection itself
    wait_s: float = 0  # before the upgrade
    status: int = 101
    body: bytes = b""
    raw: bytes | None = None  # in place of any HTTP
    hangs: str = ""  # "before" or "after" the upgrade, or "answering"
    latency_s: float = 0.05
    think_s: float = 0.2  # from response.created to the first audio
    create_s: float = 0  # to response.created; a cancel before that finds nothing
    cancel_s: float = 0  # until a cancel has its effect
    speed: float = 4  # of the audio, in real time
    delta_bytes: int = 800
    transcript_s: float | None = 0.4  # after the commit; None: never
    transcript_fails: bool = False
    answer: Callable[[str], str] = "You said {}.".format  # "... <tool {...}>" at its end: calls
    conclude: Callable[[str], str] = "It says {}.".format  # the same, to the newest result
    cut_after_s: float | None = None  # of an answer's audio: the connection is gone
    closes_after_s: float | None = None  # the same, with 1011
    garbage_after_s: float | None = None  # the same, with `garbage`
    garbage: str | bytes = "{not JSON"
    status_of: dict[int, str] = field(default_factory=dict)  # how an answer ends, by its number
    errors: dict[str, str] = field(default_factory=dict)  # the code that a kind is answered with
    expires_s: float | None = None
    deltas: bool = True  # whether the transcript comes in pieces
    chatty: bool = False  # messages of unknown kinds in between
    huge: int = 0  # bytes of a message of an unknown kind
    bytewise: bool = False


@dataclass
class Item:
    """One item of the conversation."""

    id: str
    role: str
    text: str = ""
    audio: bytes = b""
    name: str = ""
    status: str = "completed"
    call_id: str = ""

    @property
    def words(self) -> str:
        """What the model knows of it."""
        return " ".join(audible.words(self.audio)) if self.audio else self.text


@dataclass
class FakeSession:
    """One connection: what came over it, and what the model remembers."""

    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Event] = field(default_factory=list)
    sent: list[Event] = field(default_factory=list)
    opened: float = 0
    closed: float | None = None
    left: float | None = None
    items: list[Item] = field(default_factory=list)
    contexts: list[list[tuple[str, str]]] = field(default_factory=list)
    """What each response was made from."""
    active: str = ""
    """The response that is being made."""

    @property
    def kinds(self) -> list[str]:
        """What came, apart from audio."""
        kinds = [event["type"] for event in self.received]
        return [kind for kind in kinds if kind != "input_audio_buffer.append"]

    @property
    def errors(self) -> list[str]:
        """The codes of the errors that it answered with."""
        return [event["error"]["code"] for event in self.sent if event["type"] == "error"]

    @property
    def memory(self) -> list[tuple[str, str]]:
        """What the model remembers: who said what."""
        return [(item.role, item.words) for item in self.items]

    def of_kind(self, kind: str) -> list[Event]:
        """What came of one kind."""
        return [event for event in self.received if event["type"] == kind]


class Gone(Exception):
    """The connection is to be cut."""


class Conversation:
    """The server's side of one session: what is said to it, and its items."""

    def __init__(
        self, socket: WebSocketConnection, behaviour: Behaviour, session: FakeSession
    ) -> None:
        self.behaviour = behaviour
        self.session = session
        self._socket = socket
        self._post, self._mail = trio.open_memory_channel[tuple[float, Any]](100_000)
        self._numbers = count(1)
        self._buffer = b""

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self._deliver)
                self.nursery.start_soon(self._expire)
                self.say("session.created", session={"type": "realtime"})
                while True:
                    self._take(json.loads(await self._socket.get_message()))
        except* (ConnectionClosed, Gone):
            pass

    def say(self, kind: str, **fields: Any) -> None:
        """Say something, `latency_s` from now."""
        if self.behaviour.chatty:
            self.put({"type": "something.new", "delta": {"of": ["2027"]}, "item_id": 3})
        self.put({"type": kind, "event_id": self.new("event"), **fields})

    def put(self, message: Event | str | bytes | int | None) -> None:
        """Send a message; a number is a close code, None the end."""
        self._post.send_nowait((trio.current_time() + self.behaviour.latency_s, message))

    def fail(self, code: str, event: Event | None = None, **fields: Any) -> None:
        """Say that something went wrong."""
        error = {
            "type": "invalid_request_error",
            "code": code,
            "message": "about sk-SECRET",
            "param": None,
            "event_id": (event or {}).get("event_id"),
        }
        self.say("error", error={**error, **fields})

    async def _deliver(self) -> None:
        async for due, message in self._mail:
            await trio.sleep_until(due)
            if message is None:
                raise Gone
            if isinstance(message, int):
                await self._socket.aclose(message, "NET")
                raise Gone
            if isinstance(message, dict):
                self.session.sent.append(message)
                message = json.dumps(message)
            await self._socket.send_message(message)

    async def _expire(self) -> None:
        if self.behaviour.expires_s is not None:
            await trio.sleep(self.behaviour.expires_s)
            self.fail("session_expired")
            self.put(1001)

    def _take(self, event: Event) -> None:
        self.session.received.append(event)
        kind = event["type"]
        if self.behaviour.hangs == "after":
            return
        if code := self.behaviour.errors.get(kind):
            self.fail(code, None if code == STILL_ANSWERING else event)
            return
        match kind:
            case "session.update":
                self.say("session.updated", session=event["session"])
                if self.behaviour.huge:
                    self.put(json.dumps({"type": "huge", "of": "x" * self.behaviour.huge}))
            case "input_audio_buffer.append":
                self._buffer += base64.b64decode(event["audio"], validate=True)
            case "input_audio_buffer.clear":
                self._buffer = b""
                self.say("input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                self._commit(event)
            case "conversation.item.create":
                self._create_item(event)
            case "conversation.item.delete":
                self._delete_item(event)
            case "conversation.item.truncate":
                self._truncate_item(event)
            case _:
                self.take_other(event)

    def take_other(self, event: Event) -> None:
        """Take what is about answers."""
        raise NotImplementedError

    def _commit(self, event: Event) -> None:
        audio, self._buffer = self._buffer, self._buffer[:0]
        if len(audio) < 800:
            self._buffer = audio
            self.fail("input_audio_buffer_commit_empty", event)
            return
        item = Item(self.new("item"), "user", audio=audio)
        item.text = "" if item.words else "..."  # audio without words is still there
        self.say("input_audio_buffer.committed", item_id=item.id, previous_item_id=self.last_id)
        self._add(item)
        self.nursery.start_soon(self._transcribe, item)

    async def _transcribe(self, item: Item) -> None:
        if self.behaviour.transcript_s is None:
            return
        await trio.sleep(self.behaviour.transcript_s)
        kind = "conversation.item.input_audio_transcription"
        place = {"item_id": item.id, "content_index": 0}
        if self.behaviour.transcript_fails:
            error = {"type": "server_error", "code": "x", "message": "no", "param": None}
            self.say(f"{kind}.failed", **place, error=error)
            return
        words = item.words
        if words:
            self.say(f"{kind}.delta", **place, delta=words)
        usage = {"type": "duration", "seconds": len(item.audio) / 8000}
        self.say(f"{kind}.completed", **place, transcript=words, usage=usage)

    def _create_item(self, event: Event) -> None:
        given = event["item"]
        if given["type"] == "function_call_output":
            self._create_output(event)
            return
        text = given["content"][0]["text"]
        self._add(Item(given.get("id") or self.new("item"), given["role"], text))

    def _create_output(self, event: Event) -> None:
        """A result needs a call, and a call has one result: the strictest that an API can be."""
        call_id, output = event["item"]["call_id"], event["item"]["output"]
        roles = [item.role for item in self.session.items if item.call_id == call_id]
        if roles != ["tool"]:
            self.fail("invalid_call_id", event)
            return
        self._add(Item(self.new("item"), "output", output, call_id=call_id))

    def _add(self, item: Item) -> None:
        previous = self.last_id
        self.session.items.append(item)
        self.say("conversation.item.added", previous_item_id=previous, item=shown(item))
        self.say("conversation.item.done", previous_item_id=previous, item=shown(item))

    def _delete_item(self, event: Event) -> None:
        item = self._known(event)
        if item is None or item.status == "in_progress":
            self.fail("item_delete_invalid_item_id", event)
            return
        self.session.items.remove(item)
        self.say("conversation.item.deleted", item_id=item.id)

    def _truncate_item(self, event: Event) -> None:
        item, end = self._known(event), event["audio_end_ms"]
        if item is None or item.role != "assistant" or end * 8 > len(item.audio):
            self.fail("invalid_value", event)
            return
        item.audio = item.audio[: end * 8]
        place = {"item_id": item.id, "content_index": 0, "audio_end_ms": end}
        self.say("conversation.item.truncated", **place)

    def _known(self, event: Event) -> Item | None:
        return next((item for item in self.session.items if item.id == event["item_id"]), None)

    @property
    def last_id(self) -> str | None:
        return self.session.items[-1].id if self.session.items else None

    def new(self, what: str) -> str:
        return f"{what}_{next(self._numbers)}"


def shown(item: Item) -> Event:
    """An item as events show it."""
    known = {"id": item.id, "object": "realtime.item", "status": item.status}
    if item.role == "tool":
        arguments = {"name": item.name, "call_id": item.call_id, "arguments": item.text or "{}"}
        return {**known, "type": "function_call", **arguments}
    if item.role == "output":
        output = {"call_id": item.call_id, "output": item.text}
        return {**known, "type": "function_call_output", **output}
    content: list[Event] = [{"type": "input_text", "text": item.text}]
    if item.role == "user" and item.audio:
        content = [{"type": "input_audio", "transcript": None}]
    elif item.role == "assistant":
        kind, name = ("output_audio", "transcript") if item.audio else ("output_text", "text")
        content = [{"type": kind, name: item.text}] if item.text else []
    return {**known, "type": "message", "role": item.role, "content": content}
