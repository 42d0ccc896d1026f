"""What a call's TwiML has the carrier do, document by document, until one of them ends the call.

Three tasks at most: the caller's handset is paced while the carrier itself is at the other end, a
stream paces its own, and the documents are performed beside it.  What the caller hears and says on
the carrier's own end is on one time line, `handset.log`; the time of streams is not in it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import trio

from ..errors import LineClosed, RemoteProtocolError
from .account import Goal
from .attendant import Attendant, Setting, Taken, Then
from .caller import Caller
from .capture import VoiceCapture
from .handset import Handset
from .ivr import Ivr
from .link import open_link
from .signing import SIGNATURE_HEADER, upgrade_signature
from .stream import CallIdentity
from .twiml import parse
from .verbs import (
    Connect,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
    Unsupported,
    Verb,
)
from .webhook import Webhooks

MAX_DOCUMENTS = 20
"""TwiML documents with no word or key of the caller's between them: a <Redirect> to itself would
go on for ever.  A conversation has two documents a turn, and as many turns as it likes."""


class Flow:
    """One call's documents.  `follow` them once; everything public can be read all the time."""

    def __init__(self, setting: Setting) -> None:
        self.steps: list[str] = []
        """What the TwiML had the carrier do, a line a verb."""
        self.callers: list[Caller] = []
        """One a stream."""
        self.documents = 0
        self.ended: str | None = None
        """Why the call ended, unless a stream or a document came to its end."""
        self.error: str | None = None
        self.handset = Handset(setting.voice, setting.conditions, setting.ears)
        self._setting = setting
        self._ivr = Ivr(self.handset.log)
        self._attendant = Attendant(setting, self._ivr, self.steps)
        self._idle_documents = self._heard = 0
        self._next: Goal | None = None
        self._on_line = False
        self._began: float | None = None
        self._performing = trio.CancelScope()
        self._pacing = trio.CancelScope()
        self._off_stream = trio.Event()

    def __repr__(self) -> str:
        return f"<Flow {self.documents} documents, {self.ended or self._ivr}>"

    @property
    def stream(self) -> Caller | None:
        """The stream that is open."""
        caller = self.callers[-1] if self.callers else None
        return caller if caller is not None and caller.ended is None else None

    @property
    def taken(self) -> list[Taken]:
        """The recordings that were made."""
        return self._attendant.taken

    @property
    def recording(self) -> VoiceCapture | None:
        """What is being recorded."""
        return self._ivr.recording

    async def ask(self, goal: Goal, webhooks: Webhooks) -> tuple[Verb, ...]:
        """Return a document's verbs.

        Raises:
            LineClosed: nobody answers.
            RemoteProtocolError: no TwiML, or too many documents in which nothing happens.
        """
        streams = sum(any(turn.said or turn.replies for turn in c.log.turns) for c in self.callers)
        heard = self._attendant.heard + streams
        self._idle_documents = self._idle_documents + 1 if heard == self._heard else 1
        self._heard = heard
        if self._idle_documents > MAX_DOCUMENTS:
            raise RemoteProtocolError(
                f"the TwiML redirects without end ({MAX_DOCUMENTS} documents)"
            )
        if goal.document is not None:
            verbs = parse(goal.document, "")
        else:
            form = self._setting.progress.form() | dict(goal.extra)
            verbs = await webhooks.twiml(goal.method, goal.url, form)
        self.documents += 1
        return verbs

    async def follow(self, first: Goal | Sequence[Verb], webhooks: Webhooks) -> None:
        """Perform a document and those after it; what goes wrong is left in `error`."""
        self._on_line, self._began = True, trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pace)
            try:
                await self._follow(first, webhooks)
            except (LineClosed, RemoteProtocolError) as error:
                self.error = str(error)
            nursery.cancel_scope.cancel()

    def hang_up(self, why: str) -> bool:
        """End the call as the caller does; say whether there was one to be ended."""
        if self.stream is not None:
            self.ended = why
            self.stream.hang_up(why)
            return True
        if self._on_line:
            self._hung_up(why)
        return self._on_line

    def redirect(self, goal: Goal) -> None:
        """Leave whatever is going on and go on at `goal`; too late for a caller who hung up."""
        if self.stream is not None:
            self._next = goal
            self.stream.hang_up("taken off the stream by the REST API")
        elif not (self._pacing.cancel_called and self.callers and self.callers[-1].hung_up):
            self._next = goal
            self._performing.cancel()

    async def open_stream(self, connect: Connect) -> Caller:
        """Open a stream and stay on it to its end."""
        setting, parties = self._setting, self._setting.progress.parties
        headers = {}
        if setting.token is not None:
            signed = setting.addresses.signed(connect.stream_url)
            headers[SIGNATURE_HEADER] = upgrade_signature(setting.token, signed)
        identity = CallIdentity(
            call_sid=parties.call_sid,
            stream_sid="MZ" + secrets.token_hex(16),
            account_sid=parties.account_sid,
            parameters=connect.parameters,
        )
        url = setting.addresses.dialled(connect.stream_url)
        self.steps.append(f"stream to {url}")
        async with open_link(url, headers) as link:
            caller = Caller(
                link, identity, setting.voice, setting.conditions, setting.ears, self._began
            )
            self.callers.append(caller)
            await caller.run()
        return caller

    async def _follow(self, first: Goal | Sequence[Verb], webhooks: Webhooks) -> None:
        following: Goal | Sequence[Verb] | Then = self._elsewhere() or first
        while self.ended is None and not isinstance(following, Then):
            performed, following = following, Then.OVER
            with trio.CancelScope() as self._performing:
                if isinstance(performed, Goal):
                    performed = await self.ask(performed, webhooks)
                following = await self._perform(performed, webhooks)
            following = self._elsewhere() or following

    def _elsewhere(self) -> Goal | None:
        """Return where the REST API wants the call to go on, once."""
        goal, self._next = self._next, None
        if goal is not None:
            self.steps.append("the REST API had the call go on elsewhere")
        return goal

    async def _pace(self) -> None:
        """Pace the handset whenever no stream does."""
        while True:
            with self._pacing:
                self._hung_up(await self.handset.pace(self._ivr.exchange, self._began))
                return
            await self._off_stream.wait()

    def _hung_up(self, why: str) -> None:
        if self.ended is None:
            self.ended = why
            if not self._ivr.hang_up():
                self._performing.cancel()

    async def _perform(self, verbs: Sequence[Verb], webhooks: Webhooks) -> Goal | Then:
        """Do what one document says; return where it goes on."""
        for verb in verbs:
            following = await self._do(verb, webhooks)
            if following is not Then.NEXT_VERB:
                return following
        return Then.OVER

    async def _do(self, verb: Verb, webhooks: Webhooks) -> Goal | Then:
        match verb:
            case Say() | Play() | Pause():
                await self._attendant.say(verb, webhooks)
            case Unsupported(name):
                self.steps.append(f"TwiML <{name}>: this phone cannot do that, skipped")
            case Redirect():
                self.steps.append(f"TwiML went on at {verb.url}")
                return Goal(verb.url, verb.method)
            case Hangup() | Reject():
                self.steps.append(f"TwiML: {type(verb).__name__.lower()}")
                return Then.OVER
            case Connect():
                return await self._connect(verb)
            case Record():
                return await self._attendant.record(verb, webhooks)
            case Gather():
                return await self._attendant.gather(verb, webhooks)
            case Dial():
                return await self._attendant.dial(verb)
        return Then.NEXT_VERB

    async def _connect(self, verb: Connect) -> Goal | Then:
        self._off_stream = trio.Event()
        self._pacing.cancel()
        try:
            caller = await self.open_stream(verb)
        finally:
            self._pacing = trio.CancelScope()
            self._off_stream.set()
        if caller.hung_up:
            return Then.OVER
        return Goal(verb.action, verb.method) if verb.action is not None else Then.NEXT_VERB
