"""The house keeps itself in order: imports go one way, and nothing outgrows its room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "voicecore"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"_version", "call", "contracts", "errors", "server", "settings", "dialogue"},
    "_version": set(),
    "errors": set(),
    "settings": {"errors"},
    "audio": set(),
    "wire": {"errors"},
    "dialogue": {"audio"},
    "contracts": {"audio", "dialogue", "wire", "errors"},
    "call": {"audio", "wire", "dialogue", "contracts", "errors", "settings"},
    "providers": {"audio", "contracts", "errors", "settings"},
    "twilio": {"errors"},
    "server": {"call", "twilio", "wire", "contracts", "errors", "settings", "providers"},
    "phone": {"audio", "wire", "errors", "_version"},
    "testing": {"audio", "wire", "dialogue", "contracts", "call", "phone", "errors", "server"},
}
"""Folder or module -> the folders and modules of the package that it may import."""

PURE = {"audio", "wire", "dialogue"}
NOT_PURE = {"trio", "httpx", "h11", "time", "random", "asyncio", "socket", "threading", "datetime"}
VENDORS = {
    "deepgram",
    "elevenlabs",
    "cartesia",
    "assemblyai",
    "sarvam",
    "anthropic",
    "pocketsphinx",
}


def room(path: Path) -> str:
    """The folder or module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Absolute dotted names that a file imports, wherever in it."""
    package = ["voicecore", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def names(path: Path) -> set[str]:
    return {dotted.split(".")[1] for dotted in imported(path) if dotted.startswith("voicecore.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    own = room(path)
    rooms = {module.relative_to(PACKAGE).parts[0].removesuffix(".py") for module in MODULES}
    foreign = (names(path) & rooms) - {own}
    assert foreign <= MAY_IMPORT[own], f"{path.name} must not import {foreign - MAY_IMPORT[own]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_pure_layers_know_neither_clock_nor_network(path: Path) -> None:
    if room(path) in PURE:
        assert not {dotted.split(".")[0] for dotted in imported(path)} & NOT_PURE


def test_every_folder_has_its_row() -> None:
    assert {room(path) for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_vendors_are_named_only_by_their_adapters(path: Path) -> None:
    if room(path) in {"providers", "settings"}:
        return
    code = ast.dump(ast.parse(path.read_text())).lower()
    assert not {vendor for vendor in VENDORS if vendor in code}


def oversized(path: Path) -> Iterator[str]:
    source = path.read_text()
    if source.count("\n") > 400:
        yield f"file: {source.count(chr(10))} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            limit = 200 if isinstance(node, ast.ClassDef) else 50
            if lines > limit:
                yield f"{node.name}: {lines} lines"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            taken = [a.arg for a in arguments if a.arg not in ("self", "cls")]
            if len(taken) > 6:
                yield f"{node.name}: {len(taken)} parameters"


@pytest.mark.parametrize("path", [*MODULES, ROOT / "server.py"], ids=lambda p: p.name)
def test_nothing_outgrows_its_room(path: Path) -> None:
    assert not list(oversized(path))


def test_one_boundary_catches_everything() -> None:
    blind = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or "Exception'" in ast.dump(node.type).replace("BaseException", ""))
        and ast.dump(node.type or ast.Pass()).count("'Exception'")
    ]
    assert len(blind) <= 1, blind
