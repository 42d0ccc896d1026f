"""Several worker processes on one port, and the supervisor that keeps them running.

Each worker is this same program with ``--worker``, listening with SO_REUSEPORT: the kernel spreads
the connections.  Workers share a ledger (`ledger`) in a file without a name, and hold the reading
end of a pipe whose closing tells them that the supervisor is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from .ledger import Ledger, ledger_bytes
from .port.listening import listen

log = logging.getLogger("voicecore.server")

METERS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client lets workers see each other's figures; set before they load it."""

RESTART_S = 1.0
"""The least time from a worker's start to its successor's."""

SETTLED_S = 5.0
"""A worker that lives shorter than this, `FAILURES` times in a row, will not do better."""
FAILURES = 5


@dataclass(frozen=True, slots=True)
class WorkerSeat:
    """One worker's place: its number, and what it inherits."""

    number: int
    workers: int
    ledger_fd: int
    lifeline_fd: int
    directory: str = ""
    """What the workers share besides (see `store`), made and removed by the supervisor."""

    def flag(self) -> str:
        """Write the seat as the value of ``--worker``."""
        numbers = f"{self.number}:{self.workers}:{self.ledger_fd}:{self.lifeline_fd}"
        return f"{numbers}:{self.directory}"

    @classmethod
    def parse(cls, flag: str) -> WorkerSeat:
        """Read what `flag` wrote."""
        number, workers, ledger_fd, lifeline_fd, directory = flag.split(":", 4)
        return cls(int(number), int(workers), int(ledger_fd), int(lifeline_fd), directory)

    def ledger(self) -> Ledger:
        """Open this worker's section of the ledger."""
        return Ledger(self.number, self.workers, self.ledger_fd)


class Supervisor:
    """Runs `workers` copies of `command` until a signal, or until they fail for good."""

    def __init__(self, command: Sequence[str], workers: int) -> None:
        self._command = list(command)
        self._workers = workers
        self._running: dict[int, trio.Process] = {}
        self._leaving = trio.Event()
        self._status = 0

    async def run(self, host: str, port: int) -> int:
        """Supervise; return the exit status.

        Raises:
            CannotListen: the port is taken.
        """
        # Without SO_REUSEPORT: another program's workers on our port would go unnoticed.
        listeners = await listen(host, port, share=False)
        chosen = listeners[0].socket.getsockname()[1]
        for listener in listeners:
            listener.socket.close()
        with ExitStack() as shared:
            ledger = shared.enter_context(tempfile.TemporaryFile())
            meters, directory = (
                shared.enter_context(tempfile.TemporaryDirectory(prefix="voicecore-"))
                for _ in range(2)
            )
            os.environ[METERS_DIRECTORY] = meters
            ledger.truncate(ledger_bytes(self._workers))
            reading, writing = os.pipe()
            try:
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._forward, signals, name="signals")
                        async with trio.open_nursery() as keepers:
                            for number in range(self._workers):
                                inherited = (ledger.fileno(), reading, directory)
                                seat = WorkerSeat(number, self._workers, *inherited)
                                keepers.start_soon(
                                    self._keep, seat, chosen, name=f"worker {number}"
                                )
                        nursery.cancel_scope.cancel()
            finally:
                os.close(reading)
                os.close(writing)
        return self._status

    async def _keep(self, seat: WorkerSeat, port: int) -> None:
        failures = 0
        while not self._leaving.is_set():
            began = trio.current_time()
            # A session of its own: the terminal's Ctrl-C is for the supervisor, who passes it on.
            process = self._running[seat.number] = await trio.lowlevel.open_process(
                [*self._command, "--port", str(port), "--worker", seat.flag()],
                pass_fds=(seat.ledger_fd, seat.lifeline_fd),
                start_new_session=True,
            )
            if self._leaving.is_set():
                process.terminate()  # the signal came while it started, and went by it
            status = await process.wait()
            del self._running[seat.number]
            _forget_gauges(process.pid)
            if self._leaving.is_set():
                # Killed by the signal: it had not yet come to listen to signals.
                if status not in (0, -signal.SIGTERM, -signal.SIGINT):
                    self._status = 1
                return
            lived = trio.current_time() - began
            failures = failures + 1 if lived < SETTLED_S else 1
            log.error(
                "worker died",
                extra={"fields": {"worker": seat.number, "status": status, "lived_s": lived}},
            )
            if failures >= FAILURES or status == 2:
                self._give_up(status)
                return
            await trio.sleep(max(0.0, RESTART_S - lived))

    async def _forward(self, signals: object) -> None:
        async for number in signals:  # type: ignore[attr-defined]
            self._leaving.set()
            self._signal(number)

    def _give_up(self, status: int) -> None:
        self._leaving.set()
        self._status = status if status == 2 else 1
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for process in self._running.values():
            process.send_signal(number)


def _forget_gauges(pid: int) -> None:
    """A dead worker's calls are up no more."""
    for path in Path(os.environ[METERS_DIRECTORY]).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def supervise(host: str, port: int, workers: int, arguments: Sequence[str]) -> int:
    """Run workers of this very program with `arguments`; return the exit status."""
    command = [sys.executable, os.path.abspath(sys.argv[0]), *arguments]
    return trio.run(Supervisor(command, workers).run, host, port)
