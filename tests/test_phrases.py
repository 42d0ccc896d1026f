"""Ready-made audio: rendered beforehand, or at the moment, or not at all."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from voicecore.call.phrases import RENDER_S, STOCK_WORDS, Phrases
from voicecore.testing import FakeTTS, audible


async def test_a_phrase_is_rendered_once(autojump_clock: MockClock) -> None:
    phrases, tts = Phrases(), FakeTTS(0.5)
    for _ in range(3):
        audio = await phrases.rendered(tts, "One moment.", "", "en-US")
        assert audible.words(audio or b"") == ["One", "moment."]
    assert len(tts.requests) == 1
    assert trio.current_time() == pytest.approx(0.5)
    assert await phrases.rendered(tts, "", "", "en-US") is None


@pytest.mark.parametrize("fault", ["error", "hang", "stall"])
async def test_a_voice_that_fails_is_waited_for_no_longer_than_a_carrier_waits(
    fault: str, autojump_clock: MockClock
) -> None:
    phrases, tts = Phrases(), FakeTTS(faults=[fault])  # type: ignore[list-item]
    assert await phrases.rendered(tts, "One moment please now.", "", "en-US") is None
    assert trio.current_time() <= RENDER_S
    assert not tts.open_requests
    assert await phrases.rendered(tts, "One moment please now.", "", "en-US")


def test_every_language_has_all_its_words() -> None:
    english = STOCK_WORDS["en"]
    for language, words in STOCK_WORDS.items():
        said = (*words.texts, *words.fillers, words.unheard, words.cut_off, words.no_answer)
        assert all(said)
        if language != "en":
            assert not {english.unheard, english.cut_off, english.no_answer} & set(said)
