"""What all tests share: how hypothesis looks for examples, what is compiled, what is collected."""

from __future__ import annotations

import compileall
import gc
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, max_examples=50, **UNHURRIED)
settings.register_profile("search", derandomize=False, max_examples=1000, **UNHURRIED)
# The same examples in every run: a failure is the change's that met it, not chance's.
# New ones are looked for on purpose, with `pytest --hypothesis-profile=search`.
settings.load_profile("same")

# Half of a worker's start is compiling the tests: what was compiled is kept for the next run.
sys.dont_write_bytecode = False

# What is imported from here on stays to the end: to look through it again and again is a third of
# a worker's start.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once: not in every worker, nor in every program that a test starts."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(__file__).parent.parent / "voicecore", quiet=2)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what was imported and stays to the end out of the collector's sight: an eighth less."""
    gc.collect()
    gc.freeze()
    gc.enable()
