"""The embedded engines, for real: recorded speech is recognised, text becomes audible speech."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import trio

from voicecore.audio import SAMPLE_RATE, SILENCE_BYTE, mulaw, wav
from voicecore.audio.vad import GatedVad
from voicecore.dialogue.turns import Detector, SpeechPaused
from voicecore.errors import ProviderError
from voicecore.providers import espeak, pocketsphinx
from voicecore.providers.espeak import EspeakTTS
from voicecore.providers.pocketsphinx import PocketsphinxSTT
from voicecore.settings import Settings

RECORDINGS = Path(__file__).parent.parent / "audio"
SETTINGS = Settings(_env_file=None)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """These are real processes, on a machine that may be busy with other tests."""
    for vendor, limits in ((pocketsphinx, ("WAIT_S", "TOTAL_S")), (espeak, ("WAIT_S", "PIECE_S"))):
        for limit in limits:
            monkeypatch.setattr(vendor, limit, 60.0)


@pytest.fixture
async def stt() -> AsyncIterator[PocketsphinxSTT]:
    async with pocketsphinx.opened(SETTINGS) as vendor:
        yield vendor.stt


@pytest.fixture
async def tts() -> AsyncIterator[EspeakTTS]:
    async with espeak.opened(SETTINGS) as vendor:
        yield vendor.tts


async def spoken(tts: EspeakTTS, text: str, voice: str = "", language: str = "en-US") -> bytes:
    async with tts.speak(text, voice, language) as pieces:
        return b"".join([piece async for piece in pieces])


def seconds(audio: bytes) -> float:
    return len(audio) / SAMPLE_RATE


async def test_recorded_speech_is_recognised(stt: PocketsphinxSTT) -> None:
    """One test, because the models take their time to load."""
    await both_engines_hear_the_same_whatever_was_before(stt)
    await an_utterance_cut_at_its_first_pause_is_understood(stt)
    await a_cancelled_recognition_makes_room_for_the_next(stt)


async def both_engines_hear_the_same_whatever_was_before(stt: PocketsphinxSTT) -> None:
    """And no words in silence."""
    first, second = (
        wav.read_telephone(RECORDINGS / f"{name}.wav")
        for name in ("hello_world", "weather_question")
    )
    silence = SILENCE_BYTE * SAMPLE_RATE
    heard: dict[bytes, set[str]] = {first: set(), second: set(), silence: set(), b"": set()}
    async with stt.listen("en-US") as call, stt.listen("en-US") as other:
        for pair in ((second, first), (silence, b""), (first, first)):
            for transcription, utterance in zip((call, other), pair, strict=True):
                heard[utterance].add((await transcription.transcript(utterance)).text)
    assert [len(texts) for texts in heard.values()] == [1, 1, 1, 1]
    assert "world" in heard[first].pop()
    assert "weather" in heard[second].pop()
    assert heard[silence] == heard[b""] == {""}


async def an_utterance_cut_at_its_first_pause_is_understood(stt: PocketsphinxSTT) -> None:
    """Speculation hands over what there is 100 ms after the last word."""
    silence = SILENCE_BYTE * SAMPLE_RATE
    for recording, words in (
        ("weather_question", {"weather", "paris"}),
        ("hello_world", {"hello", "world"}),
    ):
        audio = silence + wav.read_telephone(RECORDINGS / f"{recording}.wav") + silence
        detector, vad = Detector(), GatedVad()
        frames = [audio[at : at + 160] for at in range(0, len(audio) - 159, 160)]
        events = [event for frame in frames for event in detector.hear(frame, vad.hear(frame))]
        (utterance,) = [event.utterance for event in events if isinstance(event, SpeechPaused)]
        async with stt.listen("en-US") as transcription:
            transcript = await transcription.transcript(utterance)
        assert words <= set(transcript.text.split()), transcript.text


async def a_cancelled_recognition_makes_room_for_the_next(stt: PocketsphinxSTT) -> None:
    long = wav.read_telephone(RECORDINGS / "jfk.wav")
    short = wav.read_telephone(RECORDINGS / "hello_world.wav")
    async with stt.listen("en-US") as call:
        for delay in (0, 0.2):
            with trio.move_on_after(delay) as scope:
                await call.transcript(long)
            assert scope.cancelled_caught
        assert "world" in (await call.transcript(short)).text


async def test_speech_is_audible_and_not_clipped(tts: EspeakTTS) -> None:
    audio = await spoken(tts, "Hello! How can I help you?")
    samples = np.frombuffer(mulaw.decode(audio), dtype="<i2").astype(float)
    loudness = 20 * np.log10(np.sqrt((samples**2).mean()) / 32768)
    assert 1.5 < seconds(audio) < 3.5
    assert -28 < loudness < -16
    assert (np.abs(samples) >= 32124).mean() < 0.001


async def test_speech_ends_in_a_short_pause(tts: EspeakTTS) -> None:
    sentence = await spoken(tts, "Hello.")
    clause = await spoken(tts, "Hello,")
    for audio, pause in ((sentence, 0.2), (clause, 0.08)):
        samples = np.abs(np.frombuffer(mulaw.decode(audio), dtype="<i2").astype(int))
        trailing = (len(samples) - np.flatnonzero(samples > 300)[-1]) / SAMPLE_RATE
        assert pause <= trailing < pause + 0.15


async def test_markup_is_text(tts: EspeakTTS) -> None:
    plain = await spoken(tts, "Wait now.")
    marked = await spoken(tts, 'Wait <break time="60s"/> now.')
    assert seconds(plain) < seconds(marked) < 15


async def test_languages_and_voices(tts: EspeakTTS) -> None:
    hindi = await spoken(tts, "नमस्ते! मैं आपकी कैसे मदद कर सकता हूँ?", language="hi-IN")
    english = await spoken(tts, "Hello.", language="en-US")
    assert seconds(hindi) > 1.5
    assert await spoken(tts, "Hello.", voice="en-us+f3") != english


async def test_an_unknown_voice_is_an_error_and_nothing_more(tts: EspeakTTS) -> None:
    with pytest.raises(ProviderError, match="espeak: status: no voice nobody"):
        await spoken(tts, "Hello.", voice="nobody")
    assert await spoken(tts, "Hello.")


async def test_odd_texts_are_spoken_or_silent(tts: EspeakTTS) -> None:
    for text in ("", " ", "...", "a\0b", "\u200b", "😀", "[[x]]", "&amp;"):
        assert seconds(await spoken(tts, text)) < 5, text


async def test_speech_that_is_left_stops(tts: EspeakTTS) -> None:
    endless = "This is a sentence that nobody will hear to its end. " * 400
    for _ in range(3):
        async with tts.speak(endless, "", "en-US") as pieces:
            async for _ in pieces:
                break
    assert seconds(await spoken(tts, "Hello.")) < 2
