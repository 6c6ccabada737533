"""When an endpoint is left alone, and for how long."""

from __future__ import annotations

import pytest
from ratchet.core.breaker import LONGEST_OPEN_S, Breaker, BreakerState, Pause
from ratchet.core.replies import FailureKind

from tests.unit.gate.tickets import failure

RETRY = failure(FailureKind.RETRY)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for key in range(5):
        assert breaker.state(at) is BreakerState.CLOSED
        breaker = breaker.failed(key, RETRY, at, 5, 30)
    return breaker


def test_it_opens_after_five_failures_in_a_row_and_lets_one_through_after_a_while() -> None:
    breaker = opened()
    assert breaker.state(29.9) is BreakerState.OPEN and not breaker.lets_in(29.9)
    assert breaker.state(30) is BreakerState.HALF_OPEN and breaker.lets_in(30)
    breaker = breaker.sent(7, 30)
    assert breaker.state(1000) is BreakerState.HALF_OPEN and not breaker.lets_in(1000)


def test_each_failed_trial_doubles_the_time_up_to_five_minutes() -> None:
    breaker, now, times = opened(), 30.0, []
    for key in range(10, 30):
        breaker = breaker.sent(key, now).failed(key, RETRY, now, 5, 30)
        times.append(breaker.until - now)
        now = breaker.until
    assert times[:4] == [60, 120, 240, 300] and set(times[4:]) == {LONGEST_OPEN_S}


def test_an_open_time_longer_than_five_minutes_is_kept_and_not_doubled() -> None:
    breaker = Breaker().failed(1, RETRY, 0, 1, 600)
    assert breaker.until == 600
    assert breaker.sent(2, 600).failed(2, RETRY, 600, 1, 600).until == 1200


def test_a_refusal_of_everybody_opens_it_at_once() -> None:
    breaker = Breaker().failed(1, failure(FailureKind.CONFIGURATION), 0, 5, 30)
    assert breaker.state(0) is BreakerState.OPEN
    assert breaker.message == "It failed: Configuration."


@pytest.mark.parametrize(
    "kind", [FailureKind.WAIT, FailureKind.CONTEXT, FailureKind.REQUEST], ids=str
)
def test_a_full_server_and_a_refused_request_are_no_failures_of_the_endpoint(
    kind: FailureKind,
) -> None:
    breaker = Breaker()
    for key in range(20):
        breaker = breaker.failed(key, failure(kind), 0, 5, 30)
    assert breaker == Breaker()


@pytest.mark.parametrize("kind", [FailureKind.WAIT, FailureKind.REQUEST], ids=str)
def test_a_trial_that_tells_nothing_lets_the_next_one_through(kind: FailureKind) -> None:
    breaker = opened().sent(7, 30).failed(7, failure(kind), 31, 5, 30)
    assert breaker.state(31) is BreakerState.HALF_OPEN and breaker.lets_in(31)


def test_what_was_sent_before_it_opened_does_not_make_the_time_longer() -> None:
    breaker = opened()
    assert breaker.failed(99, RETRY, 10, 5, 30) == breaker
    trial = breaker.sent(7, 30)
    assert trial.failed(99, RETRY, 31, 5, 30) == trial


def test_pauses_double_until_a_request_succeeds() -> None:
    pause, now, lengths = Pause(), 0.0, []
    for _ in range(7):
        pause = pause.full(now, now, None)
        lengths.append(pause.until - now)
        now = pause.until
    assert lengths == [1, 2, 4, 8, 16, 30, 30]
    assert pause.succeeded().full(now, now, None).until == now + 1


def test_the_server_may_say_how_long_the_pause_is() -> None:
    assert Pause().full(0, 0, 17).until == 17


def test_answers_to_requests_of_the_same_rush_are_one_pause() -> None:
    pause = Pause().full(0, 5, None)
    for _ in range(8):
        pause = pause.full(1, 5.5, None)
    assert (pause.until, pause.seconds) == (6, 1)
    assert pause.full(1, 5.6, 10).until == 15.6
