"""A vendor's key and address out of the settings, checked before anything is sent to it."""

from __future__ import annotations

import re

import httpx

from ..errors import SettingsError
from ..settings import Settings, variable_name


def key_of(settings: Settings, vendor: str) -> str:
    """Return a vendor's key, or nothing.

    Raises:
        SettingsError: it cannot be sent in a header.
    """
    secret = getattr(settings, f"{vendor}_api_key")
    key = secret.get_secret_value().strip() if secret is not None else ""
    if not re.fullmatch(r"[!-~]*", key):
        variable = variable_name(f"{vendor}_api_key")
        raise SettingsError(f"{variable}: got a secret value; takes printable ASCII")
    return str(key)


def base_url_of(settings: Settings, vendor: str) -> httpx.URL:
    """Return where a vendor's API is.

    Raises:
        SettingsError: that can be no URL.
    """
    try:
        url = httpx.URL(getattr(settings, f"{vendor}_base_url"))
        _ = url.host
    except (httpx.InvalidURL, UnicodeError) as error:  # the latter from the host's encoding
        raise SettingsError(f"{variable_name(f'{vendor}_base_url')}: {error}") from None
    return url


def websocket_url(base: httpx.URL, path: str) -> str:
    """Return the same host's WebSocket address: ``https`` becomes ``wss``, ``http`` ``ws``."""
    scheme = {"http": "ws", "https": "wss"}[base.scheme]
    return str(base.copy_with(scheme=scheme, path=base.path.rstrip("/") + path))
