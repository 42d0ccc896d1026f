"""The program: settings → providers → agent → serve.

    python server.py                       answers calls, on embedded speech
    python server.py --check               shows what it would do, tries the providers, and exits
    python server.py --agent my.py:agent   answers with your agent

Exit status: 0 drained; 1 cannot listen, or a worker failed for good; 2 a bad setting.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":
    # Until there is a call to end, an interrupt may end us at once, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import importlib
import importlib.util
import logging
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import trio
from pydantic import SecretStr
from rich.box import ASCII
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voicecore.call.agent import Agent
from voicecore.call.agents import AgentPicker, picker_of, unknown_call
from voicecore.errors import CannotListen, SettingsError, leaves
from voicecore.records.records import check_directory
from voicecore.server.control.numbers import described, missing_for_rest
from voicecore.server.conversing import Handler
from voicecore.server.lifecycle import run_until_signalled
from voicecore.server.log import configure
from voicecore.server.serve import Server, serve
from voicecore.server.workers import WorkerSeat, supervise
from voicecore.settings import Settings, load, masked, variable_name

log = logging.getLogger("voicecore.server")

TABLE_COLUMNS = 110
LONG_SECRET = 24
"""Characters of what is a key and no password; vendors' keys have 32 and more."""


class _Arguments(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def arguments() -> argparse.ArgumentParser:
    """Make the command line.  Values are checked by the settings, which know what they take."""
    parser = _Arguments(prog="server.py", description="Answers phone calls with an AI agent.")
    parser.add_argument("--host", help="address to listen on (0.0.0.0)")
    parser.add_argument("--port", help="port to listen on (8000)")
    parser.add_argument("--workers", help="processes that share the port (1)")
    parser.add_argument("--agent", metavar="MODULE:ATTRIBUTE", help="who answers; or FILE.py:…")
    parser.add_argument("--log-format", metavar="text|json", help="form of the log (text)")
    parser.add_argument("--check", action="store_true", help="show what it would do, and exit")
    parser.add_argument("--worker", type=WorkerSeat.parse, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    flags = vars(arguments().parse_args(given))
    check, seat = flags.pop("check"), flags.pop("worker")
    try:
        settings = load(**flags)
        if check:
            return show(settings)
        configure(settings.log_format, log_text=settings.log_text)
        if settings.workers > 1 and seat is None:
            _warn_unsigned(settings)
            return supervise(settings.host, settings.port, settings.workers, given)
        trio.run(_answer_calls, settings, seat)
    except* SettingsError as group:
        return_status = _complain(group, 2)
    except* CannotListen as group:
        return_status = _complain(group, 1)
    except* KeyboardInterrupt:
        return_status = 130
    else:
        return_status = 0
    return return_status


async def _answer_calls(settings: Settings, seat: WorkerSeat | None) -> None:
    who = who_answers(settings) if settings.agent else Agent()
    await run_until_signalled(
        partial(serve, who, settings, seat=seat),
        partial(_announce, settings, seat),
        None if seat is None else seat.lifeline_fd,
    )


def attribute(reference: str) -> Any:
    """Import ``module:attribute`` or ``path.py:attribute``.

    Raises:
        SettingsError: there is no such thing, or importing it failed.
    """
    where, _, name = reference.rpartition(":")
    got = f"{variable_name('agent')}: got {reference!r}; "
    if not where or not name.isidentifier():
        raise SettingsError(f"{got}takes module:attribute or path.py:attribute")
    try:
        module = _module(where)
    except (ImportError, OSError, SyntaxError) as error:
        raise SettingsError(f"{got}{_first_line(error)}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  a stranger's module may raise anything
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {_first_line(error)}"
        raise SettingsError(f"{got}{what} ({Path(at.filename).name}:{at.lineno})") from None
    if not hasattr(module, name):
        raise SettingsError(f"{got}{where} has no {name}")
    return getattr(module, name)


NOBODY = (
    "is neither an Agent nor an async function of a call, nor a function that returns an Agent for"
    " a call's parameters"
)


def who_answers(settings: Settings) -> Agent | AgentPicker | Handler:
    """Import an agent, a function that picks one, or an async function that takes a call.

    Raises:
        SettingsError: it is neither, or `attribute` cannot have it.
    """
    reference = settings.agent or ""
    own = attribute(reference)
    got = f"{variable_name('agent')}: got {reference!r}; "
    name = reference.rpartition(":")[2]
    pick = None if isinstance(own, type) else picker_of(own)
    if pick is None and (isinstance(own, type) or not callable(own)):
        raise SettingsError(f"{got}{name} {NOBODY}")
    if pick is not None:
        try:
            chosen: object = pick(unknown_call(settings.language))
        except (Exception, SystemExit) as error:  # noqa: BLE001  a stranger's may raise anything
            what = f"{type(error).__name__}: {_first_line(error)}"
            raise SettingsError(f"{got}{name} picks nobody for an unknown call: {what}") from None
        if not isinstance(chosen, Agent):
            raise SettingsError(f"{got}{name} {NOBODY}")
    who: Agent | AgentPicker | Handler = own
    return who


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _module(where: str) -> ModuleType:
    if not where.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(where)
    spec = importlib.util.spec_from_file_location(Path(where).stem, where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # where types of its own are looked up
    spec.loader.exec_module(module)
    return module


def show(settings: Settings) -> int:
    """Print the effective settings, secrets masked, what each provider is, and if it answers.

    Raises:
        SettingsError: calls would not be answered as the settings say; a line for each reason.
    """
    for name, value in settings:
        if isinstance(value, SecretStr):
            shown = _masked_secret(value.get_secret_value())
        else:
            shown = "(none)" if value is None else masked(repr(value))
        _say(f"{variable_name(name)} = {shown}")
    for line in described(settings):
        _say(line)
    from voicecore.providers.table import describe

    check_directory(settings)
    own = _agents_settings(settings)
    providers = describe(own or settings)
    for info in providers:
        key = {None: "needs no key", True: "key is set", False: "key is missing"}[info.key]
        stage = f"{info.stage} fallback" if info.place else info.stage
        _say(f"{stage}: {info.name} ({info.what}), {info.model or 'default model'}, {key}")
    if missing_for_rest(settings):
        _say(
            "warning: the recording flow (/voice) fetches recordings without a password, and may be"
            " refused: TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN are not both set"
        )
    problems = [info.problem for info in providers if info.problem]
    if own is not None and (problems := problems or _reach(own)):
        raise SettingsError("\n".join(problems))
    return 0


def _agents_settings(settings: Settings) -> Settings | None:
    """Return the settings with what the agent of an unknown call brings itself.

    None: somebody answers who has providers of their own.
    """
    from voicecore.server.open_agents import needs_opening, wanted

    who = who_answers(settings) if settings.agent else Agent()
    pick = picker_of(who)
    if pick is None:
        return None
    agent = pick(unknown_call(settings.language))
    return settings.model_copy(update=wanted(agent)) if needs_opening(agent) else None


def _reach(settings: Settings) -> list[str]:
    """Ask each provider for something small, print what came, return what is wrong with that."""
    from voicecore.providers.reach import Reached, complaints, reach

    # What the providers have to say themselves would stand between the lines.
    logging.getLogger("voicecore").addHandler(logging.NullHandler())
    everybody = trio.run(reach, settings)
    table = Table("stage", "provider", "reachable", "authorised", "latency", "what came", box=ASCII)

    def row(reached: Reached) -> list[Text]:
        named, cells = reached.named, ["embedded", "-", "-"]
        if not reached.is_embedded:
            cells = ["yes" if reached.is_reachable else "no"]
            cells.append({True: "yes", False: "no", None: "unknown"}[reached.is_authorised])
            cells.append(f"{reached.latency_ms:.0f} ms" if reached.is_reachable else "-")
        came = reached.mistake or reached.failure or ("" if reached.is_embedded else "an answer")
        return [Text(str(cell)) for cell in (named.stage, named.name, *cells, came)]

    for reached in everybody:
        table.add_row(*row(reached))
    console = Console(width=TABLE_COLUMNS)
    with console.capture() as capture:
        console.print(table)
    _say(capture.get().rstrip())
    return complaints(everybody, settings)


def _masked_secret(secret: str) -> str:
    """Enough of a long key to tell it from another one, and nothing of a short password."""
    return f"…{secret[-4:]}" if len(secret) >= LONG_SECRET else "(set)"


def _announce(settings: Settings, seat: WorkerSeat | None, server: Server) -> None:
    if seat is not None:
        log.info("worker listening", extra={"fields": {"worker": seat.number}})
    if seat is None or seat.number == 0:
        if seat is None:
            _warn_unsigned(settings)
        here = f"http://{_reachable(server.addresses[0][0])}:{server.port}"
        public = settings.public_url or here
        _say(f"voicecore listens on {here}. Twilio's voice webhook: POST {public}/voice-stream.")
        if settings.carrier_secret is not None:
            _say(
                f"Other carriers' webhooks: {public}/voice-stream/NAME?secret=… (docs/carriers.md)."
            )
        _say(f"Try it: python -m voicecore.phone {here}/voice-stream")


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104  every address, so also this one
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _warn_unsigned(settings: Settings) -> None:
    if settings.twilio_auth_token is None and settings.carrier_secret is None:
        log.warning(
            "TWILIO_AUTH_TOKEN is not set: anybody who can reach this port can call your agent,"
            " and spend what your providers charge"
        )


def _complain(group: BaseExceptionGroup[Exception], status: int) -> int:
    for error in leaves(group):
        print(error, file=sys.stderr)
    return status


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        pass  # nobody reads us


if __name__ == "__main__":
    sys.exit(main())
