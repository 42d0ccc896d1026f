"""Warm transfers: the human is called first, and takes the call with a key.

The worker that has the caller keeps the transfer; the human's webhooks may reach any worker, and
are answered by asking that one (`siblings`).  One transfer is one task: it ends when somebody has
decided, the caller has gone, or the time is over; and a human whom nobody needs any more is hung up
on, through REST, on every way out.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from ...audio import wav
from ...call.agent import Agent
from ...call.agents import CHOICE_S, Agents
from ...call.briefing import TransferWords, briefing_of, transfer_words
from ...call.phrases import render, stock_words
from ...call.transfer import Transfer
from ...errors import ProviderError, RestError
from ...settings import Settings
from ..ledger import Ledger
from ..port.boundary import contain
from ..store import Store
from .live_calls import KnownCall, LiveCalls
from .numbers import is_number, may_be_given

if TYPE_CHECKING:
    from ...twilio.rest import TwilioRest  # loaded behind the open port

log = logging.getLogger("voicecore.server")

TransferOutcome = Literal["connected", "declined", "busy", "no-answer", "failed", "caller left"]
"""What became of a transfer.  connected: the human has taken the call; declined: somebody, or a
voicemail, answered and pressed no key; failed: the number cannot be called, or not now."""

RING_S = 25
"""How long the human's phone rings: a voicemail takes over at about this time."""

TRANSFER_S = 90.0
"""All of it: ringing, a briefing of half a minute twice, and the wait for a key."""

RENDER_S = 8.0
"""How long the agent's voice may take to say the briefing; while it rings, nobody waits."""

REASSURE_S = 8.0
"""How often the caller is told that somebody is still being called; more often, if the agent would
ask a silent caller earlier whether they are there, and in the end hang up."""

CREATE_S = 10.0
HANG_UP_S = 5.0
AUDIO_S = 300.0
AUDIO_KIND = "briefing"

MOST_TRANSFERS = 64
"""At once, of one worker."""


class Board(Protocol):
    """What transfers need of their `Switchboard`."""

    settings: Settings
    ledger: Ledger
    store: Store
    calls: LiveCalls
    agents: Agents | None
    rest: TwilioRest | None


