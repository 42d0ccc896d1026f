"""Recordings over real sockets: what is taken, what is refused, and where the password goes."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
import trio
from flow_house import ACCOUNT, Pieces, wav_of
from trio.testing import MockClock

from voicecore.audio import SAMPLE_RATE
from voicecore.audio.wav import Wav, to_bytes
from voicecore.errors import ProviderError
from voicecore.testing import audible
from voicecore.twilio import recordings as module
from voicecore.twilio.recordings import Recordings, open_recordings, telephone_audio
from voicecore.twilio.sids import recording_sid

SID = "RE" + "c" * 32
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Recordings/{SID}.wav"


Act = bytes | Callable[[trio.abc.Stream], Awaitable[None]]


class Storage:
    """A server on loopback that answers one request a connection, as it is told."""

    def __init__(self, answers: Iterable[Act]) -> None:
        self.heads: list[str] = []
        self.port = 0
        self._answers = iter(answers)

    async def accept(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += bytes(await stream.receive_some()) or b"\r\n\r\n"
        self.heads.append(head.decode())
        answer = next(self._answers)
        try:
            if isinstance(answer, bytes):
                await stream.send_all(answer)
            else:
                await answer(stream)
        except trio.BrokenResourceError:
            pass  # the client has seen enough
        await stream.aclose()

    def asked(self) -> list[str]:
        return [head.partition("\r\n")[0] for head in self.heads]

    def logins(self) -> list[str]:
        return [
            base64.b64decode(line.partition("Basic ")[2]).decode()
            for head in self.heads
            for line in head.split("\r\n")
            if line.lower().startswith("authorization:")
        ]


def ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def status(code: int, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {code} X", "Content-Length: 0", *headers, "", ""]).encode()


@asynccontextmanager
async def storage(
    *answers: Act, tokens: str = "secret"
) -> AsyncIterator[tuple[Storage, Recordings]]:
    served = Storage(answers)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        served.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, served.accept, listeners)
        async with open_recordings(f"http://127.0.0.1:{served.port}", tokens) as recordings:
            yield served, recordings
        nursery.cancel_scope.cancel()


async def fault_of(recordings: Recordings) -> str:
    with pytest.raises(ProviderError) as caught:
        await recordings.fetch(ACCOUNT, SID)
    assert "secret" not in str(caught.value)
    return caught.value.fault


async def test_a_recording_is_fetched_with_the_password() -> None:
    async with storage(ok(wav_of("one two"))) as (served, recordings):
        assert audible.words(await recordings.fetch(ACCOUNT, SID)) == ["one", "two"]
    assert served.asked() == [f"GET {PATH} HTTP/1.1"]
    assert served.logins() == [f"{ACCOUNT}:secret"]


async def test_while_a_token_is_rotated_both_are_tried() -> None:
    answers = (status(401), ok(wav_of("one")))
    async with storage(*answers, tokens="new, old") as (served, recordings):
        assert await recordings.fetch(ACCOUNT, SID)
    assert served.logins() == [f"{ACCOUNT}:new", f"{ACCOUNT}:old"]


async def test_without_a_token_there_is_no_password_to_lose() -> None:
    async with storage(ok(wav_of("one")), tokens="") as (served, recordings):
        assert await recordings.fetch(ACCOUNT, SID)
    assert served.logins() == []


REFUSALS = {401: "refused", 403: "refused", 429: "busy", 302: "status"}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_is_not_argued_with(code: int) -> None:
    async with storage(status(code, "Retry-After: 3600")) as (served, recordings):
        assert await fault_of(recordings) == REFUSALS[code]
    assert len(served.heads) == 1


async def cut(stream: trio.abc.Stream) -> None:
    await stream.send_all(ok(wav_of("one"))[:200])


HICCUPS: dict[str, Act] = {"status": status(503), "cut": cut}


@pytest.mark.parametrize("fault", HICCUPS)
async def test_a_hiccup_gets_another_try_and_no_third(fault: str) -> None:
    async with storage(HICCUPS[fault], ok(wav_of("one"))) as (served, recordings):
        assert audible.words(await recordings.fetch(ACCOUNT, SID)) == ["one"]
    assert len(served.heads) == 2
    async with storage(*[HICCUPS[fault]] * 3) as (served, recordings):
        assert await fault_of(recordings) == fault
    assert len(served.heads) == 2


async def test_nobody_there_is_a_failure() -> None:
    async with open_recordings("http://127.0.0.1:1") as recordings:
        assert await fault_of(recordings) == "connect"


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "169.254.169.254"])
async def test_a_redirect_is_not_followed(host: str) -> None:
    async with storage() as (served, recordings):
        where = host.format(port=served.port)
        served._answers = iter([status(307, f"Location: http://{where}/latest")])
        assert await fault_of(recordings) == "status"
    assert len(served.heads) == 1


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with storage(ok(wav_of("one"))) as (_, recordings):
        assert await recordings.fetch(ACCOUNT, SID)


async def test_a_file_without_end_is_not_read_to_it() -> None:
    sent = 0

    async def pour(stream: trio.abc.Stream) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 30 << 20:
            await stream.send_all(bytes(1 << 20))
            sent += 1 << 20

    async with storage(pour) as (_, recordings):
        assert await fault_of(recordings) == "garbage"
    assert sent < 20 << 20


async def test_a_file_that_drips_is_given_up(autojump_clock: MockClock) -> None:
    class Drip(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await trio.sleep(1)
                yield b"R"

    async def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Drip())

    async with open_recordings("http://x", "", httpx.MockTransport(serve)) as recordings:
        assert await fault_of(recordings) == "timeout"
    assert trio.current_time() == pytest.approx(module.ATTEMPT_S)


async def test_eight_seconds_is_how_long_a_file_may_take(autojump_clock: MockClock) -> None:
    began, asked = trio.current_time(), []

    async def serve(request: httpx.Request) -> httpx.Response:
        asked.append(trio.current_time() - began)
        return httpx.Response(404)

    async with open_recordings("http://x", "", httpx.MockTransport(serve)) as recordings:
        assert await fault_of(recordings) == "timeout"
    assert asked == pytest.approx([0, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5, 6.5, 8])


GARBAGE = {
    "a page": ok(b"<html>not found</html>", "Content-Type: text/html"),
    "nothing": ok(b""),
    "half a head": ok(wav_of("one")[:20]),
    "an mp3": ok(b"ID3\x04" + bytes(1000)),
    "compressed": ok(wav_of("one"), "Content-Encoding: gzip"),
    "no samples a second": ok(wav_of("one").replace((8000).to_bytes(4, "little"), bytes(4))),
    "a billion a second": ok(to_bytes(Wav(1_000_000_000, 1, bytes(100)))),
    "channels": ok(to_bytes(Wav(8000, 200, bytes(800)))),
}  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_recording_is_garbage(answer: bytes) -> None:
    async with storage(answer) as (_, recordings):
        assert await fault_of(recordings) == "garbage"


@pytest.mark.parametrize(
    "sid", ["", "RE1", "RE/../" + "c" * 28, SID + "\n", SID + "/x", "CA" + "c" * 32]
)
async def test_only_sids_become_urls(sid: str) -> None:
    async with storage() as (served, recordings):
        with pytest.raises(ProviderError, match="SID"):
            await recordings.fetch(ACCOUNT, sid)
        with pytest.raises(ProviderError, match="SID"):
            await recordings.fetch(sid, SID)
    assert not served.heads


def test_a_sid_is_found_where_twilio_writes_it() -> None:
    url = f"https://api.twilio.com/2010-04-01/Accounts/AC1/Recordings/{SID}"
    assert recording_sid(SID, "") == SID
    assert recording_sid("", url) == SID
    assert recording_sid("junk", f"{url}?x=/RE1") == SID
    assert recording_sid("", f"{url}/..") == recording_sid("", f"{url}.wav") == ""


async def test_other_rates_and_channels_are_heard_too() -> None:
    tone = np.sin(np.arange(44100) * 2 * np.pi * 440 / 44100) * 8000
    stereo = np.repeat(tone.astype("<i2"), 2).tobytes()
    audio = await telephone_audio(to_bytes(Wav(44100, 2, stereo)))
    assert len(audio) == pytest.approx(SAMPLE_RATE, abs=2)


async def test_a_minute_is_heard_of_longer_ones(autojump_clock: MockClock) -> None:
    long = to_bytes(Wav(SAMPLE_RATE, 1, bytes(2 * SAMPLE_RATE * 90)))
    async with open_recordings(
        "http://x",
        "",
        httpx.MockTransport(lambda request: httpx.Response(200, stream=Pieces(long))),
    ) as recordings:
        assert len(await recordings.fetch(ACCOUNT, SID)) == 60 * SAMPLE_RATE


def test_what_fetches_recordings_is_loaded_with_the_first_one() -> None:
    code = """
import sys
import trio
import trio.testing
from voicecore.errors import ProviderError
from voicecore.server.recordings.recording_source import RecordingSource
from voicecore.settings import Settings

def loaded():
    return sorted({"httpx", "numpy"} & sys.modules.keys())

async def main():
    source = RecordingSource(Settings(_env_file=None))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await trio.testing.wait_all_tasks_blocked()
        print(loaded())
        try:
            await source.fetch("AC", "RE")
        except ProviderError as error:
            print(error.fault, loaded())
        nursery.cancel_scope.cancel()

trio.run(main)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "garbage ['httpx', 'numpy']"]
