"""What the tests of the recording flow share: workers in memory, and a carrier that records."""

from __future__ import annotations

import io
import secrets
import wave
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import httpx
import trio
from server_house import CALL_SID, Answer, MemoryServer, ask, get, post
from twilio.request_validator import RequestValidator

from voicecore.audio import mulaw, wav
from voicecore.call.agent import Agent
from voicecore.call.agents import picked
from voicecore.records.records import Records
from voicecore.server.call_state import CallStates
from voicecore.server.conversing import converse_with, conversing
from voicecore.server.house import House
from voicecore.server.ledger import Ledger
from voicecore.server.port.limits import RECORDED_CALLS, RECORDED_CALLS_A_PLACE
from voicecore.server.recordings.flow_calls import FlowCalls
from voicecore.server.recordings.flow_records import FlowRecords
from voicecore.server.recordings.recorded_turns import RecordedTurns
from voicecore.server.recordings.recording_flow import RecordingFlow
from voicecore.server.serve import Server
from voicecore.server.store import MemoryStore, Store
from voicecore.testing import audible
from voicecore.twilio.recordings import open_recordings

ACCOUNT = "AC" + "a" * 32
BASE = "https://agent.example.com"
WORD_FRAMES = 15


def wav_of(text: str) -> bytes:
    """A recording of `text`, as Twilio makes them."""
    frames = audible.say(text, WORD_FRAMES * len(text.split()))
    return wav.telephone_bytes(b"".join(frames))


class Pieces(httpx.AsyncByteStream):
    """A body as it comes over a network."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._content), 4000):
            await trio.lowlevel.checkpoint()
            yield self._content[at : at + 4000]


@dataclass
class RecordingStore:
    """Twilio's recordings over HTTP: what is not there yet is 404."""

    files: dict[str, bytes] = field(default_factory=dict)
    missing: int = 0
    """Attempts at each file that find nothing."""
    seconds: float = 0.0
    requests: list[httpx.Request] = field(default_factory=list)

    def keep(self, text: str) -> str:
        sid = f"RE{secrets.token_hex(16)}"
        self.files[sid] = wav_of(text)
        return sid

    async def serve(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.seconds)
        before = sum(earlier.url == request.url for earlier in self.requests)
        self.requests.append(request)
        sid = request.url.path.rpartition("/")[2].removesuffix(".wav")
        if before < self.missing or sid not in self.files:
            return httpx.Response(404, json={"code": 20404})
        return httpx.Response(200, stream=Pieces(self.files[sid]))


class Milestones(list[tuple[str, str, Mapping[str, Any]]]):
    """An observer that keeps everything."""

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        self.append((call_sid, event, fields))

    def of(self, event: str) -> list[Mapping[str, Any]]:
        return [fields for _, name, fields in self if name == event]


class Reached(Protocol):
    """A server as its carrier reaches it."""

    @property
    def recordings(self) -> RecordingStore: ...

    async def dial(self) -> trio.abc.Stream: ...


@dataclass(frozen=True)
class Fakes:
    """An agent, or one that is picked, as it is: nothing has to be opened."""

    who: Any

    async def agent_for(self, parameters: Mapping[str, str]) -> Agent:
        return self.who if isinstance(self.who, Agent) else picked(self.who, parameters)


class FlowServer(MemoryServer):
    """A worker with an agent; workers that share `store` and `ledger` are one server."""

    def __init__(
        self, agent: object, given: dict[str, object], recordings: RecordingStore, shared: Shared
    ) -> None:
        agents = Fakes(agent)
        self.states = CallStates(shared.store, trio.current_time, 3600)
        observe = shared.milestones.observe
        converse = converse_with(conversing(agents), observe, None, self.states)
        super().__init__(converse, given, shared.ledger)
        self.recordings = recordings
        self.shared = shared
        self.turns = RecordedTurns(shared.store, shared.ledger)
        most = RECORDED_CALLS_A_PLACE * self.settings.max_calls or RECORDED_CALLS
        self.calls = FlowCalls(self.states, most, FlowRecords(shared.records, observe))
        self.agents = agents

    async def dial(self) -> trio.abc.Stream:
        return self.connect()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        transport = httpx.MockTransport(self.recordings.serve)
        secret = self.settings.twilio_auth_token
        tokens = "" if secret is None else secret.get_secret_value()
        base = self.settings.twilio_base_url
        async with open_recordings(base, tokens, transport) as recordings:
            self.flow = RecordingFlow(self.agents, self.calls, self.turns, recordings.fetch)
            house = House(
                self.settings,
                self.admission,
                self.ledger,
                self.shared.store,
                states=self.states,
                flow=self.flow,
            )
            self.server = Server(house, self.streams, [("127.0.0.1", 0)])
            async with trio.open_nursery() as nursery:
                await nursery.start(self.flow.run)
                nursery.start_soon(self.server.run, [self.listener])
                yield
                nursery.cancel_scope.cancel()


