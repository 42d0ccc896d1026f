"""Live recognisers in the recording flow: they are fed nothing, and get an utterance whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.recorded import Record, Recording, answer_recording
from voicecore.call.timeline import CallLog
from voicecore.contracts import Transcription
from voicecore.dialogue.history import History
from voicecore.testing import audible, fake_agent

from . import test_assemblyai, test_flux, test_sarvam_live

LINES: dict[str, Callable[[], Any]] = {
    "assemblyai": test_assemblyai.line_to,
    "deepgram": partial(test_flux.line_to, model="nova-3"),
    "flux": test_flux.line_to,
    "sarvam": test_sarvam_live.line_to,
}


@dataclass(frozen=True)
class OneCall:
    """A recogniser whose only call is open already."""

    transcription: Transcription

    @asynccontextmanager
    async def listen(self, language: str) -> AsyncIterator[Transcription]:
        yield self.transcription


@pytest.mark.parametrize("vendor", LINES)
@pytest.mark.parametrize("count", [1, 50])
async def test_a_whole_recording_is_understood(
    vendor: str, count: int, autojump_clock: MockClock
) -> None:
    words = " ".join(f"word{number}" for number in range(count))
    utterance = b"".join(audible.say(words, 15 * count))
    async with LINES[vendor]() as (_, transcription, fake):
        agent = fake_agent(stt=OneCall(transcription))  # type: ignore[arg-type]
        now, history = trio.current_time(), History()
        answer = await answer_recording(
            agent, history, CallLog("CA1"), Recording("t1", utterance, now, now), {}
        )
        assert not answer.has_failed
        assert (answer.words, answer.next) == (words, Record())
        assert " ".join(audible.words(answer.audio)) == f"You said {words}."
        assert [message.text for message in history.messages] == [words, f"You said {words}."]
        assert trio.current_time() - now < 3 + 0.3 * count
        assert len(fake.sessions) == 1
