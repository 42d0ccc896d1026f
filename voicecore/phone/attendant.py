"""The carrier as an attendant: what it says, plays, records, collects and dials for a document.

Every verb comes to an end here, to the next verb, or to the document that its `action` names.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import trio

from ..audio import dtmf
from ..errors import LineClosed, RemoteProtocolError
from . import sounds
from .account import Account, Goal
from .callbacks import Callbacks
from .capture import HANGUP, KeyCapture, VoiceCapture
from .handset import Conditions, Ear
from .ivr import Ivr
from .progress import Progress, rfc2822, wall_clock
from .script import Voice
from .verbs import Dial, Gather, Pause, Play, Record, Say
from .webhook import Addresses, Webhooks

HANDED_OVER_S = 2.0
"""How long somebody talks who was dialled and took the call."""

REFUSED_S = 1.0
"""How long it rings where nobody will take the call, except for no-answer: that takes its time."""


class Then(Enum):
    """How a document goes on after a verb that does not name another document."""

    NEXT_VERB = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class Taken:
    """A recording that was made: `digits` is the key that ended it, "hangup", or ""."""

    url: str
    seconds: float
    digits: str
    voiced: bool

    @property
    def sid(self) -> str:
        """Its SID."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a flow has around it: who calls, with which voice, on which line."""

    progress: Progress
    account: Account
    callbacks: Callbacks
    addresses: Addresses
    voice: Voice
    conditions: Conditions
    ears: Sequence[Ear] = ()
    token: str | None = None


class Attendant:
    """One call's.  `heard` counts the recordings and keys that it has got from the caller."""

    def __init__(self, setting: Setting, ivr: Ivr, steps: list[str]) -> None:
        self.taken: list[Taken] = []
        self.heard = 0
        self._setting = setting
        self._ivr = ivr
        self._steps = steps

    def __repr__(self) -> str:
        return f"<Attendant {self._ivr}, {self.heard} heard>"

    async def say(self, verb: Say | Play | Pause, webhooks: Webhooks) -> None:
        """Have the caller hear something to its end."""
        await self._ivr.play(*await self._sound(verb, webhooks))

    async def _sound(self, verb: Say | Play | Pause, webhooks: Webhooks) -> tuple[bytes, int]:
        """Return what is heard, mu-law, and how many times; a sound that cannot be had is none."""
        match verb:
            case Say(text, loop):
                self._steps.append(f"TwiML said: {text}")
                return sounds.spoken(text), loop
            case Pause(seconds):
                self._steps.append(f"TwiML paused {seconds:g} s")
                return sounds.silence(seconds), 1
            case Play(digits=digits) if digits:
                self._steps.append(f"TwiML pressed: {digits}")
                return dtmf.tones(digits), verb.loop
        self._steps.append(f"TwiML played: {verb.url}")
        try:
            return await webhooks.sound(verb.url), verb.loop
        except (LineClosed, RemoteProtocolError) as error:
            self._steps.append(f"TwiML <Play> failed: {error}")
            return b"", 1

    async def record(self, verb: Record, webhooks: Webhooks) -> Goal | Then:
        """Record the caller; raises what asking for the action of a hang-up raises."""
        setting, capture, sid = self._setting, VoiceCapture(verb), "RE" + secrets.token_hex(16)
        form = {"RecordingSid": sid, "RecordingUrl": setting.account.url(sid)}
        status = form | {"RecordingStartTime": rfc2822(wall_clock())}
        self._report(verb, "in-progress", status)
        await self._ivr.record(capture, beep=verb.play_beep)
        self.heard += 1
        parties, now = setting.progress.parties, trio.current_time()
        recording = setting.account.keep(sid, parties.call_sid, capture, now)
        taken = Taken(form["RecordingUrl"], capture.seconds, capture.digits, capture.voiced)
        self.taken.append(taken)
        self._steps.append(f"TwiML recorded {taken.seconds:.2f} s, ended by {_end(capture)}")
        form["RecordingDuration"] = str(recording.seconds)
        self._report(verb, "completed", status | form, recording.ready_at)
        if capture.digits:
            form["Digits"] = capture.digits
        if capture.digits == HANGUP:
            # The action is asked all the same; nobody is left to perform what it answers.
            last = setting.progress.form("completed") | form
            await webhooks.notify(verb.method, verb.action, last)
            return Then.OVER
        return Goal(verb.action, verb.method, form)

    def _report(self, verb: Record, status: str, form: dict[str, str], at: float = 0.0) -> None:
        """Tell whoever wants to know how a recording is getting on."""
        if verb.callback is None or status not in verb.callback.events:
            return
        parties = self._setting.progress.parties
        report = {
            "AccountSid": parties.account_sid,
            "CallSid": parties.call_sid,
            "RecordingStatus": status,
            "RecordingChannels": "1",
            "RecordingSource": "RecordVerb",
            "RecordingTrack": "inbound",
        }
        self._setting.callbacks.post(verb.callback, report | form, at)

    async def gather(self, verb: Gather, webhooks: Webhooks) -> Goal | Then:
        """Collect keys, also while the prompts are heard."""
        prompts = [await self._sound(prompt, webhooks) for prompt in verb.prompts]
        capture = KeyCapture(verb)
        await self._ivr.collect(capture, prompts)
        self._steps.append(f"TwiML gathered: {capture.digits or 'nothing'}")
        if not capture.digits and not verb.on_empty:
            return Then.NEXT_VERB
        if capture.digits:
            self.heard += 1
        return Goal(verb.action, verb.method, {"Digits": capture.digits})

    async def dial(self, verb: Dial) -> Goal | Then:
        """Hand the call over: whoever is dialled talks for a while; a conference goes on."""
        if verb.conference is not None:
            self._steps.append(f"TwiML joined conference {verb.conference}")
            await trio.sleep_forever()
        self._steps.append(f"TwiML dialled {', '.join(verb.targets) or 'nobody'}")
        status = self._setting.conditions.dial_status if verb.targets else "failed"
        waits = {"completed": HANDED_OVER_S, "no-answer": verb.timeout}
        await self._ivr.wait(waits.get(status, REFUSED_S))
        self._steps.append(f"TwiML: {status}")
        if verb.action is None:
            return Then.NEXT_VERB
        form = {"DialCallStatus": status, "DialCallSid": "CA" + secrets.token_hex(16)}
        if status == "completed":
            form |= {"DialCallDuration": f"{HANDED_OVER_S:.0f}", "DialBridged": "true"}
        return Goal(verb.action, verb.method, form)


def _end(capture: VoiceCapture) -> str:
    if capture.digits == HANGUP:
        return "hanging up"
    if capture.digits:
        return f"key {capture.digits}"
    return "its length" if capture.full else "silence"
