"""What one frame costs at each stage of the server, measured in this process.

Run by `frame_cost.py`.  On stdout: one JSON line a stage, ``{"stage", "us", "spread"}``: the median
of several repeats in microseconds, and half the distance between the quartiles.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import statistics
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import client
import numpy as np
import trio
import trio.testing

from voicecore.audio import FRAME_BYTES, SILENCE_FRAME, mulaw, wav
from voicecore.audio.framing import Framer
from voicecore.audio.vad import GatedVad
from voicecore.audio.voicing import Voicing
from voicecore.call.agent import Agent, CallLimits, Persona
from voicecore.call.call import open_call
from voicecore.contracts import LLM, STT, TTS, Line, Transcript
from voicecore.dialogue.turns import Detector, TurnRules
from voicecore.errors import LineClosed
from voicecore.server.admission import Admit
from voicecore.server.media import Ending
from voicecore.server.serve import serve_lines
from voicecore.settings import Settings
from voicecore.wire.dialects import Dialect
from voicecore.wire.events import Play
from voicecore.wire.twilio import MediaStream

RECORDINGS = Path(__file__).resolve().parent.parent / "tests" / "audio"
SID = "MZ" + "0" * 32


def media(payload: bytes, number: int = 1) -> str:
    """Return one message of the caller's sound."""
    return (
        f'{{"event":"media","sequenceNumber":"{number + 1}","media":{{"track":"inbound","chunk":'
        f'"{number}","timestamp":"{number * 20}","payload":"{b64encode(payload).decode()}"}},'
        f'"streamSid":"{SID}"}}'
    )


def opening() -> list[str]:
    """Return the two messages that begin a stream."""
    start = {
        "streamSid": SID,
        "callSid": "CA" + "0" * 32,
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    }
    return [
        '{"event":"connected","protocol":"Call","version":"1.0.0"}',
        json.dumps({"event": "start", "start": start, "streamSid": SID}),
    ]


def speech() -> list[bytes]:
    """Return recorded speech, in frames."""
    return Framer().feed(wav.read_telephone(RECORDINGS / "jfk.wav"))


def line_noise() -> list[bytes]:
    """Return ten seconds of a quiet line, in frames."""
    noise = np.random.default_rng(1).normal(0, 32, FRAME_BYTES * 500)
    return Framer().feed(mulaw.encode(np.rint(noise).astype("<i2").tobytes()))


def started() -> MediaStream:
    """Return a stream that has started."""
    stream = MediaStream()
    for message in opening():
        stream.receive(message)
    return stream


# -- stages without I/O: each yields its name and a function of the number of frames


def pure_stages() -> Iterator[tuple[str, Callable[[int], None]]]:
    """Yield the stages that are functions."""
    text, stream, framer = media(speech()[50]), started(), Framer()
    frame = speech()[50]
    yield "reference: json.loads of one message", _calls(lambda: json.loads(text))
    yield "JSON, base64 and wire, in", _calls(lambda: stream.receive(text))
    yield "framing", _calls(lambda: framer.feed(frame))
    yield "VAD, line noise", _frames(lambda: GatedVad().hear, line_noise())
    yield "VAD, speech", _frames(lambda: GatedVad().hear, speech())
    yield "turn detector, silence", _frames(_detector, line_noise())
    yield "wire, out", _calls(lambda: stream.send(Play(frame)))


