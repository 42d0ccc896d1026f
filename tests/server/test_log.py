"""Log lines: their form, and what a caller cannot do to them."""

from __future__ import annotations

import io
import json
import logging
import random
from collections.abc import Iterator

import pytest

from voicecore.server.log import REPEATS, configure


@pytest.fixture(autouse=True)
def untouched_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(form: str = "text", log_text: bool = True, **fields: object) -> str:
    stream = io.StringIO()
    configure(form, log_text=log_text, stream=stream)
    logging.getLogger("voicecore.call").info(
        "speech started", extra={"call": "CA12", "at": 12.3456, "fields": fields}
    )
    return stream.getvalue()


def test_the_text_form() -> None:
    line = logged(confidence=0.83, reason="end of turn")
    assert line[12:] == ' CA12 12.346 speech started confidence=0.83 reason="end of turn"\n'
    assert line[2] == line[5] == ":"


def test_json_has_the_same_fields() -> None:
    record = json.loads(logged("json", confidence=0.83, text="नमस्ते"))
    assert record.pop("time")
    assert record == {
        "level": "info",
        "message": "speech started",
        "call": "CA12",
        "at_s": 12.346,
        "confidence": 0.83,
        "text": "नमस्ते",
    }


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("evil", ["\r\n14:00 forged", "\x1b[31mred", "a\u2028b\u2029c", "\x85\x9b"])
def test_no_value_breaks_or_forges_a_line(form: str, evil: str) -> None:
    line = logged(form, text=evil).removesuffix("\n")
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_values_are_cut_and_surrogates_written() -> None:
    assert len(logged(text="x" * 1000)) < 260
    assert "\\udcff" in logged(text="\udcff")


@pytest.mark.parametrize("form", ["text", "json"])
def test_private_fields_can_be_left_out(form: str) -> None:
    private = {"text": "my secret", "heard": "my sec", "from": "anonymous-1", "to": "sip:me"}
    line = logged(form, log_text=False, **private, seconds=0.2)
    for value in private.values():
        assert value not in line
    assert "0.2" in line


def test_phone_numbers_are_masked() -> None:
    line = logged(to="+15550001111", text="call 15550002222 now")
    assert "555000" not in line
    assert "+1…11" in line


def test_sids_are_left_alone() -> None:
    chance = random.Random(1)
    for _ in range(500):
        digits = "".join(chance.choice("0123456789" * 3 + "abcdef") for _ in range(32))
        sid = chance.choice(["MZ", "CA", "AC"]) + digits
        assert f"stream={sid}" in logged(stream=sid)
        assert f"{sid} ended" in logged(why=f"{sid} ended")


@pytest.mark.parametrize(
    "text", ["+15550001111", "tel:+15550001111,", "(15550001111)", "x +15550001111"]
)
def test_numbers_are_masked_wherever_they_stand_alone(text: str) -> None:
    assert "5550001" not in logged(heard=text)


def test_one_message_of_a_stranger_is_not_logged_for_ever() -> None:
    stream = io.StringIO()
    configure("text", log_text=True, stream=stream)
    for number in range(1000):
        logging.getLogger("voicecore.server").info("%s ended", "call", extra={"at": number})
    assert len(stream.getvalue().splitlines()) == REPEATS


def test_a_caller_who_holds_a_key_down_costs_no_disk_and_no_other_callers_line() -> None:
    stream = io.StringIO()
    configure("text", log_text=True, stream=stream)
    for number in range(1000):
        logging.getLogger("voicecore.call").info("digit", extra={"call": "CA1", "at": number})
    logging.getLogger("voicecore.call").info("digit", extra={"call": "CA2"})
    logging.getLogger("voicecore.call").info("call ended", extra={"call": "CA1"})
    lines = stream.getvalue().splitlines()
    assert len(lines) == REPEATS + 2
    assert "CA2" in lines[-2]


def test_a_broken_pipe_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure("text", log_text=True, stream=Broken())
    logging.getLogger("voicecore.call").info("speech started")
    assert capsys.readouterr() == ("", "")
