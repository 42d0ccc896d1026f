"""Who listens in on a call: a recording.

What both sides heard is known in two places only: where the caller's sound arrives, and where the
player sends the agent's and learns what of it was heard.  Both tell a `Tap`, if there is one.
"""

from __future__ import annotations

from typing import Protocol


class Tap(Protocol):
    """Is told both sides of a call, as mu-law.  Must be quick, and must not raise."""

    def received(self, audio: bytes, at_ms: int | None) -> None:
        """The caller's sound came in just now, of any length.

        `at_ms` is where it begins on the carrier's clock (`wire.events.Media`): it may be anything.
        """

    def played(self, audio: bytes, at: float) -> None:
        """The agent's sound was sent; the caller hears its first byte at `at`, on trio's clock.

        That is now, or a little later: never more than the player's lead.
        """

    def taken_back(self, size: int) -> None:
        """The last `size` bytes that were `played` will not be heard after all."""
