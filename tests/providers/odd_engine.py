"""An engine that does as it is told, good or bad."""

from __future__ import annotations

import os
import time
from pathlib import Path

from voicecore.providers.worker import Answer, EngineFault, Job, serve


def answer(request: bytes, job: Job) -> None:
    order, _, argument = request.decode().partition(" ")
    if order == "pid":
        job.send(str(os.getpid()).encode())
    elif order == "print":
        print("noise on stdout", flush=True)
        os.write(1, b"noise from C")
        job.send(argument.encode())
    elif order == "fail":
        raise EngineFault("will not")
    elif order == "die":
        os.kill(os.getpid(), 11)
    elif order == "die-once":
        if not Path(argument).exists():
            Path(argument).touch()
            os._exit(1)
        job.send(b"second try")
    elif order == "begin-and-die":
        job.send(b"first piece")
        os._exit(1)
    elif order == "obey":
        job.send(b"at it")
        while not job.cancelled():
            time.sleep(0.005)
        Path(argument).touch()
    elif order == "hang":
        job.send(b"at it")
        time.sleep(1000)
    elif order == "pieces":
        for number in range(int(argument)):
            job.send(str(number).encode())


def load() -> Answer:
    return answer


if __name__ == "__main__":
    serve(load)
