"""Who may control calls: whoever has the token; without one, this machine and nobody else.

Without a token a request proves nothing but where it comes from.  So what came through a proxy is
refused, for the proxy is on this machine and its clients are not; and what a web page may have
asked for, which its visitor's browser sends from here (the page's `Origin`), or by a name that was
made to point here (`Host`).
"""

from __future__ import annotations

import ipaddress
import logging
from urllib.parse import urlsplit

from ...settings import Settings
from ...twilio.rotation import is_one_of, secrets_in
from ..port.http import Request, Response
from ..port.json_http import json_error

log = logging.getLogger("voicecore.server")

PROXY_HEADERS = (b"forwarded", b"x-forwarded-", b"x-real-ip", b"via")
"""How the headers begin that only a proxy adds."""

HOW_TO = "set VOICECORE_ADMIN_TOKEN and send it as a bearer token"


def refusal(settings: Settings, request: Request) -> Response | None:
    """Return why a request may not control calls; None, if it may."""
    if tokens := admin_tokens(settings):
        if _bears(request, tokens):
            return None
        log.info("control refused: no valid token")
        challenge = {"WWW-Authenticate": 'Bearer realm="voicecore"'}
        return json_error(401, "a bearer token, please", headers=challenge)
    reason = _not_local(request)
    if not reason:
        return None
    log.info("control refused", extra={"fields": {"why": reason}})
    return json_error(403, f"{reason}; {HOW_TO}")


def admin_tokens(settings: Settings) -> list[str]:
    """Return the tokens of which a request needs one; none: only this machine may."""
    secret = settings.admin_token
    return [] if secret is None else secrets_in(secret.get_secret_value())


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _bears(request: Request, tokens: list[str]) -> bool:
    scheme, _, given = request.header("authorization").partition(" ")
    if scheme.lower() != "bearer":
        return False
    return is_one_of(given.strip().encode("latin-1"), tokens)


def _not_local(request: Request) -> str:
    """Return what speaks against a request being made by somebody on this machine."""
    if not is_loopback(request.peer):
        return "only this machine may control calls"
    # nginx speaks HTTP/1.0 to what is behind it, and names nobody, unless it is told to.
    if request.version == "1.0" or any(
        name.startswith(PROXY_HEADERS) for name, _ in request.headers
    ):
        return "a proxy stands before this server"
    if request.values("origin") or request.header("sec-fetch-site") not in ("", "none"):
        return "a web page may not control calls"
    try:
        host = urlsplit(f"//{request.header('host')}").hostname or ""
    except ValueError:
        host = ""
    return "" if is_loopback(host) else "the Host is not this machine's"
