"""The vendors, on 127.0.0.1: the APIs that the server's adapters speak, with delays as told.

What is real: HTTP/1.1 and WebSockets over sockets, uploads, server-sent events, streamed speech,
cancelled requests.  What is not: words are made of loud audio, a word for each 160 ms of it, the
LLM writes the same reply to everything, and the voice is a recording, faster than a voice would be,
which shortens the run and no gap.  The delays (`Delays`) count from the whole request's arrival:

    /v1/audio/transcriptions       the transcript after `stt_ms`
    /v1/chat/completions           the first token after `llm_ms`, each other `token_ms` later
    /v1/audio/speech, 24 kHz PCM   the first 100 ms of audio after `tts_ms`, the rest 5 times as
    /v1/text-to-speech/…, mu-law   fast as it plays
    /v1/listen                     hears along: words that are not final every 200 ms of audio, and
                                   final ones at `Finalize`; all it says comes after `live_ms`

It is a process of its own, started by `latency.py`.  On stdout: one JSON line when it listens, and
one for each SIGUSR1 (`Book.read`).  It ends with SIGTERM, or when its stdin does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from signal import SIGUSR1

import h11
import measure
import numpy as np
import target
import trio
from delays import CHARACTERS_PER_S, PACE, PIECE_S, SHORTEST_S, TOKENS, Delays
from trio_websocket import ConnectionClosed, WebSocketConnection, serve_websocket

from voicecore.audio import FRAME_BYTES, SAMPLE_RATE, mulaw, wav
from voicecore.audio.resample import MulawEncoder

WORDS = ("yes", "tomorrow", "morning", "please", "good")
"""What is heard, in turn: words after which nothing more is to be expected."""

WORD_FRAMES = 8
LOUD_DBFS = -35
INTERIM_S = 0.1

VOICE_RATE = target.VOICE_RATE


@dataclass
class Book:
    """What the vendors have done, by stage."""

    begun: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Answered to the end."""
    left: Counter[str] = field(default_factory=Counter)
    """Closed by the client before that."""
    late: list[float] = field(default_factory=list)
    """How far behind its time each answer began, ms."""

    async def wait(self, due: float) -> None:
        """Wait until an answer is due; note how late it is then."""
        await trio.sleep_until(due)
        self.late.append((trio.current_time() - due) * 1000)

    def read(self) -> dict[str, object]:
        """Return everything since the start."""
        open_now = self.begun - self.ended - self.left
        return {
            "begun": self.begun,
            "ended": self.ended,
            "left": self.left,
            "open": {stage: count for stage, count in open_now.items() if count},
            "late": measure.distribution(self.late),
            "cpu_s": time.process_time(),
        }


# -- ears and a voice


class Ears:
    """Finds words in sound: (text, start, end), seconds since its beginning."""

    def __init__(self) -> None:
        self.words: list[tuple[str, float, float]] = []
        self.seconds = 0.0
        self._loud = 0
        self._rest = b""

    def hear(self, audio: bytes) -> None:
        """Take mu-law."""
        self._rest += audio
        whole = len(self._rest) - len(self._rest) % FRAME_BYTES
        frames, self._rest = self._rest[:whole], self._rest[whole:]
        samples = np.frombuffer(mulaw.decode(frames), "<i2").astype(float).reshape(-1, FRAME_BYTES)
        power = np.square(samples / 32768).mean(axis=1)
        for is_loud in power > 10 ** (LOUD_DBFS / 10):
            self.seconds += FRAME_BYTES / SAMPLE_RATE
            self._loud += bool(is_loud)
            if self._loud == WORD_FRAMES:
                self._loud = 0
                text = WORDS[len(self.words) % len(WORDS)]
                self.words.append((text, self.seconds - 0.16, self.seconds))


