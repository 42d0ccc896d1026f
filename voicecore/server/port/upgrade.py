"""What a request must look like to become a media stream (RFC 6455, section 4.2.1).

The WebSocket library decodes handshake headers with codecs whose errors nothing catches: one packet
with ``Host: xn--0`` would end the process.  So nothing of the peer's handshake reaches the library;
what we need of it is one value, the key.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from dataclasses import dataclass

from ...wire.dialects import TWILIO, Dialect
from .http import BadRequest, Request

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(:\d{1,5})?")
_READ_BY_WEBSOCKETS = (b"host", b"connection", b"upgrade")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The connection becomes a media stream; `key` is the peer's Sec-WebSocket-Key."""

    key: str
    dialect: Dialect = TWILIO
    """What is spoken on it."""
    is_known: bool = False
    """Whether the request itself said who it is; else `start` has to."""


def websocket_key(request: Request) -> str:
    """Return the key of a valid upgrade request.

    Raises:
        BadRequest: 400 if it is malformed, 426 if it asks for something else than WebSocket 13.
    """
    for name, value in request.headers:
        ours = name in _READ_BY_WEBSOCKETS or name.startswith(b"sec-websocket-")
        if ours and not value.isascii():
            raise BadRequest(400, f"{name.decode()} is not ASCII")
    check_host(request)
    if not _wants_websocket(request):
        needed = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        raise BadRequest(426, "a WebSocket is spoken here", needed)
    if request.version != "1.1" or request.has_body:
        raise BadRequest(400, "malformed upgrade")
    if request.values("sec-websocket-version") != [b"13"]:
        raise BadRequest(426, "WebSocket version 13", {"Sec-WebSocket-Version": "13"})
    return _key(request)


def check_host(request: Request) -> None:
    """Refuse a Host that is not a name or an address with a port.

    Raises:
        BadRequest: 400.
    """
    host = request.header("host")
    try:
        if _HOST.fullmatch(host) is None:
            raise UnicodeError
        host.partition(":")[0].encode().decode("idna")
    except UnicodeError:
        raise BadRequest(400, "malformed host") from None


def _wants_websocket(request: Request) -> bool:
    if len(request.values("connection")) > 1 or len(request.values("upgrade")) > 1:
        raise BadRequest(400, "upgrade given twice")
    return "upgrade" in _tokens(request, "connection") and "websocket" in _tokens(
        request, "upgrade"
    )


def _key(request: Request) -> str:
    keys = request.values("sec-websocket-key")
    try:
        if len(keys) != 1 or len(b64decode(keys[0], validate=True)) != 16:
            raise BadRequest(400, "malformed Sec-WebSocket-Key")
    except binascii.Error:
        raise BadRequest(400, "malformed Sec-WebSocket-Key") from None
    return keys[0].decode()


def _tokens(request: Request, name: str) -> set[str]:
    return {token.strip().lower() for token in request.header(name).split(",")}
