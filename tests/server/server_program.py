"""A program around the test server: ``server_program.py PORT DRAIN_S``."""

from __future__ import annotations

import sys
from functools import partial

import trio
from server_house import echo, settings

from voicecore.server.lifecycle import run_until_signalled
from voicecore.server.serve import Server, serve_lines


def ready(server: Server) -> None:
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = settings(port=int(sys.argv[1]), drain_s=float(sys.argv[2]))
    trio.run(run_until_signalled, partial(serve_lines, echo, given), ready)
