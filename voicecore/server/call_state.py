"""What is known of a call, kept where every worker finds it: history, counters, how it ended.

A call's next webhook may reach another worker, or come when the worker that had its stream is dead.
So a stream writes its call down as it goes, and its ending before its socket is closed; the
recording flow, which lives from webhook to webhook, has nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import trio

from ..call.call import Call
from ..call.timeline import Observer
from ..call.transfer import Transfer
from ..contracts import Message
from .store import VALUE_BYTES, Store
from .words import LOST

log = logging.getLogger("voicecore.server")

OVERTIME_S = 300.0
"""How long a call is known beyond its greatest length: its last webhooks come after that."""

SAVE_S = 1.0
"""For the last write of a stream, which its end waits for."""

_KIND = "call"
_NEWS = frozenset({"user said", "agent said"})
"""Milestones after which the history is another."""


@dataclass(slots=True)
class CallState:
    """One call.  Times are of the clock that the workers share."""

    parameters: dict[str, str]
    began: float
    flow: Literal["stream", "recording"] = "stream"
    messages: tuple[Message, ...] = ()
    ended_by: str = ""
    """Who ended the stream, if anybody did (see `call.EndedBy`)."""
    transfer: Transfer | None = None
    """With whom the call goes on."""
    gather: str = ""
    """The tool call whose keys the carrier is collecting."""
    turn: str = ""
    """The recording that is being answered, or was last: an answer to another comes too late."""
    turns: int = 0
    silences: int = 0
    """Recordings in a row in which nothing was said."""
    failures: int = 0
    """Turns in a row that have failed."""
    webhooks: int = 0
    due: float = 0.0
    """When the carrier must have come back, or the call is over."""


_DECODER = msgspec.msgpack.Decoder(CallState)


class CallStates:
    """The calls of all workers.  `clock` is theirs, `longest_s` the greatest length of a call."""

    def __init__(self, store: Store, clock: Callable[[], float], longest_s: float) -> None:
        self.store = store
        self.clock = clock
        self._lifetime = longest_s + OVERTIME_S

    def new(self, parameters: Mapping[str, str]) -> CallState:
        """Return the state of a call that begins now."""
        return CallState(dict(parameters), self.clock())

    async def load(self, call_sid: str) -> CallState | None:
        """Return what is known of a call."""
        return _decoded(await self.store.get(_KIND, call_sid))

    async def save(self, call_sid: str, state: CallState) -> None:
        """Keep what is known of a call.  Of a history that is too long, the newest part."""
        while len(value := _encoded(state)) > VALUE_BYTES:
            state.messages = state.messages[(len(state.messages) + 1) // 2 :]
        try:
            await self.store.put(_KIND, call_sid, value, self._lifetime)
        except OSError as error:
            _not_kept(error)

    async def pop(self, call_sid: str) -> CallState | None:
        """Forget a call and return what was known: to one of several who ask."""
        return _decoded(await self.store.pop(_KIND, call_sid))


def _encoded(state: CallState) -> bytes:
    try:
        return msgspec.msgpack.encode(state)
    except UnicodeEncodeError:  # JSON can hold halves of characters, and strangers send them
        return msgspec.msgpack.encode(_whole_characters(msgspec.to_builtins(state)))


def _whole_characters(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_whole_characters(k): _whole_characters(v) for k, v in value.items()}
        case list() | tuple():
            return [_whole_characters(each) for each in value]
    return value


def _decoded(value: bytes | None) -> CallState | None:
    try:
        return None if value is None else _DECODER.decode(value)
    except msgspec.DecodeError:
        return None  # another version's


class StreamKeeper:
    """Writes one stream's call down as it goes, off its way; without `states`, nothing."""

    def __init__(self, states: CallStates | None, observe: Observer | None) -> None:
        self._states = states
        self._observe = observe
        self._news = trio.Event()

    def observe(self, call_sid: str, event: str, at: float, fields: Mapping[str, object]) -> None:
        """Take a milestone of the call, and pass it on."""
        if event in _NEWS:
            self._news.set()
        if self._observe is not None:
            self._observe(call_sid, event, at, fields)

    @asynccontextmanager
    async def keeping(self, call: Call) -> AsyncIterator[None]:
        """Write in the background; on leaving, however that is, a last time."""
        if self._states is None:
            yield
            return
        state = self._states.new(call.parameters)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, self._states, call, state, name="state")
            yield
            nursery.cancel_scope.cancel()
        # Not reached by a call that fails: what was said in it is in the store.
        state.ended_by, state.transfer = ended_by(call), call.transfer
        await _save(self._states, call, state)

    async def _keep(self, states: CallStates, call: Call, state: CallState) -> None:
        await _save(states, call, state, is_new=True)
        while True:
            await self._news.wait()
            self._news = trio.Event()
            await _save(states, call, state)


async def _save(states: CallStates, call: Call, state: CallState, *, is_new: bool = False) -> None:
    """Write a stream's call down, unless it has gone on as recordings since: a carrier may know
    that a stream is dead long before we do, and what we have is old then."""
    state.messages, state.turns = call.history.messages, call.turns
    with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_S):
        try:
            known = None if is_new else await states.load(call.sid)
        except OSError as error:
            _not_kept(error)
        else:
            if known is None or known.flow == "stream":
                await states.save(call.sid, state)


def _not_kept(error: OSError) -> None:
    """A disk that is full, or broken, costs the history of a call whose stream breaks, no call."""
    log.warning("a call's state is not kept", extra={"fields": {"why": str(error)}})


def ended_by(call: Call) -> str:
    """Return who ended a stream, or that it was lost; empty, if it failed."""
    if call.was_cut and call.ended_by == "caller":
        return LOST
    return call.ended_by or ""
