"""A server that records, with an agent on fakes: ``records_program.py DIRECTORY``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio
from records_house import settings

from voicecore.call.call import Call
from voicecore.server.lifecycle import run_until_signalled
from voicecore.server.serve import Server, serve
from voicecore.testing import fake_agent


async def answer(call: Call) -> None:
    await call.converse(fake_agent(greeting="one two three four five six seven eight."))


def ready(server: Server) -> None:
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = settings(Path(sys.argv[1]))
    trio.run(run_until_signalled, partial(serve, answer, given), ready)
