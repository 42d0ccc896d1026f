"""Workers ask each other: over real Unix sockets, with what is alive, dead, slow or mad behind."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.lowlevel
from server_house import settings

from voicecore.server.control import siblings as module
from voicecore.server.control.live_calls import CallLine, LiveCalls
from voicecore.server.control.siblings import (
    ERRAND_BYTES,
    DescribeCall,
    Errand,
    HangUp,
    ListCalls,
    Report,
    Say,
    Siblings,
)
from voicecore.server.control.switchboard import Switchboard
from voicecore.server.ledger import Ledger
from voicecore.server.store import MemoryStore


@asynccontextmanager
async def worker(directory: Path, number: int, calls: dict[str, str]) -> AsyncIterator[Siblings]:
    """A worker that knows some calls and their status."""
    siblings = Siblings(str(directory), number, 3)

    async def run(errand: Errand) -> Report:
        if isinstance(errand, ListCalls):
            return Report("live", lines=[CallLine(sid=sid, state="live") for sid in calls])
        if errand == Say("CAhang", "x"):
            await trio.sleep_forever()
        if errand == Say("CAcrash", "x"):
            raise ZeroDivisionError("a bug")
        return Report(calls.get(getattr(errand, "sid", ""), ""))

    async with trio.open_nursery() as nursery:
        await nursery.start(siblings.serve, run)
        yield siblings
        nursery.cancel_scope.cancel()


async def test_whoever_has_the_call_answers(tmp_path: Path) -> None:
    async with (
        worker(tmp_path, 0, {"CA0": "live"}) as zero,
        worker(tmp_path, 1, {"CA1": "live"}) as one,
    ):  # and worker 2 is not there
        assert sorted(report.status for report in await zero.ask(HangUp("CA1"))) == ["live"]
        assert [report.status for report in await one.ask(HangUp("CA1"))] == [""]
        [report] = await zero.ask(ListCalls())
        assert [line.sid for line in report.lines] == ["CA1"]
        assert [report.status for report in await zero.ask(DescribeCall("v3:T02/é\0"))] == [""]


async def test_the_dead_are_skipped_and_their_seats_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "worker-1.sock"))  # nobody listens
        async with worker(tmp_path, 0, {}) as zero:
            assert await zero.ask(HangUp("CA1")) == []
            async with worker(tmp_path, 1, {"CA1": "live"}):
                assert [report.status for report in await zero.ask(HangUp("CA1"))] == ["live"]
            assert not (tmp_path / "worker-1.sock").exists()


async def test_who_says_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worker(tmp_path, 0, {}) as zero, worker(tmp_path, 1, {"CA1": "live"}):
        monkeypatch.setattr(module, "ERRAND_S", 0.05)
        reports = await zero.ask(Say("CAhang", "x"))
        assert all(not report.is_found for report in reports)
        assert await zero.ask(Say("CAcrash", "x")) == []
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(tmp_path / "worker-2.sock"))
            mute.listen()
            reports = await zero.ask(HangUp("CA1"))
            assert sorted((report.status, report.silent) for report in reports) == [
                ("", 1), ("live", 0)
            ]  # fmt: skip


HOSTILE = {
    "nothing": b"",
    "half a length": b"\0\0",
    "a length": struct.pack("!I", 100),
    "a huge length": struct.pack("!I", 0xFFFFFFFF) + b"x" * 100,
    "too long": struct.pack("!I", ERRAND_BYTES + 1) + b"x" * (ERRAND_BYTES + 1),
    "garbage": struct.pack("!I", 4) + b"\xc1\xff\0\0",
    "no errand": struct.pack("!I", 1) + b"\x80",
    "deep": struct.pack("!I", 9000) + b"\x91" * 9000,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
async def test_what_is_no_errand_ends_its_connection_only(data: bytes, tmp_path: Path) -> None:
    async with worker(tmp_path, 0, {}) as zero, worker(tmp_path, 1, {"CA1": "live"}):
        async with await trio.open_unix_socket(tmp_path / "worker-1.sock") as stream:
            try:
                await stream.send_all(data)
                await stream.send_eof()
                assert await stream.receive_some() == b""
            except trio.BrokenResourceError:
                pass  # it did not even read all of it
        assert [report.status for report in await zero.ask(HangUp("CA1"))] == ["live"]


@pytest.mark.parametrize("data", [b"", b"\0", struct.pack("!I", 9) + b"x", b"\xff" * 9,
                                  struct.pack("!I", 1) + b"\xc1"])  # fmt: skip
async def test_what_is_no_report_is_none(data: bytes, tmp_path: Path) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(data)

    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(str(tmp_path / "worker-1.sock"))
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(trio.serve_listeners, answer, [trio.SocketListener(listening)])
            )
            assert await Siblings(str(tmp_path), 0, 2).ask(HangUp("CA1")) == []
            nursery.cancel_scope.cancel()


async def test_a_directory_that_is_too_deep_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    siblings = Siblings(str(deep), 0, 2)

    async def nobody(errand: Errand) -> Report:
        raise AssertionError

    await siblings.serve(nobody)  # returns: the server goes on without
    assert "cannot ask each other" in caplog.text
    assert await siblings.ask(HangUp("CA1")) == []


Milestones = list[tuple[str, str, float, dict[str, Any]]]


def board(directory: Path, number: int, seen: Milestones) -> Switchboard:
    """A worker's switchboard that has seen some milestones of calls of the recording flow."""
    now = [1000.0]
    calls = LiveCalls(lambda: now[0], number)
    for sid, event, at, fields in seen:
        now[0] = 1000.0 + at
        calls.observe(sid, event, at, fields)
    siblings = Siblings(str(directory), number, 2)
    return Switchboard(settings(), Ledger(), MemoryStore(calls.clock), calls, siblings)


