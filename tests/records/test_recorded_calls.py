"""Whole calls and what is left of them, in virtual time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import trio
from records_house import (
    RATE,
    SID,
    directories,
    lines,
    loud,
    only,
    recorded_call,
    rows,
    sides,
    timeline,
    virtual_records,
)
from trio.testing import MockClock

from voicecore.audio import mulaw
from voicecore.records import call_record
from voicecore.records.query import Which, open_log
from voicecore.server import log as server_log
from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, fake_agent

FRAME = 0.02
EDGE = FRAME + 0.5 / RATE
TEN = "one two three four five six seven eight nine ten."


async def test_ten_minutes_lie_where_they_were_heard_and_said(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    caller = ScriptedCaller().listens()
    for round_ in range(48):
        caller = caller.says("hello there", 0.6)
        if round_ % 3 == 0:  # interrupts, at another moment each time
            caller = caller.pauses(1.0 + round_ * 0.06).says("wait please now", 0.9).listens()
        else:
            caller = caller.listens().pauses(9.0)
    agent = fake_agent(
        FakeSTT(0.05), FakeLLM(0.07, answer=lambda messages: TEN), FakeTTS(0.03), "Good day.",
        idle_prompt_s=0,
    )  # fmt: skip
    async with virtual_records(tmp_path) as records:
        transcript = await recorded_call(records, caller.pauses(60).hangs_up(), agent)
    directory = only(tmp_path)
    left, right = sides(directory)
    assert transcript.seconds > 600
    assert len(left) / RATE == pytest.approx(transcript.seconds, abs=EDGE)
    assert len(transcript.clears) >= 10

    ear = np.frombuffer(mulaw.decode(bytes(transcript.audio)), "<i2")
    for recorded, true in ((loud(left), transcript.spoke), (loud(right), loud(ear))):
        assert len(recorded) == len(true) > 40
        errors = np.array(recorded) - np.array(true)
        assert np.abs(errors).max() <= EDGE
        assert np.ptp(errors[:, 0]) <= EDGE  # beginning, middle and end alike
    (row,) = rows(tmp_path)
    assert row["ended_by"] == "caller"
    assert row["barge_ins"] == len(transcript.clears)
    assert row["seconds"] == pytest.approx(transcript.seconds, abs=EDGE)


async def test_what_was_said_is_written_down_as_it_was_heard(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    caller = ScriptedCaller().listens().says("hello there", 0.6).pauses(1.5).says("wait now", 0.9)
    llm = FakeLLM(answer=lambda messages: TEN if "hello" in messages[-1].text else "Yes.")
    async with virtual_records(tmp_path) as records:
        agent = fake_agent(llm=llm, greeting="Good day.")
        transcript = await recorded_call(records, caller.listens().hangs_up(), agent)
    directory = only(tmp_path)
    cut = lines(directory)[2]["text"]
    assert TEN.startswith(cut)
    heard = transcript.heard[2:-1]
    assert abs(len(cut.split()) - len(heard)) <= 1 < len(heard) < 8
    said = [(line["who"], line["text"], line["interrupted"], line["turn"]) for line in
            lines(directory)]  # fmt: skip
    assert said == [
        ("agent", "Good day.", False, "t1"),
        ("caller", "hello there", False, "t2"),
        ("agent", cut, True, "t2"),
        ("caller", "wait now", False, "t3"),
        ("agent", "Yes.", False, "t3"),
    ]
    document = timeline(directory)
    assert document["call"]["sid"] == SID
    assert document["call"]["flow"] == "stream"
    assert [turn["turn"] for turn in document["turns"]] == ["t1", "t2", "t3"]
    assert document["turns"][2]["gap"] == pytest.approx(0.3, abs=EDGE)
    assert document["turns"][1]["reaction_ms"] > 0
    events = [milestone["event"] for milestone in document["milestones"]]
    assert events[0] == "stream started"
    assert events[-1] == "call ended"
    with open_log(tmp_path) as log:
        turns = log.turns(Which())
    assert [turn["agent_text"] for turn in turns] == ["Good day.", cut, "Yes."]
    assert [turn["interrupted"] for turn in turns] == [0, 1, 0]
    assert turns[1]["heard_s"] == pytest.approx(len(cut.split()) * 0.3, abs=0.31)


async def test_a_cough_is_heard_and_the_reply_goes_on(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    caller = ScriptedCaller().says("hello there", 0.6).pauses(1.5).coughs(0.3).listens()
    async with virtual_records(tmp_path) as records:
        agent = fake_agent(llm=FakeLLM(answer=lambda messages: TEN))
        transcript = await recorded_call(records, caller.hangs_up(), agent)
    directory = only(tmp_path)
    ear = np.frombuffer(mulaw.decode(bytes(transcript.audio)), "<i2")
    errors = np.array(loud(sides(directory)[1])) - np.array(loud(ear))
    assert np.abs(errors).max() <= EDGE
    agents = [line for line in lines(directory) if line["who"] == "agent"]
    assert [line["interrupted"] for line in agents] == [True, False]
    assert agents[1]["text"] == TEN


async def test_nobody_else_can_read_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    records_dir = tmp_path / "records"
    async with virtual_records(records_dir) as records:
        await recorded_call(records, ScriptedCaller().says("hello").listens().hangs_up(),
                            fake_agent())  # fmt: skip
        for path in [records_dir, *records_dir.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), path
    assert {path.name for path in only(records_dir).iterdir()} == {
        "audio.wav", "transcript.jsonl", "timeline.json",
    }  # fmt: skip


def test_the_log_and_the_records_call_the_same_private() -> None:
    assert call_record.PRIVATE == server_log.PRIVATE


async def test_without_text_no_word_is_kept(autojump_clock: MockClock, tmp_path: Path) -> None:
    caller = ScriptedCaller().listens().says("secret plans").pauses(1).says("wait confidential")
    caller = caller.listens().presses("5").hangs_up()
    async with virtual_records(tmp_path, record_text=False) as records:
        await recorded_call(records, caller, fake_agent(greeting="Good day."))
        record = records.begin("other", parameters={"From": "+15550001111", "To": "+15550002222"})
        record.observe("other", "call ended", 1.0, {"reason": "agent"})
        await record.close()
    for directory in directories(tmp_path):
        assert {path.name for path in directory.iterdir()} == {"audio.wav", "timeline.json"}
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".wav":
            content = path.read_bytes()
            for word in (b"secret", b"confidential", b"Good", b"+1555", b'"text"', b'"heard"'):
                assert word not in content, (path, word)
    with open_log(tmp_path) as log:
        assert [turn["agent_text"] for turn in log.turns(Which())] == [None] * 3
    (row,) = rows(tmp_path)
    assert row["turns"] == 2


async def test_without_audio_there_is_no_sound(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with virtual_records(tmp_path, record_audio=False) as records:
        caller = ScriptedCaller().says("hello there").listens().hangs_up()
        await recorded_call(records, caller, fake_agent())
    assert not list(tmp_path.rglob("*.wav"))
    assert [line["who"] for line in lines(only(tmp_path))] == ["caller", "agent"]


HOSTILE = [
    "../../etc/passwd", "v3:abc/def+gh==", "", ".", "..", "a" * 5000, "é\x00ü\n", "CA 1;rm -rf",
    "\ud800", "~root", "-rf", "con:", "%2e%2e%2f",
]  # fmt: skip


async def test_a_call_may_be_called_anything(autojump_clock: MockClock, tmp_path: Path) -> None:
    records_dir = tmp_path / "a" / "records"
    async with virtual_records(records_dir) as records:
        for sid in HOSTILE:
            record = records.begin(sid, parameters={"From": "\ud800\x00" + "9" * 1000})
            record.received(b"\x10" * 160, None)
            record.observe(sid, "agent said", 0.0, {"turn": sid, "text": sid, "odd": object()})
            record.observe(sid, "call ended", 0.0, {"reason": "agent"})
            await record.close()
    made = directories(records_dir)
    assert len(made) == len(HOSTILE)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    assert os.listdir(tmp_path / "a") == ["records"]
    for directory in made:
        assert directory.name.isascii()
        assert len(directory.name) < 120
        assert {path.name for path in directory.iterdir()} >= {"audio.wav", "timeline.json"}
    with open_log(records_dir) as log:
        assert {call["ended_by"] for call in log.calls(Which())} == {"agent"}


async def test_one_call_is_one_row_whatever_carries_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """The stream breaks, and the call goes on as a recording, a webhook at a time, elsewhere."""
    async with virtual_records(tmp_path) as records:
        caller = ScriptedCaller().listens().says("hello there").listens().drops()
        await recorded_call(records, caller, fake_agent(greeting="Good day."))
        length = len(sides(only(tmp_path))[0])
    for number in range(2):
        async with virtual_records(tmp_path) as records:
            record = records.begin(SID, flow="recording")
            record.heard_utterance(b"\x10" * 1600)
            record.observe(SID, "user said", 0.0, {"turn": "t1", "text": f"words {number}"})
            record.observe(SID, "agent said", 0.0, {"turn": "t1", "text": "Indeed."})
            record.said_utterance(b"\x20" * 1600)
            if number == 1:
                record.observe(SID, "call ended", 0.0, {"reason": "agent"})
            await record.close()
            (row,) = rows(tmp_path)
            assert row["ended_by"] == ("agent" if number else None)
    (row,) = rows(tmp_path)
    assert (row["flow"], row["turns"], row["ended_by"]) == ("recording", 3, "agent")
    said = [line["text"] for line in lines(only(tmp_path)) if line["who"] == "caller"]
    assert said == ["hello there", "words 0", "words 1"]
    document = timeline(only(tmp_path))
    assert len(document["turns"]) == 4
    events = [milestone["event"] for milestone in document["milestones"]]
    assert events.count("stream started") == 1
    assert events.count("user said") == 3
    assert len(sides(only(tmp_path))[0]) >= length
    with open_log(tmp_path) as log:
        assert [turn["flow"] for turn in log.turns(Which())].count("recording") == 2


async def test_a_record_that_nobody_closes_is_of_a_lost_call(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with virtual_records(tmp_path) as records:
        record = records.begin(SID, parameters={"Direction": "outbound-api"})
        record.received(b"\x10" * 1600, None)
        record.observe(SID, "user said", 0, {"turn": "t1", "text": "hello"})
        await trio.sleep(1)
    (row,) = rows(tmp_path)
    assert (row["ended_by"], row["turns"], row["direction"]) == ("lost", 1, "outbound")
    assert len(sides(only(tmp_path))[0]) >= 1600


async def test_of_too_many_milestones_the_end_is_kept(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with virtual_records(tmp_path) as records:
        record = records.begin(SID)
        for _ in range(call_record.WAITING_MILESTONES + 10):
            record.observe(SID, "digit", 0, {"text": "5"})
        record.observe(SID, "call ended", 0, {"reason": "caller"})
        await record.close()
    (row,) = rows(tmp_path)
    assert row["ended_by"] == "caller"
    assert len(lines(only(tmp_path))) == call_record.WAITING_MILESTONES
    assert [r.getMessage() for r in caplog.records if r.name == "voicecore.records"] == [
        "calls are not recorded: 10 milestones were too many at once"
    ]


async def test_a_lost_call_is_as_long_as_it_was(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with virtual_records(tmp_path) as records:
        records.begin(SID)
        await trio.sleep(9.5)  # and nothing to tell
    (row,) = rows(tmp_path)
    assert row["ended_by"] == "lost"
    assert row["seconds"] == pytest.approx(9.5, abs=2.5)


async def test_two_calls_of_one_name_at_once_are_two(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with virtual_records(tmp_path) as records:
        both = [records.begin(SID) for _ in range(2)]
        for number, record in enumerate(both):
            record.received(b"\x10" * 160, None)
            record.observe(SID, "user said", 0.0, {"turn": "t1", "text": str(number)})
            record.observe(SID, "call ended", 0.0, {"reason": "caller"})
        for record in both:
            await record.close()
    assert len(rows(tmp_path)) == 2
    assert [lines(path)[0]["text"] for path in directories(tmp_path)] == ["0", "1"]


async def test_a_number_that_no_log_can_hold_costs_no_server(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """An LLM's server says what it likes of tokens."""
    async with virtual_records(tmp_path) as records:
        record = records.begin(SID)
        said = {"turn": "t1", "gap": 0.5, "prompt_tokens": 10**30, "completion_tokens": 7}
        record.observe(SID, "turn done", 1.0, said)
        record.observe(SID, "call ended", 2.0, {"reason": "caller", "turns": -(2**63) - 1})
        await record.close()
    with open_log(tmp_path) as log:
        [turn] = log.turns(Which())
    assert (turn["gap"], turn["prompt_tokens"], turn["completion_tokens"]) == (0.5, None, 7)
    assert timeline(only(tmp_path))["call"]["ended_by"] == "caller"
