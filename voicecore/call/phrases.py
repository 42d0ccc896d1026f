"""Ready-made audio: what an agent can say at once, and when every provider is down."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeVar

import trio

from ..contracts import TTS
from ..errors import ProviderError
from .transfer import Transfer

_logger = logging.getLogger("voicecore.call")

_Words = TypeVar("_Words")

PREPARE_S = 20.0
"""How long the rendering of one phrase may take at start; calls do not wait for it."""

RENDER_S = 2.5
"""The same while a carrier waits for a webhook's answer, which may also be words."""

MAX_PHRASE_BYTES = 60 * 8000
"""A minute.  Longer is no phrase, and must not be held in memory."""


@dataclass(frozen=True, slots=True)
class StockWords:
    """What an agent says when there is nothing else to say, in one language."""

    still_there: str
    goodbye: str
    apology: str
    give_up: str
    connecting: str = "One moment please, I am connecting you."
    """Before the call is given to somebody else."""
    fillers: tuple[str, ...] = ()
    """Said while the answer takes its time."""
    unheard: str = "Did you say something?"
    """These three belong to the recording flow: there was nothing in the recording;"""
    cut_off: str = "We were cut off. Please go on."
    """the call's stream has broken;"""
    no_answer: str = "I am sorry, nobody is answering. What else can I do for you?"
    """who it was given to does not answer."""

    @property
    def texts(self) -> tuple[str, ...]:
        """What a stream needs of them, but for the fillers."""
        return (self.still_there, self.goodbye, self.apology, self.give_up, self.connecting)


STOCK_WORDS: dict[str, StockWords] = {
    "en": StockWords(
        still_there="Are you still there?",
        goodbye="Thank you for calling. Goodbye.",
        apology="Sorry, something went wrong. Could you say that again?",
        give_up="I am sorry, we have a technical problem. Please call again later. Goodbye.",
        fillers=("Let me see.", "One moment.", "Just a second."),
    ),
    "hi": StockWords(
        still_there="क्या आप अभी भी लाइन पर हैं?",
        goodbye="कॉल करने के लिए धन्यवाद। नमस्ते।",
        apology="माफ़ कीजिए, कुछ गड़बड़ हो गई। क्या आप फिर से कह सकते हैं?",
        give_up="माफ़ कीजिए, अभी तकनीकी समस्या है। कृपया बाद में कॉल कीजिए। नमस्ते।",
        connecting="एक पल रुकिए, मैं आपको जोड़ती हूँ।",
        fillers=("एक पल।", "देखती हूँ।", "ज़रा रुकिए।"),
        unheard="क्या आपने कुछ कहा?",
        cut_off="हमारा संपर्क टूट गया था। कृपया आगे कहिए।",
        no_answer="माफ़ कीजिए, कोई जवाब नहीं दे रहा है। मैं और क्या कर सकता हूँ?",
    ),
}


GREETINGS = {"en": "Hello! How can I help you?", "hi": "नमस्ते! मैं आपकी कैसे मदद कर सकता हूँ?"}


def in_language(words: Mapping[str, _Words], language: str) -> _Words:
    """Return the words of a BCP-47 language, or the English ones."""
    return words.get(language.split("-")[0].lower(), words["en"])


def default_greeting(language: str) -> str:
    """Return the greeting of a BCP-47 language, or the English one."""
    return in_language(GREETINGS, language)


def stock_words(language: str) -> StockWords:
    """Return the words of a BCP-47 language, or the English ones."""
    return in_language(STOCK_WORDS, language)


EndsBy = Literal["", "agent", "length"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """Words that are said; then the call ends, if it is said by whom, or goes on with another."""

    text: str
    ends_by: EndsBy = ""
    transfer: Transfer | None = None
    is_last: bool = False
    """Whatever is being said is broken off for it, and it cannot be interrupted."""


class Phrases:
    """Audio by text.  Filled at start; read by every call."""

    def __init__(self) -> None:
        self._audio: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"<Phrases {list(self._audio)!r:.80}>"

    def audio(self, text: str) -> bytes | None:
        """Return the mu-law of `text`, if it was prepared."""
        return self._audio.get(text)

    def apology(self, text: str) -> bytes:
        """Return the mu-law of an apology, whatever happened: at worst the one in the package."""
        return self._audio.get(text) or _last_resort()

    async def rendered(self, tts: TTS, text: str, voice: str, language: str) -> bytes | None:
        """Return the mu-law of `text`, rendered now if it was not prepared; None if that fails.

        It is kept: who uses this has few texts.
        """
        if text and text not in self._audio:
            try:
                with trio.fail_after(RENDER_S):
                    self._audio[text] = await render(tts, text, voice, language)
            except* (ProviderError, trio.TooSlowError):
                _logger.warning("a phrase could not be rendered in time")
        return self._audio.get(text)

    async def prepare(self, tts: TTS, texts: Iterable[str], voice: str, language: str) -> None:
        """Render `texts`, one after the other.  What fails is logged and left out."""
        for text in filter(None, texts):
            try:
                with trio.fail_after(PREPARE_S):
                    self._audio[text] = await render(tts, text, voice, language)
            except* ProviderError as group:
                _logger.warning("a phrase could not be prepared: %s", group.exceptions[0])
            except* trio.TooSlowError:
                _logger.warning("a phrase could not be prepared within %.0f s", PREPARE_S)


async def render(tts: TTS, text: str, voice: str, language: str) -> bytes:
    """Return `text` as mu-law.

    Raises:
        ProviderError: TTS failed, said nothing, or more than a minute; maybe in a group.
    """
    audio = bytearray()
    async with tts.speak(text, voice, language) as pieces:
        async for piece in pieces:
            audio += piece
            if len(audio) > MAX_PHRASE_BYTES:
                raise ProviderError("tts", "garbage", "a phrase of more than a minute")
    if not audio:
        raise ProviderError("tts", "garbage", "no audio")
    return bytes(audio)


def _last_resort() -> bytes:
    """The apology that ships with the package: 8 kHz mu-law, English, made with espeak-ng."""
    return resources.files(__package__).joinpath("apology.ulaw").read_bytes()
