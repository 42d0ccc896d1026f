"""Calls without a stream, in virtual time: what TwiML has the phone play, record, gather, dial."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio
from flow_fakes import (
    SERVER,
    TOKEN,
    Asked,
    TwimlServer,
    call_up,
    certificates,
    prepared,
    silent,
    sound,
)
from phone_fakes import tone, utterance
from trio.testing import MockClock

from voicecore.audio import dtmf, mulaw, wav
from voicecore.phone import sounds
from voicecore.phone.account import Account
from voicecore.phone.call import Call, Number
from voicecore.phone.flow import MAX_DOCUMENTS
from voicecore.phone.handset import Conditions, Key
from voicecore.phone.script import Script
from voicecore.phone.signing import form_signature

RECORD = '<Record action="/heard" timeout="1"/>'


async def test_a_conversation_by_recordings_is_measured_like_a_stream(
    autojump_clock: MockClock,
) -> None:
    async def heard(asked: Asked) -> str:
        await trio.sleep(0.5)
        return f"<Play>/reply.wav</Play>{RECORD}"

    pages = {
        "/voice": f"<Say>Good morning to you</Say>{RECORD}",
        "/heard": heard,
        "/reply.wav": sound(0.6),
    }
    call, _ = await call_up(pages, utterance(1.0), utterance(0.5, name="b.wav"))
    assert call.error is None
    assert call.got_replies(2)
    greeting, first, second = call.turns
    # Nineteen characters at fifteen a second.
    assert greeting.replies[0].heard_s == pytest.approx(19 / 15, abs=0.021)
    # The beep is heard to its end, and then the caller speaks at once.
    assert first.speech_start == pytest.approx(greeting.replies[0].end + sounds.BEEP_S, abs=0.041)
    for turn in (first, second):
        assert turn.gap == pytest.approx(1.0 + 0.5, abs=0.041)
        assert turn.replies[0].heard_s == pytest.approx(0.6, abs=0.021)
        assert not turn.replies[0].underruns
    taken = [(each.digits, each.voiced) for each in call.taken]
    assert taken == [("", True), ("", True), ("hangup", False)]
    assert call.taken[0].seconds == pytest.approx(2.0, abs=0.021)
    assert call.progress.status == "completed"
    assert call.flow.ended == "hung up"


async def test_the_action_says_where_the_recording_is_and_is_signed(
    autojump_clock: MockClock,
) -> None:
    account = Account()
    account.base_url = "http://127.0.0.1:8001"
    pages = {
        "/voice": '<Record action="/heard?turn=1" timeout="2" trim="do-not-trim"/>',
        "/heard": "<Hangup/>",
    }
    call, server = await call_up(pages, utterance(3.0), account=account)
    (asked,) = server.to("/heard")
    sid = call.taken[0].sid
    assert asked.form["RecordingSid"] == sid
    expected = f"http://127.0.0.1:8001/2010-04-01/Accounts/{account.sid}/Recordings/{sid}"
    assert asked.form["RecordingUrl"] == expected
    assert asked.form["RecordingDuration"] == "5"
    assert asked.form["CallStatus"] == "in-progress"
    assert "Digits" not in asked.form
    assert asked.signature == form_signature(TOKEN, f"{SERVER}/heard?turn=1", asked.form)
    kept = account.recording(sid, trio.current_time() + 1)
    assert len(kept.audio) == 8000 * 5
    assert wav.read(kept.as_wav()).seconds == pytest.approx(5.0)


async def test_hanging_up_while_recorded_asks_the_action_and_ignores_its_answer(
    autojump_clock: MockClock,
) -> None:
    pages = {"/voice": RECORD, "/heard": "<Say>Nobody hears this</Say>"}
    call, server = await call_up(pages)
    (asked,) = server.to("/heard")
    assert asked.form["CallStatus"] == "completed"
    assert asked.form["Digits"] == "hangup"
    assert call.error is None
    assert call.steps[-1].startswith("TwiML recorded 0.00 s, ended by hanging up")


async def test_silence_ends_a_recording_and_is_taken_to_the_action(
    autojump_clock: MockClock,
) -> None:
    pages = {"/voice": '<Record action="/heard" timeout="3"/>', "/heard": "<Hangup/>"}
    call, server = await call_up(pages, silent(10.0))
    assert call.taken[0].seconds == pytest.approx(3.0)
    assert not call.taken[0].voiced
    assert server.to("/heard")[0].form["RecordingDuration"] == "3"


async def test_timeout_0_and_max_length_end_only_by_length(autojump_clock: MockClock) -> None:
    record = '<Record action="/heard" timeout="0" maxLength="7" playBeep="false"/>'
    call, _ = await call_up({"/voice": record, "/heard": "<Hangup/>"}, utterance(1.0))
    # The file is over long before; nobody is hung up on while the recording runs.
    assert call.taken[0].seconds == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("attribute", "digits"), [("", "5"), ('finishOnKey="#"', ""), ('finishOnKey="5#"', "5")]
)
async def test_a_key_ends_a_recording_if_it_is_one_of_those(
    autojump_clock: MockClock, attribute: str, digits: str
) -> None:
    record = f'<Record action="/heard" timeout="2" {attribute}/>'
    conditions = Conditions(keys=[Key("5", 1.0)])
    pages = {"/voice": record, "/heard": "<Hangup/>"}
    call, server = await call_up(pages, utterance(2.0), conditions=conditions)
    assert server.to("/heard")[0].form.get("Digits", "") == digits
    assert call.taken[0].seconds == pytest.approx(0.6 if digits else 4.0, abs=0.041)


async def test_a_recording_is_trimmed_to_what_was_said(autojump_clock: MockClock) -> None:
    account = Account()
    pages = {"/voice": RECORD, "/heard": "<Hangup/>"}
    said = utterance(0.5)
    said = type(said)("late.wav", b"\xff" * 6400 + tone(0.5))
    call, _ = await call_up(pages, said, account=account)
    kept = account.recording(call.taken[0].sid, trio.current_time() + 1)
    # 100 ms are left at each end.
    assert len(kept.audio) / 8000 == pytest.approx(0.7, abs=0.021)
    assert call.taken[0].seconds == pytest.approx(0.8 + 0.5 + 1.0, abs=0.021)


async def test_the_recordings_status_is_reported_when_it_can_be_had(
    autojump_clock: MockClock,
) -> None:
    record = (
        '<Record action="/heard" timeout="1" recordingStatusCallback="/status"'
        ' recordingStatusCallbackEvent="in-progress completed"/>'
    )
    account = Account(recording_delay_s=0.7)
    pages = {"/voice": record, "/heard": "<Hangup/>", "/status": ""}
    call, server = await call_up(pages, utterance(1.0), account=account)
    (heard,), (begun, status) = server.to("/heard"), server.to("/status")
    assert begun.form["RecordingStatus"] == "in-progress"
    assert begun.form["RecordingSid"] == status.form["RecordingSid"]
    assert status.at == pytest.approx(heard.at + 0.7)
    assert status.form["RecordingStatus"] == "completed"
    assert status.form["RecordingSid"] == call.taken[0].sid
    assert status.form["RecordingChannels"] == "1"
    assert status.signature == form_signature(TOKEN, f"{SERVER}/status", status.form)
    assert account.recording(call.taken[0].sid, status.at)


async def test_without_an_action_a_recording_goes_back_to_its_document(
    autojump_clock: MockClock,
) -> None:
    call, server = await call_up(
        {"/voice": ['<Record timeout="1"/>', "<Say>Thank you</Say>"]}, utterance(0.5)
    )
    assert [asked.form.get("RecordingDuration") for asked in server.asked] == [None, "2"]
    assert call.got_replies(1)


async def test_a_sound_of_any_rate_is_heard_in_real_time_as_often_as_it_loops(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    studio = wav.to_bytes(wav.Wav(24000, 1, mulaw.decode(tone(0.3) * 3)))
    server = TwimlServer({"/voice": '<Play loop="3">clip.wav</Play>', "/clip.wav": studio})
    path = tmp_path / "call.wav"
    number = Number(f"{SERVER}/voice", TOKEN)
    call = Call(number, Script([]), record=path)
    await call.place(certificates(), server.transport)
    assert trio.current_time() - server.to("/clip.wav")[0].at == pytest.approx(0.9, abs=0.041)
    assert len(server.to("/clip.wav")) == 1
    assert server.to("/clip.wav")[0].signature is None
    (reply,) = call.turns[0].replies
    assert reply.heard_s == pytest.approx(0.9, abs=0.021)
    right = memoryview(wav.read(path).pcm).cast("h")[1::2].tolist()
    assert sum(abs(sample) > 256 for sample in right) / 8000 == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (httpx.Response(404), "404"),
        (httpx.Response(200, text="ID3", headers={"content-type": "audio/mpeg"}), "not a WAV"),
        (httpx.Response(200, text="hello", headers={"content-type": "text/html"}), "12300"),
        (sound(0.1)[:4] + b"????" + sound(0.1)[8:30], "torn"),
        (sound(0.1)[:24] + b"\x01\0\0\0" + sound(0.1)[28:], "kHz"),
        (b"RIFF....WAVE" + bytes(10 << 20), "more than 10 MB"),
    ],
)
async def test_a_sound_that_cannot_be_had_fails_its_verb_and_not_the_call(
    autojump_clock: MockClock, page: httpx.Response | bytes, reason: str
) -> None:
    pages = {"/voice": "<Play>/a.wav</Play><Say>Anyway</Say>", "/a.wav": page}
    call, _ = await call_up(pages)
    assert call.error is None
    assert "TwiML <Play> failed" in call.steps[1]
    assert reason in call.steps[1]
    assert call.steps[2] == "TwiML said: Anyway"


async def test_a_sound_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    async def never(asked: Asked) -> str:
        await trio.sleep(60)
        return ""

    call, _ = await call_up({"/voice": "<Play>/a.wav</Play>", "/a.wav": never})
    assert trio.current_time() == pytest.approx(10, abs=0.1)
    assert "within 10 s" in call.steps[-1]


def test_keys_sound_as_q23_says() -> None:
    played = mulaw.decode(dtmf.tones("1w"))
    assert len(played) == 2 * 8000 * (0.1 + 0.1 + 0.5)
    tone_1 = memoryview(played[:1600]).cast("h").tolist()

    def power(hz: int) -> float:
        from cmath import exp, pi

        return abs(sum(x * exp(-2j * pi * hz * n / 8000) for n, x in enumerate(tone_1))) / 800

    assert power(697) > 1500
    assert power(1209) > 1500
    assert power(941) < 500
    assert max(memoryview(played[1600:]).cast("h").tolist()) == 0


async def test_pauses_and_played_keys_take_their_time(autojump_clock: MockClock) -> None:
    pages = {"/voice": '<Pause length="2"/><Play digits="1w2"/><Say>Done</Say>'}
    call, _ = await call_up(pages)
    assert trio.current_time() == pytest.approx(2 + 0.9 + 4 / 15, abs=0.05)
    assert call.steps[:2] == ["TwiML paused 2 s", "TwiML pressed: 1w2"]


GATHER = '<Gather action="/keys" numDigits="3" timeout="2"><Say>{}</Say></Gather><Say>No key</Say>'


async def test_keys_stop_the_prompt_and_are_gathered(autojump_clock: MockClock) -> None:
    keys = [Key("4", 1.0), Key("2", 1.5), Key("*", 2.0)]
    pages = {"/voice": GATHER.format("x" * 150), "/keys": "<Hangup/>"}
    call, server = await call_up(pages, conditions=Conditions(keys=keys))
    (asked,) = server.to("/keys")
    assert asked.form["Digits"] == "42*"
    assert asked.at == pytest.approx(2.0, abs=0.041)
    # The prompt of ten seconds was silenced by the first key.
    assert call.turns[0].replies[0].end == pytest.approx(1.0, abs=0.041)


@pytest.mark.parametrize(
    ("attributes", "keys", "digits", "at"),
    [
        ("", "", None, 3.0),
        ('actionOnEmptyResult="true"', "", "", 3.0),
        ("", "12#", "12", 1.4),
        ("", "12", "12", 3.2),
        ('finishOnKey="1"', "21", "2", 1.2),
        ('numDigits="1"', "7", "7", 1.0),
    ],
)
async def test_how_a_gather_ends(
    autojump_clock: MockClock, attributes: str, keys: str, digits: str | None, at: float
) -> None:
    document = f'<Gather action="/keys" timeout="2" {attributes}><Pause/></Gather><Say>None</Say>'
    pressed = [Key(key, 1.0 + 0.2 * n) for n, key in enumerate(keys)]
    pages = {"/voice": document, "/keys": "<Hangup/>"}
    call, server = await call_up(pages, conditions=Conditions(keys=pressed))
    asked = server.to("/keys")
    if digits is None:
        assert asked == []
        assert call.steps[-1] == "TwiML said: None"
    else:
        assert asked[0].form["Digits"] == digits
        assert asked[0].at == pytest.approx(at, abs=0.041)


@pytest.mark.parametrize(
    ("status", "seconds", "duration"),
    [("completed", 2.0, "2"), ("busy", 1.0, None), ("no-answer", 20.0, None)],
)
async def test_a_dialled_number_comes_back_to_the_action(
    autojump_clock: MockClock, status: str, seconds: float, duration: str | None
) -> None:
    document = '<Dial action="/after" timeout="20"><Number>+15553334444</Number></Dial>'
    pages = {"/voice": document, "/after": "<Say>Welcome back</Say>"}
    call, server = await call_up(pages, conditions=Conditions(dial_status=status))
    (asked,) = server.to("/after")
    assert asked.at == pytest.approx(seconds, abs=0.041)
    assert asked.form["DialCallStatus"] == status
    assert asked.form["DialCallSid"].startswith("CA")
    assert asked.form.get("DialCallDuration") == duration
    assert call.steps[:2] == ["TwiML dialled +15553334444", f"TwiML: {status}"]


async def test_a_dial_without_action_goes_on_and_a_conference_lasts(
    autojump_clock: MockClock,
) -> None:
    pages = {"/voice": "<Dial>+15553334444</Dial><Dial><Conference>Room 1</Conference></Dial>"}
    call, _ = await call_up(pages, conditions=Conditions(max_s=30.0))
    assert call.steps == [
        "TwiML dialled +15553334444", "TwiML: completed", "TwiML joined conference Room 1",
    ]  # fmt: skip
    assert call.flow.ended == "hung up: 30 s over"
    assert call.progress.seconds == pytest.approx(30, abs=0.041)


async def test_redirects_without_a_word_between_them_end_the_call(
    autojump_clock: MockClock,
) -> None:
    call, server = await call_up({"/voice": "<Say>Wait</Say><Redirect/>"})
    assert call.error is not None
    assert f"{MAX_DOCUMENTS} documents" in call.error
    assert len(server.asked) == MAX_DOCUMENTS


async def test_a_long_conversation_is_no_loop(autojump_clock: MockClock) -> None:
    pages = {
        "/voice": RECORD,
        "/heard": "<Say>One moment</Say><Redirect>/reply</Redirect>",
        "/reply": f"<Say>Yes</Say>{RECORD}",
    }
    files = [utterance(0.3) for _ in range(2 * MAX_DOCUMENTS)]
    call, _ = await call_up(pages, *files)
    assert call.error is None
    assert call.got_replies(len(files))
    assert call.flow.documents == 1 + 2 * len(files)


async def test_a_number_that_rejects_is_never_answered(autojump_clock: MockClock) -> None:
    call, _ = await call_up({"/voice": '<Reject reason="busy"/>'})
    assert call.progress.status == "busy"
    assert not call.progress.answered
    assert call.flow.handset.log.now == 0


@pytest.mark.parametrize("after", [n * 0.3 for n in range(1, 14)])
async def test_a_caller_may_hang_up_at_any_moment(autojump_clock: MockClock, after: float) -> None:
    async def heard(asked: Asked) -> str:
        await trio.sleep(0.5)
        return "<Say>Well</Say>" + RECORD

    server = TwimlServer({"/voice": f"<Say>Hello</Say>{RECORD}", "/heard": heard})
    call = prepared(utterance(1.0), utterance(1.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.place, certificates(), server.transport)
        await trio.sleep(after)
        call.hang_up()
    assert call.error is None
    assert call.progress.status == "completed"
    assert call.flow.ended == "hung up"
    assert trio.current_time() <= after + 0.5 + 1e-6
    hung_up = [asked for asked in server.asked if asked.form.get("Digits") == "hangup"]
    recorded = [taken for taken in call.taken if taken.digits == "hangup"]
    assert len(hung_up) == len(recorded) <= 1


@pytest.mark.parametrize("after", [n * 0.4 for n in range(12)])
async def test_a_cancelled_call_leaves_nothing_behind(
    autojump_clock: MockClock, after: float
) -> None:
    server = TwimlServer({"/voice": f"<Say>Hello</Say>{RECORD}", "/heard": f"<Say>A</Say>{RECORD}"})
    call = prepared(*[utterance(0.5)] * 4)
    with trio.move_on_after(after) as scope:
        await call.place(certificates(), server.transport)
    assert scope.cancelled_caught
    asked, now = len(server.asked), call.flow.handset.log.now
    assert now <= after + 0.02
    await trio.sleep(10)
    assert (len(server.asked), call.flow.handset.log.now) == (asked, now)
