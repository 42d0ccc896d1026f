"""What callers are told where no agent speaks to them, and when there is nothing left to say."""

BUSY = "All our lines are busy. Please call again in a few minutes."
BROKEN = "We are sorry, something went wrong. Please call again."

ENDED_WELL = frozenset({"agent", "caller", "silence", "length", "admin"})
"""Endings after which there is nothing left to say."""
