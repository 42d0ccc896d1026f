"""Connections that stand before they are needed: spares, their bounds, and what they cost."""

from __future__ import annotations

import gc
import ssl
from functools import partial

import httpcore
import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from voicecore.contracts import WarmsUp
from voicecore.errors import ProviderError
from voicecore.providers import connections, openai
from voicecore.providers.connections import CONNECT_S, SPARE_S, SPARES, Dialler
from voicecore.providers.http import Api, open_client
from voicecore.settings import Settings

from .fake_openai import answers, speech, transcript
from .warm_server import DEADLINES, PATH, Server, ask, client

SLOW = speech(0.3).slow(0, 0.1)


@pytest.fixture
def clock() -> MockClock:
    """Virtual time that waits for what is under way in the kernel's loopback."""
    return MockClock(autojump_threshold=0.02)


async def interrupt(api: Api, server: Server) -> None:
    """Leave an answer in its middle, and see that the server notices."""
    async with api.post(PATH, DEADLINES, json={}) as body:
        await anext(body)
    await server.all_closed()


async def test_the_first_request_finds_a_connection(clock: MockClock) -> None:
    async with Server() as server, client(server) as api:
        await api.warm_up()
        await server.stands(SPARES)
        assert await ask(api)
        assert (server.connections, len(server.requests)) == (SPARES, 1)


async def test_warming_what_is_warm_costs_nothing(clock: MockClock) -> None:
    async with Server() as server, client(server) as api:
        for _ in range(3):
            await api.warm_up()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(api.warm_up)
        await server.stands(SPARES)
        await ask(api)
        await api.warm_up()
        assert server.connections == SPARES


async def test_nobody_who_does_not_interrupt_pays_for_spares(clock: MockClock) -> None:
    async with Server() as server, client(server) as api:
        for _ in range(5):
            await ask(api)
        assert server.connections == 1


async def test_what_an_interruption_costs_is_replaced(clock: MockClock) -> None:
    async with Server(stt=[SLOW]) as server, client(server) as api:
        await ask(api)
        for turn in range(4):
            await interrupt(api, server)
            await server.stands(SPARES)
            opened = server.connections
            await ask(api)
            assert server.requests[-1].connection <= opened, turn


async def test_an_answer_that_has_not_begun_counts_too(clock: MockClock) -> None:
    async with Server(stt=[transcript("x").slow(1)]) as server, client(server) as api:
        with trio.move_on_after(0.1):
            await ask(api)
        await server.all_closed()
        await server.stands(SPARES)


async def test_spares_are_few(clock: MockClock) -> None:
    async with Server(stt=[SLOW]) as server, client(server) as api:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, api)
            await trio.sleep(0.15)
            nursery.cancel_scope.cancel()
        await server.all_closed()
        await server.stands(SPARES)
        assert server.connections <= 10 + SPARES


async def test_a_spare_that_nobody_wants_is_closed(clock: MockClock) -> None:
    async with Server() as server, client(server) as api:
        await api.warm_up()
        await trio.sleep(SPARE_S - 1)
        assert server.standing == SPARES
        await trio.sleep(2)
        await server.stands(0)
        assert await ask(api)


async def test_a_spare_that_the_server_closes_is_not_used() -> None:
    """Real time, for the servers' connections are closed by hand."""
    async with Server() as server, client(server) as api:
        await api.warm_up()
        await server.stands(SPARES)
        server._nursery.cancel_scope.cancel()
        await server.stands(0)
        with pytest.raises(ProviderError, match="vendor: connect"):
            await ask(api)
        assert not server.requests


