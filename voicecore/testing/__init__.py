"""Whole calls as a script and a transcript, in virtual time, over the real wire.

    from voicecore.testing import FakeLLM, FakeSTT, FakeTTS, ScriptedCaller, fake_agent

    async def test_greets(autojump_clock):
        caller = ScriptedCaller().listens().says("hello there").listens().hangs_up()
        transcript = await caller.call(fake_agent(greeting="Good day."))
        assert transcript.heard == ["Good", "day.", "You", "said", "hello", "there."]

The caller's words travel inside the audio (`testing.audible`), so what a fake recogniser
understands is what really reached it, and what a caller heard is what was really played.
"""

from .caller import ScriptedCaller, Transcript
from .model import FakeModel
from .providers import FakeLLM, FakeSTT, FakeTTS, LoudnessVAD, Request, fake_agent

__all__ = [
    "FakeLLM",
    "FakeModel",
    "FakeSTT",
    "FakeTTS",
    "LoudnessVAD",
    "Request",
    "ScriptedCaller",
    "Transcript",
    "fake_agent",
]
