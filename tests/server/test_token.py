"""One-time tokens, and the memory that the workers share."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from voicecore.server.ledger import Ledger, ledger_bytes
from voicecore.server.port.limits import LEDGER_RECORDS, TOKEN_S
from voicecore.twilio.token import StreamTokens

ROOT = Path(__file__).parents[2]
NOW = 1_790_000_000.5


def tokens(ledger: Ledger, secret: str = "secret") -> StreamTokens:
    return StreamTokens(secret, ledger, TOKEN_S)


def test_a_token_is_good_once_for_its_call_for_a_minute() -> None:
    machine = tokens(Ledger())
    assert not machine.redeem(machine.issue("CA1", NOW), "CA2", NOW)
    assert not machine.redeem(machine.issue("CA1", NOW), "CA1", NOW + TOKEN_S)
    token = machine.issue("CA1", NOW)
    assert machine.redeem(token, "CA1", NOW + TOKEN_S - 1)
    assert not machine.redeem(token, "CA1", NOW + TOKEN_S - 1)


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "ÿ.ÿ.ÿ", "\udcff", "z" * 10_000])
def test_what_we_did_not_issue_is_no_token(token: str) -> None:
    assert not tokens(Ledger()).redeem(token, "CA1", NOW)


def test_an_expiry_cannot_be_changed_nor_another_secret_used() -> None:
    ledger = Ledger()
    expiry, nonce, mac = tokens(ledger).issue("CA1", NOW).split(".")
    later = f"{int(expiry, 16) + 60:x}.{nonce}.{mac}"
    assert not tokens(ledger).redeem(later, "CA1", NOW)
    assert not tokens(ledger, "other").redeem(f"{expiry}.{nonce}.{mac}", "CA1", NOW)


def test_workers_accept_each_others_tokens_once() -> None:
    with tempfile.TemporaryFile() as shared:
        shared.truncate(ledger_bytes(2))
        ledgers = [Ledger(number, 2, shared.fileno()) for number in range(2)]
        first, second = (tokens(ledger) for ledger in ledgers)
        token = first.issue("CA1", NOW)
        assert second.redeem(token, "CA1", NOW)
        assert not first.redeem(token, "CA1", NOW)
        ledgers[0].note_ending("CA1", "agent")
        assert ledgers[1].ending("CA1") == "agent"
        for ledger in ledgers:
            ledger.call_began()
        assert [ledger.calls for ledger in ledgers] == [2, 2]
        # A worker that died is replaced, and its calls are gone.
        assert Ledger(0, 2, shared.fileno()).calls == 1


FIRST_USE = """
import sys
from voicecore.server.ledger import Ledger
print(Ledger(1, 2, int(sys.argv[1])).first_use("token"), flush=True)
"""


def test_a_token_is_looked_up_and_noted_in_one_step() -> None:
    """Another worker that is just doing so is waited for."""
    with tempfile.TemporaryFile() as shared:
        shared.truncate(ledger_bytes(2))
        ours = Ledger(0, 2, shared.fileno())
        fcntl.lockf(shared, fcntl.LOCK_EX)
        command = [sys.executable, "-c", FIRST_USE, str(shared.fileno())]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, pass_fds=[shared.fileno()], cwd=ROOT
        ) as other:
            try:
                while not waits_for_a_lock(other.pid):
                    assert other.poll() is None, "it did not wait"
                assert ours.first_use("token")  # ends our turn, too
                answer, _ = other.communicate(timeout=40)
            finally:
                other.kill()
        assert answer == b"False\n"


def waits_for_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(pid) in line.split() for line in lines)


def test_the_ledger_forgets_the_oldest_first() -> None:
    ledger = Ledger()
    for number in range(LEDGER_RECORDS):
        ledger.note_ending(f"CA{number}", "agent")
    assert ledger.ending("CA0") == "agent"
    ledger.note_ending("CA-one-more", "caller")
    assert ledger.ending("CA0") == ""
    assert ledger.ending("CA1") == "agent"
    assert ledger.ending("CA-one-more") == "caller"


def test_the_latest_ending_of_a_call_counts() -> None:
    ledger = Ledger()
    for ended_by in ("server", "agent"):
        ledger.note_ending("CA1", ended_by)
    assert ledger.ending("CA1") == "agent"
