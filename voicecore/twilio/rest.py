"""Twilio's REST API: calls are created, changed and asked about.  (Its "Calls resource" page.)

Rules that hold here:

* Every wait has a deadline, every answer a bound.  No redirects, no proxies of the environment: the
  account's token must not travel.
* A 429 was never processed (Twilio's page on it): it is repeated, after what Retry-After says or an
  exponential backoff, as long as all waiting stays short.  So is what could not connect, once.
* What may have been processed is repeated only where doing it twice is the same as once: a call
  that is created twice rings twice.
* A call that has ended already cannot be ended: that is no error.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import trio

from ..errors import RestError
from .rotation import secrets_in

CONNECT_S = 3.0
TOTAL_S = 10.0
"""One request, to the last byte of its answer."""

WAIT_S = 8.0
"""All waiting between tries.  Somebody waits for us."""

BACKOFF_S = 0.5
"""Before the second try, doubled before each that follows; less up to a half, by chance."""

BODY_BYTES = 64 * 1024
"""What is kept of an answer; a call's resource has 2 KB."""

MESSAGE_CHARS = 200
MOST_CONNECTIONS = 20

NOT_FOUND, NOT_IN_PROGRESS = 20404, 21220

Fields = Mapping[str, str | Sequence[str]]
"""A form: a field with several values is written several times."""

_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)


