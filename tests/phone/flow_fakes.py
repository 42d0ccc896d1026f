"""A scripted TwiML server behind `httpx.MockTransport`, and calls to it in virtual time."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl, urlsplit

import httpx
import trio
from phone_fakes import tone

from voicecore.audio import mulaw, wav
from voicecore.phone.account import Account
from voicecore.phone.call import Call, Number
from voicecore.phone.handset import Conditions
from voicecore.phone.script import Manners, Script, Utterance

SERVER = "https://agent.example.com"
TOKEN = "test_auth_token_0123456789abcdef"
certificates = cache(ssl.create_default_context)


@dataclass
class Asked:
    """One request that the server got."""

    at: float
    method: str
    path: str
    form: dict[str, str]
    signature: str | None


Page = str | bytes | httpx.Response | Callable[[Asked], Awaitable[str]]


class TwimlServer:
    """Answers each path with what the script says: a list is answered one after the other."""

    def __init__(self, pages: dict[str, Page | list[Page]]) -> None:
        self.pages = pages
        self.asked: list[Asked] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        url = urlsplit(str(request.url))
        fields = request.content.decode() or url.query
        asked = Asked(
            trio.current_time(), request.method, url.path,
            dict(parse_qsl(fields, keep_blank_values=True)),
            request.headers.get("x-twilio-signature"),
        )  # fmt: skip
        self.asked.append(asked)
        page = self.pages.get(url.path, httpx.Response(404))
        if isinstance(page, list):
            page = page.pop(0) if len(page) > 1 else page[0]
        if isinstance(page, httpx.Response):
            return page
        if isinstance(page, bytes):
            return httpx.Response(200, content=page, headers={"content-type": "audio/wav"})
        body = page if isinstance(page, str) else await page(asked)
        return httpx.Response(
            200, text=f"<Response>{body}</Response>", headers={"content-type": "text/xml"}
        )

    def to(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)


def sound(seconds: float) -> bytes:
    """Return a WAV that can be heard."""
    return wav.to_bytes(wav.Wav(8000, 1, mulaw.decode(tone(seconds))))


def silent(seconds: float) -> Utterance:
    """Return an utterance of somebody who says nothing."""
    return Utterance("silence.wav", b"\xff" * round(8000 * seconds))


def prepared(
    *said: Utterance,
    conditions: Conditions | None = None,
    account: Account | None = None,
    **number: object,
) -> Call:
    """Return a call to the server's /voice."""
    whom = Number(f"{SERVER}/voice", TOKEN, **number)  # type: ignore[arg-type]
    return Call(whom, Script(said, Manners()), conditions, account=account)


async def call_up(
    pages: dict[str, Page | list[Page]], *said: Utterance, **more: object
) -> tuple[Call, TwimlServer]:
    """Place a call, let it come to its end; return it and the server."""
    server = TwimlServer(pages)
    call = prepared(*said, **more)  # type: ignore[arg-type]
    await call.place(certificates(), server.transport)
    return call, server
