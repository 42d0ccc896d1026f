"""The smallest agent: it says back what it hears, in the caller's own voice.

One call at a time inside a trio program of your own, on WebSockets that are yours; no key, no
engine, no settings.  Run it, then call it:

    python examples/echo.py
    python -m voicecore.phone ws://127.0.0.1:8001/ --say tests/audio/hello_world.wav

Turn-taking, interruptions and playback are the same as with any other agent: what is here is a
model that hears and speaks by itself, in twenty lines.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio
from trio_websocket import WebSocketRequest, serve_websocket

import voicecore


class Echo:
    """A model that hears and speaks: its dialogue, and each of its answers."""

    @asynccontextmanager
    async def converse(self, *about: object) -> AsyncIterator[Echo]:
        """Open a call's conversation.  There is nothing to open."""
        yield self

    def feed(self, frame: bytes) -> None:
        """Take a frame; what was said comes whole with `answer`."""

    def said(self, text: str) -> None:
        """Note what was said without the model: nothing is."""

    def tool_done(self, call_id: str, result: str) -> None:
        """Note what became of a tool: none is asked for."""

    @asynccontextmanager
    async def answer(
        self, question: bytes | str | None, messages: Sequence[voicecore.Message] = ()
    ) -> AsyncIterator[EchoAnswer]:
        """Answer with what was said.  What was typed has no sound."""
        yield EchoAnswer(question if isinstance(question, bytes) else b"")


class EchoAnswer:
    """One echo."""

    is_whole = True

    def __init__(self, utterance: bytes) -> None:
        self._sounds = ["(an echo)", utterance] if utterance else []

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while self._sounds:
            await trio.lowlevel.checkpoint()
            yield self._sounds.pop(0)

    async def question(self) -> str:
        """Return the caller's words: nobody knows them, but there were some."""
        await trio.lowlevel.checkpoint()
        return "(something)"

    def rest(self) -> list[str | bytes]:
        """Return what was not taken."""
        return self._sounds

    def heard(self, milliseconds: int) -> None:
        """Note how much the caller heard: an echo has no memory."""

    def forget(self) -> None:
        """Note that it never happened."""


async def answer(agent: voicecore.Agent, request: WebSocketRequest) -> None:
    """Take one WebSocket, and let the agent talk on it until the call ends."""
    line = voicecore.WebSocketLine(await request.accept())
    async with voicecore.open_call(line) as call:
        await call.converse(agent)
    await line.aclose(call.close_code)
    print(f"{call.sid}: ended by {call.ended_by}, {call.turns} echoes")


async def main() -> None:
    """Serve calls plainly: no signatures, no limits.  `voicecore.serve` has those."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8001
    agent = voicecore.Agent(
        model=Echo(),
        persona=voicecore.Persona(greeting=""),
        limits=voicecore.CallLimits(idle_prompt_s=0),
    )
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, partial(answer, agent), "127.0.0.1", port, None)
        await nursery.start(serve)
        print(f"call ws://127.0.0.1:{port}/")


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        pass
