"""Every number that bounds what a stranger can do to the server, with its reason.

docs/operating.md shows them as a table.  They are not settings: each is far above what Twilio
needs and far below what hurts.
"""

HEAD_BYTES = 16 * 1024
"""A request's head, complete or not; beyond it 431.  Twilio's are under 2 KiB."""

HEADER_COUNT = 100
"""Header fields in one request; beyond it 431.  gunicorn's number."""

TARGET_BYTES = 8 * 1024
"""The request's target; beyond it 414."""

BODY_BYTES = 64 * 1024
"""A request's body; beyond it 413, before reading where Content-Length tells."""

FORM_FIELDS = 1000
"""Fields in a form; beyond it 400.  Twilio sends fewer than 60."""

REQUEST_S = 10.0
"""From a request's first byte to its last, or from accept to the first byte."""

IDLE_S = 30.0
"""How long a kept-alive connection may wait for its next request."""

RESPONSE_S = 15.0
"""How long a peer may take to accept a response."""

LINGER_S = 2.0
"""How long we read on after the last response, so that no reset overtakes it."""

READ_BYTES = 4096
"""One read of HTTP: h11 spends at most a few milliseconds on it, whatever is in there."""

MESSAGE_BYTES = 64 * 1024
"""One WebSocket message over all its fragments, in bytes; beyond it 1009."""

MESSAGE_FRAGMENTS = 4096
"""Fragments of one message, or empty ones would pile up for ever; beyond it 1009."""

FRAME_BURST = 4000.0
FRAME_RATE = 500.0
"""Frames at once, then frames a second: beyond it we do not read.  Twilio sends 50 a second."""

THROTTLED_S = 120.0
"""How long a peer may stay above the frame rate before it is closed with 1008."""

MEDIA_READ_BYTES = 2048
"""One read of a media stream: at most 341 frames, about 4 ms of work for the WebSocket layer."""

MEDIA_SEND_BUFFER = 64 * 1024
"""SO_SNDBUF of a media socket: the kernel's own 4 MB would hide a stuck peer for minutes, and put
seconds of stale audio out of reach of a barge-in."""

PING_S = 20.0
PONG_S = 20.0
"""A WebSocket ping every so often, and the patience for any sign of life after it."""

TOKEN_S = 60.0
"""From the webhook's answer to the stream's `start`."""

LEDGER_RECORDS = 4096
"""How many ended calls and used tokens each worker remembers; the oldest are forgotten first."""

RECORDED_CALLS_A_PLACE = 4
RECORDED_CALLS = 256
"""Calls in the recording flow of one worker: so many for each place of VOICECORE_MAX_CALLS, and so
many if that is none.  Beyond it callers hear that all lines are busy."""

RESERVED_FILES = 64
"""Descriptors kept free for providers and logs when connections are counted."""
