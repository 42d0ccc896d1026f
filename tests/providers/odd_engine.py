"""An engine that does as it is told, good or bad."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from voicecore.providers.worker import Answer, EngineFault, Job, serve


def noise(argument: str, job: Job) -> None:
    sys.stdout.write("noise on stdout")
    sys.stdout.flush()
    os.write(1, b"noise from C")
    job.send(argument.encode())


def fail(argument: str, job: Job) -> None:
    raise EngineFault("will not")


def die_once(argument: str, job: Job) -> None:
    if not Path(argument).exists():
        Path(argument).touch()
        os._exit(1)
    job.send(b"second try")


def begin_and_die(argument: str, job: Job) -> None:
    job.send(b"first piece")
    os._exit(1)


def obey(argument: str, job: Job) -> None:
    job.send(b"at it")
    while not job.cancelled():
        time.sleep(0.005)
    Path(argument).touch()


def hang(argument: str, job: Job) -> None:
    job.send(b"at it")
    time.sleep(1000)


def pieces(argument: str, job: Job) -> None:
    for number in range(int(argument)):
        job.send(str(number).encode())


ORDERS: dict[str, Callable[[str, Job], None]] = {
    "pid": lambda argument, job: job.send(str(os.getpid()).encode()),
    "print": noise,
    "fail": fail,
    "die": lambda argument, job: os.kill(os.getpid(), signal.SIGSEGV),
    "die-once": die_once,
    "begin-and-die": begin_and_die,
    "obey": obey,
    "hang": hang,
    "pieces": pieces,
}


def answer(request: bytes, job: Job) -> None:
    order, _, argument = request.decode().partition(" ")
    ORDERS[order](argument, job)


def load() -> Answer:
    return answer


if __name__ == "__main__":
    serve(load)
