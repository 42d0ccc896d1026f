"""One phone call from its first ring to its end, whoever placed it.

A call that comes in asks its webhook at once; one that goes out was ordered by the REST API, rings,
and asks when somebody takes it.  From there on both are a `flow.Flow` of documents, or, for a ws
URL, one stream.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import trio

from ..audio.stereo import StereoRecording
from ..errors import LineClosed, RemoteProtocolError
from .account import Account, CallOrder, Goal
from .attendant import Setting, Taken
from .callbacks import Callbacks
from .caller import Caller
from .flow import Flow
from .handset import Conditions, Ear
from .progress import ACCOUNT_SID, Parties, Progress
from .script import Voice
from .turns import Turn, TurnRecorder
from .twiml import stream_address
from .verbs import Connect, Reject, StatusCallback
from .webhook import Addresses, Webhooks, origin

SAYING_S = 0.25
"""A pause shorter than this is still the same breath, for the status line."""

DETECTION_S = 1.0
"""How long it takes to hear whether a machine has taken the call."""


@dataclass(frozen=True, slots=True)
class Number:
    """Whom the call reaches, and as whom."""

    url: str
    """A voice webhook (http, https), or a media stream (ws, wss); with an order, where the server
    really is, "": where its URLs say."""
    token: str | None = None
    """The auth token that signs; None: nothing is signed."""
    public_url: str | None = None
    caller: str = "+15550001111"
    called: str = "+15550002222"
    account_sid: str = ACCOUNT_SID
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Custom parameters of a stream that is opened without a webhook."""
    callback: StatusCallback | None = None
    """Where the call's status is reported."""
    order: CallOrder | None = None
    """What the REST API was asked for; None: the call comes in."""

    def ordered(self, order: CallOrder) -> Number:
        """Return the number of a call that was ordered, with the same server and token."""
        return replace(
            self, caller=order.caller, called=order.called, callback=order.callback, order=order
        )


