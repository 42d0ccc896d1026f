"""What all tests share: how hypothesis looks for examples, and what the collector looks at."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **UNHURRIED)
settings.register_profile("search", derandomize=False, max_examples=1000, **UNHURRIED)
# The same examples in every run: a failure is the change's that met it, not chance's.
# New ones are looked for on purpose, with `pytest --hypothesis-profile=search`.
settings.load_profile("same")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what was imported and stays to the end out of the collector's sight: an eighth less."""
    gc.collect()
    gc.freeze()
