"""What a caller said into `<Record>`, fetched from Twilio as mu-law.

The request that announces a recording is a stranger's until proven otherwise, and we fetch with
our password.  So rules hold here:

* Of the request only a SID is used, and only if it looks like one.  The URL is ours: our base, the
  account, the SID.
* No redirects, no proxies from the environment, no compression.
* Everything has a bound: the bytes while they come, each attempt, all of them together.
* What comes must be a WAV file that we understand.

Twilio asks for the next step before the file is written: 404 means "in a moment".  A connection
that breaks, and Twilio's own failure, get one more try.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import trio

from ..audio import SAMPLE_RATE, wav
from ..errors import ProviderError, ProviderFault
from .rotation import secrets_in
from .sids import is_account_sid, is_recording_sid

PROVIDER = "recordings"

RECORDING_BYTES = 10 * 1024 * 1024
"""The largest file that is taken; a minute at 8 kHz and 16 bits is one megabyte."""

RECORDING_S = 60
"""How much of it is heard, as of any turn."""

CONNECT_S = 3.0
ATTEMPT_S = 5.0
"""One attempt, to its last byte."""

FETCH_S = 9.0
"""All attempts together."""

PAUSES_S = (0.2, 0.3, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.5, 1.5)
"""Before each further attempt while there is no file yet: eight seconds in all.  Each is a silence
that the caller hears, so they grow slowly."""

LEAST_RATE, MOST_RATE, MOST_CHANNELS = 4000, 96000, 8

_FAULTS: dict[int, ProviderFault] = {401: "refused", 403: "refused", 429: "busy"}


class _Hiccup(ProviderError):
    """What may be over when the same is asked again."""


class Recordings:
    """The recordings at one base URL.

    `auth_tokens` may be several, separated by commas, while one is rotated.  Without any, no
    password is sent.
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str, auth_tokens: str = "") -> None:
        self._client = client
        self._base = base_url
        self._tokens = secrets_in(auth_tokens)

    def __repr__(self) -> str:
        return f"<Recordings at {self._base}>"

    async def fetch(self, account_sid: str, sid: str) -> bytes:
        """Return the mu-law of a recording, its first minute.

        Raises:
            ProviderError: it cannot be had in time, or is none.
        """
        if not is_account_sid(account_sid) or not is_recording_sid(sid):
            raise ProviderError(PROVIDER, "garbage", "no account's or no recording's SID")
        url = f"{self._base}/2010-04-01/Accounts/{account_sid}/Recordings/{sid}.wav"
        has_failed = False
        with trio.move_on_after(FETCH_S):
            for pause in (0.0, *PAUSES_S):
                await trio.sleep(pause)
                try:
                    content = await self._get(url, account_sid)
                except _Hiccup:
                    if has_failed:
                        raise
                    has_failed = True
                    continue
                if content is not None:
                    return await telephone_audio(content)
        raise ProviderError(PROVIDER, "timeout", "no file in time")

    async def _get(self, url: str, account_sid: str) -> bytes | None:
        """Try once, with each token; None: there is no file yet."""
        for token in self._tokens or [""]:
            login = httpx.BasicAuth(account_sid, token) if token else None
            status, content = await self._attempt(url, login)
            if status not in (401, 403):
                break
        if status == 404:
            return None
        if status >= 500:
            raise _Hiccup(PROVIDER, "status", f"HTTP {status}")
        if status != 200:
            raise ProviderError(PROVIDER, _FAULTS.get(status, "status"), f"HTTP {status}")
        return content

    async def _attempt(self, url: str, login: httpx.BasicAuth | None) -> tuple[int, bytes]:
        content = bytearray()
        with trio.move_on_after(ATTEMPT_S) as patience, _errors():
            async with self._client.stream("GET", url, auth=login) as response:
                if response.status_code != 200:
                    return response.status_code, b""
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise ProviderError(PROVIDER, "garbage", "compressed, not asked for")
                async for piece in response.aiter_raw():
                    content += piece[: RECORDING_BYTES + 1 - len(content)]
                    if len(content) > RECORDING_BYTES:
                        patience.cancel()  # a read that is cancelled closes all that it holds
        if len(content) > RECORDING_BYTES:
            raise ProviderError(PROVIDER, "garbage", f"more than {RECORDING_BYTES >> 20} MB")
        if not patience.cancelled_caught:
            return 200, bytes(content)
        raise ProviderError(PROVIDER, "timeout", f"not here within {ATTEMPT_S:g} s")


async def telephone_audio(content: bytes) -> bytes:
    """Return the first minute of a WAV file as mu-law, a second at a time: others must speak, too.

    Raises:
        ProviderError: it is none, or of a kind that no telephone makes.
    """
    from ..audio.resample import MulawEncoder  # brings numpy

    try:
        recording = wav.read(content)
    except ValueError as error:
        raise ProviderError(PROVIDER, "garbage", str(error)) from None
    rate, channels = recording.rate, recording.channels
    if not LEAST_RATE <= rate <= MOST_RATE or channels > MOST_CHANNELS:
        raise ProviderError(PROVIDER, "garbage", f"{channels} channels at {rate} Hz")
    encoder, audio, second = MulawEncoder(rate), bytearray(), rate * channels * 2
    for at in range(0, min(len(recording.pcm), RECORDING_S * second), second):
        await trio.lowlevel.checkpoint()
        audio += encoder.feed(wav.mixed_down(recording.pcm[at : at + second], channels))
    audio += encoder.flush()
    return bytes(audio[: RECORDING_S * SAMPLE_RATE])


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what httpx raises into what the rest of the house knows.  Its texts may hold secrets."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise _Hiccup(PROVIDER, "connect", "no connection") from None
    except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.StreamError):
        raise _Hiccup(PROVIDER, "cut", "the connection broke") from None
    except httpx.HTTPError as error:
        raise ProviderError(PROVIDER, "garbage", type(error).__name__) from None


@asynccontextmanager
async def open_recordings(
    base_url: str, auth_tokens: str = "", transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Recordings]:
    """Open a client for recordings; `transport` is the network's, unless another is given."""
    async with httpx.AsyncClient(
        transport=transport,
        headers={"Accept-Encoding": "identity"},
        timeout=httpx.Timeout(None, connect=CONNECT_S, pool=CONNECT_S),
        trust_env=False,
        follow_redirects=False,
    ) as client:
        yield Recordings(client, base_url, auth_tokens)
