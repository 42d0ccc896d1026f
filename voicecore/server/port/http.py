"""HTTP/1.1 on one connection: h11's parser, and around it every limit that h11 leaves to us.

Rules that hold here:

* Every wait has a deadline, every size a limit, and every refusal is a complete response.
* After an error in framing nothing that follows can be trusted: answer, close, linger.
* A body is read only after its request was found acceptable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import h11
import trio

from ...errors import RemoteProtocolError
from .limits import (
    BODY_BYTES,
    HEAD_BYTES,
    HEADER_COUNT,
    IDLE_S,
    READ_BYTES,
    REQUEST_S,
    RESPONSE_S,
    TARGET_BYTES,
)

TEXT = "text/plain; charset=utf-8"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

BLANK_BYTES = 16
"""Of empty lines before a request; beyond it they are a malformed request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head as it came.  Header names are lower case; the target is not decoded."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    peer: str = ""
    """The address at the other end of the connection: a proxy's, if there is one."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the path's question mark."""
        return self.target.partition("?")[2]

    @property
    def content_type(self) -> str:
        """What the body is, without parameters; empty if that is not told."""
        return self.header("content-type").partition(";")[0].strip().lower()

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""
        return self.header("content-length").strip("0, ") != "" or bool(
            self.values("transfer-encoding")
        )

    def values(self, name: str) -> list[bytes]:
        """Return every value of a header, in order."""
        key = name.encode()
        return [value for header, value in self.headers if header == key]

    def header(self, name: str) -> str:
        """Return a header's values as one text, empty if there is none."""
        return ", ".join(value.decode("latin-1") for value in self.values(name))


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: `body` is sent with its Content-Length, and left out for HEAD."""

    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)


class BadRequest(RemoteProtocolError):
    """A request that cannot be served; `response` says why."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}: {reason}")
        self.response = Response(status, f"{reason}\n".encode(), TEXT, headers or {})


