"""The load of the recording flow: N callers, and a carrier that records them and plays files.

The same callers as `load.py`'s: the same recorded utterances, noise and pauses, each in its own
phase.  The carrier is the phone's engine (`voicecore.phone.call`): 20 ms of voice and sound on
absolute deadlines, TwiML, `<Record>`, `<Play>`, webhooks and the REST API over sockets.  What a
network and a storage would add is added as told (`delays.Carrier`): the webhook of a recording
comes as late as its upload and its own way take, and the recording as late as its download.  The
recording is kept when the webhook comes: a carrier that still answers 404 then would cost more.

A gap is measured from the caller's last voiced frame to the arrival of the file that is played in
answer, and to the first frame of it that can be heard.  The phone plays it with its next 20 ms.

Run by `latency.py`, with what `load.py` says on stdout.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import ssl
import time
from array import array
from base64 import b64decode
from dataclasses import asdict, dataclass

import caller
import httpx
import measure
import numpy as np
import trio
from delays import CARRIER
from load import CONNECT_EVERY_S, MAX_CALLS, MAX_SECONDS, Plan, say, utterances_of

from voicecore.audio import FRAME_MS, wav
from voicecore.phone import http
from voicecore.phone.account import Account
from voicecore.phone.call import Call, Number
from voicecore.phone.handset import Conditions
from voicecore.phone.loudness import frames_of, is_audible
from voicecore.phone.rest import RestApi
from voicecore.phone.turns import Floor, TurnRecorder
from voicecore.phone.verbs import StatusCallback

FRAME_S = FRAME_MS / 1000
GOODBYE_S = 3.0
HOST = "127.0.0.1"


@dataclass
class RecordedPlan(Plan):
    """`rest_port`: where the carrier's REST API is."""

    path: str = "/voice"
    rest_port: int = 0


@dataclass(frozen=True)
class Utterance:
    """A phrase: frames of 160 bytes, and which of them are its first and last voiced ones."""

    frames: list[bytes]
    first: int
    last: int


class RecordedCaller:
    """One caller's voice (`script.Voice`), and what came of each turn.

    Says an utterance into each recording, a moment after it has begun.
    """

    def __init__(self, plan: Plan, number: int, tally: caller.Tally) -> None:
        self.is_counting = False
        self._think_s = plan.think_s
        self._tally = tally
        self._random = random.Random(f"{plan.seed}:{number}")
        self._utterances = [
            Utterance(list(map(b64decode, said.frames)), said.first, said.last)
            for said in utterances_of(plan)
        ]
        self._noise = list(map(b64decode, caller.line_noise(plan.seed)))
        self._noise_at = self._random.randrange(len(self._noise))
        self._number = number
        self._turns = 0
        self._begin_at: float | None = None
        self._saying: Utterance | None = None
        self._at = 0
        self._is_counted = False
        self._last_sent: float | None = None
        """When the last voiced frame was sent that was not answered yet."""
        self.call: Call

    def frame(self, log: TurnRecorder) -> tuple[bytes, bool]:
        """Return the next 20 ms."""
        now = trio.current_time()
        if self._saying is None and log.floor is Floor.GIVEN:
            self._listen_for_turn(now, log)
        saying, at = self._saying, self._at
        if saying is None:
            self._noise_at = (self._noise_at + 1) % len(self._noise)
            return self._noise[self._noise_at], False
        self._at += 1
        if at == saying.last:
            self._saying, self._last_sent = None, now
        return saying.frames[at], saying.first <= at <= saying.last

    def _listen_for_turn(self, now: float, log: TurnRecorder) -> None:
        if self._begin_at is None:
            self._begin_at = now + self._random.uniform(0.2, self._think_s)
            self._tally.missed_replies += self._is_counted and self._last_sent is not None
        elif now >= self._begin_at:
            self._begin_at, self._last_sent = None, None
            self._turns += 1
            turn = self._number + self._turns
            self._saying, self._at = self._utterances[turn % len(self._utterances)], 0
            self._is_counted = self.is_counting
            self._tally.turns += self._is_counted
            log.begin(f"utterance {self._turns}")

    def hear(self, content: bytes) -> None:
        """A file to be played has come."""
        if self._last_sent is None:
            return
        frames = frames_of(wav.read_telephone(content))
        silent = next((at for at, frame in enumerate(frames) if is_audible(frame)), None)
        if silent is None:
            return
        gap = trio.current_time() + silent * FRAME_S - self._last_sent
        self._last_sent = None
        if self._is_counted:
            self._tally.gaps.append(gap * 1000)
            self._tally.gap_turns.append((int(self.call.call_sid[2:], 16), self._turns))


