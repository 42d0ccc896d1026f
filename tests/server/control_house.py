"""What the tests of control share: a server with a Twilio behind it that answers as it is told.

`FakeTwilio` is the REST API; `ControlHouse` the server, on memory streams; `ControlHouse.answer`
lets the callee of a placed call pick up: webhook, document, stream, a scripted caller.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
import msgspec
import trio
from server_house import AUTH_TOKEN, Answer, MemoryListener, ask, get, settings
from trio.testing import memory_stream_pair
from trio_websocket import wrap_client_stream

from voicecore.call.agent import Agent
from voicecore.call.agents import Agents
from voicecore.phone.signing import form_signature, upgrade_signature
from voicecore.phone.stream import CallIdentity
from voicecore.phone.twiml import Connect, Verb, parse
from voicecore.server.admission import Admission
from voicecore.server.control.live_calls import LiveCalls
from voicecore.server.control.siblings import Siblings
from voicecore.server.control.switchboard import Switchboard
from voicecore.server.house import House
from voicecore.server.ledger import Ledger
from voicecore.server.media import MediaStreams
from voicecore.server.serve import Server, converse_with, conversing
from voicecore.server.store import MemoryStore
from voicecore.testing import ScriptedCaller, Transcript, fake_agent
from voicecore.twilio.rest import TwilioRest, open_rest

ACCOUNT = "AC" + "0" * 31 + "1"
PUBLIC = "https://agent.example.com"
ADMIN = "let-me-in"
HUMAN = "+15550003333"
CALLED = "+15550002222"
BEARER = f"Authorization: Bearer {ADMIN}"
OUTBOUND = {
    "twilio_account_sid": ACCOUNT,
    "twilio_auth_token": AUTH_TOKEN,
    "public_url": PUBLIC,
    "outbound_from": "+15550001111",
    "outbound_prefixes": "+1555,+4930",
    "admin_token": ADMIN,
}


def sid(number: int) -> str:
    return f"CA{number:032x}"


def resource(call_sid: str, **changed: object) -> dict[str, object]:
    """A call's resource as Twilio's page shows it; all numbers are strings."""
    return {
        "sid": call_sid, "account_sid": ACCOUNT, "api_version": "2010-04-01", "status": "queued",
        "direction": "outbound-api", "to": CALLED, "from": "+15550001111", "answered_by": None,
        "duration": None, "price": None, "queue_time": "0", "subresource_uris": {}, **changed,
    }  # fmt: skip


def twilio_error(status: int, code: int, message: str, **headers: str) -> httpx.Response:
    body = {"code": code, "message": message, "more_info": "https://…", "status": status}
    return httpx.Response(status, json=body, headers=headers)


class Pieces(httpx.AsyncByteStream):
    """A body as it comes from a socket, in pieces."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), 1000):
            yield self._content[start : start + 1000]


Plan = httpx.Response | Exception | float
"""One request's fate: an answer, an error, or so many seconds of silence before the usual."""


@dataclass
class FakeTwilio:
    """Answers requests by `plans`, then as usual; `asked` is what came: path and form."""

    plans: list[Plan] = field(default_factory=list)
    asked: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    placed: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = await self._answer(request)
        headers = answer.headers
        return httpx.Response(answer.status_code, headers=headers, stream=Pieces(answer.content))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        form = parse_qs((await request.aread()).decode(), keep_blank_values=True)
        path = request.url.raw_path.decode().partition("/Accounts/")[2]
        self.asked.append((f"{request.method} {path}", form))
        self.times.append(trio.current_time())
        self.headers.append(request.headers)
        plan = self.plans.pop(0) if self.plans else 0.0
        if isinstance(plan, httpx.Response):
            return plan
        if isinstance(plan, Exception):
            raise plan
        await trio.sleep(plan)
        if path.endswith("/Calls.json"):
            self.placed.set()
            return httpx.Response(201, json=resource(sid(len(self.created))))
        return httpx.Response(200, json=resource(path.rpartition("/")[2].removesuffix(".json")))

    @property
    def created(self) -> list[dict[str, list[str]]]:
        """The forms of the calls that were placed."""
        return [form for path, form in self.asked if path.endswith("/Calls.json")]

    @property
    def updates(self) -> list[tuple[str, dict[str, list[str]]]]:
        """What was done to which call."""
        return [
            (path.rpartition("/")[2].removesuffix(".json"), form)
            for path, form in self.asked
            if path.startswith("POST") and not path.endswith("/Calls.json")
        ]


def fake_rest(
    twilio: FakeTwilio, token: str = AUTH_TOKEN, note: Callable[[str], None] = lambda fault: None
) -> Any:
    transport = httpx.MockTransport(twilio)
    return open_rest("https://api.twilio.test", ACCOUNT, token, note, transport)


