"""What the vendors' SDKs have to say: do their types hold of what we send?"""

from __future__ import annotations

import gc
from functools import cache
from importlib import import_module
from typing import Any

from pydantic import TypeAdapter


def imported(name: str) -> None:
    """Import an SDK, whose types stay to the end: out of the collector's sight with them.

    It takes up to a second: from a fixture, so that only the process that asks it pays.
    """
    import_module(name)
    gc.collect()
    gc.freeze()


def known_part(params: Any, body: dict[str, Any]) -> Any:
    """Return what the SDK's type `params` knows of a body.

    Raises:
        ValidationError: something is missing, or not of its type.
    """
    return _plain(_adapter(params).validate_python(body))


@cache
def _adapter(params: Any) -> TypeAdapter[Any]:
    """Kept, because what it validates piece by piece must not outlive it."""
    return TypeAdapter(params)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    return [_plain(inner) for inner in value]  # the types say Iterable: validated one by one
