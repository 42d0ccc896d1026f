"""What a connection to a vendor costs, and what a cancelled answer costs: spares against HTTP/2.

    python bench/connections.py

A server (hypercorn, TLS 1.3, a certificate of an authority made for the occasion) streams speech as
a vendor does, 20 ms at a time, behind a relay that holds all bytes for half a round trip each way,
and the first of a connection for one round trip more: TCP's own handshake.  Everything is one
process on 127.0.0.1, so the CPU time of both ends is in the figures, as it is in a vendor's.
"""

from __future__ import annotations

import math
import ssl
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import hypercorn.config
import hypercorn.trio
import report
import trio
import trustme
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenario import ROOT

sys.path.insert(0, str(ROOT))

from voicecore.providers import connections
from voicecore.providers.http import Api, Deadlines, open_client

CHUNK_BYTES, CHUNK_S = 160, 0.02
ANSWER_S = 1.5
HEARD_S = 0.2
"""How much of an answer is heard before it is cancelled."""

THINK_S = 0.3
"""From the cancel to the next request: the caller's sentence is longer, a false start is not."""

DEADLINES = Deadlines(first_byte=10, idle=5, total=30)

FRESH, KEPT, SPARE = "a new connection", "an idle connection", "a spare connection"
BARE = "after a cancelled answer: HTTP/1.1"
SPARED = "after a cancelled answer: HTTP/1.1 with spares"
SECOND = "after a cancelled answer: HTTP/2"

First = Callable[[], Awaitable[float]]


@dataclass
class Answer:
    """One answer as the server saw it: when each chunk was sent."""

    sent: list[float] = field(default_factory=list)
    over: trio.Event = field(default_factory=trio.Event)