class PendingTransfer:
    """One human who is being asked."""

    def __init__(self, known: KnownCall, number: str, briefing: str, *, is_news: bool) -> None:
        self.id = secrets.token_urlsafe(18)
        self.known = known
        self.number = number
        self.briefing = briefing
        self.is_news = is_news
        """Whether the caller must be told that it begins, because nobody else does."""
        self.conference = f"transfer-{secrets.token_urlsafe(12)}"
        self.language = "en-US"
        self.has_audio = False
        self.leg_sid = ""
        self.leg_is_over = False
        self.outcome: TransferOutcome | None = None
        self.done = trio.Event()

    def __repr__(self) -> str:
        return f"<PendingTransfer of {self.known.sid} {self.outcome or 'open'}>"

    @property
    def words(self) -> TransferWords:
        """What is said beside the briefing."""
        return transfer_words(self.language)

    def give(self) -> bool:
        """Let the caller go where the human is; false: there is none."""
        return self.known.give(Transfer(conference=self.conference))

    def settle(self, outcome: TransferOutcome) -> None:
        """Say what came of it.  The first counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.known.transfer = outcome
            self.done.set()


class WarmTransfers:
    """The transfers of this worker's calls.  An `Operator` (see `call.transfer`)."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._pending: dict[str, PendingTransfer] = {}
        self._connected: OrderedDict[str, list[str]] = OrderedDict()
        """What was answered to humans who took their calls: webhooks are repeated."""
        self._started, self._to_run = trio.open_memory_channel[PendingTransfer](MOST_TRANSFERS)

    def __repr__(self) -> str:
        return f"<WarmTransfers {len(self._pending)} open>"

    async def run(self) -> None:
        """Do what is started, until cancelled."""
        async with trio.open_nursery() as nursery:
            async for pending in self._to_run:
                nursery.start_soon(self._follow, pending, name="warm transfer")

    def ask(self, call_sid: str, number: str, briefing: str) -> bool:
        """Call somebody for a caller (see `call.transfer.Operator`)."""
        known = self._board.calls.find(call_sid)
        if known is None or known.call is None:
            return False
        return self.start(known, number, briefing, is_news=False) is not None

    def start(
        self, known: KnownCall, number: str, briefing: str, *, is_news: bool = True
    ) -> PendingTransfer | None:
        """Begin; None if there are too many, or this call is being given to somebody else.

        The same transfer, begun twice, is one.
        """
        for pending in self._pending.values():
            if pending.known is known:
                return pending if pending.number == number else None
        if len(self._pending) >= MOST_TRANSFERS:
            return None
        pending = PendingTransfer(known, number, briefing, is_news=is_news)
        self._pending[pending.id] = pending
        known.transfer = "connecting"
        self._started.send_nowait(pending)
        return pending

    def is_asking_for(self, known: KnownCall) -> bool:
        """Whether a human is being asked to take this call."""
        return any(pending.known is known for pending in self._pending.values())

    def brief(self, id_: str) -> list[str]:
        """Return what a human is told: the words, their language, and whether there is audio."""
        pending = self._pending.get(id_)
        if pending is None:
            return []
        words = f"{pending.briefing} {pending.words.press_key}"
        return [words, pending.language, "audio" if pending.has_audio else ""]

    def settle(self, id_: str, outcome: TransferOutcome, *, is_over: bool) -> list[str]:
        """Take what a human has decided, or the carrier found; nothing if it is too late.

        Returns the conference in which the caller will be, and the language; or, if there is no
        caller any more, what to say, and the language.
        """
        pending = self._pending.get(id_)
        if pending is None:
            return self._connected.get(id_, []) if outcome == "connected" else []
        pending.leg_is_over = pending.leg_is_over or is_over
        if outcome == "connected" and pending.outcome in (None, "connected"):
            # Settled first: giving the call away ends it, which is not the caller's doing.
            pending.settle("connected")
            if pending.give():
                self._connected[id_] = [pending.conference, pending.language]
                if len(self._connected) > MOST_TRANSFERS:
                    self._connected.popitem(last=False)
                return self._connected[id_]
            pending.known.transfer = "caller left"
        pending.settle(outcome)
        return ["", pending.language]

    async def _follow(self, pending: PendingTransfer) -> None:
        try:
            await contain("warm transfer", partial(self._ask, pending), lambda: pending.known.sid)
        finally:
            pending.settle("failed")
            del self._pending[pending.id]
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HANG_UP_S):
                await self._let_go(pending)
        outcome = {"to": pending.number, "outcome": pending.outcome}
        log.info("warm transfer", extra={"call": pending.known.sid, "fields": outcome})
        if pending.outcome not in ("connected", "caller left"):
            pending.known.say(pending.words.nobody, "")

    async def _ask(self, pending: PendingTransfer) -> None:
        """Call the human, and wait for what comes first."""
        call = pending.known.call
        if call is None:
            return
        agent = await self._agent(pending)
        named = () if agent is None else agent.transfers.values()
        if pending.number not in named and not may_be_given(self._board.settings, pending.number):
            log.warning("a transfer that may not be", extra={"call": pending.known.sid})
            return
        if not pending.briefing:
            pending.briefing = briefing_of(call.history.messages, pending.words)
        with trio.move_on_after(TRANSFER_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, pending, name="caller")
                nursery.start_soon(self._dial, pending, name="dial")
                if agent is not None:
                    nursery.start_soon(_render, self._board.store, pending, agent, name="briefing")
                nursery.start_soon(_reassure, pending, agent, name="reassure")
                await pending.done.wait()
                nursery.cancel_scope.cancel()
        pending.settle("no-answer")

    async def _agent(self, pending: PendingTransfer) -> Agent | None:
        """Return in whose voice the human is briefed, if anybody knows."""
        call, agents = pending.known.call, self._board.agents
        pending.language = self._board.settings.language
        if call is not None and agents is not None:
            with trio.move_on_after(CHOICE_S):
                agent = await agents.agent_for(call.parameters)
                pending.language = agent.persona.language
                return agent
        return None

    async def _watch(self, pending: PendingTransfer) -> None:
        call = pending.known.call
        if call is not None:
            await call.wait_ended()
        pending.settle("caller left")

    async def _dial(self, pending: PendingTransfer) -> None:
        board, base = self._board, self._board.settings.public_url
        caller_id = _caller_id(board.settings.outbound_from, pending.known)
        if board.rest is None or base is None or not caller_id:
            pending.settle("failed")
            return
        per_hour = board.settings.outbound_per_hour
        if board.ledger.place_call("", board.calls.clock(), per_hour) != 0:
            log.warning("warm transfer: too many calls within the hour")
            pending.settle("failed")
            return
        fields = {
            "To": pending.number,
            "From": caller_id,
            "Url": f"{base}/transfer/{pending.id}",
            "Timeout": str(RING_S),
            "StatusCallback": f"{base}/transfer/{pending.id}/status",
        }
        try:
            # To its end: a phone that rings without our knowing its call's name rings on.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CREATE_S):
                pending.leg_sid = (await board.rest.create_call(fields)).sid
        except RestError as error:
            fields = {"why": str(error)}
            log.warning("warm transfer", extra={"call": pending.known.sid, "fields": fields})
        if not pending.leg_sid:
            pending.settle("failed")

    async def _let_go(self, pending: PendingTransfer) -> None:
        """Hang up on a human whom nobody needs."""
        rest = self._board.rest
        if rest is None or not pending.leg_sid:
            return
        if pending.outcome == "connected" or pending.leg_is_over:
            return
        try:
            await rest.hang_up(pending.leg_sid)
        except RestError as error:
            fields = {"why": str(error)}
            log.warning("a leg may ring on", extra={"call": pending.leg_sid, "fields": fields})


