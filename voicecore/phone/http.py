"""A small HTTP/1.1 server on one machine, for one account's REST API: h11 on trio.

Every wait has a deadline and every size a limit; what breaks one is answered, then closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus

import h11
import trio

from ..errors import CannotListen

HOST = "127.0.0.1"
HEAD_BYTES = 16384
BODY_BYTES = 65536
READ_BYTES = 16384
REQUEST_S = 10.0
IDLE_S = 30.0
RESPONSE_S = 15.0
LINGER_S = 1.0
MAX_CONNECTIONS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """A request, whole.  Header names are lower case, the target is as it came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Response]


class _Refused(Exception):
    """A request that breaks a limit: the status says which."""

    def __init__(self, status: int) -> None:
        self.status = status


async def listen(port: int) -> list[trio.SocketListener]:
    """Open a port of this machine; 0: any that is free.

    Raises:
        CannotListen: it is taken.
    """
    try:
        return await trio.open_tcp_listeners(port, host=HOST)
    except OSError as error:
        raise CannotListen(f"cannot listen on {HOST}:{port}: {error.strerror}") from None


def address(listeners: list[trio.SocketListener]) -> str:
    """Return the URL of what is served there, without a path."""
    return f"http://{HOST}:{listeners[0].socket.getsockname()[1]}"


async def serve(answer: Answer, listeners: list[trio.SocketListener]) -> None:
    """Serve until cancelled; `answer` makes each response."""
    places = trio.CapacityLimiter(MAX_CONNECTIONS)
    await trio.serve_listeners(partial(_serve_connection, answer, places), listeners)


async def _serve_connection(
    answer: Answer, places: trio.CapacityLimiter, stream: trio.abc.Stream
) -> None:
    async with stream:
        try:
            places.acquire_nowait()
        except trio.WouldBlock:
            return
        try:
            await converse(answer, stream)
        except trio.BrokenResourceError:
            pass  # whoever asked has gone
        finally:
            places.release()


async def converse(answer: Answer, stream: trio.abc.Stream) -> None:
    """Answer one request after the other until the peer closes, or breaks a rule."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    patience = REQUEST_S
    while True:
        try:
            with trio.move_on_after(patience) as idle:
                while not connection.trailing_data[0]:
                    await _read(connection, stream)
                    if connection.trailing_data[1]:
                        return
            if idle.cancelled_caught:
                return
            with trio.fail_after(REQUEST_S):
                request = await _request(connection, stream)
            if request is None:
                return
            response = answer(request)
            if request.method == "HEAD":
                response = replace(response, body=b"")
        except h11.RemoteProtocolError as error:
            response = Response(error.error_status_hint)
        except _Refused as refused:
            response = Response(refused.status)
        except trio.TooSlowError:
            response = Response(408)
        await _respond(connection, stream, response)
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            # What is still on its way would, unread, take the answer with it in a reset.
            with trio.move_on_after(LINGER_S):
                while await stream.receive_some(READ_BYTES):
                    pass
            return
        connection.start_next_cycle()
        patience = IDLE_S


async def _request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                going_on = h11.InformationalResponse(status_code=100, headers=[])
                await _send(stream, connection.send(going_on))
            await _read(connection, stream)
        elif isinstance(event, h11.Request):
            head = event
            if sum(len(name) + len(value) for name, value in event.headers) > HEAD_BYTES:
                raise _Refused(431)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES:
                raise _Refused(413)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
            return Request(head.method.decode(), head.target.decode(), headers, bytes(body))
        else:
            return None


async def _read(connection: h11.Connection, stream: trio.abc.Stream) -> None:
    connection.receive_data(bytes(await stream.receive_some(READ_BYTES)))


async def _respond(connection: h11.Connection, stream: trio.abc.Stream, response: Response) -> None:
    lost = connection.their_state is not h11.DONE
    headers = [("Content-Length", str(len(response.body))), *response.headers.items()]
    if response.body:
        headers.append(("Content-Type", response.content_type))
    if lost:
        # There is no telling where the next request begins.
        headers.append(("Connection", "close"))
    reason = HTTPStatus(response.status).phrase.encode()
    if response.status == 204:
        headers = headers[1:]
    data = connection.send(
        h11.Response(status_code=response.status, headers=headers, reason=reason)
    )
    data = data or b""
    if response.body:
        data += connection.send(h11.Data(data=response.body)) or b""
    await _send(stream, data + (connection.send(h11.EndOfMessage()) or b""))


async def _send(stream: trio.abc.Stream, data: bytes | None) -> None:
    with trio.move_on_after(RESPONSE_S) as patience:
        await stream.send_all(data or b"")
    if patience.cancelled_caught:
        raise trio.BrokenResourceError(f"response not taken in {RESPONSE_S:.0f} s")
