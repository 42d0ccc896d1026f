"""Engine processes: they answer, die, hang, are cancelled, and are gone afterwards.

Real processes in real time: what is waited for are their pipes, and the bounds are generous.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from voicecore.errors import ProviderError
from voicecore.providers.engines import EnginePool, open_pool

ODD = (sys.executable, str(Path(__file__).parent / "odd_engine.py"))


@asynccontextmanager
async def odd_pool(size: int = 1) -> AsyncIterator[EnginePool]:
    with trio.fail_after(30):
        async with open_pool("odd", ODD, size) as pool:
            yield pool


async def ask(pool: EnginePool, request: str) -> list[bytes]:
    async with pool.job(request.encode(), 10, 10) as answer:
        return [piece async for piece in answer]


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


async def test_an_answer_comes_whole_and_in_order() -> None:
    async with odd_pool() as pool:
        assert await ask(pool, "pieces 5000") == [str(n).encode() for n in range(5000)]
        assert await ask(pool, "pieces 0") == []


async def test_what_a_library_prints_is_no_frame() -> None:
    async with odd_pool() as pool:
        assert await ask(pool, "print hello") == [b"hello"]


async def test_a_request_that_cannot_be_answered_leaves_the_engine_alive() -> None:
    async with odd_pool() as pool:
        before = await ask(pool, "pid")
        with pytest.raises(ProviderError, match="odd: status: will not"):
            await ask(pool, "fail")
        assert await ask(pool, "pid") == before


async def test_an_engine_that_dies_is_replaced_and_asked_once_more(tmp_path: Path) -> None:
    async with odd_pool() as pool:
        assert await ask(pool, f"die-once {tmp_path / 'died'}") == [b"second try"]


async def test_a_request_that_kills_every_engine_fails_after_two() -> None:
    async with odd_pool() as pool:
        with pytest.raises(ProviderError, match="odd: cut: the engine died"):
            await ask(pool, "die")
        assert await ask(pool, "print still here") == [b"still here"]


async def test_after_the_first_piece_nothing_is_asked_again() -> None:
    async with odd_pool() as pool:
        async with pool.job(b"begin-and-die", 10, 10) as answer:
            assert await anext(answer) == b"first piece"
            with pytest.raises(ProviderError, match="odd: cut: the engine died"):
                await anext(answer)


async def test_an_idle_engine_that_dies_is_replaced() -> None:
    async with odd_pool() as pool:
        [pid] = await ask(pool, "pid")
        os.kill(int(pid), signal.SIGKILL)
        [another] = await ask(pool, "pid")
        assert another != pid


async def test_a_job_that_is_left_is_stopped_and_its_engine_kept(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    async with odd_pool() as pool:
        [pid] = await ask(pool, "pid")
        async with pool.job(f"obey {stopped}".encode(), 10, 10) as answer:
            assert await anext(answer) == b"at it"
        assert await ask(pool, "pid") == [pid]
        assert stopped.exists()


async def test_an_engine_that_does_not_stop_is_killed_and_replaced() -> None:
    async with odd_pool() as pool:
        [pid] = await ask(pool, "pid")
        async with pool.job(b"hang", 10, 10) as answer:
            assert await anext(answer) == b"at it"
        assert await ask(pool, "pid") != [pid]
        assert not psutil.pid_exists(int(pid))


async def test_waiting_has_deadlines() -> None:
    async with odd_pool() as pool:
        async with pool.job(b"hang", 10, 0.05) as busy:
            await anext(busy)
            with pytest.raises(ProviderError, match=r"odd: timeout: no engine is free"):
                async with pool.job(b"pid", 0.05, 10):
                    raise AssertionError("the only engine is busy")
            with pytest.raises(ProviderError, match=r"odd: timeout: no answer within 0.05 s"):
                await anext(busy)


async def test_engines_that_cannot_start_fail_jobs_and_nothing_else() -> None:
    async with open_pool("odd", ("/nonexistent/engine",), 1) as pool:
        with pytest.raises(ProviderError, match="timeout"):
            async with pool.job(b"pid", 0.3, 1):
                raise AssertionError("there is no engine")


async def test_a_long_request_may_be_left_while_it_is_written() -> None:
    async with odd_pool() as pool:
        await ask(pool, "pid")
        for _ in range(5):
            async with pool.job(b"pieces 0" + b" " * 4_000_000, 10, 10):
                pass
        assert await ask(pool, "print next") == [b"next"]


@pytest.mark.parametrize("delay_ms", [0, 1, 2, 5, 10, 30, 100])
async def test_cancelled_anywhere_the_next_job_is_answered(delay_ms: int, tmp_path: Path) -> None:
    async with odd_pool() as pool:
        await ask(pool, "pid")
        with trio.move_on_after(delay_ms / 1000) as scope:
            await ask(pool, f"obey {tmp_path / 'stopped'}")
        assert scope.cancelled_caught
        assert await ask(pool, "print next") == [b"next"]


async def test_a_closed_pool_has_no_children() -> None:
    before = set(children())
    async with odd_pool(2) as pool:
        async with pool.job(b"hang", 10, 10) as answer:
            await anext(answer)
            assert len(set(children()) - before) >= 1
    assert set(children()) == before


async def test_engines_ignore_what_a_terminal_sends_to_the_group() -> None:
    async with odd_pool() as pool:
        [pid] = await ask(pool, "pid")
        os.kill(int(pid), signal.SIGINT)
        os.kill(int(pid), signal.SIGTERM)
        assert await ask(pool, "pid") == [pid]


def test_an_engine_ends_when_its_parent_is_killed() -> None:
    parent = """
import sys, trio
from voicecore.providers.engines import open_pool
async def main():
    async with open_pool("odd", (sys.executable, sys.argv[1]), 1) as pool:
        async with pool.job(b"obey /dev/null", 10, 10) as answer:
            await anext(answer)
            print("ready", flush=True)
            await trio.sleep_forever()
trio.run(main)
"""
    command = [sys.executable, "-c", parent, ODD[1]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        engines = psutil.Process(process.pid).children()
        assert len(engines) == 1
        process.kill()
    gone, alive = psutil.wait_procs(engines, timeout=20)
    assert len(gone) == 1
    assert not alive