class Distance(httpx.AsyncBaseTransport):
    """A caller's network: what the carrier asks of the server, as late as it would be."""

    def __init__(self, listener: RecordedCaller, network: httpx.AsyncBaseTransport) -> None:
        self._listener = listener
        self._network = network

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Take a request there, and the response back."""
        if request.url.path == "/voice/recording":
            await trio.sleep((CARRIER.upload_ms + CARRIER.webhook_ms) / 1000)
        response = await self._network.handle_async_request(request)
        if request.url.path.startswith("/voice/audio/"):
            self._listener.hear(await response.aread())
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._network.aclose()


class Slow(trio.abc.Stream):
    """A connection on which everything that is sent takes a while."""

    def __init__(self, stream: trio.abc.Stream, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, later."""
        await trio.sleep(self._seconds)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive at once."""
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()


class RecordedLoad:
    """All callers, and the carrier's account."""

    def __init__(self, plan: RecordedPlan) -> None:
        self._plan = plan
        self._url = f"http://{plan.host}:{plan.port}"
        self._account = Account(recording_delay_s=0)
        self._tally = caller.Tally()
        self._callers: list[RecordedCaller] = []
        self._late = array("d")
        self._is_over = False

    async def run(self) -> None:
        """Call, count for the plan's seconds, hang up; say what was measured."""
        plan = self._plan
        listeners = await http.listen(plan.rest_port)
        self._account.base_url = http.address(listeners)
        async with trio.open_nursery() as service:
            service.start_soon(trio.serve_listeners, self._serve, listeners)
            async with trio.open_nursery() as calls:
                await self._connect(calls)
                say("up", calls=len(self._callers))
                await trio.sleep(plan.warm_s)
                result = await self._window()
                self._is_over = True
                for each in self._callers:
                    each.call.hang_up()
                calls.cancel_scope.deadline = trio.current_time() + GOODBYE_S
            service.cancel_scope.cancel()
        say("result", **result)

    async def _connect(self, calls: trio.Nursery) -> None:
        tls = ssl.create_default_context()
        ended = StatusCallback(f"{self._url}/status/call")
        number = Number(f"{self._url}{self._plan.path}", callback=ended)
        conditions = Conditions(max_s=MAX_SECONDS)
        for at in range(self._plan.calls):
            voice = RecordedCaller(self._plan, at, self._tally)
            voice.call = Call(number, voice, conditions, account=self._account)
            self._callers.append(voice)
            calls.start_soon(self._place, voice, tls)
            await trio.sleep(CONNECT_EVERY_S)

    async def _place(self, voice: RecordedCaller, tls: ssl.SSLContext) -> None:
        network = httpx.AsyncHTTPTransport(trust_env=False)
        await voice.call.place(tls, Distance(voice, network))
        if voice.call.error is not None:
            self._tally.errors.append(voice.call.error)
        self._tally.early_closes += not self._is_over

    async def _window(self) -> dict[str, object]:
        for each in self._callers:
            each.is_counting = True
        say("window")
        began, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tick)
            await trio.sleep(self._plan.seconds)
            nursery.cancel_scope.cancel()
        took = time.perf_counter() - began
        cpu_percent = 100 * (time.process_time() - cpu) / took
        say("over", seconds=took)
        return {
            **asdict(self._tally),
            "seconds": took,
            "load_cpu_percent": cpu_percent,
            "load_late": measure.distribution(np.array(self._late) * 1000),
        }

    async def _tick(self) -> None:
        """Tick as each caller does, and note how late that is."""
        due = trio.current_time()
        while True:
            due += FRAME_S
            await trio.sleep_until(due)
            self._late.append(trio.current_time() - due)

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Serve the REST API on one connection."""
        answer = RestApi(self._account, trio.current_time).answer
        async with stream:
            try:
                await http.converse(answer, Slow(stream, CARRIER.download_ms / 1000))
            except trio.BrokenResourceError:
                pass  # whoever asked has gone


def main() -> None:
    """Read the plan, run it, print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=json.loads, help="JSON with the fields of `RecordedPlan`")
    plan = RecordedPlan(**parser.parse_args().plan)
    if not (1 <= plan.calls <= MAX_CALLS and 0 < plan.seconds <= MAX_SECONDS):
        parser.error(f"1 to {MAX_CALLS} calls, at most {MAX_SECONDS} s")
    if plan.host != HOST:
        parser.error(f"this load goes to {HOST} only")
    if plan.core >= 0:
        os.sched_setaffinity(0, {plan.core})
    load = RecordedLoad(plan)
    gc.collect()
    gc.freeze()
    trio.run(load.run)


if __name__ == "__main__":
    main()
