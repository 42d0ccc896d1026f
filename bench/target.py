"""The server under test: `voicecore.server` with an agent whose providers take no time, or as told.

It is a process of its own, started by the benches on a core of its own; it can be run by hand.
What is real: HTTP, upgrade, WebSocket, wire, VAD, turns, speculation, playback, logging, and the
resampling of the agent's voice (24 kHz PCM, in slices of 100 ms).  What is not: nobody understands
the caller, nobody thinks, and the voice is a recording.

On stdout: one JSON line when it listens, and one for each SIGUSR1 (`Gauge.read`).  It ends with
SIGTERM, or when its stdin does: whoever started it is gone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGUSR1

import numpy as np
import trio

from voicecore.audio import FRAME_BYTES, wav
from voicecore.audio.resample import MulawEncoder, Resampler
from voicecore.call.agent import agent_from
from voicecore.call.call import Call
from voicecore.contracts import Delta, Message, Tool, Transcript
from voicecore.server.lifecycle import run_until_signalled
from voicecore.server.log import configure
from voicecore.server.serve import Server, serve
from voicecore.settings import Settings

RECORDINGS = Path(__file__).resolve().parent.parent / "tests" / "audio"
VOICE_RATE = 24_000
SLICE_S = 0.1
REPLY = (
    "Your country can do a great deal. You can ask it for whatever you need."
    " And then it will ask what you can do."
)
GREETING = "Hello."
PHRASE = (8.12, 10.26)
"""The voice: "ask what you can do for your country", 2.14 s, once a sentence."""

CHARACTERS_PER_S = 15
"""How fast the voice speaks; a longer text than the phrase gets the phrase."""

STALL_BINS_MS = (1, 2, 5, 10, 20, 30, 50, 100, 200)


@dataclass
class Delays:
    """How long the providers take.  Seconds."""

    stt: float = 0.0
    llm: float = 0.0
    token: float = 0.0
    tts: float = 0.0


@dataclass
class CannedSTT:
    """Understands the same in everything."""

    delays: Delays

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[CannedSTT]:
        """Open a call's recognition."""
        yield self

    def feed(self, frame: bytes) -> None:
        """Take a frame."""

    async def transcript(self, utterance: bytes) -> Transcript:
        """Return words after the delay."""
        await trio.sleep(self.delays.stt)
        return Transcript("what can my country do for me")


@dataclass
class CannedLLM:
    """Answers the same to everything, a word a token."""

    delays: Delays

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterator[Delta]]:
        """Stream the answer."""
        await trio.sleep(self.delays.llm)
        yield self._stream()

    async def _stream(self) -> AsyncIterator[Delta]:
        for token in REPLY.split(" "):
            yield f"{token} "
            await trio.sleep(self.delays.token)


