"""LLM by Anthropic: the Messages API.

``ANTHROPIC_BASE_URL`` may name another server that speaks it, its address without a path.

Source: the API reference of /v1/messages, its pages on versions and errors.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from ..contracts import Delta, Message, Tool
from ..errors import ProviderError
from ..settings import Settings
from .access import base_url_of, key_of
from .anthropic_messages import Reply, request_body
from .deltas import Deltas
from .http import Api, Deadlines, open_client

NAME = "anthropic"

VERSION = "2023-06-01"
"""Of the API, not of a model.  Later ones refuse sampling parameters, which are not sent anyway;
this one is known to every compatible server."""

LLM_DEADLINES = Deadlines(first_byte=5, idle=5, total=30)


class AnthropicLLM:
    """Streams messages."""

    def __init__(self, api: Api, model: str) -> None:
        self._api = api
        self._model = model

    async def warm_up(self, language: str) -> None:
        """Connect."""
        await self._api.warm_up()

    @asynccontextmanager
    async def reply(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> AsyncIterator[AsyncIterable[Delta]]:
        """Stream the reply to `messages`."""
        content = msgspec.json.encode(request_body(self._model, messages, tools))
        headers = {"Content-Type": "application/json"}
        async with self._api.post(
            "v1/messages", LLM_DEADLINES, content=content, headers=headers
        ) as body:
            if body.content_type not in ("text/event-stream", ""):
                raise ProviderError(NAME, "garbage", "not an event stream")
            yield Deltas(NAME, body, Reply())


@dataclass(frozen=True, slots=True)
class Anthropic:
    """What this vendor offers."""

    llm: AnthropicLLM


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Anthropic]:
    """Open the pool of connections; none is made before the first request.

    Raises:
        SettingsError: the key or the URL can be none.
    """
    key, url = key_of(settings, NAME), base_url_of(settings, NAME)
    headers = {"anthropic-version": VERSION} | ({"x-api-key": key} if key else {})
    async with open_client(str(url), headers) as client:
        yield Anthropic(AnthropicLLM(Api(NAME, client), settings.llm_model or "claude-haiku-5-5"))
