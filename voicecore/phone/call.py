"""One phone call from its first ring to its end: webhook, TwiML, stream, and the TwiML after it."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ..audio.stereo import StereoRecording
from ..errors import LineClosed, RemoteProtocolError
from .caller import Caller, Conditions, Ear
from .link import open_link
from .script import Voice
from .signing import SIGNATURE_HEADER, upgrade_signature
from .stream import CallIdentity
from .turns import Turn, TurnRecorder
from .twiml import (
    Connect,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Unsupported,
    Verb,
    stream_address,
)
from .webhook import Addresses, Webhooks, origin

MAX_DOCUMENTS = 20
"""TwiML documents in one call: a <Redirect> to itself would go on for ever."""

SAYING_S = 0.25
"""A pause shorter than this is still the same breath, for the status line."""


@dataclass(frozen=True, slots=True)
class Number:
    """Whom the call reaches, and as whom."""

    url: str
    """A voice webhook (http, https), or a media stream (ws, wss)."""
    token: str | None = None
    """The auth token that signs; None: nothing is signed."""
    public_url: str | None = None
    caller: str = "+15550001111"
    called: str = "+15550002222"
    account_sid: str = "AC" + "0" * 31 + "1"
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Custom parameters of a stream that is opened without a webhook."""


class Call:
    """One call.  `place` it once; everything else can be read all the time."""

    def __init__(
        self,
        number: Number,
        voice: Voice,
        conditions: Conditions | None = None,
        ears: Sequence[Ear] = (),
        record: Path | None = None,
    ) -> None:
        self.call_sid = "CA" + secrets.token_hex(16)
        self.steps: list[str] = []
        """What the TwiML had the carrier do, a line a verb."""
        self.error: str | None = None
        """Why the call failed, if it did."""
        self.callers: list[Caller] = []
        """One a stream; a call has one unless its TwiML connects again."""
        self.recording: StereoRecording | None = None
        self._number = number
        self._voice = voice
        self._conditions = conditions
        self._ears = tuple(ears)
        self._record = record
        self._addresses = Addresses(origin(number.url), number.public_url)
        self._twiml_spoke = False
        self._placing = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Call {self.call_sid} {self.status}>"

    @property
    def turns(self) -> list[Turn]:
        """Every turn of every stream."""
        return [turn for caller in self.callers for turn in caller.log.turns]

    @property
    def greeted(self) -> bool:
        """Whether the agent, or the carrier in its name, said something of its own accord."""
        return self._twiml_spoke or any(turn.replies for turn in self.turns if turn.said is None)

    @property
    def status(self) -> str:
        """What is going on, in a few words."""
        if self.error is not None:
            return "failed"
        if not self.callers:
            return self.steps[-1] if self._twiml_spoke else "ringing"
        caller = self.callers[-1]
        return caller.ended or _doing(caller.log)

    def got_replies(self, files: int) -> bool:
        """Say whether all `files` were said and answered (none: whether there was a greeting)."""
        said = [turn for turn in self.turns if turn.said is not None]
        if self.error is not None or len(said) < files:
            return False
        return all(turn.answer for turn in said) and (bool(said) or self.greeted)

    def hang_up(self) -> None:
        """End the call as a caller does; before there is a stream, just give up."""
        if self.callers and self.callers[-1].ended is None:
            self.callers[-1].hang_up()
        else:
            self._placing.cancel()

    async def place(self, tls: ssl.SSLContext) -> None:
        """Place the call and stay on the line to its end; what goes wrong is left in `error`."""
        try:
            with ExitStack() as files, self._placing:
                if self._record is not None:
                    self.recording = files.enter_context(StereoRecording(self._record))
                    self._ears = (*self._ears, self.recording)
                await self._talk(tls)
            if self._placing.cancelled_caught:
                self.error = "hung up before the stream was open"
        except (LineClosed, RemoteProtocolError) as error:
            self.error = str(error)
        except OSError as error:
            self.error = f"cannot record: {error}"

    async def _talk(self, tls: ssl.SSLContext) -> None:
        number = self._number
        if number.url.startswith(("ws://", "wss://")):
            await self._stream(Connect(stream_address(number.url), number.parameters))
            return
        async with Webhooks(self._addresses, number.token, tls) as webhooks:
            await self._follow(webhooks)

    async def _follow(self, webhooks: Webhooks) -> None:
        """Ask for documents and perform them until one ends the call."""
        goal, status = Redirect(self._number.url, "POST"), "ringing"
        for _ in range(MAX_DOCUMENTS):
            verbs = await webhooks.twiml(goal.method, goal.url, self._form(status))
            following = await self._perform(verbs)
            if following is None:
                return
            goal, status = following, "in-progress"
        raise RemoteProtocolError(f"the TwiML redirects without end ({MAX_DOCUMENTS} documents)")

    async def _perform(self, verbs: Sequence[Verb]) -> Redirect | None:
        """Do what one document says; return where it goes on, None: the call is over."""
        for verb in verbs:
            match verb:
                case Say(text):
                    self._twiml_spoke = True
                    self.steps.append(f"TwiML said: {text}")
                case Play(url):
                    self._twiml_spoke = True
                    self.steps.append(f"TwiML played: {url}")
                case Pause(seconds):
                    self.steps.append(f"TwiML paused {seconds:g} s")
                    await trio.sleep(seconds)
                case Unsupported(name):
                    self.steps.append(f"TwiML <{name}>: this phone cannot do that, skipped")
                case Redirect():
                    self.steps.append(f"TwiML went on at {verb.url}")
                    return verb
                case Hangup() | Reject():
                    self.steps.append(f"TwiML: {type(verb).__name__.lower()}")
                    return None
                case Connect():
                    caller = await self._stream(verb)
                    if caller.hung_up:
                        return None
                    if verb.action is not None:
                        return Redirect(verb.action, verb.method)
        return None

    async def _stream(self, connect: Connect) -> Caller:
        """Open the stream and stay on it to its end."""
        headers = {}
        if self._number.token is not None:
            signed = self._addresses.signed(connect.stream_url)
            headers[SIGNATURE_HEADER] = upgrade_signature(self._number.token, signed)
        identity = CallIdentity(
            call_sid=self.call_sid,
            stream_sid="MZ" + secrets.token_hex(16),
            account_sid=self._number.account_sid,
            parameters=connect.parameters,
        )
        url = self._addresses.dialled(connect.stream_url)
        self.steps.append(f"stream to {url}")
        async with open_link(url, headers) as link:
            caller = Caller(link, identity, self._voice, self._conditions, self._ears)
            self.callers.append(caller)
            await caller.run()
        return caller

    def _form(self, status: str) -> dict[str, str]:
        number = self._number
        return {
            "AccountSid": number.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": self.call_sid,
            "CallStatus": status,
            "Called": number.called,
            "Caller": number.caller,
            "Direction": "inbound",
            "From": number.caller,
            "To": number.called,
        }


def _doing(log: TurnRecorder) -> str:
    turn = log.turns[-1]
    if turn.said is None:
        return "hearing the greeting" if log.reply else "waiting for a greeting"
    if turn.answer is None and (turn.speech_end is None or log.now - turn.speech_end < SAYING_S):
        return f"saying {turn.said}"
    return f"{'hearing' if log.reply else 'waiting for'} the answer to {turn.said}"
