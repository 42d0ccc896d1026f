"""An LLM's reply as it streams: server-sent events in, deltas out, whichever API it is."""

from __future__ import annotations

from collections import deque

import trio

from ..contracts import Delta
from ..errors import ProviderError, ProviderFault
from .http import SPARE_WAIT_S, Body
from .replies import BadReply, Reply, ReplyFailed
from .sse import SSEParser


class Deltas:
    """One reply.  What came before a failure is given first; its usage, if it is told, last.

    The usage and the end of the body follow the last word within milliseconds.  They are waited for
    no longer than `SPARE_WAIT_S`: the last sentence is not spoken before the stream has ended.
    """

    def __init__(self, provider: str, body: Body, reply: Reply) -> None:
        self._provider = provider
        self._body = body
        self._parser = SSEParser()
        self._reply = reply
        self._ready: deque[Delta] = deque()
        self._failure: ProviderError | None = None
        self._over = False

    def __aiter__(self) -> Deltas:
        return self

    async def __anext__(self) -> Delta:
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self._over:
                raise StopAsyncIteration
            if self._reply.complete:
                await self._read_rest()
            else:
                await self._read()
        return self._ready.popleft()

    async def _read(self) -> None:
        """Take the next bytes."""
        try:
            if await self._feed():
                self._fail("cut", "the reply broke off")
        except (ValueError, BadReply) as error:
            self._fail("garbage", str(error).partition("\n")[0][:120])
        except ReplyFailed as error:
            self._fail("status", str(error))

    async def _read_rest(self) -> None:
        """Take what may still come; nothing that is wrong with it matters any more.

        A body that is read to its end leaves its connection to the next request.
        """
        with trio.move_on_after(SPARE_WAIT_S):
            try:
                while not await self._feed():
                    pass
            except (ProviderError, ValueError, BadReply, ReplyFailed):
                pass
        self._over = True
        if self._reply.usage is not None:
            self._ready.append(self._reply.usage)

    async def _feed(self) -> bool:
        """Pass the next events on to the reply; return whether these were the last."""
        try:
            events, ended = self._parser.feed(await anext(self._body)), False
        except StopAsyncIteration:
            events, ended = self._parser.end(), True
        for event in events:
            self._ready += self._reply.feed(event)
        return ended

    def _fail(self, fault: ProviderFault, detail: str) -> None:
        if not self._reply.complete:
            self._failure = ProviderError(self._provider, fault, detail)
