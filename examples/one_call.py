"""One call inside a trio program of your own: on a WebSocket that you already have.

Run it, then call it:

    python examples/one_call.py
    python -m voicecore.phone ws://127.0.0.1:8001/ --say tests/audio/hello_world.wav

It needs no key: the providers are those of the settings, embedded ones by default.
"""

from __future__ import annotations

import sys
from functools import partial

import trio
from trio_websocket import WebSocketRequest, serve_websocket

import voicecore
from voicecore.providers.table import open_providers


async def answer(agent: voicecore.Agent, request: WebSocketRequest) -> None:
    """Take one WebSocket, and let the agent talk on it until the call ends."""
    line = voicecore.WebSocketLine(await request.accept())
    async with voicecore.open_call(line) as call:
        await call.converse(agent)
    await line.aclose(call.close_code)
    print(f"{call.sid}: ended by {call.ended_by}, {len(call.history.messages)} messages")


async def main() -> None:
    """Serve calls plainly: no signatures, no limits.  `voicecore.serve` has those."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8001
    settings = voicecore.Settings(greeting="You have reached the example.")
    async with open_providers(settings) as providers:
        agent = voicecore.agent_from(settings, providers.stt, providers.llm, providers.tts)
        await agent.prepare()
        async with trio.open_nursery() as nursery:
            serve = partial(serve_websocket, partial(answer, agent), "127.0.0.1", port, None)
            await nursery.start(serve)
            print(f"call ws://127.0.0.1:{port}/")


if __name__ == "__main__":
    trio.run(main)
