"""A server that speaks OpenAI's API, and can misbehave in every way that providers do.

    async with FakeOpenAI(llm=[answers(500), reply("Hi.")]) as fake:
        settings = load(openai_base_url=fake.base_url, openai_api_key="k", llm="openai")

Each stage has a script: the answer of its first request, of its second, and so on; the last one
repeats.  `requests` is the log: what came, when it was opened and when it was closed, by whom.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import h11
import trio

Stage = Literal["stt", "llm", "tts"]

PATHS: dict[str, Stage] = {
    "/v1/audio/transcriptions": "stt",
    "/v1/chat/completions": "llm",
    "/v1/audio/speech": "tts",
}

FOREVER = float("inf")


@dataclass(frozen=True)
class Answer:
    """How one request is answered."""

    status: int = 200
    content_type: str = "application/json"
    chunks: tuple[bytes, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    wait_s: float = 0  # before the head
    pause_s: float = 0  # before each chunk
    late_s: float = 0  # before the last `late_chunks`, together
    late_chunks: int = 0
    cut: bool = False  # close without an end after the last chunk
    hang: bool = False  # after the last chunk neither end nor close
    raw: bytes | None = None  # sent in place of any HTTP

    def slow(self, wait_s: float = 0, pause_s: float = 0) -> Answer:
        return replace(self, wait_s=wait_s, pause_s=pause_s)

    def late(self, seconds: float, chunks: int) -> Answer:
        return replace(self, late_s=seconds, late_chunks=chunks)

    def bytewise(self) -> Answer:
        whole = b"".join(self.chunks)
        return replace(self, chunks=tuple(whole[at : at + 1] for at in range(len(whole))))

    def in_chunks_of(self, size: int) -> Answer:
        whole = b"".join(self.chunks)
        cuts = range(0, len(whole), size)
        return replace(self, chunks=tuple(whole[at : at + size] for at in cuts))

    def cut_after(self, chunks: int) -> Answer:
        return replace(self, chunks=self.chunks[:chunks], cut=True)

    def hangs_after(self, chunks: int) -> Answer:
        return replace(self, chunks=self.chunks[:chunks], hang=True)


def transcript(text: str) -> Answer:
    """What STT answers."""
    return Answer(chunks=(json.dumps({"text": text}).encode(),))


def event(data: object) -> bytes:
    """One server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def chunk(
    delta: dict[str, object] | None, finish: str | None = None, usage: object = None
) -> bytes:
    """One chunk of a chat completion; without a delta it has no choices."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1790000000,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [] if delta is None else [choice],
            "usage": usage,
        }
    )


def cost(prompt: int, completion: int, cached: int = 0) -> dict[str, object]:
    """Usage, as the last chunk tells it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def events(chunks: Iterable[bytes], done: bool = True) -> Answer:
    """What the LLM answers, event by event."""
    ending = (event("[DONE]"),) if done else ()
    return Answer(content_type="text/event-stream", chunks=(*chunks, *ending))


def reply(text: str, usage: object = None) -> Answer:
    """A reply, word by word; with its usage for those who asked for it."""
    words = [chunk({"content": word}) for word in text.replace(" ", "\0 ").split("\0")]
    first = chunk({"role": "assistant", "content": None})
    bill = [chunk(None, usage=usage)] if usage is not None else []
    return events([first, *words, chunk({}, "stop"), *bill])


