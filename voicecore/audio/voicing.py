"""What a voice activity detector says of one frame."""

from __future__ import annotations

import enum


class Voicing(enum.IntEnum):
    """What a VAD hears in one 20 ms frame."""

    SILENT = 0
    FAINT = 1
    """Speech by its shape, but only a little louder than the line's noise, soon after a voiced
    frame: a soft word end.  It can put off an end; it never makes a beginning."""
    VOICED = 2
