"""voicecore answers a phone number with an AI agent, on trio.

A call is a nursery.  A turn is a task.  A barge-in is a cancel.  Everything else is a pure machine
or an adapter; folders are layers, and imports go one way:

    audio, wire, dialogue   pure: bytes and events, no clock, no I/O
    contracts               what STT, LLM, TTS, VAD and a line promise
    call                    one call's nursery: receive, vad, pipeline, playback
    providers               one file a vendor
    twilio, carriers        documents and webhooks: Twilio's, the other carriers'
    records, calls          what is left of calls, and questions about it
    server                  HTTP and WebSocket on one port, drain, routes
    phone, testing          the other end of the line, for trials and for tests

The public names are loaded when they are first used: the phone needs no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .call.agent import Agent, CallLimits, Persona, agent_from
    from .call.call import Call, open_call
    from .call.from_settings import FromSettings
    from .call.line import WebSocketLine
    from .call.toolbox import CallInfo
    from .call.transfer import Transfer
    from .contracts import (
        LLM,
        STT,
        TTS,
        VAD,
        Delta,
        Line,
        Message,
        Tool,
        ToolCall,
        Transcript,
        Transcription,
        Voicing,
    )
    from .dialogue.turns import TurnRules
    from .errors import ProviderError, SettingsError, VoicecoreError
    from .server.serve import serve
    from .settings import Settings

_HOMES = {
    "Agent": "call.agent",
    "Call": "call.call",
    "CallInfo": "call.toolbox",
    "CallLimits": "call.agent",
    "Delta": "contracts",
    "FromSettings": "call.from_settings",
    "LLM": "contracts",
    "Line": "contracts",
    "Message": "contracts",
    "Persona": "call.agent",
    "ProviderError": "errors",
    "STT": "contracts",
    "Settings": "settings",
    "SettingsError": "errors",
    "TTS": "contracts",
    "Tool": "contracts",
    "ToolCall": "contracts",
    "Transfer": "call.transfer",
    "Transcript": "contracts",
    "Transcription": "contracts",
    "TurnRules": "dialogue.turns",
    "VAD": "contracts",
    "VoicecoreError": "errors",
    "Voicing": "contracts",
    "WebSocketLine": "call.line",
    "agent_from": "call.agent",
    "open_call": "call.call",
    "serve": "server.serve",
}
"""Public name -> the module that defines it."""

__all__ = [
    "LLM",
    "STT",
    "TTS",
    "VAD",
    "Agent",
    "Call",
    "CallInfo",
    "CallLimits",
    "Delta",
    "FromSettings",
    "Line",
    "Message",
    "Persona",
    "ProviderError",
    "Settings",
    "SettingsError",
    "Tool",
    "ToolCall",
    "Transcript",
    "Transcription",
    "Transfer",
    "TurnRules",
    "VoicecoreError",
    "Voicing",
    "WebSocketLine",
    "__version__",
    "agent_from",
    "open_call",
    "serve",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