def _calls(act: Callable[[], object]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            act()

    return run


def _frames(
    make: Callable[[], Callable[[bytes], object]], frames: list[bytes]
) -> Callable[[int], None]:
    def run(count: int) -> None:
        hear = make()
        for at in range(count):
            hear(frames[at % len(frames)])

    return run


def _detector() -> Callable[[bytes], object]:
    detector = Detector(TurnRules())
    return lambda frame: detector.hear(frame, Voicing.SILENT)


# -- stages with I/O: coroutines that take the number of frames and return the seconds they took


async def channel(count: int) -> float:
    """A memory channel between two tasks, a frame at a time."""
    send, receive = trio.open_memory_channel[bytes](50)
    there, back = trio.open_memory_channel[None](1)

    async def consume() -> None:
        async for _ in receive:
            there.send_nowait(None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await trio.testing.wait_all_tasks_blocked()
        began = time.perf_counter()
        for _ in range(count):
            send.send_nowait(SILENCE_FRAME)
            await back.receive()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    return took / 2  # there and back are two hops


@asynccontextmanager
async def open_line() -> AsyncIterator[tuple[Line, socket.socket]]:
    """A line as the server gives it to a call, and the carrier's end of its connection."""
    lines, arrived = trio.open_memory_channel[Line](1)

    async def converse(line: Line, admit: Admit, dialect: Dialect) -> Ending:
        lines.send_nowait(line)
        await trio.sleep_forever()
        raise AssertionError

    settings = Settings(_env_file=None, host="127.0.0.1", port=0)  # type: ignore[call-arg]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_lines, converse, settings))
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as carrier:
            carrier.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            place = {"path": "/media-stream", "host": "127.0.0.1", "port": server.port}
            carrier.send(client.UPGRADE.format(**place).encode())
            line = await arrived.receive()
            carrier.recv(65536)
            yield line, carrier
            nursery.cancel_scope.cancel()


async def websocket_in(count: int) -> float:
    """A message from the socket to the line's reader, one at a time."""
    message = client.frame(media(speech()[50]).encode())
    async with open_line() as (line, carrier):
        began = time.perf_counter()
        for _ in range(count):
            carrier.send(message)
            await line.receive()
        return time.perf_counter() - began


async def websocket_out(count: int) -> float:
    """A message from the line's writer to the socket, one at a time."""
    text = started().send(Play(SILENCE_FRAME))
    async with open_line() as (line, carrier):
        took = 0.0
        for _ in range(count):
            began = time.perf_counter()
            await line.send(text)
            took += time.perf_counter() - began
            carrier.recv(65536)
        return took


async def socket_pair(count: int) -> float:
    """The carrier's part of the two stages before: one send."""
    ours, theirs = socket.socketpair()
    message = client.frame(media(speech()[50]).encode())
    with ours, theirs:
        took = 0.0
        for _ in range(count):
            began = time.perf_counter()
            theirs.send(message)
            took += time.perf_counter() - began
            ours.recv(65536)
        return took


class _PacedLine:
    """A line on which a message comes every 20 ms of the clock, and what is sent is dropped."""

    def __init__(self, frames: list[bytes], count: int) -> None:
        self._opening = opening()
        self._messages = [media(frame) for frame in frames]
        self._left = count
        self._at = 0.0

    async def receive(self) -> str:
        if self._opening:
            await trio.lowlevel.checkpoint()
            self._at = trio.current_time()
            return self._opening.pop(0)
        if not self._left:
            raise LineClosed("the end")
        self._left -= 1
        self._at += 0.02
        await trio.sleep_until(self._at)
        return self._messages[self._left % len(self._messages)]

    async def send(self, *texts: str) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        await trio.lowlevel.checkpoint()


class _Mute:
    """A recogniser, a model and a voice that no silent call asks; the voice speaks for a minute."""

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[_Mute]:
        yield self

    def feed(self, frame: bytes) -> None:
        pass

    async def transcript(self, utterance: bytes) -> Transcript:
        await trio.lowlevel.checkpoint()
        return Transcript("")

    @asynccontextmanager
    async def reply(self, messages: object, tools: object) -> AsyncIterator[AsyncIterator[str]]:
        yield self._nothing()

    async def _nothing(self) -> AsyncIterator[str]:
        await trio.lowlevel.checkpoint()
        yield ""

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._minutes()

    async def _minutes(self) -> AsyncIterator[bytes]:
        for _ in range(600):
            yield b"\x20" * 800
            await trio.lowlevel.checkpoint()


async def _call(count: int, greeting: str) -> float:
    mute = _Mute()
    stt: STT = mute
    llm: LLM = mute
    tts: TTS = mute
    limits = CallLimits(idle_prompt_s=0)
    agent = Agent(stt, llm, tts, Persona(greeting=greeting), limits=limits)
    began = time.perf_counter()
    async with open_call(_PacedLine(line_noise(), count)) as call:
        await call.converse(agent)
    return time.perf_counter() - began


async def virtual_sleep(count: int) -> float:
    """What the clock of the next two stages takes itself, for each 20 ms."""
    began = time.perf_counter()
    at = trio.current_time()
    for number in range(count):
        await trio.sleep_until(at + 0.02 * number)
    return time.perf_counter() - began


async def silent_call(count: int) -> float:
    """A whole call in virtual time in which nobody speaks, on a line that costs nothing."""
    return await _call(count, "")


async def speaking_call(count: int) -> float:
    """The same while the agent speaks: a frame in and a frame out."""
    return await _call(min(count, 2900), "Once upon a time.")


ASYNC_STAGES = {
    "a memory channel hop": (channel, False),
    "the carrier's send to the socket": (socket_pair, False),
    "WebSocket in, socket to line": (websocket_in, False),
    "WebSocket out, line to socket": (websocket_out, False),
    "virtual time itself, in the next two": (virtual_sleep, True),
    "call without WebSocket: frame in": (silent_call, True),
    "call without WebSocket: frame in, frame out": (speaking_call, True),
}


def timed(run: Callable[[int], None]) -> Callable[[int], float]:
    """Return a function that runs the stage and returns the seconds it took."""

    def measure(count: int) -> float:
        began = time.perf_counter()
        run(count)
        return time.perf_counter() - began

    return measure


def say(stage: str, seconds: Callable[[int], float], count: int, repeats: int) -> None:
    """Measure one stage and print its line."""
    seconds(max(10, count // 10))
    costs = [seconds(count) / count * 1e6 for _ in range(repeats)]
    low, median, high = statistics.quantiles(costs, n=4) if repeats > 1 else costs * 3
    figures = {"stage": stage, "us": median, "spread": (high - low) / 2, "n": count * repeats}
    print(json.dumps(figures), flush=True)


def main() -> None:
    """Measure every stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int, default=-1)
    parser.add_argument("--count", type=int, default=2000, help="frames a repeat")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})
    gc.collect()
    gc.freeze()
    for stage, run in pure_stages():
        say(stage, timed(run), options.count, options.repeats)
    for stage, (act, in_virtual_time) in ASYNC_STAGES.items():

        def seconds(count: int) -> float:
            clock = trio.testing.MockClock(autojump_threshold=0) if in_virtual_time else None  # noqa: B023
            return trio.run(act, count, clock=clock)  # noqa: B023

        say(stage, seconds, options.count, options.repeats)


if __name__ == "__main__":
    main()
