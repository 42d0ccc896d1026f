"""A caller's telephone at any carrier: what dialects sound like at the other end."""

from __future__ import annotations

import json
from collections.abc import Sequence

import trio
from dialect_transcripts import Carrier
from trio_websocket import ConnectionClosed, WebSocketConnection

from voicecore.audio import SILENCE_FRAME
from voicecore.phone.buffer import PlaybackBuffer
from voicecore.testing import audible

FRAME_S = 0.02
QUIET = [SILENCE_FRAME]


class Phone:
    """A carrier of any dialect: it plays what it is sent, echoes marks, and is told what to say."""

    def __init__(
        self,
        carrier: Carrier,
        websocket: WebSocketConnection,
        opening: Sequence[str] | None = None,
    ) -> None:
        self.carrier = carrier
        self.opening = carrier.opening if opening is None else opening
        self.websocket = websocket
        self.buffer = PlaybackBuffer()
        self.words: list[str] = []
        self.clears = 0
        (self.echo,) = (m for m in carrier.heard if "m1" in m)

    async def open(self) -> None:
        for message in self.opening:
            await self.websocket.send_message(message)

    async def listen(self) -> None:
        while True:
            try:
                message = await self.websocket.get_message()
            except ConnectionClosed:
                return
            said = None if isinstance(message, bytes) else json.loads(message)
            if said == self.carrier.clear:
                self.clears += 1
                self.buffer.clear()
            elif said is None or "payload" in said.get("media", {}):
                self.buffer.media(self.carrier.sound(message))
            else:
                template = json.dumps(self.carrier.mark).split('"m1"')
                name = json.dumps(said).removeprefix(template[0]).removesuffix(template[1])
                await self._echo(self.buffer.mark(json.loads(name)))

    async def tick(self, frame: bytes = SILENCE_FRAME) -> None:
        await self.websocket.send_message(self.carrier.media(frame))
        played = self.buffer.play()
        self.words += audible.words_in_frame(played.audio)
        await self._echo(played.marks)
        await trio.sleep(FRAME_S)

    async def _echo(self, marks: tuple[str, ...]) -> None:
        for mark in marks:
            await self.websocket.send_message(self.echo.replace('"m1"', json.dumps(mark)))