class Wire(httpcore.AsyncNetworkStream):
    """A connection that the server closes when it is told to."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await self.ended.wait()
        return b""

    async def aclose(self) -> None:
        self.closed = True


class Wires(httpcore.AsyncNetworkBackend):
    def __init__(self) -> None:
        self.opened: list[Wire] = []

    async def connect_tcp(self, *address: object, **options: object) -> Wire:
        self.opened.append(Wire())
        return self.opened[-1]


@pytest.mark.parametrize("ends", [False, True])
async def test_a_spare_that_ends_as_it_is_taken_is_not_used(ends: bool) -> None:
    wires = Wires()
    async with trio.open_nursery() as nursery:
        dialler = Dialler(httpx.URL("http://vendor"), None, nursery, wires)
        dialler.open_spare()
        await dialler.opened()
        await wait_all_tasks_blocked()
        [spare] = wires.opened
        if ends:
            spare.ended.set()
        taken = await dialler.connect_tcp("vendor", 80)
        await wait_all_tasks_blocked()
        assert spare.closed is ends
        assert taken is wires.opened[-1]
        assert len(wires.opened) == 1 + ends
        nursery.cancel_scope.cancel()


async def test_a_server_that_closes_at_once_is_not_courted(clock: MockClock) -> None:
    taken = 0

    async def slam(stream: trio.SocketStream) -> None:
        nonlocal taken
        taken += 1
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, slam, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_client(url) as opened:
            api = Api("vendor", opened)
            await api.warm_up()
            await trio.sleep(10)
            assert taken == SPARES
            with pytest.raises(ProviderError, match="vendor: cut"):
                await ask(api)
            assert taken <= SPARES + 2  # the request, and its one retry
        nursery.cancel_scope.cancel()


async def test_errors_do_not_call_for_spares(clock: MockClock) -> None:
    async with Server(stt=[answers(500)]) as server, client(server) as api:
        with pytest.raises(ProviderError):
            await ask(api)
        await wait_all_tasks_blocked(0.01)
        assert server.connections == 1


async def test_warming_up_never_fails(clock: MockClock) -> None:
    async with Server() as server:
        pass
    async with client(server) as api:
        began = trio.current_time()
        await api.warm_up()
        assert trio.current_time() - began < CONNECT_S
    for host in ("a" * 70 + ".invalid", "a..b"):  # which no name server is asked for
        async with open_client(f"http://{host}") as opened:
            api = Api("vendor", opened)
            await api.warm_up()
            with pytest.raises(ProviderError, match="vendor: connect"):
                await ask(api)


async def test_warming_up_has_an_end(clock: MockClock) -> None:
    """A server that takes the connection, and does not speak TLS."""

    async def mute(stream: trio.SocketStream) -> None:
        async with stream:
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, mute, 0, host="127.0.0.1"))
        url = f"https://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_client(url) as opened:
            api = Api("vendor", opened)
            began = trio.current_time()
            await api.warm_up()
            assert trio.current_time() - began == pytest.approx(CONNECT_S, abs=0.2)
            with trio.move_on_after(1):
                await ask(api)
        nursery.cancel_scope.cancel()
    gc.collect()  # a socket left open would warn


async def test_leaving_closes_everything(clock: MockClock) -> None:
    async with Server(stt=[SLOW]) as server:
        async with client(server) as api:
            await api.warm_up()
            await server.stands(SPARES)
            await interrupt(api, server)
            await ask(api)
        await server.stands(0)
        with trio.move_on_after(0) as scope:
            async with client(server) as api:
                await api.warm_up()
        assert scope.cancelled_caught
        await server.stands(0)
    gc.collect()


async def test_cancelled_at_every_await_nothing_is_left(clock: MockClock) -> None:
    """Counted in passes of the event loop, so that every await of a request has its turn."""
    for after in range(0, 40, 2):
        await cancelled_after(after)
    gc.collect()


async def cancelled_after(after: int) -> None:
    async def cancel_later(scope: trio.CancelScope) -> None:
        for _ in range(after):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with Server() as server, client(server) as api:
        if after % 4:
            await api.warm_up()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_later, nursery.cancel_scope)
            await ask(api)
        await server.all_closed()
        assert await ask(api)
        await wait_all_tasks_blocked(0.01)
        assert server.standing <= SPARES + 1, after


async def test_what_is_raised_inside_comes_out_as_it_is() -> None:
    async with Server() as server:
        error = KeyError("mine")
        with pytest.raises(KeyError) as raised:  # noqa: PT012  leaving is what is tested
            async with client(server) as api:
                await api.warm_up()
                raise error
        assert raised.value is error


async def test_a_busy_pool_keeps_its_connections(clock: MockClock) -> None:
    """httpcore counts busy connections among the idle ones it may keep."""

    async def burst() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask, api)

    async with Server(stt=[transcript("x").slow(0.1)]) as server, client(server) as api:
        await burst()
        await burst()
        assert server.connections == 30


async def test_idle_connections_do_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real time, for httpcore asks the system's clock."""
    monkeypatch.setattr(connections, "SPARE_S", 0.02)
    async with Server() as server, client(server) as api:
        for _ in range(2):
            await ask(api)
            assert server.standing == 1
            await server.stands(0)
        assert await ask(api)


async def test_each_stage_of_openai_can_be_warmed(clock: MockClock) -> None:
    async with Server() as server:
        settings = Settings(_env_file=None, openai_base_url=server.base_url)
        async with openai.opened(settings) as vendor, trio.open_nursery() as nursery:
            for stage in (vendor.stt, vendor.llm, vendor.tts):
                assert isinstance(stage, WarmsUp)
                nursery.start_soon(stage.warm_up, "en-US")
        assert server.connections == SPARES
        assert not server.requests


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_spares_tls_is_up(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, clock: MockClock
) -> None:
    """With TLS 1.3 the server's session tickets come unasked: they are no reason to distrust."""
    server = Server(stt=[transcript("x").slow(0.1)])
    server.tls = server_tls
    async with server, client(server, client_tls) as api:
        await api.warm_up()
        await server.stands(SPARES)
        await trio.sleep(1)
        for _ in range(3):
            with trio.move_on_after(0.05):
                await ask(api)
            await server.all_closed()
            await server.stands(SPARES)
        opened = server.connections
        assert await ask(api)
        assert server.requests[-1].connection <= opened == server.connections


async def test_a_stranger_is_not_spoken_to(server_tls: ssl.SSLContext, clock: MockClock) -> None:
    server = Server()
    server.tls = server_tls
    async with server, client(server) as api:
        await api.warm_up()
        with pytest.raises(ProviderError, match="vendor: connect"):
            await ask(api)
    assert not server.requests
