"""Workers of one port ask each other about calls: whoever has the call answers.

Each worker listens on a Unix socket in the directory that they share, which is their owner's alone.
One connection carries one errand and one report: four bytes of length, then MessagePack.

Rules that hold here: an errand has a deadline, a message a limit, and the connections a number; a
worker that is gone is skipped, and one that says nothing is counted.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from ...errors import RemoteProtocolError
from ..port.boundary import contain
from .live_calls import CallDetail, CallLine
from .warm_transfer import TransferOutcome

log = logging.getLogger("voicecore.server")

ERRAND_S = 2.0
MOST_CONNECTIONS = 64
"""At once, from all other workers; beyond it they are not answered."""

ERRAND_BYTES = 128 * 1024
REPORT_BYTES = 4 * 1024 * 1024
"""A list of ten thousand calls has less."""

_LENGTH = struct.Struct("!I")


class ListCalls(msgspec.Struct, tag=True):
    """Which calls are up?"""


class DescribeCall(msgspec.Struct, tag=True):
    """What is known of a call?"""

    sid: str


class HangUp(msgspec.Struct, tag=True):
    """End a call."""

    sid: str


class GiveAway(msgspec.Struct, tag=True):
    """Let a call go on with a number; `briefing` is said to who answers there, if it is warm."""

    sid: str
    number: str
    warm: bool = False
    briefing: str = ""


class NoteGiven(msgspec.Struct, tag=True):
    """A call of the recording flow has been given to a number, through REST."""

    sid: str
    number: str


class Say(msgspec.Struct, tag=True):
    """Say a sentence in a call, under one key once."""

    sid: str
    text: str
    key: str = ""


class Leave(msgspec.Struct, tag=True):
    """Break off, say a last thing, and hang up; or only hang up."""

    sid: str
    text: str


class BriefLeg(msgspec.Struct, tag=True):
    """What is the human told who has answered?"""

    id: str


class SettleLeg(msgspec.Struct, tag=True):
    """What a human has decided, or the carrier found."""

    id: str
    outcome: TransferOutcome
    is_over: bool = False
    """Whether the leg has ended, or is about to."""


Errand = (
    ListCalls | DescribeCall | HangUp | GiveAway | NoteGiven | Say | Leave | BriefLeg | SettleLeg
)


class Report(msgspec.Struct):
    """What came of an errand.  `status` is empty where the call is not known."""

    status: str = ""
    lines: list[CallLine] = []
    detail: CallDetail | None = None
    texts: list[str] = []
    heard: dict[str, float] = {}
    """When calls were last heard of here, on the workers' common clock: the latest is right."""
    silent: int = 0
    """Workers that live, and said nothing in time."""

    @property
    def is_found(self) -> bool:
        """Whether somebody had what it was about."""
        return bool(self.status)


Run = Callable[[Errand], Awaitable[Report]]
"""Does an errand in this worker."""

_errands = msgspec.msgpack.Decoder(Errand)
_reports = msgspec.msgpack.Decoder(Report)
_encode = msgspec.msgpack.Encoder().encode


class Siblings:
    """The other workers.  Without a directory there are none."""

    def __init__(self, directory: str = "", number: int = 0, workers: int = 1) -> None:
        self._directory = Path(directory)
        self._number = number
        self._others = [other for other in range(workers) if directory and other != number]
        self._connections = 0

    def __repr__(self) -> str:
        return f"<Siblings of worker {self._number}: {self._others}>"

    async def serve(
        self, run: Run, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Do the others' errands until cancelled; starts when they can be asked."""
        if not self._others:
            task_status.started()
            return
        path = self._path(self._number)
        path.unlink(missing_ok=True)  # of the worker that had this seat before
        with trio.socket.socket(socket.AF_UNIX) as listening:
            try:
                await listening.bind(str(path))
            except OSError as error:  # such as a directory of more than a hundred characters
                why = {"why": f"{error!r:.150}"}
                log.warning("workers cannot ask each other", extra={"fields": why})
                task_status.started()
                return
            listening.listen(MOST_CONNECTIONS)
            task_status.started()
            try:
                await trio.serve_listeners(
                    partial(self._answer, run), [trio.SocketListener(listening)]
                )
            finally:
                path.unlink(missing_ok=True)

    async def ask(self, errand: Errand) -> list[Report]:
        """Have all others do an errand; return what those have said that know anything."""
        reports: list[Report] = []
        async with trio.open_nursery() as nursery:
            for other in self._others:
                nursery.start_soon(self._ask, other, errand, reports)
        return reports

    async def _ask(self, other: int, errand: Errand, reports: list[Report]) -> None:
        with trio.move_on_after(ERRAND_S) as patience:
            try:
                async with await trio.open_unix_socket(self._path(other)) as stream:
                    await _send(stream, _encode(errand))
                    reports.append(_reports.decode(await _receive(stream, REPORT_BYTES)))
            except (OSError, trio.BrokenResourceError, RemoteProtocolError):
                return  # it is gone, or going
            except msgspec.DecodeError:
                log.warning("a worker's report cannot be read", extra={"fields": {"worker": other}})
        if patience.cancelled_caught:
            log.warning("a worker does not answer", extra={"fields": {"worker": other}})
            reports.append(Report(silent=1))

    async def _answer(self, run: Run, stream: trio.SocketStream) -> None:
        async def answer() -> None:
            with trio.move_on_after(ERRAND_S):
                try:
                    errand = _errands.decode(await _receive(stream, ERRAND_BYTES))
                except msgspec.DecodeError:
                    raise RemoteProtocolError("no errand") from None
                await _send(stream, _encode(await run(errand)))

        self._connections += 1
        try:
            if self._connections <= MOST_CONNECTIONS:
                await contain("errand", answer)
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    def _path(self, number: int) -> Path:
        return self._directory / f"worker-{number}.sock"


async def _send(stream: trio.SocketStream, message: bytes) -> None:
    await stream.send_all(_LENGTH.pack(len(message)) + message)


async def _receive(stream: trio.SocketStream, most: int) -> bytes:
    """Read one message.

    Raises:
        RemoteProtocolError: it is too long, or torn.
    """
    (length,) = _LENGTH.unpack(await _exactly(stream, _LENGTH.size))
    if length > most:
        raise RemoteProtocolError(f"a message of {length} bytes")
    return await _exactly(stream, length)


async def _exactly(stream: trio.SocketStream, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = await stream.receive_some(min(65536, length - len(data)))
        if not piece:
            raise RemoteProtocolError("a torn message")
        data += piece
    return bytes(data)
