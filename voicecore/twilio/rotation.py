"""Secrets of which two are valid while one is rotated: a variable holds ``new,old``."""

from __future__ import annotations

import hmac
from collections.abc import Iterable


def secrets_in(text: str) -> list[str]:
    """Return the secrets that a variable holds, the newest first; none, if it is empty."""
    return [secret.strip() for secret in text.split(",") if secret.strip()]


def is_one_of(given: bytes, secrets: Iterable[str]) -> bool:
    """Return whether somebody knows a secret.  Takes as long for nearly right as for wrong."""
    right = False
    for secret in secrets:
        right |= hmac.compare_digest(given, secret.encode("utf-8", "surrogateescape"))
    return right
