"""``python -m voicecore.calls``: a thousand calls, bad usage, and docs/records.md against it."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from records_house import SID, add_calls, virtual_records
from trio.testing import MockClock

from voicecore.calls.__main__ import main, parser
from voicecore.records.database import Database
from voicecore.records.query import TIMES, percentile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
COMMAND = "    python -m voicecore.calls "
COMMANDS = [line.removeprefix(COMMAND) for line in PAGE.splitlines() if line.startswith(COMMAND)]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("thousand")
    add_calls(directory, 1000)
    return directory


def answer(capsys: pytest.CaptureFixture[str], directory: Path, *argv: str) -> tuple[int, str, str]:
    status = main([*argv, "--dir", str(directory)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_thousand_calls_are_listed_and_filtered(
    thousand: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = answer(capsys, thousand, "list")
    assert status == 0
    assert re.findall(r"CA\d{32}", out) == [f"CA{n:032d}" for n in range(999, 949, -1)]
    _, out, _ = answer(capsys, thousand, "list", "--ended-by", "agent", "--limit", "200")
    assert len(re.findall(r"CA\d{32}", out)) == 100
    _, out, _ = answer(capsys, thousand, "list", "--number", "+1 555 0000-042", "--json")
    assert '"CA00000000000000000000000000000042"' in out
    assert out.count('"sid"') == 1
    _, out, _ = answer(capsys, thousand, "list", "--since", "12h", "--json")
    assert out.count('"sid"') in (11, 12)
    status, out, err = answer(capsys, thousand, "list", "--since", "2999-01-01")
    assert (status, out, err) == (1, "", "python -m voicecore.calls: no such calls\n")


def test_latency_is_percentiles_by_flow(thousand: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, thousand, "latency")
    assert status == 0
    gaps = [line.split() for line in out.replace("│", " ").splitlines() if " gap " in line]
    everything = sorted(
        (n * 2 + turn + 1, "recording" if n % 4 == 0 else "stream")
        for n in range(1000) for turn in (0, 1)
    )  # fmt: skip
    for flow, _, count, *figures in gaps:
        values = [ms for ms, of in everything if of == flow]
        assert int(count) == len(values)
        assert [int(figure) for figure in figures] == [
            round(percentile(values, share)) for share in (0.5, 0.9, 0.95, 0.99)
        ]
    assert [line[0] for line in gaps] == ["stream", "recording"]
    assert out.count("stream") == len(TIMES)


def test_percentiles_are_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99, 1)] == [
        50, 90, 95, 99, 100,
    ]  # fmt: skip
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(("what", "count"), [("calls", 1000), ("turns", 2000)])
def test_export_is_csv(
    what: str, count: int, thousand: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = answer(capsys, thousand, "export", what)
    assert len(out.splitlines()) == count + 1
    assert out.startswith("sid,")
    file = tmp_path / "out.csv"
    status, printed, _ = answer(capsys, thousand, "export", what, "--output", str(file))
    assert (status, printed) == (0, "")
    assert file.read_text() == out


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_what_strangers_say_is_no_formula(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_calls(tmp_path, 1, stream_error=text, ended_by="", sip_code=-5, status='a "b",\nc')
    _, out, _ = answer(capsys, tmp_path, "export", "calls")
    (row,) = csv.DictReader(io.StringIO(out, newline=""))
    assert row["stream_error"] == "'" + text.replace("\r", "\n")  # a row has one line ending
    # Numbers are no formulas, and stay what they are.
    assert (row["from"], row["sip_code"], row["ended_by"]) == ("+15550000000", "-5", "")
    assert row["status"] == 'a "b",\nc'


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_narrow_terminal_that_knows_ascii_alone_is_told_everything(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_calls(
        tmp_path, 1, began="2026-01-31T14:03:07.000Z", stream_error="\u0928", to_number="x" * 64
    )
    monkeypatch.setenv("COLUMNS", columns)
    screen = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Terminal(screen, encoding="ascii"))
        assert main(["list", "--dir", str(tmp_path)]) == 0
        assert main(["export", "calls", "--dir", str(tmp_path)]) == 0
        sys.stdout.flush()
        shown = screen.getvalue().decode()
    row = next(line for line in shown.splitlines() if "CA0000" in line)
    for told in (
        "2026-01-31 14:03:07",
        "CA" + "0" * 32,
        "+15550000000",
        "recording",
        "60.0",
        "agent",
    ):
        assert told in row
    assert "\\u0928" in shown


@pytest.mark.parametrize(
    ("argv", "status", "complaint"),
    [
        (["list", "--since", "yesterday"], 2, "argument --since: got 'yesterday'; takes a date"),
        (["list", "--limit", "0"], 2, "argument --limit: got '0'"),
        (["list", "--number", "nobody"], 2, "argument --number: got 'nobody'"),
        (["list", "--since", "999999w"], 2, "argument --since: got '999999w'"),
        (["dance"], 2, "argument COMMAND: invalid choice: 'dance'"),
        ([], 2, "the following arguments are required: COMMAND"),
        (["show", "CA9"], 1, "no call is named 'CA9'"),
        (["show", "CA0"], 1, "more than one call's name begins with 'CA0'"),
        (["latency", "--since", "2999-01-01"], 1, "no turn was answered"),
        (["export", "turns", "--ended-by", "nobody"], 1, "no such turns"),
        (["list", "--dir", "/nowhere"], 1, "no calls are recorded in /nowhere"),
        (["export", "calls", "--output", "/nowhere/x"], 1, ": /nowhere/x: No such file"),
        (["export", "calls", "--output", "/dev/full"], 1, "calls: No space left on device"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    argv: list[str], status: int, complaint: str, thousand: Path,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("VOICECORE_RECORD_DIR", str(thousand))
    monkeypatch.chdir(tmp_path)
    try:
        returned = main(argv)
    except SystemExit as leaving:
        returned = leaving.code
    out, err = capsys.readouterr()
    assert (returned, out) == (status, "")
    assert len(err.splitlines()) == 1
    assert complaint in err


def test_without_a_directory_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VOICECORE_RECORD_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 2
    assert "VOICECORE_RECORD_DIR is not set" in capsys.readouterr().err


def test_what_is_no_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "calls.sqlite3").write_bytes(b"not a database, but long enough for one" * 99)
    status, _, err = answer(capsys, tmp_path, "list")
    assert status == 1
    assert err == "python -m voicecore.calls: the log cannot be read: file is not a database\n"


async def test_a_call_is_shown_without_what_controls_a_terminal(
    autojump_clock: MockClock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with virtual_records(tmp_path) as records:
        record = records.begin(SID, parameters={"From": "\x1b[31mred", "To": "[bold]+1"})
        record.observe(SID, "user said", 0, {"turn": "t1", "text": "a\x1b]0;b\x07 [link]c"})
        record.observe(SID, "call ended", 0, {"reason": "caller"})
        await record.close()
    for argv in (["list"], ["show", SID]):
        status, out, _ = answer(capsys, tmp_path, *argv)
        assert status == 0
        assert "\x1b" not in out
        assert "\x07" not in out
    assert "[link]c" in out
    assert "[bold]+1" in out


def test_the_page_shows_every_command() -> None:
    assert {shlex.split(command)[0] for command in COMMANDS} == {
        "list",
        "show",
        "export",
        "latency",
    }
    pattern = r"--[a-z][a-z-]*"
    options = set(re.findall(pattern, PAGE)) - {"--check"}  # the server's
    known = set()
    for action in parser()._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        known |= set(re.findall(pattern, action.format_help()))
    assert options == known - {"--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_page_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    add_calls(tmp_path, 1, sid="CA1f0e", ended_by="lost", from_number="+15550001111")
    monkeypatch.setenv("VOICECORE_RECORD_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out or Path("turns.csv").exists()


def test_the_schema_of_the_page_is_the_logs(tmp_path: Path) -> None:
    with closing(Database(tmp_path)):
        pass
    with closing(sqlite3.connect(tmp_path / "calls.sqlite3")) as sql:
        for table in ("calls", "turns", "statuses"):
            written = PAGE.partition(f"`{table}`: ")[2].partition("\n\n")[0]
            columns = {row[1] for row in sql.execute(f"PRAGMA table_info({table})")}
            assert (
                set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", written, flags=re.DOTALL)))
                == columns
            )
