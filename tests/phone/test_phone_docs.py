"""docs/phone.md against the command line that it describes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from voicecore.phone.__main__ import parser

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "phone.md").read_text(encoding="utf-8")
COMMAND = "    python -m voicecore.phone "
COMMANDS = [line.removeprefix(COMMAND) for line in PAGE.splitlines() if line.startswith(COMMAND)]


def test_the_page_has_examples() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_line_of_the_page_parses(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    options = parser().parse_args(shlex.split(command))
    assert options.url or options.callee


def test_the_page_and_the_help_name_the_same_options() -> None:
    pattern = r"--[a-z][a-z-]*"
    options = set(re.findall(pattern, parser().format_help())) - {"--help"}
    assert set(re.findall(pattern, PAGE)) == options
