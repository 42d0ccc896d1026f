"""What control works with: this worker's calls, the other workers, and the carrier's REST API.

An errand is done where its call is.  A stream is one worker's; a call of the recording flow comes
to whichever worker its next webhook reaches, and may have been a stream of another's before.  Of
such a call every worker knows a part, and the one that heard of it last knows how it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec
import trio

from ...call.agents import Agents
from ...call.call import Call
from ...call.timeline import Observer
from ...call.transfer import Transfer
from ...settings import Settings
from ..ledger import Ledger
from ..store import Store
from .call_report import summed
from .live_calls import KnownCall, LiveCalls
from .numbers import missing_for_rest
from .siblings import (
    BriefLeg,
    DescribeCall,
    Errand,
    GiveAway,
    HangUp,
    Leave,
    ListCalls,
    NoteGiven,
    Report,
    Say,
    SettleLeg,
    Siblings,
)
from .warm_transfer import WarmTransfers

if TYPE_CHECKING:
    from ...twilio.rest import TwilioRest

VERDICTS = "verdict"
"""The kind of value in the store that says who has a call: what is said before it is hung up."""


@dataclass(slots=True)
class Switchboard:
    """One worker's.  `run` opens what it needs; until then there is no REST."""

    settings: Settings
    ledger: Ledger
    store: Store
    calls: LiveCalls
    siblings: Siblings = field(default_factory=Siblings)
    agents: Agents | None = None
    observe: Observer = lambda sid, event, at, fields: None
    """Is told of calls that are placed, and of REST's failures."""
    rest: TwilioRest | None = None
    transfers: WarmTransfers = field(init=False)

    def __post_init__(self) -> None:
        self.transfers = WarmTransfers(self)
        self.calls.join(self.transfers, self._verdict)

    async def run(self) -> None:
        """Connect with the other workers and with REST, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.siblings.serve, self.obey, name="siblings")
            nursery.start_soon(self.transfers.run, name="transfers")
            if self.rest is None and not missing_for_rest(self.settings):
                nursery.start_soon(self._keep_rest, name="rest")

    async def ask(self, errand: Errand) -> Report:
        """Have an errand done by whoever has its call."""
        own = await self.obey(errand)
        if own.is_found and own.status not in ("ended", "recording", "list"):
            return own
        reports = [own, *await self.siblings.ask(errand)]
        if isinstance(errand, ListCalls):
            return _joined_lists(reports)
        found = [report for report in reports if report.is_found]
        if not found:
            return Report(silent=sum(report.silent for report in reports))
        found.sort(key=lambda report: max(report.heard.values(), default=math.inf))
        return _joined_details(found) if isinstance(errand, DescribeCall) else found[-1]

    async def obey(self, errand: Errand) -> Report:
        """Do an errand here; a report without a status is that its call is not."""
        match errand:
            case ListCalls():
                return Report("list", lines=self.calls.lines(), heard=self.calls.heard())
            case BriefLeg(id=id_):
                texts = self.transfers.brief(id_)
                return Report("live" if texts else "", texts=texts)
            case SettleLeg(id=id_, outcome=outcome, is_over=is_over):
                texts = self.transfers.settle(id_, outcome, is_over=is_over)
                return Report("live" if texts else "", texts=texts)
        known = self.calls.find(errand.sid)
        if known is None:
            return Report()
        heard = {} if known.call is not None else {known.sid: known.heard_at}
        if isinstance(errand, GiveAway) and known.given_to == Transfer(errand.number):
            return Report("transferring", heard=heard)
        if isinstance(errand, NoteGiven):
            known.given_to = Transfer(errand.number)
        if isinstance(errand, DescribeCall):
            status = "live" if known.call is not None else known.flow if known.is_live else "ended"
            return Report(status, detail=self.calls.detail(known), heard=heard)
        if not known.is_live:
            return Report("ended", heard=heard)
        if known.call is None:
            return Report("recording", heard=heard)
        return self._tell(errand, known, known.call)

    def _tell(self, errand: Errand, known: KnownCall, call: Call) -> Report:
        """Tell a live call what is wanted of it."""
        match errand:
            case HangUp():
                call.hang_up("admin")
                return Report("ended")
            case Say(text=text, key=key):
                if known.said_under(key) not in (None, text):
                    return Report("reused")
                return Report("accepted" if known.say(text, key) else "busy")
            case Leave(text=text):
                known.leave(text)
                return Report("accepted")
            case GiveAway(warm=True) if not known.can_meet:
                return Report("cannot meet")
            case GiveAway(number=number, warm=True, briefing=briefing):
                pending = self.transfers.start(known, number, briefing)
                return Report("connecting" if pending is not None else "busy")
            case GiveAway(number=number):
                if self.transfers.is_asking_for(known):
                    return Report("busy")
                return Report("transferring" if known.give(Transfer(number)) else "busy")
        return Report()

    async def _verdict(self, call: Call) -> str | None:
        """Return what a machine that has a call must hear, if it was known before the stream."""
        verdict = await self.store.get(VERDICTS, call.sid)
        return None if verdict is None else msgspec.json.decode(verdict, type=str)

    async def _keep_rest(self) -> None:
        # In a thread, behind the open port: what it imports takes a tenth of a second.
        module = await trio.to_thread.run_sync(import_module, "...twilio.rest", __package__)
        settings = self.settings
        assert settings.twilio_account_sid is not None
        assert settings.twilio_auth_token is not None
        token = settings.twilio_auth_token.get_secret_value()
        account = settings.twilio_account_sid
        async with module.open_rest(settings.twilio_base_url, account, token, self._note) as rest:
            self.rest = rest
            await trio.sleep_forever()

    def _note(self, fault: str) -> None:
        self.observe("", "rest failed", 0.0, {"fault": fault})


def _joined_lists(reports: list[Report]) -> Report:
    """Put lists of calls together; of a call of the recording flow the latest word counts."""
    latest: dict[str, float] = {}
    for report in reports:
        for sid, at in report.heard.items():
            latest[sid] = max(at, latest.get(sid, 0.0))
    lines = {
        line.sid: line
        for report in reports
        for line in report.lines
        if line.flow == "stream" or report.heard.get(line.sid, 0.0) >= latest.get(line.sid, 0.0)
    }
    in_order = sorted(lines.values(), key=lambda line: line.began)
    return Report("list", lines=in_order, silent=sum(report.silent for report in reports))


def _joined_details(found: list[Report]) -> Report:
    """Put together what several workers know of a call; the last one knows how it stands."""
    details = [report.detail for report in found if report.detail is not None]
    latest = details[-1]
    turns = sorted((turn for each in details for turn in each.turns), key=lambda turn: turn.at)
    numbers = summed([each.numbers for each in details])
    whole = msgspec.structs.replace(latest, turns=turns, numbers=numbers)
    return Report(found[-1].status, detail=whole)