@dataclass
class Shared:
    """What the workers of one server share, and what was observed in them."""

    store: Store = field(default_factory=lambda: MemoryStore(trio.current_time))
    ledger: Ledger = field(default_factory=Ledger)
    milestones: Milestones = field(default_factory=Milestones)
    records: Records | None = None


@asynccontextmanager
async def flow_server(
    agent: object,
    recordings: RecordingStore | None = None,
    shared: Shared | None = None,
    **given: Any,
) -> AsyncIterator[FlowServer]:
    given = {"public_url": BASE, **given}
    worker = FlowServer(agent, given, recordings or RecordingStore(), shared or Shared())
    async with worker.running():
        yield worker


@dataclass
class Heard:
    """A document, and what the caller has heard of it and of those before it."""

    root: ElementTree.Element
    words: list[str]
    seconds: list[float]
    """How long each webhook took."""

    @property
    def verbs(self) -> list[str]:
        return [verb.tag for verb in self.root]

    @property
    def text(self) -> str:
        return " ".join(self.words)


class Carrier:
    """One call as Twilio conducts it: plays, records, follows; with a token, signs."""

    def __init__(self, house: Reached, sid: str = CALL_SID, token: str = "") -> None:
        self.house = house
        self.is_patient = True
        """Whether what is played is listened to, or skipped."""
        self._validator = RequestValidator(token) if token else None
        self.sid = sid
        self.form = {"CallSid": sid, "AccountSid": ACCOUNT, "From": "+15550001111", "To": "+1555"}

    async def request(self, url: str, *headers: str, **form: str) -> Answer:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        given = {**self.form, "CallStatus": "in-progress", **form}
        if self._validator is not None:
            signature = self._validator.compute_signature(BASE + target, given)
            headers = (*headers, f"X-Twilio-Signature: {signature}")
        stream = await self.house.dial()
        async with stream:
            return await ask(stream, post(target, urlencode(given).encode(), *headers))

    async def visit(self, url: str, *headers: str, **form: str) -> Heard:
        """Ask a webhook once, and hear what it says."""
        began = trio.current_time()
        answer = await self.request(url, *headers, **form)
        took = trio.current_time() - began
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"].startswith("text/xml")
        root = ElementTree.fromstring(answer.body)
        words: list[str] = []
        for verb in root if root.find("Gather") is None else root[0]:
            if verb.tag == "Play":
                words += await self.listen(verb.text or "")
            elif verb.tag == "Say":
                words += (verb.text or "").split()
            else:
                break
        return Heard(root, words, [took])

    async def listen(self, url: str) -> list[str]:
        stream = await self.house.dial()
        async with stream:
            answer = await ask(stream, get(urlsplit(url).path))
        assert answer.status == 200
        assert answer.headers["content-type"] == "audio/x-wav"
        with wave.open(io.BytesIO(answer.body)) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8000, 2, 1)
            audio = mulaw.encode(file.readframes(file.getnframes()))
        await trio.sleep(len(audio) / 8000 if self.is_patient else 0)
        return audible.words(audio)

    async def follow(self, heard: Heard) -> Heard:
        """Go where redirects lead; what is heard on the way is heard."""
        while "Redirect" in heard.verbs and "Record" not in heard.verbs:
            url = heard.root.findtext("Redirect") or ""
            more = await self.visit(url)
            heard = Heard(more.root, heard.words + more.words, heard.seconds + more.seconds)
        return heard

    async def calls(self, path: str = "/voice") -> Heard:
        return await self.follow(await self.visit(path, CallStatus="ringing"))

    async def records(self, sid: str, *headers: str, **form: str) -> Heard:
        """Bring a recording, and hear the answer."""
        url = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Recordings/{sid}"
        given = {"RecordingSid": sid, "RecordingUrl": url, "RecordingDuration": "2", **form}
        return await self.follow(await self.visit("/voice/recording", *headers, **given))

    async def says(self, text: str) -> Heard:
        return await self.records(self.house.recordings.keep(text))

    async def hangs_up(self) -> Heard:
        return await self.visit("/voice/recording", CallStatus="completed", Digits="hangup")