def speech(seconds: float, level: int = 1000) -> Answer:
    """PCM at 24 kHz in 100 ms chunks, of a length that splits samples."""
    pcm = b"".join(
        (level if at // 60 % 2 else -level).to_bytes(2, "little", signed=True)
        for at in range(int(seconds * 24000))
    )
    return Answer(content_type="audio/pcm", chunks=(pcm,)).in_chunks_of(4801)


def answers(status: int, code: str = "some_error", retry_after: str = "") -> Answer:
    """An error, with a message that quotes a secret."""
    body = {"error": {"message": "bad key sk-SECRET", "type": "t", "param": None, "code": code}}
    headers = (("Retry-After", retry_after),) if retry_after else ()
    return Answer(status=status, chunks=(json.dumps(body).encode(),), headers=headers)


def page() -> Answer:
    """A web page where audio, events or JSON should be."""
    return Answer(content_type="text/html", chunks=(b"<html>It works!</html>",))


def garbage() -> Answer:
    """No HTTP at all."""
    return Answer(raw=b"\x00\xff\xfe garbage \r\n\r\n")


def silence() -> Answer:
    """A server that takes the request and says nothing, for ever."""
    return Answer(wait_s=FOREVER)


USUAL: dict[Stage, Answer] = {
    "stt": transcript("hello world"),
    "llm": reply("Hello, how can I help you?"),
    "tts": speech(0.5),
}


@dataclass(eq=False)
class Request:
    """One request that came; `closed` is set when it is over, `left` if the client hung up."""

    stage: Stage | None
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    opened: float
    closed: float | None = None
    left: bool = False
    over: trio.Event = field(default_factory=trio.Event)

    @property
    def json(self) -> dict[str, object]:
        parsed: dict[str, object] = json.loads(self.body)
        return parsed


@dataclass
class FakeOpenAI:
    """The server.  Entered, it listens on 127.0.0.1 at `base_url`."""

    stt: Sequence[Answer] = ()
    llm: Sequence[Answer] = ()
    tts: Sequence[Answer] = ()
    paths: dict[str, Stage] = field(default_factory=lambda: PATHS)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    base_url: str = ""

    @property
    def open_requests(self) -> list[Request]:
        """What is still being answered."""
        return [request for request in self.requests if request.closed is None]

    async def __aenter__(self) -> FakeOpenAI:
        self._nursery_manager = trio.open_nursery()
        self._nursery = await self._nursery_manager.__aenter__()
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._nursery.start_soon(trio.serve_listeners, self._converse, listeners)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._nursery_manager.__aexit__(*failure)  # type: ignore[arg-type]

    async def all_closed(self, within_s: float = 0.25) -> None:
        """Wait until no request is open any more; fail if one is after `within_s`."""
        with trio.move_on_after(within_s):
            for request in self.requests:
                await request.over.wait()
        assert not self.open_requests, self.open_requests

    def _answer(self, stage: Stage) -> Answer:
        script = getattr(self, stage) or [USUAL[stage]]
        count = sum(request.stage == stage for request in self.requests)
        answer: Answer = script[min(count, len(script)) - 1]
        return answer

    async def _converse(self, stream: trio.SocketStream) -> None:
        """Serve one connection, request after request."""
        self.connections += 1
        number = self.connections
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while connection.our_state is h11.IDLE:
                    request = await _received(stream, connection, number, self.paths)
                    if request is None:
                        return
                    self.requests.append(request)
                    await self._serve(stream, connection, request)
                    if connection.our_state is not h11.DONE:
                        return
                    connection.start_next_cycle()
            except (trio.BrokenResourceError, h11.ProtocolError):
                pass

    async def _serve(
        self, stream: trio.SocketStream, connection: h11.Connection, request: Request
    ) -> None:
        """Answer, and notice when the client hangs up meanwhile."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_notice_leaving, stream, request, nursery.cancel_scope)
                try:
                    await self._send_answer(stream, connection, request)
                except trio.BrokenResourceError:
                    request.left = True
                nursery.cancel_scope.cancel()
        finally:
            request.closed = trio.current_time()
            request.over.set()

    async def _send_answer(
        self, stream: trio.SocketStream, connection: h11.Connection, request: Request
    ) -> None:
        answer = self._answer(request.stage) if request.stage else answers(404)
        await trio.sleep(answer.wait_s)
        if answer.raw is not None:
            await stream.send_all(answer.raw)
            return
        headers = [("Content-Type", answer.content_type), *answer.headers]
        head = h11.Response(status_code=answer.status, headers=headers)
        await stream.send_all(connection.send(head) or b"")
        for left, data in zip(range(len(answer.chunks), 0, -1), answer.chunks, strict=True):
            await trio.sleep(answer.pause_s)
            if left == answer.late_chunks:
                await trio.sleep(answer.late_s)
            await stream.send_all(connection.send(h11.Data(data)) or b"")
        if answer.hang:
            await trio.sleep_forever()
        if not answer.cut:
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")


async def _notice_leaving(
    stream: trio.SocketStream, request: Request, scope: trio.CancelScope
) -> None:
    try:
        more = await stream.receive_some(1)
    except trio.BrokenResourceError:
        more = b""
    assert not more, "clients do not pipeline"
    request.left = True
    scope.cancel()


async def _received(
    stream: trio.SocketStream, connection: h11.Connection, number: int, paths: dict[str, Stage]
) -> Request | None:
    """Read one request; None if the client is gone."""
    request: Request | None = None
    while True:
        got = connection.next_event()
        if got is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(got, h11.Request):
            path = got.target.decode()
            headers = {name.decode(): value.decode() for name, value in got.headers}
            now = trio.current_time()
            request = Request(paths.get(path), path, headers, b"", number, now)
        elif isinstance(got, h11.Data) and request is not None:
            request.body += bytes(got.data)
        elif isinstance(got, h11.EndOfMessage):
            return request
        else:
            return None
