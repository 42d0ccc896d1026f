"""What the tests of records share: records in virtual time, recorded calls, what they left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import trio
from trio_websocket import ConnectionClosed

from voicecore.audio import wav
from voicecore.call.agent import Agent
from voicecore.call.call import Call
from voicecore.errors import LineClosed
from voicecore.records import dates
from voicecore.records.database import TURN_COLUMNS, Database
from voicecore.records.query import TIMES, Which, open_log
from voicecore.records.records import Records, open_records
from voicecore.server.conversing import converse_with
from voicecore.settings import Settings
from voicecore.testing import ScriptedCaller, Transcript
from voicecore.wire.dialects import TWILIO

RATE = 8000
SID = "CA" + "1" * 32


async def inline(work: Callable[[], Any], limiter: trio.CapacityLimiter) -> Any:
    """In virtual time no thread's time passes: the disk answers at once."""
    async with limiter:
        return work()


def settings(directory: Path, **given: object) -> Settings:
    given = {"host": "127.0.0.1", "port": 0, "record_dir": directory, **given}
    return Settings(_env_file=None, **given)


@asynccontextmanager
async def virtual_records(directory: Path, **given: object) -> AsyncIterator[Records]:
    async with open_records(settings(directory, **given), inline) as records:
        assert records is not None
        yield records


class MemoryLine:
    """One end of a line whose messages never were WebSocket frames: a third of the time.

    It is a `Line` to the server, and enough of a WebSocket for a `ScriptedCaller`.
    """

    def __init__(
        self, outgoing: trio.MemorySendChannel[str], incoming: trio.MemoryReceiveChannel[str]
    ) -> None:
        self._outgoing, self._incoming = outgoing, incoming

    async def receive(self) -> str:
        try:
            return await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LineClosed("it is over") from None

    async def send(self, *texts: str) -> None:
        try:
            for text in texts:
                self._outgoing.send_nowait(text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LineClosed("it is over") from None
        await trio.lowlevel.checkpoint()

    async def aclose(self, code: int = 1000) -> None:
        self._outgoing.close()
        self._incoming.close()

    async def send_message(self, text: str) -> None:
        try:
            await self.send(text)
        except LineClosed:
            raise ConnectionClosed(None) from None

    async def get_message(self) -> str:
        try:
            return await self.receive()
        except LineClosed:
            raise ConnectionClosed(None) from None


def memory_line() -> tuple[MemoryLine, MemoryLine]:
    to_server, at_server = trio.open_memory_channel[str](1000)
    to_caller, at_caller = trio.open_memory_channel[str](1000)
    return MemoryLine(to_caller, at_server), MemoryLine(to_server, at_caller)


async def recorded_call(records: Records, caller: ScriptedCaller, agent: Agent) -> Transcript:
    """Let `caller` call `agent` as over a server, in memory; its record is written on return."""
    ours, theirs = memory_line()
    over = trio.Event()

    async def handler(call: Call) -> None:
        await call.converse(agent)

    async def answer() -> None:
        await converse_with(handler, None, records)(ours, lambda started: None, TWILIO)
        await ours.aclose()
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        transcript = await caller.talk(theirs)  # type: ignore[arg-type]
        await over.wait()
    return transcript


def directories(records: Path) -> list[Path]:
    return sorted(path for path in records.iterdir() if path.is_dir() and path.name != ".owners")


def only(records: Path) -> Path:
    (directory,) = directories(records)
    return directory


def sides(directory: Path) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    stereo = wav.read(directory / "audio.wav")
    assert (stereo.channels, stereo.rate) == (2, RATE)
    samples = np.frombuffer(stereo.pcm, "<i2").reshape(-1, 2)
    return samples[:, 0], samples[:, 1]


def loud(samples: npt.NDArray[np.int16], pause_s: float = 0.1) -> list[tuple[float, float]]:
    """When there is sound: from, to, in seconds; pauses shorter than `pause_s` are none."""
    at = np.flatnonzero(np.abs(samples.astype(int)) > 100) / RATE
    if not len(at):
        return []
    breaks = np.flatnonzero(np.diff(at) > pause_s)
    starts = [at[0], *at[breaks + 1]]
    ends = [*at[breaks], at[-1]]
    return [(float(a), float(b) + 1 / RATE) for a, b in zip(starts, ends, strict=True)]


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "transcript.jsonl").read_text().splitlines()]


def timeline(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "timeline.json").read_text())
    return document


def rows(directory: Path, sid: str = SID) -> list[dict[str, Any]]:
    with open_log(directory) as log:
        return [row for row in log.calls(Which()) if row["sid"] == sid]


def add_calls(directory: Path, count: int, **given: Any) -> None:
    """Put calls into the log, an hour apart, the oldest first, with two turns each."""
    with closing(Database(directory)) as database, database.transaction():
        for n in range(count):
            began = dates.now() - timedelta(hours=count - n)
            call = {
                "sid": f"CA{n:032d}", "directory": f"{began:%Y%m%dT%H%M%SZ}-CA{n:032d}",
                "carrier": "twilio", "flow": "recording" if n % 4 == 0 else "stream",
                "from_number": f"+1555{n:07d}", "to_number": "+15550002222",
                "began": dates.iso(began), "ended": dates.iso(began + timedelta(seconds=60)),
                "ended_by": "agent" if n % 10 == 0 else "caller", "seconds": 60.0, "turns": 2,
                "touched": began.timestamp(), **given,
            }  # fmt: skip
            row = database.insert(call)
            database.write_turns(
                dict.fromkeys(TURN_COLUMNS)
                | {"call": row, "segment": 1, "turn": turn, "at": 1.0, "flow": call["flow"]}
                | dict.fromkeys(TIMES, (n * 2 + number + 1) / 1000)
                for number, turn in enumerate(("t1", "t2"))
            )
