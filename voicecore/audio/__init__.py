"""Telephone audio, without I/O: mu-law, frames, resampling, WAV files, and hearing voice in it.

Inside voicecore audio is 8 kHz mu-law (ITU-T G.711), one byte a sample; a *frame* is 160 bytes,
20 ms, as carriers send it.  The modules:

    mulaw      G.711 to linear PCM and back
    framing    bytes of any chunking into whole frames
    resample   any rate of linear PCM to the telephone's
    wav        recordings, in and out
    stereo     a call's recording, written as it happens
    vad        is there voice in this frame?

This package imports none of them: who needs only the constants pays for no numpy, soxr or
webrtcvad.
"""

from __future__ import annotations

SAMPLE_RATE = 8000
"""Samples a second; one byte each in mu-law."""

FRAME_MS = 20
FRAME_BYTES = 160

SILENCE_BYTE = b"\xff"
"""Mu-law's positive zero."""

SILENCE_FRAME = SILENCE_BYTE * FRAME_BYTES
