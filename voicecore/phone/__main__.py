"""``python -m voicecore.phone URL``: the command line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio
from rich.console import Console

from ..errors import CannotListen, SettingsError
from . import http, report
from .account import Account, CallOrder, RestError
from .call import Call, Number
from .handset import Callee, Conditions
from .microphone import Microphone
from .options import PROGRAM, parser
from .rest import RestApi
from .script import Manners, Script, Voice
from .verbs import StatusCallback

__all__ = ["main", "parser"]

SPREAD_S = 0.02
"""Calls begin so far apart, as they would; it also keeps their 20 ms ticks out of step."""

MACHINE_S = 3.0
"""An answering machine hangs up when it has heard nothing for so long."""

LINGER_S = 0.6
"""How long recordings can still be fetched when the last call is over."""


@dataclass(slots=True)
class Exchange:
    """The calls of one run, and the account that they belong to."""

    options: argparse.Namespace
    microphone: Microphone | None
    account: Account
    calls: list[Call] = field(default_factory=list)
    complete: trio.Event = field(default_factory=trio.Event)
    """Whether no further call will come."""

    def add(self, order: CallOrder | None = None) -> Call:
        """Prepare the next call.

        Raises:
            RestError: there are as many as wanted.
        """
        number = len(self.calls)
        if self.complete.is_set():
            raise RestError(400, 21219, f"This phone takes {number} calls, and has them")
        call = _call(self.options, number, self.microphone, self.account, order)
        self.account.add(call)
        self.calls.append(call)
        if len(self.calls) == self.options.calls:
            self.complete.set()
        return call


def main(argv: list[str] | None = None) -> int:
    """Place the calls, or be called, and return the exit status."""
    grammar = parser()
    options = grammar.parse_args(argv)
    if options.mic and (options.say or options.calls > 1):
        grammar.error("--mic is one person: it goes with neither --say nor --calls")
    if options.url is None and not options.callee:
        grammar.error("a URL to call is missing; --callee waits to be called")
    console = Console()
    with ExitStack() as devices:
        try:
            microphone = devices.enter_context(Microphone()) if options.mic else None
        except SettingsError as error:
            grammar.error(str(error))
        account = Account(token=_token(options), recording_delay_s=options.recording_delay / 1000)
        exchange = Exchange(options, microphone, account)
        try:
            trio.run(_run, exchange, console)
        except CannotListen as error:
            print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201 - this is a command line
            return 1
    return _finish(options, exchange.calls, console)


async def _run(exchange: Exchange, console: Console) -> None:
    """Serve the account's REST API, and beside it have the calls."""
    options, account = exchange.options, exchange.account
    listeners = await http.listen(options.rest_port or 0)
    account.base_url = http.address(listeners)
    if options.rest_port is not None or options.callee:
        where = f"TWILIO_BASE_URL={account.base_url} TWILIO_ACCOUNT_SID={account.sid}"
        console.print(f"the REST API: {where}", markup=False, highlight=False, soft_wrap=True)
    async with trio.open_nursery() as service:
        service.start_soon(http.serve, RestApi(account, trio.current_time).answer, listeners)
        async with trio.open_nursery() as progress:
            progress.start_soon(report.show_progress, exchange.calls, console)
            await progress.start(_hang_up_on_interrupt, exchange)
            await _have_calls(exchange)
            progress.cancel_scope.cancel()
        if any(call.taken for call in exchange.calls):
            await trio.sleep(account.recording_delay_s + LINGER_S)
        service.cancel_scope.cancel()


async def _have_calls(exchange: Exchange) -> None:
    tls = ssl.create_default_context()
    async with trio.open_nursery() as nursery:
        if exchange.options.callee:

            def take(order: CallOrder) -> Call:
                call = exchange.add(order)
                nursery.start_soon(call.place, tls)
                return call

            exchange.account.place = take
            await exchange.complete.wait()
            return
        for _ in range(exchange.options.calls):
            nursery.start_soon(exchange.add().place, tls)
            await trio.sleep(SPREAD_S if exchange.options.calls > 1 else 0)


async def _hang_up_on_interrupt(
    exchange: Exchange, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Ctrl-C hangs up, so that the server sees `stop` and the recording is whole."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            exchange.complete.set()
            for call in exchange.calls:
                call.hang_up()


def _token(options: argparse.Namespace) -> str | None:
    return options.auth_token or os.environ.get("TWILIO_AUTH_TOKEN") or None


def _call(
    options: argparse.Namespace,
    number: int,
    microphone: Microphone | None,
    account: Account,
    order: CallOrder | None,
) -> Call:
    # A machine records until the other side hangs up, or says nothing any more.
    lingers_s = MACHINE_S if options.answered_by.startswith("machine") else 0.0
    manners = Manners(options.greeting_wait, options.patience, options.interrupt_at, lingers_s)
    voice: Voice = Script(options.say, manners) if microphone is None else microphone
    conditions = Conditions(
        max_s=options.max,
        keys=options.dtmf,
        jitter_s=options.jitter / 1000,
        stalls=options.stall,
        chance=Random(options.seed + number),
        dial_status=options.dial_status,
        callee=Callee(options.ring, options.callee_status, options.answered_by),
    )
    callback = options.status_callback and StatusCallback(options.status_callback)
    whom = Number(
        url=options.url or "",
        token=_token(options),
        public_url=options.public_url and options.public_url.rstrip("/"),
        caller=options.caller,
        called=options.called,
        parameters=dict(options.parameter),
        callback=callback,
    )
    record: Path | None = options.record
    if record is not None and options.calls > 1:
        record = record.with_stem(f"{record.stem}-{number + 1}")
    ears = [] if microphone is None else [microphone]
    whom = whom if order is None else whom.ordered(order)
    return Call(whom, voice, conditions, ears, record, account)


def _finish(options: argparse.Namespace, calls: list[Call], console: Console) -> int:
    files = len(options.say)
    reason = report.never_connected(calls) if calls else "nobody called"
    if reason is not None:
        print(f"{PROGRAM}: {reason}", file=sys.stderr)  # noqa: T201 - this is a command line
    elif len(calls) == 1:
        report.print_call(calls[0], console)
    else:
        report.print_summary(calls, files, console)
    measured = report.as_json(calls, files)
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(measured, indent=2) + "\n")
        except OSError as error:
            console.print(f"cannot write {options.json}: {error.strerror}", markup=False)
            return 1
    return 0 if measured["ok"] and calls else 1


if __name__ == "__main__":
    sys.exit(main())