def said(text: str, turn: str) -> dict[str, Any]:
    return {"text": text, "turn": turn}


async def test_who_heard_of_a_call_last_knows_how_it_stands(tmp_path: Path) -> None:
    """The webhooks of one call reach now this worker, now that one."""
    started, over = "recording flow started", {"reason": "caller"}
    zero = board(tmp_path, 0, [
        ("CA1", "stream started", 0.0, {}), ("CA1", "user said", 1.0, said("one", "t1")),
        ("CA1", "call ended", 2.0, {"reason": "carrier"}), ("CA2", started, 0.0, {}),
        ("CA2", "user said", 1.0, said("hello", "t1")),
        ("CA2", "turn done", 2.0, {"turn": "t1", "gap": 1.0}), ("CA3", started, 0.0, {}),
    ])  # fmt: skip
    one = board(tmp_path, 1, [
        ("CA1", started, 3.0, {}), ("CA1", "user said", 4.0, said("two", "t2")),
        ("CA2", "user said", 5.0, said("bye", "t2")),
        ("CA2", "turn done", 6.0, {"turn": "t2", "gap": 3.0}), ("CA2", "call ended", 7.0, over),
        ("CA3", "user said", 8.0, said("still here", "t1")),
    ])  # fmt: skip
    async with trio.open_nursery() as nursery:
        for each in (zero, one):
            await nursery.start(each.siblings.serve, each.obey)
        for asked in (zero, one):
            report = await asked.ask(ListCalls())
            assert [line.sid for line in report.lines] == ["CA1", "CA3"]
            assert {line.worker for line in report.lines} == {1}
            first, second = [(await asked.ask(DescribeCall(sid))).detail for sid in ("CA1", "CA2")]
            assert first is not None
            assert (first.state, first.flow, first.worker) == ("live", "recording", 1)
            assert [turn.caller for turn in first.turns] == ["one", "two"]
            assert second is not None
            assert (second.state, second.ended_by, second.seconds) == ("ended", "caller", 7.0)
            assert [turn.caller for turn in second.turns] == ["hello", "bye"]
            numbers = second.numbers
            assert (numbers.answered, numbers.gap_mean, numbers.gap_max) == (2, 2.0, 3.0)
            statuses = [(await asked.ask(HangUp(f"CA{n}"))).status for n in (1, 2, 3, 9)]
            assert statuses == ["recording", "ended", "recording", ""]
        nursery.cancel_scope.cancel()


def test_errands_survive_their_encoding() -> None:
    for errand in (ListCalls(), HangUp("CA1"), Say("CA1", "hello", "k")):
        encoded: Any = msgspec.msgpack.encode(errand)
        assert msgspec.msgpack.decode(encoded, type=Errand) == errand
