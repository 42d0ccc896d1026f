"""What a carrier's dialect can do, as far as playback must know it.

Two things decide what an interruption sounds like, and what the history says of it:

* **Marks.**  With them the caller's ear reports back.  Without, what was heard is what the clock
  says since the first audio was sent: an estimate that knows nothing of the carrier's own delay.
* **Clear.**  With it a barge-in is silent within the network's delay.  Without, everything that is
  out is heard to its end, so as little as possible may be out, and what was sent counts as heard.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Abilities:
    """What one dialect can do."""

    marks: bool = True
    """Whether the carrier says when audio was played.  Without, never send `Mark`."""

    clear: bool = True
    """Whether the carrier can throw queued audio away.  Without, never send `Clear`."""

    message_frames: int = 1
    """Frames of 20 ms that a `Play` should hold; what is shorter is padded with silence on its
    way out, which only the end of a reply should be."""

    @property
    def barge_in(self) -> str:
        """What an interruption is like, in a few words for an operator; empty: as it should be."""
        if self == Abilities():
            return ""
        cut = "cut at once" if self.clear else "cut after what is out"
        heard = "what was heard is known" if self.marks else "what was heard is estimated"
        portions = f", out in portions of {self.message_frames * 20} ms"
        return f"{cut}, {heard}" + (portions if self.message_frames > 1 else "")
