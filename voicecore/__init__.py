"""voicecore answers a phone number with an AI agent, on trio.

A call is a nursery.  A turn is a task.  A barge-in is a cancel.  Everything else is a pure machine
or an adapter; folders are layers, and imports go one way:

    audio, wire, dialogue   pure: bytes and events, no clock, no I/O
    contracts               what STT, LLM, TTS, VAD and a line promise
    call                    one call's nursery: receive, vad, pipeline, playback
    providers               one file a vendor
    server                  HTTP and WebSocket on one port, drain, routes
    phone, testing          the other end of the line, for trials and for tests
"""

from ._version import __version__

__all__ = ["__version__"]
