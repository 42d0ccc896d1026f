"""The house keeps itself in order: imports go one way, and nothing outgrows its room."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "voicecore"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"_version", "call", "contracts", "errors", "server", "settings", "dialogue"},
    "_version": set(),
    "errors": set(),
    "settings": {"errors"},
    "audio": set(),
    "wire": {"audio", "errors"},
    "dialogue": {"audio"},
    "contracts": {"audio", "dialogue", "wire", "errors"},
    "call": {"audio", "wire", "dialogue", "contracts", "errors", "settings"},
    "providers": {"audio", "contracts", "errors", "settings"},
    "twilio": {"audio", "errors"},
    "carriers": {"wire", "errors"},
    "records": {"audio", "contracts", "call", "errors", "settings"},
    "calls": {"records", "errors", "settings"},
    "server": {
        "audio",
        "call",
        "carriers",
        "contracts",
        "dialogue",
        "errors",
        "providers",
        "records",
        "settings",
        "twilio",
        "wire",
    },
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


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imported(path: Path) -> frozenset[str]:
    """Absolute dotted names that a file imports, wherever in it."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    package = ["voicecore", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def names(path: Path) -> set[str]:
    return {dotted.split(".")[1] for dotted in imported(path) if dotted.startswith("voicecore.")}


def offenders(offences: Callable[[Path], Iterable[str]], paths: list[Path]) -> dict[str, list[str]]:
    """What each file does that it must not: nothing, for most."""
    found = {str(path.relative_to(ROOT)): sorted(offences(path)) for path in paths}
    return {name: what for name, what in found.items() if what}


def test_imports_go_one_way() -> None:
    rooms = {room(path) for path in MODULES}

    def forbidden(path: Path) -> set[str]:
        return (names(path) & rooms) - {room(path)} - MAY_IMPORT[room(path)]

    assert not offenders(forbidden, MODULES)


def test_pure_layers_know_neither_clock_nor_network() -> None:
    def impure(path: Path) -> set[str]:
        return {dotted.split(".")[0] for dotted in imported(path)} & NOT_PURE

    pure = [path for path in MODULES if room(path) in PURE]
    assert {room(path) for path in pure} == PURE
    assert not offenders(impure, pure)


def test_every_folder_has_its_row() -> None:
    assert {room(path) for path in MODULES} == set(MAY_IMPORT)


def test_vendors_are_named_only_by_their_adapters() -> None:
    def named(path: Path) -> set[str]:
        code = ast.dump(parsed(path)).lower()
        return {vendor for vendor in VENDORS if vendor in code}

    others = [path for path in MODULES if room(path) not in {"providers", "settings"}]
    assert not offenders(named, others)


def oversized(path: Path) -> Iterator[str]:
    source = path.read_text()
    if source.count("\n") > 400:
        yield f"file: {source.count(chr(10))} lines"
    for node in ast.walk(parsed(path)):
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


def test_nothing_outgrows_its_room() -> None:
    assert not offenders(oversized, [*MODULES, ROOT / "server.py"])


def test_one_boundary_catches_everything() -> None:
    blind = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or "Exception'" in ast.dump(node.type).replace("BaseException", ""))
        and ast.dump(node.type or ast.Pass()).count("'Exception'")
    ]
    assert len(blind) <= 1, blind