async def _reassure(pending: PendingTransfer, agent: Agent | None) -> None:
    """Tell the caller what goes on, again and again."""
    words = stock_words(pending.language) if agent is None else agent.persona.stock_words
    if pending.is_news:
        pending.known.say(words.connecting, "")
    patience = 0.0 if agent is None else agent.limits.idle_prompt_s
    while True:
        await trio.sleep(min(REASSURE_S, 0.8 * patience or REASSURE_S))
        pending.known.say(pending.words.still_trying, "")


async def _render(store: Store, pending: PendingTransfer, agent: Agent) -> None:
    """Say the briefing in the agent's voice; if that fails, the carrier's says it."""
    words = f"{pending.briefing} {pending.words.press_key}"
    audio = b""
    with trio.move_on_after(RENDER_S):
        try:
            audio = await render(agent.tts, words, agent.persona.voice, agent.persona.language)
        except* ProviderError as group:
            log.warning("a briefing could not be said: %s", group.exceptions[0])
    if audio:
        try:
            await store.put(AUDIO_KIND, pending.id, wav.telephone_bytes(audio), AUDIO_S)
            pending.has_audio = True
        except OSError as error:
            log.warning(
                "a briefing could not be kept", extra={"fields": {"why": f"{error!r:.150}"}}
            )


def _caller_id(chosen: str | None, known: KnownCall) -> str:
    """Return a number of ours: the configured one, or the one that the caller has called."""
    given = {} if known.call is None else known.call.parameters
    is_placed = "order" in given or given.get("Direction", "").startswith("outbound")
    ours = chosen or known.parties[0 if is_placed else 1]
    return ours if is_number(ours) else ""
