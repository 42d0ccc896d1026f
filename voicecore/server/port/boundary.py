"""Where errors end: nothing that happens in one call or connection may reach another.

This is the only place of the package that catches every exception.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import trio
from trio_websocket import ConnectionClosed
from wsproto.utilities import ProtocolError as WebSocketError

from ...errors import CallRefused, LineClosed, RemoteProtocolError, leaves

log = logging.getLogger("voicecore.server")

_Result = TypeVar("_Result")

_PEERS_DOING = (
    CallRefused,
    LineClosed,
    RemoteProtocolError,
    ConnectionClosed,
    WebSocketError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
)
"""What peers and networks do all day.  One line without a traceback, and no alarm."""

INTERNAL_ERROR = 1011
GONE = 1001


class Closing(NamedTuple):
    """What a WebSocket is closed with."""

    code: int
    reason: str = ""


async def contain(
    what: str, task: Callable[[], Awaitable[None]], call_sid: Callable[[], str] = str
) -> Closing | None:
    """Run `task`; return `None`, or how to close the WebSocket after the error that it ended with.

    Cancellation passes through; every error ends here, in one line of the log.
    """
    closing: Closing | None = None
    try:
        await task()
    # Code that was made for programs of its own exits: that ends its call, and not all others.
    except* (Exception, SystemExit) as group:  # noqa: BLE001  the one place
        errors = list(leaves(group))
        ours = next((error for error in errors if not isinstance(error, _PEERS_DOING)), None)
        worst = ours or errors[0]
        if ours is not None:
            log.error("%s failed", what, extra={"call": call_sid(), "fields": _described(ours)})
        elif not isinstance(worst, LineClosed):
            why = {"why": f"{worst!r:.150}"}
            log.info("%s ended", what, extra={"call": call_sid(), "fields": why})
        closing = _closing(worst)
    return closing


async def attempted(
    what: str, task: Callable[[], Awaitable[_Result]], call_sid: Callable[[], str] = str
) -> _Result | None:
    """Return what `task` returns; None after an error, which ends here as in `contain`."""
    result: _Result | None = None

    async def attempt() -> None:
        nonlocal result
        result = await task()

    await contain(what, attempt, call_sid)
    return result


def _closing(error: BaseException) -> Closing:
    if isinstance(error, (CallRefused, RemoteProtocolError)):
        return Closing(error.close_code, str(error))
    # Without a reason: our bugs are nobody's business but ours.
    return Closing(GONE if isinstance(error, _PEERS_DOING) else INTERNAL_ERROR)


def _described(error: BaseException) -> dict[str, object]:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = (f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames)
    return {"error": f"{error!r:.150}", "at": " > ".join(places)}