class CallResource(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A call as Twilio knows it."""

    sid: str
    status: str = ""
    to: str | None = None
    from_: str | None = None
    direction: str | None = None
    answered_by: str | None = None
    duration: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the call has ended, or never came to be."""
        return self.status in ("completed", "busy", "failed", "no-answer", "canceled")


class TwilioRest:
    """The calls of one account.  Made by `open_rest`; `note_failure` is told each error's fault."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        account_sid: str,
        note_failure: Callable[[str], None] = lambda fault: None,
    ) -> None:
        self._client = client
        self._calls = f"/2010-04-01/Accounts/{quote(account_sid, safe='')}/Calls"
        self._note_failure = note_failure

    def __repr__(self) -> str:
        return f"<TwilioRest {self._client.base_url}>"

    async def create_call(self, fields: Fields) -> CallResource:
        """Place a call.

        Raises:
            RestError: nothing rings if `was_ignored`, or if it has a `status` under 500; otherwise
                nobody knows.
        """
        return _resource(await self._ask("POST", f"{self._calls}.json", fields, twice=False))

    async def update_call(self, call_sid: str, fields: Fields) -> bool:
        """Change a call that is up: its ``Twiml``, ``Url`` or ``Status``.

        Returns whether it was; a call that has ended already stays as it is.

        Raises:
            RestError: it was refused, or not answered.
        """
        try:
            await self._ask("POST", self._path(call_sid), fields, twice=True)
        except RestError as error:
            # By Twilio's codes: any server has a 404, and the phone would ring on.
            if (error.status, error.code) in ((404, NOT_FOUND), (400, NOT_IN_PROGRESS)):
                return False
            raise
        return True

    async def hang_up(self, call_sid: str) -> bool:
        """End a call, ringing or answered; return whether there was one to end.

        Raises:
            RestError: as `update_call`.
        """
        return await self.update_call(call_sid, {"Status": "completed"})

    async def fetch_call(self, call_sid: str) -> CallResource:
        """Ask about a call.

        Raises:
            RestError: status 404, if there is none of this name; or as always.
        """
        return _resource(await self._ask("GET", self._path(call_sid), {}, twice=True))

    def _path(self, call_sid: str) -> str:
        return f"{self._calls}/{quote(call_sid, safe='')}.json"

    async def _ask(self, method: str, path: str, fields: Fields, *, twice: bool) -> bytes:
        """Make a request, and make it again where that is right."""
        left, backoff, may_fail = WAIT_S, BACKOFF_S, True
        while True:
            try:
                return await self._attempt(method, path, fields)
            except RestError as error:
                self._note_failure(error.fault)
                if error.fault != "busy":
                    again = error.was_ignored or (
                        twice and (error.status >= 500 or not error.status)
                    )
                    if not (may_fail and again):
                        raise
                    may_fail = False
                wait = error.retry_after_s
                if wait is None:
                    wait = backoff * random.uniform(0.5, 1.0)
                    backoff *= 2
                if wait > left:
                    raise
            left -= wait
            await trio.sleep(wait)

    async def _attempt(self, method: str, path: str, fields: Fields) -> bytes:
        with trio.move_on_after(TOTAL_S):
            try:
                status, headers, body = await self._exchange(method, path, fields)
            except httpx.ConnectTimeout:
                raise RestError("connect", f"no connection within {CONNECT_S:g} s") from None
            except (httpx.ConnectError, httpx.PoolTimeout):
                raise RestError("connect", "no connection") from None
            except httpx.HTTPError as error:
                # Its text may quote the request.
                raise RestError("cut", type(error).__name__) from None
            if status not in (200, 201):
                raise _refusal(status, headers, body)
            return body
        raise RestError("timeout", f"no answer within {TOTAL_S:g} s")

    async def _exchange(
        self, method: str, path: str, fields: Fields
    ) -> tuple[int, httpx.Headers, bytes]:
        data = {
            name: value if isinstance(value, str) else [*value] for name, value in fields.items()
        }
        async with self._client.stream(method, path, data=data or None) as response:
            body = bytearray()
            async for piece in response.aiter_raw():
                # Read to its end, or to the deadline, and dropped: an iteration that is left
                # half-way leaves httpx's generators open.
                body += piece[: BODY_BYTES + 1 - len(body)]
            return response.status_code, response.headers, bytes(body)


@asynccontextmanager
async def open_rest(
    base_url: str,
    account_sid: str,
    auth_tokens: str,
    note_failure: Callable[[str], None] = lambda fault: None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[TwilioRest]:
    """Open the API of one account.  Of several tokens, separated by commas, the first is used."""
    async with httpx.AsyncClient(
        base_url=base_url,
        auth=(account_sid, next(iter(secrets_in(auth_tokens)), "")),
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
        limits=httpx.Limits(max_connections=MOST_CONNECTIONS, keepalive_expiry=60),
        trust_env=False,
        follow_redirects=False,
        transport=transport,
    ) as client:
        yield TwilioRest(client, account_sid, note_failure)


def _resource(body: bytes) -> CallResource:
    try:
        call = msgspec.json.decode(body, type=CallResource)
    except _UNREADABLE:
        raise RestError("garbage", "the answer is no call") from None
    if not call.sid:
        raise RestError("garbage", "the answer is a call without a name")
    return call


def _refusal(status: int, headers: httpx.Headers, body: bytes) -> RestError:
    """Return what an answer that is no success says."""
    code, message = _said(body)
    if status == 429 or code == 20429:
        error = RestError("busy", message or "too many requests", status=status, code=code)
        error.retry_after_s = _retry_after(headers)
        return error
    return RestError(
        "refused" if status in (401, 403) else "status",
        message or f"HTTP {status}",
        status=status,
        code=code,
    )


def _said(body: bytes) -> tuple[int, str]:
    """Return the code and the words of an error: Twilio's own JSON, or RFC 9457's."""
    try:
        answer: Any = msgspec.json.decode(body)
    except _UNREADABLE:
        return 0, ""
    if not isinstance(answer, dict):
        return 0, ""
    code = answer.get("code")
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 10:
        code = int(code)
    words = next(
        (
            text
            for name in ("message", "detail", "title")
            if isinstance(text := answer.get(name), str)
        ),
        "",
    )
    printable = "".join(c if c.isprintable() else " " for c in words[:MESSAGE_CHARS])
    return code if type(code) is int else 0, " ".join(printable.split())


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds of a Retry-After, as a number or as a date beside the answer's own."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until, now = (parsedate_to_datetime(text) for text in (value, headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None
