"""The circuit breaker: a pure machine, so its time is a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecore.providers.breaker import FAILURES, OPEN_S, WINDOW_S, Attempt, Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState


def begun(breaker: Breaker, now: float) -> Attempt:
    attempt = breaker.attempt(now)
    assert attempt is not None
    return attempt


def tripped(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        begun(breaker, now).fail(now)
    assert breaker.state is OPEN
    return breaker


def test_the_numbers() -> None:
    assert (FAILURES, WINDOW_S, OPEN_S) == (5, 30, 10)


def test_the_fifth_failure_within_half_a_minute_opens_it() -> None:
    breaker = Breaker()
    for now in (0, 7.5, 15, 22.5):
        begun(breaker, now).fail(now)
        assert breaker.state is CLOSED
    begun(breaker, 30).fail(30)
    assert breaker.state is OPEN
    assert breaker.attempt(39.99) is None


def test_five_failures_over_a_longer_time_do_not() -> None:
    breaker = Breaker()
    for failure in range(50):
        begun(breaker, failure * 7.6).fail(failure * 7.6)
    assert breaker.state is CLOSED


def test_a_success_between_them_forgives() -> None:
    breaker = Breaker()
    for now in range(100):
        attempt = begun(breaker, now / 10)
        if now % FAILURES == 0:
            attempt.succeed()
        else:
            attempt.fail(now / 10)
    assert breaker.state is CLOSED


def test_what_began_well_and_broke_off_is_a_failure() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        attempt = begun(breaker, 0)
        attempt.give()
        attempt.fail(0)
        attempt.leave()
    assert breaker.state is OPEN


def test_what_was_cancelled_counts_as_nothing() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        begun(breaker, 0).fail(0)
    for _ in range(20):
        begun(breaker, 1).leave()
        assert breaker.state is CLOSED
    begun(breaker, 1).fail(1)
    assert breaker.state is OPEN


def test_an_attempt_counts_once() -> None:
    breaker = Breaker()
    attempt = begun(breaker, 0)
    for _ in range(20):
        attempt.fail(0)
    assert breaker.state is CLOSED
    attempt.leave()
    attempt.fail(0)
    assert breaker.state is CLOSED


def test_one_probe_at_a_time_and_its_first_word_closes() -> None:
    breaker = tripped()
    probe = begun(breaker, OPEN_S)
    assert breaker.state is HALF_OPEN
    assert breaker.attempt(OPEN_S + 100) is None
    probe.give()
    assert breaker.state is CLOSED
    assert breaker.attempt(OPEN_S + 100) is not None
    probe.succeed()
    probe.leave()
    assert breaker.state is CLOSED


def test_a_probe_that_fails_opens_it_for_another_while() -> None:
    breaker = tripped()
    begun(breaker, 12).fail(15)
    assert breaker.state is OPEN
    assert breaker.attempt(24.99) is None
    assert begun(breaker, 25)


def test_a_probe_that_is_cancelled_makes_room_for_the_next() -> None:
    breaker = tripped()
    begun(breaker, 12).leave()
    assert breaker.state is OPEN
    begun(breaker, 12).succeed()
    assert breaker.state is CLOSED


def test_after_a_good_probe_the_count_begins_anew() -> None:
    breaker = tripped()
    begun(breaker, OPEN_S).succeed()
    for _ in range(FAILURES - 1):
        begun(breaker, OPEN_S).fail(OPEN_S)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("late", ["fail", "succeed", "leave"])
@pytest.mark.parametrize("state", [OPEN, HALF_OPEN])
def test_who_was_asked_before_it_opened_changes_nothing(late: str, state: BreakerState) -> None:
    breaker = Breaker()
    old = begun(breaker, 0)
    for _ in range(FAILURES):
        begun(breaker, 0).fail(0)
    if state is HALF_OPEN:
        begun(breaker, OPEN_S)
    {"fail": lambda: old.fail(OPEN_S), "succeed": old.succeed, "leave": old.leave}[late]()
    assert breaker.state is state
    assert breaker.retry_at == OPEN_S


DOINGS = st.tuples(
    st.sampled_from(["ask", "give", "succeed", "fail", "leave", "wait"]), st.integers(0, 7)
)


@given(st.lists(DOINGS, max_size=120))
def test_whatever_happens_it_is_never_stuck(doings: list[tuple[str, int]]) -> None:
    breaker, now = Breaker(), 0.0
    running: list[Attempt] = []
    for what, number in doings:
        if what == "wait":
            now += number
        elif what == "ask":
            before = breaker.state
            attempt = breaker.attempt(now)
            if attempt is not None:
                running.append(attempt)
                assert before is CLOSED or (before is OPEN and now >= breaker.retry_at)
            else:
                assert before is HALF_OPEN or (before is OPEN and now < breaker.retry_at)
        elif running:
            attempt = running[number % len(running)]
            if what == "fail":
                attempt.fail(now)
            else:
                getattr(attempt, what)()
            if what != "give":
                running.remove(attempt)
    for attempt in running:
        attempt.leave()
    assert breaker.state is not HALF_OPEN
    begun(breaker, now + OPEN_S).succeed()
    assert breaker.state is CLOSED
