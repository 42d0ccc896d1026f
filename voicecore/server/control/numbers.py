"""Which telephone numbers may be called: a mistake here is somebody else's bill.

`missing_for_…` say what must be set first; the rest, why not to this number.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...settings import E164, Settings, variable_name
from .admin import admin_tokens

REST = ("twilio_account_sid", "twilio_auth_token")


def is_number(text: str) -> bool:
    """Return whether this is a telephone number in E.164, and nothing beside it."""
    return E164.fullmatch(text) is not None


def may_be_called(settings: Settings, number: str) -> bool:
    """Return whether VOICECORE_OUTBOUND_PREFIXES allow a number."""
    return bool(settings.prefixes) and number.startswith(settings.prefixes)


def may_be_given(settings: Settings, number: str) -> bool:
    """Return whether a call may be transferred to a number: one of the settings', or allowed."""
    return number in settings.transfer_numbers.values() or may_be_called(settings, number)


def missing_for_rest(settings: Settings) -> list[str]:
    """Return the variables without which the carrier's REST API cannot be used."""
    return _missing(settings, *REST)


def missing_for_outbound(settings: Settings) -> list[str]:
    """Return the variables without which no call can be placed."""
    return _missing(settings, "outbound_from", "outbound_prefixes", *REST, "public_url")


def missing_for_warm_transfers(settings: Settings) -> list[str]:
    """Return the variables without which no human can be called for a caller."""
    return _missing(settings, *REST, "public_url")


def described(settings: Settings) -> Iterator[str]:
    """Say in a line each whether calls can be placed, and who may control them."""
    if missing := missing_for_outbound(settings):
        yield f"outbound calls: off, for want of {', '.join(missing)}"
    else:
        yield (
            f"outbound calls: from {settings.outbound_from} to {', '.join(settings.prefixes)}…,"
            f" at most {settings.outbound_per_hour} an hour"
        )
    who = "this machine only (no VOICECORE_ADMIN_TOKEN)"
    if admin_tokens(settings):
        who = "whoever has VOICECORE_ADMIN_TOKEN"
    yield f"control of calls: {who}"


def _missing(settings: Settings, *names: str) -> list[str]:
    return [variable_name(name) for name in names if not _given(settings, name)]


def _given(settings: Settings, name: str) -> bool:
    value = getattr(settings, name)
    return bool(value.get_secret_value().strip() if hasattr(value, "get_secret_value") else value)
