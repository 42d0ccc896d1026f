"""The bench of the response gap runs, and what it reckons with is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import h11
import pytest
import trio
from trio.testing import memory_stream_pair

from voicecore.audio import mulaw
from voicecore.audio.wav import Wav, to_bytes
from voicecore.dialogue.endpointing import may_go_on

BENCH = Path(__file__).resolve().parent.parent / "bench"


def module(name: str) -> ModuleType:
    """Import a module of the benches, which are scripts and no package."""
    sys.path.insert(0, str(BENCH))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCH))


answers, caller, delays, vendors = map(module, ("answers", "caller", "delays", "vendors"))

SLOW = delays.Delays(stt_ms=300, live_ms=50, llm_ms=400, token_ms=10, tts_ms=450)
QUICK = delays.Delays(stt_ms=10, live_ms=10, llm_ms=20, token_ms=1, tts_ms=30)


def test_runs_and_writes_its_results(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(BENCH / "latency.py"), "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads((tmp_path / "latency.json").read_text())
    [row] = result["rows"]
    assert row["gap"]["n"] == len(row["answers"]) >= 1
    assert row["gap"]["min"] > 200
    assert (row["outlived"], row["vendors"]["open"]) == (0, {})
    assert row["speculations"]["kept"] >= row["gap"]["n"]
    for answer in row["answers"]:
        assert sum(answer[stage] for stage in answers.STAGES) == pytest.approx(answer["gap"], abs=1)
    assert (tmp_path / "latency.png").stat().st_size > 1000
    assert "Not measured" in (tmp_path / "latency.txt").read_text()


@pytest.mark.parametrize(
    ("way", "lost", "due"),
    [
        (answers.Way(SLOW, False, "off"), 0, 300 + 300 + 430 + 450),
        (answers.Way(SLOW, False, "full"), 0, 100 + 300 + 430 + 450),
        (answers.Way(SLOW, True, "full"), 0, 100 + 50 + 430 + 450),
        (answers.Way(SLOW, True, "full"), 2, 180 + 50 + 430 + 450),
        (answers.Way(SLOW, True, "full", is_cached=True), 0, 100 + 50 + 430),
        (answers.Way(QUICK, True, "full"), 0, 300),
        (answers.Way(QUICK, True, "llm"), 0, 300 + 30),
        (answers.Way(QUICK, True, "off"), 0, 300 + 10 + 23 + 30),
    ],
)
def test_knows_what_the_gap_has_to_be(way: Any, lost: int, due: float) -> None:
    assert way.due_ms(lost) == pytest.approx(due)


def test_the_first_clause_stands_with_its_fourth_token() -> None:
    assert delays.Delays(llm_ms=400, token_ms=10).clause_ms == 430


def turn_done(number: int, gap: float, **figures: float | bool) -> dict[str, Any]:
    stages = {"stt": 0.05, "llm": 0.1, "clause": 0.03, "tts": 0.06, "endpoint": 0.3}
    return line(number, "turn done", gap=gap, speculations=1, speculated=True) | stages | figures


def line(number: int, message: str, **fields: Any) -> dict[str, Any]:
    return {"level": "info", "message": message, "call": f"CA{number:032x}", **fields}


def test_joins_what_caller_and_server_know_of_a_turn() -> None:
    log = [
        line(0, "processing"),
        line(1, "processing"),
        turn_done(1, 0.345),
        turn_done(0, 0.350, speculations=2),
        line(1, "processing"),
        line(0, "processing"),
        turn_done(0, 0.311, speculated=False),
    ]
    # The second turn of call 1 is unfinished.
    result = {"gaps": [346.0, 352.0, 350.0], "gap_turns": [(1, 1), (0, 1), (1, 2)]}
    found = answers.matched(result, log, answers.Way(QUICK, True, "full"))
    assert [answer.gap for answer in found] == [346, 352]
    assert [(answer.lost, answer.pause) for answer in found] == [(0, 100), (1, 140)]
    assert [round(answer.rest, 6) for answer in found] == [6, -28]
    assert answers.shares(found)["tts"] == pytest.approx(60)
    assert sum(answers.shares(found).values()) == pytest.approx((346 + 352) / 2)
    assert answers.strays(found) == 0


def test_tells_when_caller_and_server_disagree() -> None:
    log = [line(0, "processing"), turn_done(0, 0.3)]
    held_up = {"gaps": [405.0], "gap_turns": [(0, 1)]}
    assert answers.strays(answers.matched(held_up, log, answers.Way(QUICK, True, "full"))) == 1


def test_time_behind_the_gate_is_nobodys_cost() -> None:
    log = [line(0, "processing"), turn_done(0, 0.302, llm=0.0, clause=0.0)]
    [answer] = answers.matched(
        {"gaps": [303.0], "gap_turns": [(0, 1)]}, log, answers.Way(QUICK, True, "full")
    )
    assert (answer.gate, answer.rest, answer.excess) == pytest.approx((90, 3, 3))


def test_counts_speculations_and_their_tokens() -> None:
    log = [
        line(0, "speculation lost", n=1, tokens=7),
        line(0, "speculation lost", n=2, tokens=0),
        turn_done(0, 0.3),
        turn_done(0, 0.3, speculated=False),
    ]
    assert answers.speculations(log) == {"kept": 1, "lost": 2, "lost_tokens": 7}


def test_finds_requests_that_outlive_their_turn() -> None:
    log = [line(0, "processing"), line(0, "processing")]
    slow, quick = answers.Way(SLOW, True, "full"), answers.Way(QUICK, True, "full")
    assert answers.outlived(slow, {"ended": {"llm": 2}, "open": {}}, log) == 0
    assert answers.outlived(slow, {"ended": {"llm": 3}, "open": {"tts": 1}}, log) == 2
    assert answers.outlived(quick, {"ended": {"llm": 3}, "open": {}}, log) == 0


def test_faults_are_what_the_server_complains_about() -> None:
    log = [
        line(0, "turn done"),
        line(0, f"{answers.UNSIGNED}: anybody") | {"level": "warning"},
        line(0, "provider failed") | {"level": "warning"},
    ]
    assert answers.faults(log) == ["provider failed"]


def test_hears_words_in_every_recording_that_end_their_sentence() -> None:
    said = caller.utterances()
    silence = caller.line_noise(1)[:8]
    paused = caller.with_pause(said[0], said[1], silence)
    assert paused.frames[paused.last] == said[1].frames[said[1].last]
    counts = []
    for utterance in (*said, paused):
        whole, sliced = vendors.Ears(), vendors.Ears()
        audio = b"".join(map(b64decode, utterance.frames))
        whole.hear(audio)
        for at in range(0, len(audio), 97):
            sliced.hear(audio[at : at + 97])
        assert whole.words == sliced.words
        counts.append(len(whole.words))
        for first in range(len(vendors.WORDS)):
            order = [*vendors.WORDS[first:], *vendors.WORDS] * 3
            assert not may_go_on(" ".join(order[: counts[-1]]), "en-US")
    assert 0 < counts[0] < counts[-1] >= counts[1]


@asynccontextmanager
async def shop(times: Any) -> AsyncIterator[tuple[Any, trio.abc.Stream]]:
    """A shop's book, and a connection to it."""
    book = vendors.Book()
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vendors.Shop(times, book, vendors.Voice()).serve, theirs)
        yield book, ours
        await ours.aclose()


