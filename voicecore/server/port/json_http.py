"""JSON in and out of the control routes: what comes is checked by its type, what goes has one form.

An error is ``{"error": …}`` in one line; what it quotes of a stranger's is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from .http import JSON, Refused, Request, Response

ERROR_CHARS = 300

_encode = msgspec.json.Encoder().encode
_T = TypeVar("_T", bound=msgspec.Struct)


class UnfitBody(Refused):
    """A body that is not what the route takes; its `response` is JSON."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(json_error(status, reason))


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return `value` as a JSON document."""
    return Response(status, _encode(value) + b"\n", JSON, headers or {})


def json_error(
    status: int,
    reason: str,
    more: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return what was wrong, and `more` about it."""
    printable = "".join(c if c.isprintable() else " " for c in reason[:ERROR_CHARS])
    return json_response(status, {"error": printable, **(more or {})}, headers)


def json_body(request: Request, body: bytes, kind: type[_T]) -> _T:
    """Return a request's body as a `kind`.

    Raises:
        UnfitBody: 415, it is not JSON; 400, it is malformed, or no such thing.
    """
    if request.content_type != JSON:
        raise UnfitBody(415, "JSON, please (Content-Type: application/json)")
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise UnfitBody(400, "nested too deeply") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise UnfitBody(400, str(error)) from None
