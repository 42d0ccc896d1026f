"""A call of the recording flow leaves one record, whatever workers it met."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from flow_house import Carrier, Shared, flow_server
from server_house import CALL_SID, settings
from trio.testing import MockClock

from voicecore.audio import wav
from voicecore.records.query import Which, open_log
from voicecore.records.records import open_records
from voicecore.testing import FakeLLM, fake_agent


async def inline(work: Callable[[], Any], limiter: trio.CapacityLimiter) -> Any:
    """What a thread does, at once: virtual time waits for no thread."""
    await trio.lowlevel.checkpoint()
    return work()


def record_in(directory: Path) -> tuple[list[dict[str, Any]], float]:
    """The transcript of the only call, and how long its sound is."""
    (transcript,) = directory.glob("*/transcript.jsonl")
    lines = [json.loads(line) for line in transcript.read_text().splitlines()]
    return lines, wav.read(transcript.with_name("audio.wav")).seconds


async def test_two_workers_make_one_record(autojump_clock: MockClock, tmp_path: Path) -> None:
    agent = fake_agent(llm=FakeLLM(1.0), greeting="Good day.")
    async with open_records(settings(record_dir=tmp_path), inline) as records:
        shared = Shared(records=records)
        async with (
            flow_server(agent, None, shared) as house,
            flow_server(agent, None, shared) as other,
        ):
            caller = Carrier(house)
            await caller.calls()
            await caller.says("book a table")
            caller.house = other
            await caller.says("for two")
            await trio.sleep(1)
            caller.house = house
            await caller.hangs_up()
            await trio.sleep(1)
    lines, seconds = record_in(tmp_path)
    assert seconds > 1
    assert [(line["who"], line["text"]) for line in lines] == [
        ("agent", "Good day."),
        ("caller", "book a table"),
        ("agent", "You said book a table."),
        ("caller", "for two"),
        ("agent", "You said for two."),
    ]
    with open_log(tmp_path) as log:
        (call,) = log.calls(Which())
        assert (call["sid"], call["flow"], call["ended_by"]) == (CALL_SID, "recording", "caller")
        assert call["turns"] == 2


async def test_strangers_leave_no_records(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_records(settings(record_dir=tmp_path), inline) as records:
        async with flow_server(fake_agent(), None, Shared(records=records)) as house:
            caller = Carrier(house)
            for path in ("/voice", "/voice/recording", "/voice-stream/ended", "/status/call"):
                await caller.request(path, CallStatus="completed")
            await trio.sleep(1)
    with open_log(tmp_path) as log:
        assert not list(log.calls(Which()))
