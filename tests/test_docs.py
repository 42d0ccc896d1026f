"""The documents tell the truth: their tables are the code's, and their examples run."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import voicecore
from server import who_answers
from voicecore.dialogue.turns import TABLE
from voicecore.settings import Settings, variable_name

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_turns_is_the_codes() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    section = page.partition("<!-- table of turns -->")[2].partition("<!-- end -->")[0]
    rows = [tuple(re.findall(r"\w+", line)) for line in section.strip().splitlines()[2:]]
    assert rows == [
        (state.name, signal.name, following.name, event.__name__)
        for (state, signal), (following, event) in TABLE.items()
    ]


def test_every_setting_is_in_the_readme_and_nothing_else() -> None:
    section = README.partition("## Settings")[2].partition("\n## ")[0]
    written = set(re.findall(r"`([A-Z][A-Z_]+)`", section))
    assert written == {variable_name(field) for field in Settings.model_fields}


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_readmes_python_runs(block: str, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(block)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("listening on port" in done.stdout) == ("trio.run" in block)


@pytest.mark.parametrize(
    "block",
    re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "agents.md").read_text(), re.DOTALL),
)
def test_the_agents_of_the_guide_can_answer(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    name = "agent_for" if "def agent_for" in block else "agent"
    assert who_answers(Settings(_env_file=None, agent=f"mine.py:{name}"))


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("bench/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_public_names_are_what_they_say() -> None:
    assert set(voicecore.__all__) == {*voicecore._HOMES, "__version__"}
    assert len(voicecore.__all__) <= 30
    for name in voicecore.__all__:
        assert getattr(voicecore, name) is not None
    with pytest.raises(AttributeError):
        voicecore.no_such_name  # noqa: B018


def test_the_package_ships_its_data() -> None:
    from voicecore.call.phrases import Phrases

    assert len(Phrases().apology("not prepared")) > 8000


def test_the_embedding_example_answers_a_call(tmp_path: Path) -> None:
    """As a stranger would run it: the example in one process, the phone in another."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"ws://127.0.0.1:{port}/"
    example = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "examples" / "echo.py"), str(port)],
        stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert example.stdout is not None
        assert example.stdout.readline() == f"call {url}\n"
        say = ["--say", str(ROOT / "tests/audio/hello_world.wav"), "--greeting-wait", "0.2"]
        phone = subprocess.run(
            [sys.executable, "-m", "voicecore.phone", url, *say, "--json", tmp_path / "call.json"],
            capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        )  # fmt: skip
        assert phone.returncode == 0, phone.stderr
        [stream] = json.loads((tmp_path / "call.json").read_text())["calls"][0]["streams"]
        [reply] = stream["turns"][-1]["replies"]
        assert 0.5 < reply["heard"] < 1.5  # hello_world.wav is 0.7 s of speech
    finally:
        example.terminate()
        example.communicate()