async def ask(stream: trio.abc.Stream, path: str, body: bytes) -> h11.Connection:
    link = h11.Connection(h11.CLIENT)
    headers = [("Host", "vendor"), ("Content-Length", str(len(body)))]
    await stream.send_all(
        (link.send(h11.Request(method="POST", target=path, headers=headers)) or b"")
        + (link.send(h11.Data(body)) or b"")
        + (link.send(h11.EndOfMessage()) or b"")
    )
    return link


async def pieces(stream: trio.abc.Stream, link: h11.Connection) -> AsyncIterator[bytes]:
    while not isinstance(event := link.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            link.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Data):
            yield bytes(event.data)


async def test_the_llm_writes_each_token_in_its_time(autojump_clock: object) -> None:
    async with shop(SLOW) as (book, stream):
        link = await ask(stream, "/v1/chat/completions", b"{}")
        began, heard = trio.current_time(), []
        async for piece in pieces(stream, link):
            heard += [(trio.current_time() - began, text) for text in piece.split(b"\n\n") if text]
    assert heard.pop()[1] == b"data: [DONE]"
    tokens = [json.loads(text[6:])["choices"][0]["delta"].get("content") for _, text in heard]
    assert tokens == [*delays.TOKENS, None]
    for at, (seconds, _) in enumerate(heard[:-1]):
        assert seconds == pytest.approx(0.4 + 0.01 * at)
    assert book.read()["ended"] == {"llm": 1}


@pytest.mark.parametrize(
    ("path", "field", "piece_bytes"),
    [("/v1/audio/speech", "input", 4800), ("/v1/text-to-speech/v/stream?a=b", "text", 800)],
)
async def test_the_voice_begins_in_its_time(
    path: str, field: str, piece_bytes: int, autojump_clock: object
) -> None:
    async with shop(SLOW) as (_, stream):
        link = await ask(stream, path, json.dumps({field: "Good question,"}).encode())
        began = trio.current_time()
        heard = [(trio.current_time() - began, piece) async for piece in pieces(stream, link)]
    assert heard[0][0] == pytest.approx(0.45)
    assert [len(piece) for _, piece in heard] == [piece_bytes] * 6


async def test_an_upload_is_understood_in_its_time(autojump_clock: object) -> None:
    audio = b"".join(map(b64decode, caller.utterances()[0].frames))
    recording = to_bytes(Wav(8000, 1, mulaw.decode(audio)))
    ears = vendors.Ears()
    ears.hear(audio)
    async with shop(SLOW) as (_, stream):
        body = b"--x\r\n\r\n" + recording + b"\r\n--x--"
        link = await ask(stream, "/v1/audio/transcriptions", body)
        began = trio.current_time()
        heard = b"".join([piece async for piece in pieces(stream, link)])
        assert trio.current_time() - began == pytest.approx(0.3)
    assert json.loads(heard)["text"] == " ".join(word for word, _, _ in ears.words) + "."


async def test_who_leaves_is_not_served_on(autojump_clock: object) -> None:
    async with shop(SLOW) as (book, stream):
        await ask(stream, "/v1/chat/completions", b"{}")
        await trio.sleep(0.45)
        assert book.read()["open"] == {"llm": 1}
        await stream.aclose()
        await trio.sleep(0.001)
        figures = book.read()
    assert (figures["open"], figures["left"], figures["ended"]) == ({}, {"llm": 1}, {})


def test_refuses_what_makes_no_sense() -> None:
    option = "--calls=0"
    run = subprocess.run(
        [sys.executable, str(BENCH / "latency.py"), option],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=os.environ,
    )
    assert run.returncode == 2
    assert option[2:].partition("=")[0] in run.stderr