class Call:
    """One call.  `place` it once; everything else can be read all the time."""

    def __init__(
        self,
        number: Number,
        voice: Voice,
        conditions: Conditions | None = None,
        ears: Sequence[Ear] = (),
        record: Path | None = None,
        account: Account | None = None,
    ) -> None:
        """Prepare a call; without an account, recordings are kept where nobody can fetch them."""
        self.call_sid = "CA" + secrets.token_hex(16)
        self.error: str | None = None
        """Why the call failed, if it did."""
        self.recording: StereoRecording | None = None
        direction = "inbound" if number.order is None else "outbound-api"
        self.progress = Progress(
            Parties(self.call_sid, number.caller, number.called, number.account_sid, direction)
        )
        self.callbacks = Callbacks()
        self._number = number
        self._conditions = conditions or Conditions()
        self._ears = list(ears)
        self._addresses = Addresses(origin(number.url) if number.url else "", number.public_url)
        self._record = record
        self.flow = Flow(
            Setting(
                progress=self.progress,
                account=account or Account(number.account_sid),
                callbacks=self.callbacks,
                addresses=self._addresses,
                voice=voice,
                conditions=self._conditions,
                ears=self._ears,
                token=number.token,
            )
        )
        self._reported = 0
        self._answered_at: float | None = None
        self._given_up: str | None = None
        self._placing = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Call {self.call_sid} {self.status}>"

    @property
    def steps(self) -> list[str]:
        """What the TwiML had the carrier do, a line a verb."""
        return self.flow.steps

    @property
    def callers(self) -> list[Caller]:
        """One a stream; a call has one unless its TwiML connects again."""
        return self.flow.callers

    @property
    def taken(self) -> list[Taken]:
        """The recordings that its TwiML had made."""
        return self.flow.taken

    @property
    def late_s(self) -> float:
        """The phone's own worst lateness: above 20 ms its numbers are not to be trusted."""
        return max(self.flow.handset.late_s, *(caller.late_s for caller in self.callers), 0.0)

    @property
    def logs(self) -> list[TurnRecorder]:
        """The time lines: of what the carrier played and recorded, and of every stream."""
        return [self.flow.handset.log, *(caller.log for caller in self.callers)]

    @property
    def turns(self) -> list[Turn]:
        """Every turn of every time line."""
        return [turn for log in self.logs for turn in log.turns]

    @property
    def greeted(self) -> bool:
        """Whether the agent, or the carrier in its name, said something of its own accord."""
        return any(turn.replies for turn in self.turns if turn.said is None)

    @property
    def status(self) -> str:
        """What is going on, in a few words."""
        if self.error is not None:
            return "failed"
        return _ending(self) if self.progress.over else _doing(self)

    def got_replies(self, files: int) -> bool:
        """Say whether all `files` were said and answered (none: whether there was a greeting)."""
        said = [turn for turn in self.turns if turn.said is not None]
        if self.error is not None or len(said) < files:
            return False
        return all(turn.answer for turn in said) and (bool(said) or self.greeted)

    def hang_up(self, why: str = "hung up") -> None:
        """End the call as a caller does; before it is taken, just give up."""
        if not self.flow.hang_up(why):
            self._placing.cancel()

    def redirect(self, goal: Goal) -> None:
        """Leave whatever is going on and go on at `goal`; a `account.LiveCall`."""
        self.flow.redirect(goal)

    def end(self, status: str = "completed") -> None:
        """End the call by the REST API's wish: hang up, or stop ringing."""
        self._given_up = self._given_up or f"{status} by the REST API"
        self.hang_up(self._given_up)

    async def place(
        self, tls: ssl.SSLContext, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Place the call and stay on the line to its end; what goes wrong is left in `error`."""
        try:
            with ExitStack() as files:
                if self._record is not None:
                    self.recording = files.enter_context(StereoRecording(self._record))
                    self._ears.append(self.recording)
                async with (
                    Webhooks(self._addresses, self._number.token, tls, transport) as webhooks,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self.callbacks.deliver, webhooks)
                    await self._live(webhooks)
                    self.callbacks.close()
        except OSError as error:
            self.error = f"cannot record: {error}"

    async def _live(self, webhooks: Webhooks) -> None:
        """Let the call come to its end, whatever that is, and report it."""
        try:
            with self._placing:
                await self._talk(webhooks)
            if self._placing.cancelled_caught and self._given_up is None:
                self.error = "hung up before the call was answered"
        except (LineClosed, RemoteProtocolError) as error:
            self.error = str(error)
        self.error = self.error or self.flow.error
        if self._answered_at is not None:
            self.progress.seconds = trio.current_time() - self._answered_at
        if self.progress.answered:
            self._reach("completed")
        else:
            self._reach("canceled" if self._placing.cancelled_caught else "failed")

    async def _talk(self, webhooks: Webhooks) -> None:
        number = self._number
        if number.order is not None:
            self._reach("queued")
            self._reach("ringing")
            await self._ring(number.order, webhooks)
            return
        if number.url.startswith(("ws://", "wss://")):
            self._answer()
            await self.flow.open_stream(Connect(stream_address(number.url), number.parameters))
            return
        self._reach("ringing")
        verbs = await self.flow.ask(Goal(number.url), webhooks)
        if verbs and isinstance(verbs[0], Reject):
            self.steps.append("TwiML: reject")
            self._reach("busy" if verbs[0].reason == "busy" else "no-answer")
            return
        self._answer()
        await self.flow.follow(verbs, webhooks)

    async def _ring(self, order: CallOrder, webhooks: Webhooks) -> None:
        """Be called: ring, and take the call or not."""
        callee = self._conditions.callee
        await trio.sleep(min(callee.ring_s, order.ring_limit_s))
        if callee.ring_s > order.ring_limit_s or callee.status != "answered":
            self._reach("no-answer" if callee.status == "answered" else callee.status)
            return
        self._answer()
        goal, detection = order.goal, order.detection
        if detection is not None:
            self.progress.answered_by = callee.answered_by
            if not detection.asynchronous:
                await trio.sleep(DETECTION_S)
                goal = replace(goal, extra={"AnsweredBy": callee.answered_by})
            elif detection.callback is not None:
                form = {k: v for k, v in self.progress.form().items() if k.endswith("Sid")}
                form["AnsweredBy"] = callee.answered_by
                form["MachineDetectionDuration"] = str(round(1000 * DETECTION_S))
                at = trio.current_time() + DETECTION_S
                self.callbacks.post(detection.callback, form, at)
        await self.flow.follow(goal, webhooks)

    def _answer(self) -> None:
        self._answered_at = trio.current_time()
        self._reach("in-progress")

    def _reach(self, status: str) -> None:
        """Come to a status, and report it to whoever wants to know."""
        event, callback = self.progress.reach(status), self._number.callback
        if event is not None and callback is not None and event in callback.events:
            self.callbacks.post(callback, self.progress.event_form(event, self._reported))
            self._reported += 1


def _ending(call: Call) -> str:
    ended = call.callers[-1].ended if call.callers else None
    return call.flow.ended or ended or call.progress.status


def _doing(call: Call) -> str:
    flow = call.flow
    if not call.progress.answered:
        return call.progress.status
    if flow.stream is not None:
        return _talking(flow.stream.log)
    if flow.recording is not None:
        return f"being recorded, {flow.recording.seconds:.0f} s"
    return flow.steps[-1] if flow.steps else "answered"


def _talking(log: TurnRecorder) -> str:
    turn = log.turns[-1]
    if turn.said is None:
        return "hearing the greeting" if log.reply else "waiting for a greeting"
    if turn.answer is None and (turn.speech_end is None or log.now - turn.speech_end < SAYING_S):
        return f"saying {turn.said}"
    return f"{'hearing' if log.reply else 'waiting for'} the answer to {turn.said}"