class Voice:
    """Speech in the two formats, in pieces; `hurry` times as fast as usual."""

    def __init__(self, hurry: float = 1) -> None:
        self._hurry = hurry
        pcm = target.CannedTTS(target.Delays()).pcm
        self._audio = {"pcm": pcm, "ulaw": MulawEncoder(VOICE_RATE).feed(pcm)}
        self._bytes_per_s = {"pcm": 2 * VOICE_RATE, "ulaw": SAMPLE_RATE}

    def pieces(self, text: str, form: str) -> list[bytes]:
        """Return what a text sounds like."""
        per_s = self._bytes_per_s[form]
        seconds = max(SHORTEST_S, len(text) / CHARACTERS_PER_S) / self._hurry
        audio = self._audio[form][: int(seconds * SAMPLE_RATE) * per_s // SAMPLE_RATE]
        step = int(PIECE_S * per_s)
        return [audio[at : at + step] for at in range(0, len(audio), step)]


# -- HTTP: OpenAI and ElevenLabs

Answer = tuple[str, AsyncGenerator[bytes, None]]
"""A media type and a body, whose first piece comes when the head is due."""


class Shop:
    """The requests, each answered in its time."""

    def __init__(self, delays: Delays, book: Book, voice: Voice) -> None:
        self._delays = delays
        self._book = book
        self._voice = voice

    def answer(self, path: str, body: bytes) -> tuple[str, Answer]:
        """Return the stage of a request, and its answer.

        Raises:
            KeyError: there is no such thing.
        """
        arrived = trio.current_time()
        if path == "/v1/audio/transcriptions":
            return "stt", ("application/json", self._transcript(arrived, body))
        if path == "/v1/chat/completions":
            return "llm", ("text/event-stream", self._reply(arrived))
        if path == "/v1/audio/speech":
            pieces = self._voice.pieces(json.loads(body)["input"], "pcm")
            return "tts", ("audio/pcm", self._speech(arrived, pieces))
        if path.startswith("/v1/text-to-speech/"):
            pieces = self._voice.pieces(json.loads(body)["text"], "ulaw")
            return "tts", ("audio/basic", self._speech(arrived, pieces))
        raise KeyError(path)

    async def _transcript(self, arrived: float, body: bytes) -> AsyncGenerator[bytes, None]:
        ears, at = Ears(), body.index(b"RIFF")
        size = int.from_bytes(body[at + 4 : at + 8], "little") + 8
        ears.hear(mulaw.encode(wav.read(body[at : at + size]).pcm))
        text = " ".join(word for word, _, _ in ears.words)
        await self._book.wait(arrived + self._delays.stt_ms / 1000)
        yield json.dumps({"text": f"{text}."}).encode()

    async def _reply(self, arrived: float) -> AsyncGenerator[bytes, None]:
        delays = self._delays
        first = arrived + delays.llm_ms / 1000
        for at, token in enumerate(TOKENS):
            await self._book.wait(first + at * delays.token_ms / 1000)
            yield _chunk({"content": token})
        yield _chunk({}, "stop") + b"data: [DONE]\n\n"

    async def _speech(self, arrived: float, pieces: list[bytes]) -> AsyncGenerator[bytes, None]:
        first = arrived + self._delays.tts_ms / 1000
        for at, piece in enumerate(pieces):
            await self._book.wait(first + at * PIECE_S / PACE)
            yield piece

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection, request after request."""
        link = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while (request := await _received(stream, link)) is not None:
                    await self._serve_one(stream, link, *request)
                    if link.our_state is not h11.DONE or link.their_state is not h11.DONE:
                        return
                    link.start_next_cycle()
            except* (trio.BrokenResourceError, h11.ProtocolError):
                pass

    async def _serve_one(
        self, stream: trio.SocketStream, link: h11.Connection, path: str, body: bytes
    ) -> None:
        """Answer, and stop when the client hangs up meanwhile."""
        stage, (kind, pieces) = self.answer(path, body)
        book = self._book
        book.begun[stage] += 1
        outcome = book.left
        try:
            async with trio.open_nursery() as nursery, aclosing(pieces):
                nursery.start_soon(_notice_leaving, stream, link, nursery.cancel_scope)
                head = h11.Response(status_code=200, headers=[("Content-Type", kind)])
                data = link.send(head) or b""
                async for piece in pieces:
                    await stream.send_all(data + (link.send(h11.Data(piece)) or b""))
                    data = b""
                await stream.send_all(link.send(h11.EndOfMessage()) or b"")
                outcome = book.ended
                nursery.cancel_scope.cancel()
        finally:
            outcome[stage] += 1


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def _notice_leaving(
    stream: trio.SocketStream, link: h11.Connection, scope: trio.CancelScope
) -> None:
    if data := await stream.receive_some(65536):
        link.receive_data(data)  # the next request, of a client that has the whole answer
    else:
        scope.cancel()


async def _received(stream: trio.SocketStream, link: h11.Connection) -> tuple[str, bytes] | None:
    """Read one request; None if the client is gone."""
    path, body = "", bytearray()
    while True:
        event = link.next_event()
        if event is h11.NEED_DATA:
            link.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            path = event.target.decode().partition("?")[0]
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return path, bytes(body)
        else:
            return None


# -- Deepgram


class Nova:
    """One session of ``/v1/listen``."""

    def __init__(self, socket: WebSocketConnection, delays: Delays, book: Book) -> None:
        self._socket = socket
        self._late_s = delays.live_ms / 1000
        self._book = book
        self._ears = Ears()
        self._final_end = self._interim_at = 0.0
        self._post, self._posted = trio.open_memory_channel[tuple[float, str]](1000)

    async def run(self) -> None:
        """Listen and speak until the client leaves."""
        self._book.begun["listen"] += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._speak)
                await self._listen()
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            pass
        finally:
            self._book.ended["listen"] += 1

    async def _listen(self) -> None:
        while True:
            message = await self._socket.get_message()
            if isinstance(message, bytes):
                self._ears.hear(message)
                if self._ears.seconds >= self._interim_at + INTERIM_S:
                    self._say(is_final=False)
            elif json.loads(message)["type"] == "Finalize":
                self._say(is_final=True)
            elif json.loads(message)["type"] == "CloseStream":
                return

    async def _speak(self) -> None:
        async for due, message in self._posted:
            await self._book.wait(due)
            await self._socket.send_message(message)

    def _say(self, *, is_final: bool) -> None:
        now, start = self._ears.seconds, self._final_end
        self._interim_at = now
        words = [word for word in self._ears.words if word[2] > start]
        if is_final:
            self._final_end = now
        heard = [
            {"word": text, "start": begin, "end": end, "confidence": 0.9, "punctuated_word": text}
            for text, begin, end in words
        ]
        text = " ".join(word for word, _, _ in words)
        results = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": start,
            "duration": now - start,
            "is_final": is_final,
            "speech_final": is_final,
            "from_finalize": is_final,
            "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": heard}]},
        }
        self._post.send_nowait((trio.current_time() + self._late_s, json.dumps(results)))


# -- the process


async def run(delays: Delays, voice: Voice) -> None:
    """Sell until told to end."""
    book = Book()
    shop = Shop(delays, book, voice)

    async def listen(request: object) -> None:
        socket = await request.accept()  # type: ignore[attr-defined]
        await Nova(socket, delays, book).run()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, shop.serve, listeners)
        serve = partial(serve_websocket, listen, "127.0.0.1", 0, ssl_context=None)
        live = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        target.say({"port": port, "live_port": live.port})
        nursery.start_soon(_report, book)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lifeline:
            while await lifeline.receive_some():
                pass
        nursery.cancel_scope.cancel()


async def _report(book: Book) -> None:
    with trio.open_signal_receiver(SIGUSR1) as signals:
        async for _ in signals:
            target.say(book.read())


def main() -> None:
    """Read the delays, sell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("delays", type=json.loads, help="JSON object with the fields of `Delays`")
    parser.add_argument("--hurry", type=float, default=1, help="speak so many times as fast")
    parser.add_argument("--core", type=int, default=-1, help="run on this core only")
    options = parser.parse_args()
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})
    gc.freeze()
    trio.run(run, Delays(**options.delays), Voice(options.hurry))


if __name__ == "__main__":
    main()
