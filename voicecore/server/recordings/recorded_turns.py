"""The turns of the recording flow: they outlive the webhook that began them.

A carrier waits fifteen seconds for a webhook's answer and then gives the call up, so an answer that
takes longer is asked for again: it lies in the store, for whichever worker is asked.

* One turn at a time for each call: another one drops the one before.
* Every turn has a deadline, and ends in a document: at worst an apology.
* A call that is over, whoever learned it, has no turns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import blake2b
from typing import Protocol

import trio

from ..port.boundary import contain
from ..store import Store

TURN_S = 30.0
"""From the webhook to the answer, besides the length of what was said."""

ANSWER_S = 300.0
"""How long an answer can be asked for, again if need be."""

APOLOGY_S = 6.0
"""For the document of a turn that has failed."""

PATIENCE_S = 4.0
"""For the document of a webhook that is being answered already."""

POLL_S = 0.2
"""How often another worker's answer is looked for."""

ALIVE_S = 5.0
"""A turn of which nothing was heard for so long died with its worker."""

BEAT_S = 1.0

_KIND, _ALIVE = "document", "turn"

Make = Callable[[], Awaitable[bytes]]
"""Makes a turn's document; empty: nobody wants it any more."""


class Endings(Protocol):
    """Remembers, for all workers, how calls ended, and what was seen before."""

    def first_use(self, token: str) -> bool:
        """Note a token; return whether it is new."""

    def note_ending(self, call_sid: str, ended_by: str) -> None:
        """Remember who ended a call."""

    def ending(self, call_sid: str) -> str:
        """Return who ended a call, empty if that is not known."""


def turn_key(call_sid: str, what: str) -> str:
    """Return the name of a turn, by what it answers: a recording's SID, or a webhook's own token.

    It stands in URLs: nobody can make it who does not know both.
    """
    return blake2b(f"{call_sid}\0{what}".encode("utf-8", "replace"), digest_size=16).hexdigest()


class _Turn:
    """A turn that is being answered here."""

    def __init__(self, key: str, seconds: float) -> None:
        self.key = key
        self.scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        self.document: bytes | None = None
        self.is_dropped = False
        self.finished = trio.Event()

    def drop(self) -> None:
        """Nobody wants the answer any more, unless it is there: it may be what ends the call."""
        if self.document is None:
            self.is_dropped = True
            self.scope.cancel()


class RecordedTurns:
    """The turns of one worker."""

    def __init__(self, store: Store, endings: Endings) -> None:
        self._store = store
        self._endings = endings
        self._turns: dict[str, _Turn] = {}

    def __repr__(self) -> str:
        return f"<RecordedTurns {list(self._turns)!r:.80}>"

    def __len__(self) -> int:
        return len(self._turns)

    def claim(self, key: str) -> bool:
        """Return whether nobody, in any worker, has begun this turn; then it is the caller's."""
        return self._endings.first_use(f"turn {key}")

    def is_over(self, call_sid: str) -> bool:
        """Whether any worker knows that a call is over."""
        return bool(self._endings.ending(_flow(call_sid)))

    def note_ending(self, call_sid: str, ended_by: str) -> None:
        """Let every worker know that a call is over: a turn of it is dropped in a moment."""
        self._endings.note_ending(_flow(call_sid), ended_by)

    def drop(self, call_sid: str) -> None:
        """Drop a call's turn, if it is being answered here."""
        if call_sid in self._turns:
            self._turns[call_sid].drop()

    def start(
        self, nursery: trio.Nursery, call_sid: str, key: str, make: Make, apologise: Make
    ) -> None:
        """Answer one turn in `nursery` and keep its document; if `make` fails, `apologise` does."""
        self.drop(call_sid)
        self._turns[call_sid] = turn = _Turn(key, TURN_S)
        nursery.start_soon(self._run, call_sid, turn, make, apologise, name="recorded turn")

    async def _run(self, call_sid: str, turn: _Turn, make: Make, apologise: Make) -> None:
        try:
            with turn.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, call_sid, turn, name="call's end")
                    nursery.start_soon(self._beat, call_sid, turn, name="sign of life")
                    await self._attempt(call_sid, turn, make)
                    nursery.cancel_scope.cancel()
            if turn.document is None and not turn.is_dropped:
                with trio.move_on_after(APOLOGY_S):
                    await self._attempt(call_sid, turn, apologise)
        finally:
            turn.finished.set()
            if self._turns.get(call_sid) is turn:
                del self._turns[call_sid]

    async def once(self, call_sid: str, what: str, make: Make) -> bytes:
        """Return the document that `make` makes, or the one that was made for the same `what`."""
        key = turn_key(call_sid, what)
        made = None if self.claim(key) else await self.document(call_sid, key, PATIENCE_S)
        if made is not None:
            return made
        document = await make()
        await contain("answer", partial(self._keep, call_sid, key, document), lambda: call_sid)
        return document

    def allow(self, call_sid: str, seconds: float) -> None:
        """Give a call's turn so much more time: there is more to hear than expected."""
        if call_sid in self._turns:
            self._turns[call_sid].scope.deadline += seconds

    async def document(self, call_sid: str, key: str, patience_s: float) -> bytes | None:
        """Wait for a turn's document; None: not in that time, or there will be none."""
        document = await self._store.get(_KIND, f"{call_sid} {key}")
        with trio.move_on_after(patience_s):
            was_gone = is_gone = False
            while document is None and not (was_gone and is_gone):
                # Not at the first look: it may have just begun, or be just done.
                was_gone = is_gone
                is_gone = self.is_over(call_sid) or not await self.is_alive(call_sid, key)
                turn = self._turns.get(call_sid)
                with trio.move_on_after(POLL_S):
                    if turn is not None and turn.key == key:
                        await turn.finished.wait()
                        if turn.document:
                            return turn.document  # though the store may have lost it
                    await trio.sleep_forever()
                document = await self._store.get(_KIND, f"{call_sid} {key}")
        return document

    async def is_alive(self, call_sid: str, key: str) -> bool:
        """Whether a turn is being answered, here or elsewhere."""
        turn = self._turns.get(call_sid)
        if turn is not None and turn.key == key:
            return True
        return await self._store.get(_ALIVE, f"{call_sid} {key}") is not None

    async def _attempt(self, call_sid: str, turn: _Turn, make: Make) -> None:
        """Let `make` make a turn's document, and keep it; a bug in it is logged."""

        async def attempt() -> None:
            turn.document = await make()
            if turn.document:
                await self._keep(call_sid, turn.key, turn.document)

        await contain("recorded turn", attempt, lambda: call_sid)

    async def _keep(self, call_sid: str, key: str, document: bytes) -> None:
        await self._store.put(_KIND, f"{call_sid} {key}", document, ANSWER_S)

    async def _beat(self, call_sid: str, turn: _Turn) -> None:
        """Let other workers know that the turn is being answered."""

        async def beat() -> None:
            await self._store.put(_ALIVE, f"{call_sid} {turn.key}", b"", ALIVE_S)

        while True:
            await contain("sign of life", beat, lambda: call_sid)
            await trio.sleep(BEAT_S)

    async def _watch(self, call_sid: str, turn: _Turn) -> None:
        """Drop a turn whose call another worker has seen end."""
        while not self.is_over(call_sid):  # noqa: ASYNC110  other processes set no events
            await trio.sleep(POLL_S)
        turn.drop()


def _flow(call_sid: str) -> str:
    return f"recording flow {call_sid}"
