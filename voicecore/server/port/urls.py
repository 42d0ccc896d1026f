"""How a carrier sees us: the URLs that it was given, and those that Twilio signed."""

from __future__ import annotations

from .http import Request
from .upgrade import check_host

_WEBSOCKET = {"https": "wss", "http": "ws"}


def public_base(request: Request, public_url: str | None) -> str:
    """Return our origin as the caller of this request knows it, such as ``https://example.com``.

    With VOICECORE_PUBLIC_URL that is it.  Without, the request has to tell: its Host, and the
    X-Forwarded-Proto of a TLS terminator.

    Raises:
        BadRequest: 400 if the Host is not one.
    """
    if public_url is not None:
        return public_url
    check_host(request)
    forwarded = request.header("x-forwarded-proto").partition(",")[0].strip().lower()
    scheme = forwarded if forwarded in _WEBSOCKET else "http"
    return f"{scheme}://{request.header('host')}"


def websocket_url(base: str, path: str) -> str:
    """Return the URL of a WebSocket on our origin: ``wss`` for ``https``, ``ws`` for ``http``."""
    scheme, _, rest = base.partition("://")
    return f"{_WEBSOCKET[scheme]}://{rest}{path}"


def request_urls(request: Request, public_url: str | None, *, websocket: bool) -> list[str]:
    """Return what Twilio may have signed: our origin and the request's raw target.

    Host and X-Forwarded-Proto count only if there is no VOICECORE_PUBLIC_URL: they are the sender's
    to choose.  A terminator may hide TLS from us, so then both schemes are tried.
    """
    if public_url is not None:
        bases = [public_url]
    else:
        bases = [f"{scheme}://{request.header('host')}" for scheme in _WEBSOCKET]
    if websocket:
        return [websocket_url(base, request.target) for base in bases]
    return [base + request.target for base in bases]
