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
import httpx
import pytest
import trio
from trio.testing import memory_stream_pair

from voicecore.audio import mulaw
from voicecore.audio.wav import Wav, telephone_bytes, to_bytes
from voicecore.dialogue.endpointing import may_go_on
from voicecore.phone.account import Account
from voicecore.phone.call import Call, Number
from voicecore.phone.sounds import silence, spoken

BENCH = Path(__file__).resolve().parent.parent / "bench"


def module(name: str) -> ModuleType:
    """Import a module of the benches, which are scripts and no package."""
    sys.path.insert(0, str(BENCH))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(BENCH))


answers, caller, delays, vendors = map(module, ("answers", "caller", "delays", "vendors"))
recorded_load = module("recorded_load")

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
    recorded, row = result["rows"]
    assert row["gap"]["min"] > 200
    assert row["speculations"]["kept"] >= row["gap"]["n"]
    assert recorded["gap"]["min"] > delays.CARRIER.total_ms
    assert recorded["speculations"] == {"kept": 0, "lost": 0, "lost_tokens": 0}
    for each in (recorded, row):
        assert each["gap"]["n"] == len(each["answers"]) >= 1
        assert (each["outlived"], each["vendors"]["open"]) == (0, {})
        for answer in each["answers"]:
            stages = sum(answer[stage] for stage in answers.STAGES)
            assert stages == pytest.approx(answer["gap"], abs=1)
    assert (tmp_path / "latency.png").stat().st_size > 1000
    assert "1600 ms are the carrier's" in (tmp_path / "latency.txt").read_text()


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
        (answers.Way(SLOW, False, "off", is_recorded=True), 0, 1600 + 300 + 550 + 590),
    ],
)
def test_knows_what_the_gap_has_to_be(way: Any, lost: int, due: float) -> None:
    assert way.due_ms(lost) == pytest.approx(due)


def test_the_first_clause_stands_with_its_fourth_token() -> None:
    assert delays.Delays(llm_ms=400, token_ms=10).clause_ms == 430


def test_the_carriers_part_is_that_of_the_classic_arithmetic() -> None:
    carrier = delays.CARRIER
    assert (carrier.early_ms, carrier.total_ms) == (1000 + 200 + 100, 1000 + 200 + 100 + 300)


def test_knows_how_long_the_voice_needs_for_a_whole_reply() -> None:
    pieces = vendors.Voice().pieces("".join(delays.TOKENS), "pcm")
    more_ms = (len(pieces) - 1) * vendors.PIECE_S / vendors.PACE * 1000
    assert SLOW.speech_ms == pytest.approx(450 + more_ms)


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


def test_of_a_recorded_turn_the_server_knows_what_comes_after_the_webhook() -> None:
    done = {"gap": 1.5, "fetch": 0.31, "stt": 0.3, "llm": 0.4, "clause": 0.2, "tts": 0.1}
    log = [line(7, "processing"), line(7, "turn done", speculated=False, **done)]
    way = answers.Way(SLOW, False, "off", is_recorded=True)
    [answer] = answers.matched({"gaps": [2812.0], "gap_turns": [(7, 1)]}, log, way)
    assert (answer.pause, answer.carrier, answer.whole) == pytest.approx((1000, 610, 190))
    assert (answer.server_gap, answer.rest) == pytest.approx((2800, 12))
    assert sum(answers.shares([answer]).values()) == pytest.approx(2812)


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


class Host:
    """A server's recording flow: hears a recording's webhook, has a file played in answer."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/voice/audio/"):
            sound = silence(0.06) + spoken("I see.")
            return httpx.Response(200, content=telephone_bytes(sound), headers=WAV)
        document = LISTEN
        if request.url.path == "/voice/recording":
            document = LISTEN.replace(b"<Record", b"<Play>/voice/audio/a.wav</Play><Record")
        return httpx.Response(200, content=document, headers={"content-type": "text/xml"})


LISTEN = b"""<?xml version="1.0" encoding="UTF-8"?><Response><Record action="/voice/recording"
 timeout="1" playBeep="false"/></Response>"""
WAV = {"content-type": "audio/x-wav"}


async def test_a_recorded_caller_measures_what_it_hears(autojump_clock: object) -> None:
    plan = recorded_load.RecordedPlan(think_s=0.4, pause_ms=160)
    tally, host = caller.Tally(), Host()
    voice = recorded_load.RecordedCaller(plan, 1, tally)
    voice.is_counting = True
    voice.call = Call(Number("http://host/voice"), voice, account=Account(recording_delay_s=0))
    distance = recorded_load.Distance(voice, httpx.MockTransport(host))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(voice.call.place, None, distance)
        await trio.sleep(30)
        voice.call.hang_up()
    assert voice.call.error is None
    # 1 s of silence, 300 ms to the webhook, 60 ms of the file that cannot be heard.
    assert tally.gaps == pytest.approx([1360] * len(tally.gaps), abs=0.01)
    heard = [turn for turn in voice.call.turns if turn.gap is not None]
    assert len(heard) == len(tally.gaps) == len(tally.gap_turns) > 5
    for turn, (number, nth) in zip(heard, tally.gap_turns, strict=True):
        assert turn.gap == pytest.approx(1.36, abs=0.021)
        assert (turn.said, number) == (f"utterance {nth}", int(voice.call.call_sid[2:], 16))
    assert tally.missed_replies == 0


async def test_what_is_not_answered_is_missed(autojump_clock: object) -> None:
    plan = recorded_load.RecordedPlan(think_s=0.4)
    tally = caller.Tally()
    voice = recorded_load.RecordedCaller(plan, 1, tally)
    voice.is_counting = True
    voice.call = Call(Number("http://host/voice"), voice)

    def say_nothing(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=LISTEN, headers={"content-type": "text/xml"})

    with trio.move_on_after(10):
        await voice.call.place(
            None, recorded_load.Distance(voice, httpx.MockTransport(say_nothing))
        )
    assert tally.turns > tally.missed_replies >= tally.turns - 2 > 0
    assert tally.gaps == []


async def test_a_recording_takes_its_time(autojump_clock: object) -> None:
    near, far = memory_stream_pair()
    slow = recorded_load.Slow(near, 0.3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.send_all, b"RIFF")
        assert await far.receive_some() == b"RIFF"
        assert trio.current_time() == pytest.approx(0.3)
        await far.send_all(b"GET")
        assert await slow.receive_some() == b"GET"
        assert trio.current_time() == pytest.approx(0.3)


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