@dataclass
class OneAgent:
    """The same agent for every call, after so many seconds."""

    agent: Agent
    seconds: float = 0.0

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        await trio.sleep(self.seconds)
        return self.agent


class ControlHouse:
    """A server on memory streams, with a switchboard; time is virtual."""

    def __init__(self, agents: Agents, rest: TwilioRest, given: dict[str, object]) -> None:
        self.settings = settings(**given)
        self.ledger, self.store = Ledger(), MemoryStore(trio.current_time)
        self.milestones: list[tuple[str, str, Mapping[str, object]]] = []
        self.calls = LiveCalls(trio.current_time)
        self.board = Switchboard(
            self.settings, self.ledger, self.store, self.calls, Siblings(), agents,
            self.observe, rest,
        )  # fmt: skip
        self.admission = Admission(self.settings, self.ledger, trio.current_time)
        converse = converse_with(conversing(agents), self.observe, calls=self.calls)
        self.streams = MediaStreams(converse, self.admission, self.ledger)
        house = House(
            self.settings, self.admission, self.ledger, self.store, switchboard=self.board
        )
        self.server = Server(house, self.streams, [("127.0.0.1", 0)])
        self._dial, calls = trio.open_memory_channel[trio.StapledStream](100)
        self.listener = MemoryListener(calls)

    def observe(self, sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        self.milestones.append((sid, event, fields))
        self.calls.observe(sid, event, at, fields)

    def connect(self) -> trio.StapledStream:
        ours, theirs = memory_stream_pair()
        self._dial.send_nowait(theirs)
        return ours

    async def post(self, path: str, value: object = None, *headers: str) -> Answer:
        """An operator's request, with the token."""
        body = b"" if value is None else msgspec.json.encode(value)
        return await self.raw(path, body, BEARER, "Content-Type: application/json", *headers)

    async def raw(self, path: str, body: bytes, *headers: str) -> Answer:
        lines = [f"POST {path} HTTP/1.1", "Host: agent.example.com"]
        lines += [f"Content-Length: {len(body)}", *headers, "", ""]
        return await ask(self.connect(), "\r\n".join(lines).encode() + body)

    async def get(self, path: str) -> Answer:
        return await ask(self.connect(), get(path, BEARER))

    async def webhook(self, url: str, **form: str) -> Answer:
        """A signed request of Twilio's."""
        assert url.startswith(PUBLIC)
        signature = form_signature(AUTH_TOKEN, url, form)
        return await self.raw(
            url.removeprefix(PUBLIC),
            urlencode(form).encode(),
            "Content-Type: application/x-www-form-urlencoded",
            f"X-Twilio-Signature: {signature}",
        )

    async def document(self, url: str, **form: str) -> tuple[Verb, ...]:
        answer = await self.webhook(url, **form)
        assert answer.status == 200, answer.body
        return parse(answer.body, url)

    async def answer(
        self, caller: ScriptedCaller, url: str = f"{PUBLIC}/voice-stream", **form: str
    ) -> Transcript:
        """Somebody picks up: follow the document into the stream, and talk as `caller` does."""
        who = {"CallSid": sid(1), "From": "+15550001111", "To": CALLED, **form}
        [connect] = await self.document(url, **who)
        assert isinstance(connect, Connect)
        identity = CallIdentity(
            who["CallSid"], "MZ" + "1" * 32, parameters=connect.parameters
        )  # fmt: skip
        stream = self.connect()
        signature = upgrade_signature(AUTH_TOKEN, connect.stream_url)
        async with trio.open_nursery() as nursery:
            websocket = await wrap_client_stream(
                nursery, stream, "agent.example.com", "/media-stream",
                extra_headers=[(b"X-Twilio-Signature", signature.encode())],
            )  # fmt: skip
            transcript = await caller.talk(websocket, identity)
            nursery.cancel_scope.cancel()
        return transcript

    async def until(self, truth: Callable[[], bool]) -> None:
        """Let virtual time go on until something is so."""
        with trio.fail_after(120):
            while not truth():  # noqa: ASYNC110
                await trio.sleep(0.02)


@asynccontextmanager
async def control_house(
    who: Agent | Agents | None = None, twilio: FakeTwilio | None = None, **given: object
) -> AsyncIterator[ControlHouse]:
    async with fake_rest(twilio or FakeTwilio()) as rest, trio.open_nursery() as nursery:
        agents = OneAgent(who or fake_agent()) if isinstance(who, Agent | None) else who
        house = ControlHouse(agents, rest, {**OUTBOUND, **given})
        nursery.start_soon(house.board.run)
        nursery.start_soon(partial(house.server.run, [house.listener]))
        yield house
        nursery.cancel_scope.cancel()


def decoded(answer: Answer) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/json"
    value: dict[str, Any] = json.loads(answer.body)
    return value