class Vendor:
    """The server, as an ASGI application; `answers` is its log."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Be the application."""
        if scope["type"] == "lifespan":
            while (step := (await receive())["type"]) != "lifespan.shutdown":
                await send({"type": f"{step}.complete"})
            await send({"type": f"{step}.complete"})
            return
        seconds = float(parse_qs(scope["query_string"].decode())["seconds"][0])
        while (await receive()).get("more_body"):
            pass
        answer = Answer()
        self.answers.append(answer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._notice, receive, nursery.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(math.ceil(seconds / CHUNK_S)):
                chunk = {"type": "http.response.body", "body": bytes(CHUNK_BYTES)}
                answer.sent.append(trio.current_time())
                await send({**chunk, "more_body": True})
                await trio.sleep(CHUNK_S)
            await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()
        answer.over.set()

    async def _notice(self, receive: Any, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


async def relay(port: int, rtt_s: float, near: trio.SocketStream) -> None:
    """Carry one connection to the server, each way half a round trip late."""
    async with near, await trio.open_tcp_stream("127.0.0.1", port) as far:
        async with trio.open_nursery() as nursery:
            for source, sink, setup_s in ((near, far, rtt_s), (far, near, 0.0)):
                held = trio.open_memory_channel[tuple[float, bytes]](math.inf)
                nursery.start_soon(_take, source, held[0], rtt_s / 2, setup_s)
                nursery.start_soon(_give, sink, held[1], nursery.cancel_scope)


async def _take(
    source: trio.SocketStream,
    held: trio.MemorySendChannel[tuple[float, bytes]],
    late_s: float,
    setup_s: float,
) -> None:
    up = trio.current_time() + setup_s
    try:
        async for data in source:
            held.send_nowait((max(up, trio.current_time()) + late_s, bytes(data)))
    except trio.BrokenResourceError:
        pass
    held.send_nowait((trio.current_time() + late_s, b""))


async def _give(
    sink: trio.SocketStream,
    held: trio.MemoryReceiveChannel[tuple[float, bytes]],
    scope: trio.CancelScope,
) -> None:
    async for due, data in held:
        await trio.sleep_until(due)
        if not data:
            scope.cancel()
            return
        try:
            await sink.send_all(data)
        except trio.BrokenResourceError:
            return


@asynccontextmanager
async def vendor_at(rtt_s: float, authority: trustme.CA) -> AsyncIterator[tuple[Vendor, str]]:
    """Run the server and its relay; give the relay's URL."""
    vendor, config = Vendor(), hypercorn.config.Config()
    config.bind, config.loglevel = ["127.0.0.1:0"], "error"
    config.accesslog = config.errorlog = None
    with tempfile.TemporaryDirectory() as folder:
        certificate = authority.issue_cert("localhost")
        config.certfile, config.keyfile = f"{folder}/cert", f"{folder}/key"
        certificate.cert_chain_pems[0].write_to_path(config.certfile)
        certificate.private_key_pem.write_to_path(config.keyfile)
        async with trio.open_nursery() as nursery:
            [bound] = await nursery.start(hypercorn.trio.serve, vendor, config)
            port = int(bound.rpartition(":")[2])
            serve = partial(trio.serve_tcp, partial(relay, port, rtt_s), 0, host="127.0.0.1")
            [listener] = await nursery.start(serve)
            yield vendor, f"https://localhost:{listener.socket.getsockname()[1]}"
            nursery.cancel_scope.cancel()


class Bench:
    """Asks for speech in every way, and times the first byte."""

    def __init__(self, vendor: Vendor, url: str, authority: trustme.CA) -> None:
        self.vendor, self.url = vendor, url
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        self.first_ms: dict[str, list[float]] = {}
        self.waste_ms: dict[str, list[float]] = {}
        self.stopped: dict[str, int] = {}

    def note(self, name: str, seconds: float) -> None:
        """Keep one time to the first byte."""
        self.first_ms.setdefault(name, []).append(seconds * 1000)

    async def connect(self) -> None:
        """Ask on connections that were never used, warm or not, and on one that was."""
        async with open_client(self.url, tls=self.tls) as client:
            api = Api("vendor", client)
            self.note(FRESH, await first_byte(api, CHUNK_S))
            self.note(KEPT, await first_byte(api, CHUNK_S))
        async with open_client(self.url, tls=self.tls) as client:
            api = Api("vendor", client)
            await api.warm_up()
            self.note(SPARE, await first_byte(api, CHUNK_S))

    async def interrupt_http1(self, name: str, spares: int) -> None:
        """Cancel an answer, and ask again a moment later, with so many spares."""
        before, connections.SPARES = connections.SPARES, spares
        try:
            async with open_client(self.url, tls=self.tls) as client:
                api = Api("vendor", client)
                with trio.move_on_after(HEARD_S):
                    async with api.post(f"?seconds={ANSWER_S}", DEADLINES) as body:
                        async for _ in body:
                            pass
                await self.cancelled(name)
                self.note(name, await first_byte(api, CHUNK_S))
        finally:
            connections.SPARES = before

    async def interrupt_http2(self) -> None:
        """Do the same by HTTP/2."""
        client = httpx.AsyncClient(
            http2=True, verify=self.tls, base_url=self.url, timeout=10, trust_env=False
        )
        async with client:
            with trio.move_on_after(HEARD_S):
                async with client.stream("POST", f"?seconds={ANSWER_S}") as answer:
                    assert answer.http_version == "HTTP/2"
                    async for _ in answer.aiter_raw():
                        pass
            await self.cancelled(SECOND)
            began = trio.current_time()
            async with client.stream("POST", f"?seconds={CHUNK_S}") as answer:
                pieces = answer.aiter_raw()
                await anext(pieces)
                self.note(SECOND, trio.current_time() - began)
                async for _ in pieces:
                    pass
            with trio.fail_after(10):
                await self.vendor.answers[-2].over.wait()
            self._settle(SECOND, self.vendor.answers[-2])

    async def cancelled(self, name: str) -> None:
        """Let the moment pass; see what the server did with it."""
        self._cancelled_at = trio.current_time()
        answer = self.vendor.answers[-1]
        await trio.sleep(THINK_S)
        if name != SECOND:
            with trio.fail_after(10):
                await answer.over.wait()
            self._settle(name, answer)

    def _settle(self, name: str, answer: Answer) -> None:
        late = [at for at in answer.sent if at > self._cancelled_at]
        self.waste_ms.setdefault(name, []).append(len(late) * CHUNK_S * 1000)
        stopped = len(answer.sent) < math.ceil(ANSWER_S / CHUNK_S)
        self.stopped[name] = self.stopped.get(name, 0) + stopped


async def first_byte(api: Api, seconds: float) -> float:
    """Ask for so much speech, and hear it to its end; return the time to the first byte."""
    began = trio.current_time()
    async with api.post(f"?seconds={seconds}", DEADLINES) as body:
        took = trio.current_time() - began
        async for _ in body:
            pass
    return took


def distribution(values: list[float]) -> dict[str, float]:
    """Return what the table shows of some milliseconds."""
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "min": ordered[0],
        "p50": statistics.median(ordered),
        "p90": ordered[math.ceil(0.9 * len(ordered)) - 1],
        "max": ordered[-1],
    }


def tables_of(result: dict[str, Any]) -> list[Table]:
    """Return the two tables: times to the first byte, and what a cancel leaves running."""
    first = Table(
        title=f"Request to first byte, ms; round trip {result['rtt_ms']:g} ms", title_justify="left"
    )
    first.add_column("on")
    for heading in ("n", "min", "p50", "p90", "max"):
        first.add_column(heading, justify="right")
    for name, row in result["first_byte_ms"].items():
        cells = (report.number(row[key]) for key in ("min", "p50", "p90", "max"))
        first.add_row(name, str(row["n"]), *cells)
    waste = Table(
        title=f"After the cancel of {ANSWER_S:g} s of speech at {HEARD_S:g} s", title_justify="left"
    )
    waste.add_column("")
    for heading in ("n", "server stopped", "ms of speech made for nobody, p50", "max"):
        waste.add_column(heading, justify="right")
    for name, row in result["waste_ms"].items():
        stopped = f"{result['stopped'][name]} of {row['n']}"
        waste.add_row(name, str(row["n"]), stopped, *map(report.number, (row["p50"], row["max"])))
    return [first, waste]


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw every request as a point."""
    pyplot = report.pyplot()
    drawing, axis = pyplot.subplots(figsize=(9, 3))
    for at, values in enumerate(result["runs"].values()):
        axis.plot(values, [at] * len(values), "|", markersize=14)
    axis.set_yticks(range(len(result["runs"])), list(result["runs"]))
    axis.set(xlabel="request to first byte, ms", xlim=(0, None))
    axis.margins(y=0.15)
    axis.invert_yaxis()
    drawing.tight_layout()
    drawing.savefig(path, dpi=110)
    pyplot.close(drawing)


async def measure(console: Console, runs: int, rtt_ms: float) -> dict[str, Any]:
    """Ask `runs` times in every way, the ways in turn."""
    authority = trustme.CA()
    async with vendor_at(rtt_ms / 1000, authority) as (vendor, url):
        bench = Bench(vendor, url, authority)
        for _ in track(range(runs), "rounds", console=console, transient=True):
            await bench.connect()
            await bench.interrupt_http1(BARE, 0)
            await bench.interrupt_http1(SPARED, 2)
            await bench.interrupt_http2()
    return {
        "rtt_ms": rtt_ms,
        "first_byte_ms": {name: distribution(rows) for name, rows in bench.first_ms.items()},
        "waste_ms": {name: distribution(rows) for name, rows in bench.waste_ms.items()},
        "stopped": bench.stopped,
        "runs": bench.first_ms,
    }


def main() -> int:
    """Run the bench and write its results."""
    parser = report.options(__doc__ or "", "connections")
    parser.add_argument("--runs", type=int, default=25, help="rounds of all ways (25)")
    parser.add_argument("--rtt-ms", type=float, default=30, help="round trip (30)")
    options = parser.parse_args()
    if not (1 <= options.runs <= 1000 and 0 <= options.rtt_ms <= 500):
        parser.error("--runs: 1 to 1000; --rtt-ms: 0 to 500")
    console = Console(record=True, width=110)
    machine = report.machine()
    console.print(report.machine_line(machine))
    runs = 1 if options.quick else options.runs
    try:
        result = trio.run(measure, console, runs, options.rtt_ms)
    except KeyboardInterrupt:
        console.print("interrupted; nothing is written")
        return 130
    for table in tables_of(result):
        console.print(table)
    written = report.write(console, options.out, "connections", {"machine": machine, **result})
    plot(result, written)
    console.print(f"written: {options.out / 'connections'}.json, .txt, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