@dataclass
class CannedTTS:
    """Says the same phrase for every sentence, resampled as it streams."""

    delays: Delays
    pcm: bytes = field(default_factory=lambda: _phrase())

    @asynccontextmanager
    async def speak(
        self, text: str, voice: str, language: str
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the audio."""
        await trio.sleep(self.delays.tts)
        yield self._stream(spoken(text, self.pcm))

    async def _stream(self, pcm: bytes) -> AsyncIterator[bytes]:
        encoder = MulawEncoder(VOICE_RATE)
        step = int(2 * VOICE_RATE * SLICE_S)
        for start in range(0, len(pcm), step):
            if audio := encoder.feed(pcm[start : start + step]):
                yield audio
            await trio.lowlevel.checkpoint()
        yield encoder.flush()


def _phrase() -> bytes:
    """The recorded phrase as a provider would send it, from its first voiced sample on."""
    recording = wav.read(RECORDINGS / "jfk.wav")
    first, last = (round(at * recording.rate) for at in PHRASE)
    samples = np.frombuffer(recording.pcm, dtype="<i2")[first:last]
    loud = np.flatnonzero(np.abs(samples) > 2000)[0]
    pcm = samples[loud : last - last % (recording.rate // 50)].tobytes()
    up = Resampler(recording.rate, VOICE_RATE)
    return up.feed(pcm) + up.flush()


def spoken(text: str, pcm: bytes) -> bytes:
    """Return the beginning of the phrase that a text of this length takes."""
    return pcm[: 2 * int(len(text) / CHARACTERS_PER_S * VOICE_RATE)]


def reply_bytes(pcm: bytes) -> int:
    """How much mu-law one whole reply is: its sentences one after the other, in whole frames."""
    encoder = MulawEncoder(VOICE_RATE)
    audio = REPLY.count(".") * len(encoder.feed(pcm) + encoder.flush())
    return -(-audio // FRAME_BYTES) * FRAME_BYTES


class Passes(trio.abc.Instrument):
    """How long the event loop works between two looks at the network: nobody is served meanwhile.

    Two hooks a pass, none a task step: at a hundred calls it costs a thousandth of the loop.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self.longest = 0.0
        self.counts = [0] * (len(STALL_BINS_MS) + 1)
        self.passes = 0

    def after_io_wait(self, timeout: float) -> None:
        """A pass begins."""
        self._began = time.perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        """A pass is over."""
        took = time.perf_counter() - self._began
        self.passes += 1
        self.longest = max(self.longest, took)
        if took >= 0.001:
            at = sum(took * 1000 >= edge for edge in STALL_BINS_MS)
            self.counts[at] += 1


class Gauge:
    """What the process says about itself."""

    def __init__(self) -> None:
        self.passes = Passes()
        self.collections = [0.0, 0.0]
        """The longest garbage collection, and the start of the one that runs."""
        gc.callbacks.append(self._collected)

    def read(self) -> dict[str, object]:
        """Return the figures since the last `read`; CPU is since the start of the process."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        figures = {
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            "switches": usage.ru_nvcsw,
            "waited_s": waited(),
            "longest_pass_ms": self.passes.longest * 1000,
            "longest_collection_ms": self.collections[0] * 1000,
            "passes": self.passes.passes,
            "passes_over_ms": dict(zip(STALL_BINS_MS, self.passes.counts[1:], strict=True)),
        }
        self.passes.reset()
        self.collections[0] = 0.0
        return figures

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self.collections[1] = time.perf_counter()
        else:
            took = time.perf_counter() - self.collections[1]
            self.collections[0] = max(self.collections[0], took)


def waited() -> float:
    """Return for how many seconds this process could have run, but others had its core."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


def say(figures: dict[str, object]) -> None:
    """Print one JSON line."""
    print(json.dumps(figures), flush=True)


async def report(gauge: Gauge) -> None:
    """Print the figures whenever SIGUSR1 asks for them."""
    with trio.open_signal_receiver(SIGUSR1) as signals:
        async for _ in signals:
            say(gauge.read())


async def stall(ms: float, every_s: float) -> None:
    """Hold the event loop for `ms`, as a collection or a slow library would."""
    while ms:
        await trio.sleep(every_s)
        _hold(ms / 1000)


def _hold(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def run(options: argparse.Namespace) -> None:
    """Serve until told to end."""
    delays = Delays(*(getattr(options, name) / 1000 for name in ("stt_ms", "llm_ms")))
    delays.token, delays.tts = options.token_ms / 1000, options.tts_ms / 1000
    tts = CannedTTS(delays)
    settings = Settings(  # type: ignore[call-arg]
        _env_file=None, host="127.0.0.1", port=options.port, greeting=GREETING, drain_s=1
    )
    agent = agent_from(settings, CannedSTT(delays), CannedLLM(delays), tts)
    await agent.prepare()
    gauge = Gauge()

    async def converse(call: Call) -> None:
        await call.converse(agent)

    def ready(server: Server) -> None:
        say(
            {
                "port": server.port,
                "pid": os.getpid(),
                "reply_bytes": reply_bytes(tts.pcm),
                "lead_ms": settings.playback_lead_ms,
            }
        )

    trio.lowlevel.add_instrument(gauge.passes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report, gauge)
        nursery.start_soon(stall, options.stall_ms, options.stall_every_s)
        lifeline = sys.stdin.fileno() if options.lifeline else None
        await run_until_signalled(partial(serve, converse, settings), ready, lifeline)
        nursery.cancel_scope.cancel()


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (any free one)")
    for what in ("stt", "llm", "token", "tts"):
        parser.add_argument(f"--{what}-ms", type=float, default=0, metavar="MS", help="its delay")
    parser.add_argument("--stall-ms", type=float, default=0, help="hold the event loop so long")
    parser.add_argument("--stall-every-s", type=float, default=2, help="and so often")
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--lifeline", action="store_true", help="end when stdin ends")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    configure("text", log_text=True)
    trio.run(run, options)


if __name__ == "__main__":
    main()