class Refused(BadRequest):
    """A request to which there is this answer, and no other."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status, "refused")
        self.response = response


class HttpConnection:
    """The server's side of one connection."""

    def __init__(self, transport: trio.abc.Stream) -> None:
        self._transport = transport
        self._peer = _address(transport)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._fed = 0
        self._blank = 0
        self._patience = REQUEST_S
        self._deadline = 0.0
        self._is_head = False

    @property
    def unread(self) -> bytes:
        """What the peer has sent beyond its request."""
        return bytes(self._h11.trailing_data[0])

    async def next_request(self) -> Request | None:
        """Wait for a request's head; `None` when the peer left or sent nothing for too long.

        Raises:
            BadRequest: it breaks a rule or a limit, or took too long.
        """
        self._fed = len(self.unread)
        with trio.move_on_after(self._patience) as idle:
            while not self.unread:
                if not await self._read():
                    return None
        if idle.cancelled_caught:
            return None
        self._deadline = trio.current_time() + REQUEST_S
        event = await self._next_event()
        if isinstance(event, h11.ConnectionClosed):
            return None
        assert isinstance(event, h11.Request)
        self._is_head = event.method == b"HEAD"
        request = self._checked(event)
        if not request.has_body:
            await self._next_event()  # the end of the message: the connection may go on
        return request

    async def body(self) -> bytes:
        """Read the body of the request.

        Raises:
            BadRequest: it is larger than allowed, malformed, or took too long.
        """
        if self._h11.their_state is not h11.SEND_BODY:
            return b""
        if self._h11.they_are_waiting_for_100_continue:
            going_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._send(self._h11.send(going_on))
        body = bytearray()
        self._fed = len(self.unread)
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            # Chunks of one byte cost six on the wire, and time to parse.
            if len(body) > BODY_BYTES or self._fed > 2 * BODY_BYTES:
                raise BadRequest(413, f"body of more than {BODY_BYTES} bytes")
        return bytes(body)

    async def respond(self, response: Response) -> bool:
        """Send a response; return whether the connection may carry another request."""
        body = b"" if response.status == 204 else response.body
        headers = [("Content-Type", response.content_type)] if body else []
        headers += [(name, value) for name, value in response.headers.items()]
        if response.status != 204:
            headers.append(("Content-Length", str(len(body))))
        # After an error, or before a body that nobody read, there is no telling where the next
        # request begins; behind a failed upgrade there may be anything.
        lost = self._h11.their_state in (h11.IDLE, h11.SEND_BODY, h11.ERROR)
        if lost or response.status in (400, 426):
            upgrade = ", upgrade" if "Upgrade" in response.headers else ""
            headers.append(("Connection", f"close{upgrade}"))
        reason = HTTPStatus(response.status).phrase.encode()
        head = h11.Response(status_code=response.status, headers=headers, reason=reason)
        data = self._h11.send(head)
        if body and not self._is_head:
            data += self._h11.send(h11.Data(data=body))
        await self._send(data + self._h11.send(h11.EndOfMessage()))
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        # A new one, because what the old one holds cannot be looked through for empty lines.
        unread, closed = self._h11.trailing_data
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._blank = 0
        if data := self._without_blank(unread):
            self._h11.receive_data(data)
        if closed:
            self._h11.receive_data(b"")
        self._is_head = False
        self._patience = IDLE_S
        return True

    def _checked(self, event: h11.Request) -> Request:
        if self._fed - len(self.unread) > HEAD_BYTES:
            raise BadRequest(431, f"head of more than {HEAD_BYTES} bytes")
        if len(event.headers) > HEADER_COUNT:
            raise BadRequest(431, f"more than {HEADER_COUNT} header fields")
        if len(event.target) > TARGET_BYTES:
            raise BadRequest(414, f"target of more than {TARGET_BYTES} bytes")
        version = event.http_version.decode()
        if version not in ("1.0", "1.1"):
            raise BadRequest(505, "HTTP/1.1 is spoken here")
        headers = tuple(event.headers)
        target = _origin_form(event)
        request = Request(event.method.decode(), target, version, headers, self._peer)
        if not all(value.isascii() for value in request.values("connection")):
            raise BadRequest(400, "connection is not ASCII")
        if version == "1.1" and request.header("expect").lower() not in ("", "100-continue"):
            raise BadRequest(417, "only 100-continue can be expected")
        lengths, codings = request.values("content-length"), request.values("transfer-encoding")
        if codings and (lengths or version == "1.0"):
            # Two ideas of where the body ends: how requests are smuggled past proxies.
            raise BadRequest(400, "ambiguous body length")
        if lengths and int(lengths[0]) > BODY_BYTES:
            raise BadRequest(413, f"body of more than {BODY_BYTES} bytes")
        return request

    async def _next_event(self) -> h11.Event:
        with trio.move_on_at(self._deadline):
            while True:
                try:
                    event = self._h11.next_event()
                except h11.RemoteProtocolError as error:
                    raise BadRequest(error.error_status_hint, _blame(error)) from None
                if event is h11.PAUSED:
                    raise BadRequest(400, "unexpected data")
                if event is not h11.NEED_DATA:
                    assert isinstance(event, h11.Event)
                    return event
                await self._read()
        raise BadRequest(408, f"request not complete in {REQUEST_S:.0f} s")

    async def _read(self) -> bool:
        try:
            data = bytes(await self._transport.receive_some(READ_BYTES))
        except trio.BrokenResourceError:
            data = b""
        self._fed += len(data)
        if not data:
            self._h11.receive_data(b"")
        elif begun := data if self._blank < 0 else self._without_blank(data):
            self._h11.receive_data(begun)
        return bool(data)

    def _without_blank(self, data: bytes) -> bytes:
        """Take off the empty lines before a request (RFC 9112, section 2.2), not very many."""
        rest = data.lstrip(b"\r\n")
        self._blank += len(data) - len(rest)
        if self._blank > BLANK_BYTES:
            self._blank = -1
            return data
        if rest:
            self._blank = -1
        return rest

    async def _send(self, data: bytes | None) -> None:
        with trio.move_on_after(RESPONSE_S) as patience:
            await self._transport.send_all(data or b"")
        if patience.cancelled_caught:
            raise trio.BrokenResourceError(f"response not taken in {RESPONSE_S:.0f} s")


def _address(transport: trio.abc.Stream) -> str:
    if isinstance(transport, trio.SocketStream):
        try:
            return str(transport.socket.getpeername()[0])
        except OSError:
            pass  # it has gone; reading says so
    return ""


def _blame(error: h11.RemoteProtocolError) -> str:
    # h11 quotes the peer's bytes; the response should not.
    return "headers too large" if error.error_status_hint == 431 else "malformed request"


def _origin_form(event: h11.Request) -> str:
    target = event.target.decode("ascii")
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        # Absolute form: a server must accept it (RFC 9112, section 3.2.2).
        return "/" + rest.partition("/")[2]
    if not target.startswith("/"):
        if event.method in (b"OPTIONS", b"CONNECT"):
            raise BadRequest(405, "method not allowed", {"Allow": "GET, HEAD, POST"})
        raise BadRequest(400, "malformed target")
    return target
