"""Where the next request goes after a failure: tables over endpoints and kinds of failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from ratchet.core.conditions import Reason
from ratchet.core.config import Config, ModelConfig
from ratchet.core.policy import Stop
from ratchet.core.replies import FailureKind as K
from ratchet.core.replies import ModelFailure
from ratchet.core.routing import FIRST, Route, away, failed, patience, told
from ratchet.fakes.clock import BEGIN

from tests.unit.core.world import configured

Step = tuple[K, int] | K
"""A failure, and how many seconds after the one before."""


def endpoints(*windows: int | None, give_up_s: float = 1800, attempts: int = 3) -> Config:
    """A task with so many endpoints: a, b, c..."""
    models = [
        ModelConfig(
            name, f"http://{name}/v1", "m",
            context_window=window, give_up_s=give_up_s, attempts=attempts,
        )
        for name, window in zip("abc", windows, strict=False)
    ]  # fmt: skip
    return replace(configured(), model=models[0], fallbacks=tuple(models[1:]))


ONE, TWO, THREE = endpoints(None), endpoints(None, None), endpoints(None, None, None)


def fail(kind: K, status: int | None = None, retry_after_s: float | None = None) -> ModelFailure:
    return ModelFailure(kind, f"It said {kind}.", status, retry_after_s)


def after(config: Config, *kinds: K, every_s: float = 1) -> Route | Stop:
    """The route after these failures, one after another."""
    route, at = FIRST, BEGIN
    for kind in kinds:
        found = failed(config, route, fail(kind), at, 0.0)
        if isinstance(found, Stop):
            return found
        route = found
        at = max(at + timedelta(seconds=every_s), route.until or at)
    return route


def seconds(until: datetime | None) -> float:
    assert until is not None
    return (until - BEGIN).total_seconds()


@pytest.mark.parametrize(
    ("config", "kinds", "index", "passes"),
    [
        (TWO, (K.RETRY,), 0, 0),
        (TWO, (K.RETRY,) * 2, 0, 0),
        (TWO, (K.RETRY,) * 3, 1, 0),
        (TWO, (K.RETRY,) * 5, 1, 0),
        (TWO, (K.RETRY,) * 6, 0, 1),
        (TWO, (K.RETRY,) * 9, 1, 1),
        (TWO, (K.WAIT,) * 2, 0, 0),
        (TWO, (K.WAIT,) * 3, 1, 0),
        (TWO, (K.WAIT,) * 6, 0, 1),
        (TWO, (K.WAIT, K.WAIT, K.RETRY, K.WAIT, K.WAIT), 0, 0),
        (TWO, (K.REQUEST,), 1, 0),
        (TWO, (K.CONFIGURATION,), 1, 0),
        (TWO, (K.CONFIGURATION, K.RETRY, K.RETRY, K.RETRY), 0, 1),
        (THREE, (K.CONFIGURATION, K.REQUEST), 2, 0),
        (ONE, (K.WAIT,) * 50, 0, 0),
        (ONE, (K.RETRY,) * 3, 0, 1),
    ],
)
def test_failures_lead_to_this_endpoint_in_this_pass(
    config: Config, kinds: tuple[K, ...], index: int, passes: int
) -> None:
    route = after(config, *kinds)
    assert isinstance(route, Route)
    assert (route.index, route.passes) == (index, passes)


@pytest.mark.parametrize(
    ("config", "kinds", "reason"),
    [
        (ONE, (K.REQUEST,), Reason.MODEL_REJECTED),
        (ONE, (K.CONFIGURATION,), Reason.MODEL_REJECTED),
        (ONE, (K.CONTEXT,), Reason.CONTEXT_FULL),
        (TWO, (K.REQUEST, K.CONFIGURATION), Reason.MODEL_REJECTED),
        (TWO, (K.REQUEST, K.CONTEXT), Reason.CONTEXT_FULL),
        (endpoints(None, give_up_s=0), (K.RETRY,) * 3, Reason.MODEL_UNREACHABLE),
        (endpoints(None, give_up_s=0, attempts=1), (K.RETRY,), Reason.MODEL_UNREACHABLE),
        (endpoints(None, None, give_up_s=0), (K.RETRY,) * 6, Reason.MODEL_UNREACHABLE),
        (endpoints(8000, 4000), (K.CONTEXT,), Reason.CONTEXT_FULL),
        (endpoints(8000, 4000, 8000), (K.CONTEXT,), Reason.CONTEXT_FULL),
    ],
)
def test_these_failures_end_the_task(config: Config, kinds: tuple[K, ...], reason: Reason) -> None:
    stop = after(config, *kinds)
    assert isinstance(stop, Stop) and stop.reason is reason


def test_a_task_without_patience_does_not_end_before_its_attempts() -> None:
    config = endpoints(None, None, give_up_s=0)
    assert isinstance(after(config, *[K.RETRY] * 5), Route)
    assert isinstance(after(config, *[K.WAIT] * 60), Route), "a full server is waited for"


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_says_so(status: int) -> None:
    stop = failed(ONE, FIRST, fail(K.CONFIGURATION, status), BEGIN, 0.0)
    assert isinstance(stop, Stop) and stop.reason is Reason.MODEL_UNAUTHORIZED


def test_a_conversation_that_does_not_fit_goes_to_a_larger_window() -> None:
    route = after(endpoints(8000, 4000, 32_000), K.CONTEXT)
    assert isinstance(route, Route) and route.index == 2
    unknown = after(endpoints(8000, None), K.CONTEXT)
    assert isinstance(unknown, Route) and unknown.index == 1


def test_what_a_person_must_mend_does_not_end_a_task_whose_other_endpoint_may_come_back() -> None:
    for kind in (K.REQUEST, K.CONFIGURATION, K.CONTEXT):
        route = after(TWO, K.RETRY, K.RETRY, K.RETRY, kind)
        assert isinstance(route, Route) and route.passes == 1 and route.until is not None


def test_the_next_endpoint_is_asked_at_once_and_the_same_one_after_a_pause() -> None:
    first = after(TWO, K.RETRY)
    assert isinstance(first, Route) and seconds(first.until) == 1
    second = after(TWO, K.RETRY, K.RETRY, K.RETRY)
    assert isinstance(second, Route) and second.until is None


def test_pauses_grow_as_the_endpoint_says_up_to_its_most() -> None:
    model = replace(ONE.model, backoff_first_s=2, backoff_most_s=10)
    config, route, pauses = replace(ONE, model=model), FIRST, []
    for _ in range(6):
        found = failed(config, route, fail(K.WAIT), BEGIN, 0.0)
        assert isinstance(found, Route)
        route = found
        pauses.append(seconds(route.until))
    assert pauses == [2, 4, 8, 10, 10, 10]


@pytest.mark.parametrize("kind", [K.WAIT, K.RETRY])
def test_retry_after_is_a_lower_bound(kind: K) -> None:
    route = failed(ONE, FIRST, fail(kind, 503, 90), BEGIN, 0.0)
    assert isinstance(route, Route) and seconds(route.until) == 90


def test_retry_after_of_a_full_endpoint_holds_for_the_next_pass_too() -> None:
    route: Route | Stop = FIRST
    for retry_after in (0, 0, 300, 0, 0, 300):
        assert isinstance(route, Route)
        route = failed(TWO, route, fail(K.WAIT, 429, retry_after), BEGIN, 0.0)
    assert isinstance(route, Route) and (route.index, route.passes) == (0, 1)
    assert seconds(route.until) == 300


@pytest.mark.parametrize(("retry_after_s", "index"), [(30, 0), (31, 1)])
def test_an_endpoint_that_is_full_for_long_is_left_for_the_next(
    retry_after_s: float, index: int
) -> None:
    route = failed(TWO, FIRST, fail(K.WAIT, 429, retry_after_s), BEGIN, 0.0)
    assert isinstance(route, Route) and route.index == index
    alone = failed(ONE, FIRST, fail(K.WAIT, 429, retry_after_s), BEGIN, 0.0)
    assert isinstance(alone, Route) and seconds(alone.until) == retry_after_s


def test_only_an_endpoint_with_another_behind_it_is_not_waited_for_however_long() -> None:
    assert [patience(THREE, index) is None for index in range(3)] == [False, False, True]


def test_an_endpoint_that_is_known_to_be_full_is_passed_over_and_nobody_gives_up_on_it() -> None:
    config = endpoints(None, None, give_up_s=10, attempts=1)
    route: Route | Stop = FIRST
    for n in range(20):
        assert isinstance(route, Route)
        at = later(60 * n)
        route = away(config, route, "It is full.", later(60 * n + 45), at, full=True)
        assert isinstance(route, Route) and route.index == 1
        route = failed(config, route, fail(K.RETRY), at, 0.0)
    assert isinstance(route, Route) and (route.index, route.passes) == (0, 20)
    assert said(route, config)[0] is Reason.MODEL_BUSY


def test_endpoints_that_fail_too_long_end_the_task_and_the_last_try_is_at_the_end() -> None:
    config = endpoints(None, None, give_up_s=100, attempts=1)
    route, at, tries = FIRST, BEGIN, []
    while isinstance(found := failed(config, route, fail(K.RETRY), at, 0.0), Route):
        tries.append((at - BEGIN).total_seconds())
        route = found
        at = route.until or at
    assert found.reason is Reason.MODEL_UNREACHABLE
    assert (at - BEGIN).total_seconds() == 100
    assert tries == [0, 0, 1, 1, 3, 3, 7, 7, 15, 15, 31, 31, 63, 63, 100]
    assert "for 100 s. a: It said Retry. b: It said Retry." in found.message


def test_a_full_endpoint_is_a_sign_of_life() -> None:
    config = endpoints(None, None, give_up_s=10, attempts=1)
    route = after(config, *[K.RETRY, K.WAIT, K.WAIT, K.WAIT] * 20, every_s=60)
    assert isinstance(route, Route)
    assert isinstance(after(config, K.WAIT, *[K.RETRY] * 20, every_s=60), Stop)
    broken_later = (K.RETRY, K.WAIT, K.WAIT, K.WAIT, K.RETRY, K.RETRY)
    assert isinstance(after(config, *broken_later, every_s=5), Route), "it counts from then on"


# --- endpoints that are known to be away -----------------------------------------------------------


def later(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def test_an_endpoint_that_is_away_is_passed_over_at_once_and_costs_no_attempt() -> None:
    route = away(TWO, FIRST, "The breaker is open.", later(30), BEGIN)
    assert isinstance(route, Route)
    assert (route.index, route.until, route.standing(0).failures) == (1, None, 0)


def test_where_all_are_away_the_one_that_comes_back_first_is_waited_for() -> None:
    route = away(TWO, FIRST, "The breaker is open.", later(60), BEGIN)
    assert isinstance(route, Route)
    route = away(TWO, route, "The breaker is open.", later(30), BEGIN)
    assert isinstance(route, Route)
    assert (route.index, seconds(route.until)) == (0, 30)


def test_an_endpoint_that_is_away_for_the_tenth_time_is_asked_when_it_is_back() -> None:
    route: Route | Stop = FIRST
    for n in range(10):
        assert isinstance(route, Route)
        route = away(ONE, route, "The breaker is open.", later(30 * n + 30), later(30 * n))
    assert isinstance(route, Route) and seconds(route.until) == 300


def test_one_that_only_failed_is_asked_again_before_the_other_is_back() -> None:
    route: Route | Stop = after(TWO, *[K.RETRY] * 3)
    assert isinstance(route, Route) and route.index == 1
    route = away(TWO, route, "The breaker is open.", later(300), BEGIN)
    assert isinstance(route, Route) and (route.index, seconds(route.until)) == (0, 1)


def test_without_patience_an_endpoint_that_is_away_is_waited_for_once() -> None:
    config = endpoints(None, give_up_s=0)
    assert isinstance(away(config, FIRST, "The breaker is open.", later(30), BEGIN), Route)
    tried = after(config, K.RETRY)
    assert isinstance(tried, Route)
    stop = away(config, tried, "The breaker is open.", later(30), BEGIN)
    assert isinstance(stop, Stop) and stop.reason is Reason.MODEL_UNREACHABLE


def test_endpoints_that_are_away_too_long_end_the_task() -> None:
    config, at = endpoints(None, give_up_s=100), BEGIN
    route: Route | Stop = FIRST
    while isinstance(route, Route):
        route = away(config, route, "The breaker is open.", at + timedelta(seconds=30), at)
        at = route.until or at if isinstance(route, Route) else at
    assert route.reason is Reason.MODEL_UNREACHABLE and at == later(100)


def test_an_end_of_an_absence_that_is_over_already_makes_no_hurry() -> None:
    route = away(ONE, FIRST, "The breaker is open.", BEGIN, BEGIN)
    assert isinstance(route, Route) and seconds(route.until) >= 1


# --- what people are told ------------------------------------------------------------------------


def said(route: Route | Stop, config: Config = TWO) -> tuple[Reason, str]:
    assert isinstance(route, Route)
    found = told(config, route)
    assert found is not None
    return found


def test_nothing_is_said_where_nothing_failed() -> None:
    assert told(TWO, FIRST) is None


def test_one_failure_is_said_in_its_own_words() -> None:
    assert said(after(TWO, K.RETRY)) == (Reason.MODEL_RETRYING, "It said Retry.")
    assert said(after(TWO, K.WAIT)) == (Reason.MODEL_BUSY, "It said Wait.")


def test_it_is_said_that_a_fallback_is_asked() -> None:
    reason, message = said(after(TWO, K.CONFIGURATION))
    assert reason is Reason.MODEL_RETRYING
    assert message == "It said Configuration. Endpoint b is asked instead."


def test_an_outage_is_one_condition_with_all_that_a_person_needs() -> None:
    reason, message = said(after(TWO, K.CONFIGURATION, K.RETRY, K.RETRY, K.RETRY))
    assert reason is Reason.MODEL_UNREACHABLE
    for part in (
        "No model endpoint has given a reply since 2030-01-01T00:00:00Z.",
        "The task gives up at 2030-01-01T00:30:00Z.",
        "Next try: 2030-01-01T00:00:",
        "Bring a server back, or set spec.cancel",
        "a: It said Configuration.",
        "b: It said Retry.",
    ):
        assert part in message, part


def test_a_full_endpoint_beside_a_broken_one_is_no_outage() -> None:
    reason, _ = said(after(TWO, *[K.RETRY] * 3, *[K.WAIT] * 3))
    assert reason is Reason.MODEL_BUSY


def test_only_a_failure_of_another_kind_is_news() -> None:
    kinds = (K.RETRY, K.RETRY, K.WAIT, K.WAIT, K.RETRY)
    news = [after(ONE, *kinds[: n + 1]) for n in range(len(kinds))]
    assert [isinstance(route, Route) and route.news for route in news] == [
        True, False, True, False, True,
    ]  # fmt: skip
