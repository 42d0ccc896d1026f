"""A server that counts its connections, by TLS or without, and a client of it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from voicecore.providers.http import Api, Deadlines, open_client

from .fake_openai import FakeOpenAI

DEADLINES = Deadlines(first_byte=5, idle=5, total=30)
PATH = "audio/transcriptions"


class Server(FakeOpenAI):
    """Counts the connections that are open; with `tls` it speaks https."""

    standing = 0
    tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Server:
        self._news = trio.Event()
        await super().__aenter__()
        if self.tls is not None:
            self.base_url = self.base_url.replace("http://127.0.0.1", "https://localhost")
        return self

    async def _converse(self, stream: trio.abc.Stream) -> None:
        self._count(1)
        try:
            if self.tls is not None:
                stream = await accepted(stream, self.tls)
            await super()._converse(stream)  # type: ignore[arg-type]
        except trio.BrokenResourceError:
            pass  # the client did not like the certificate
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self.standing += more
        self._news.set()
        self._news = trio.Event()

    async def stands(self, count: int) -> None:
        """Wait until so many connections are open, and stay so."""
        with trio.fail_after(1):
            while self.standing != count:
                await self._news.wait()
        await wait_all_tasks_blocked(0.01)
        assert self.standing == count


async def accepted(stream: trio.abc.Stream, tls: ssl.SSLContext) -> trio.SSLStream[trio.abc.Stream]:
    """Take a TLS connection, and send its session tickets at once: only trio saves them up."""
    secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    await secured.do_handshake()
    tickets, secured._delayed_outgoing = secured._delayed_outgoing, None
    assert tickets
    await stream.send_all(tickets)
    return secured


@asynccontextmanager
async def client(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Api]:
    async with open_client(server.base_url, tls=tls) as opened:
        yield Api("vendor", opened)


async def ask(api: Api) -> bytes:
    async with api.post(PATH, DEADLINES, json={}) as body:
        return await body.read(1 << 20)
