"""A lane: limits, the breaker in it, what the engine says, and that every place comes back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ratchet.core.admission import TRIAL_PATIENCE_S, Lane, Load, Terms, Wanting
from ratchet.core.breaker import BreakerState
from ratchet.core.conditions import EndpointReason
from ratchet.core.facts import Answered, Ticket
from ratchet.core.replies import FailureKind, ModelFailure, Usage

from tests.unit.gate.tickets import failure, ticket

GOOD = Answered(1.0, Usage(10, 0, 5))
RETRY = failure(FailureKind.RETRY)
WAIT = failure(FailureKind.WAIT)
IDLE = Load(running=0, waiting=0, used_tokens=0, total_tokens=100_000, most_running=32)


def entered(lane: Lane, count: int, now: float = 0.0, first: int = 0, tokens: int = 1000) -> None:
    for key in range(first, first + count):
        lane.enter(key, ticket(key, tokens=tokens), now)


def why(lane: Lane, now: float = 0.0) -> str:
    hold = lane.hold(now)
    return "" if hold is None else hold.why


def test_nobody_gets_in_before_the_terms_are_known() -> None:
    lane = Lane()
    entered(lane, 1)
    assert lane.settle(0).admitted == () and lane.wants is Wanting.TERMS
    assert why(lane) == "its ModelEndpoint is being read"
    lane.revise(Terms(), anew=True)
    assert lane.settle(0).admitted == (0,)


def test_as_many_run_as_the_endpoint_takes_and_a_free_place_goes_to_the_next() -> None:
    lane = Lane(Terms(requests=2))
    entered(lane, 4)
    assert lane.settle(0).admitted == (0, 1)
    assert why(lane) == "all 2 places are taken"
    lane.end(0, GOOD, 1)
    assert lane.settle(1).admitted == (2,)
    assert (lane.running, lane.queued) == (2, 1)


def test_a_limit_that_is_changed_holds_at_once() -> None:
    lane = Lane(Terms(requests=1))
    entered(lane, 4)
    assert lane.settle(0).admitted == (0,)
    lane.revise(Terms(requests=3), anew=False)
    assert lane.settle(0).admitted == (1, 2)
    lane.revise(Terms(requests=1), anew=False)
    lane.end(0, GOOD, 1)
    lane.end(1, GOOD, 1)
    assert lane.settle(1).admitted == ()


def test_tokens_of_all_requests_under_way_are_limited() -> None:
    lane = Lane(Terms(tokens=10_000))
    entered(lane, 5, tokens=3000)
    assert lane.settle(0).admitted == (0, 1, 2)
    assert why(lane) == (
        "the next request's 3,000 tokens do not fit beside the 9,000 that are under way;"
        " capacity.tokens is 10,000"
    )


def test_the_tokens_of_a_request_that_ended_are_free_again() -> None:
    lane = Lane(Terms(tokens=10_000))
    entered(lane, 6, tokens=3000)
    for key in lane.settle(0).admitted:
        lane.end(key, GOOD, 1)
    assert lane.settle(1).admitted == (3, 4, 5)


def test_a_request_larger_than_the_capacity_runs_alone_and_is_not_passed_by() -> None:
    lane = Lane(Terms(tokens=10_000))
    entered(lane, 1, tokens=1000)
    entered(lane, 1, first=1, tokens=50_000)
    entered(lane, 1, first=2, tokens=1000)
    assert lane.settle(0).admitted == (0,)
    lane.end(0, GOOD, 1)
    assert lane.settle(1).admitted == (1,)
    lane.end(1, GOOD, 2)
    assert lane.settle(2).admitted == (2,)


# --- the server is full ----------------------------------------------------------------------------


def test_a_server_that_is_full_pauses_the_endpoint_for_all_tasks() -> None:
    lane = Lane(Terms(requests=8))
    entered(lane, 10)
    lane.settle(0)
    lane.end(0, WAIT, 1)
    assert lane.settle(1.5).admitted == () and lane.wakes_at(1.5) == 2
    assert why(lane, 1.5) == "it said that it is full, and is left alone for a moment"
    lane.end(1, failure(FailureKind.WAIT, 20), 1.6)
    assert lane.wakes_at(1.6) == 21.6


def test_a_server_without_limits_gets_no_more_than_it_bore_when_it_was_full() -> None:
    lane = Lane(Terms())
    entered(lane, 500)
    assert len(lane.settle(0).admitted) == 500
    for key in range(8, 500):
        lane.end(key, WAIT, 1)
    entered(lane, 492, now=1, first=500)
    for key in range(8):
        lane.end(key, GOOD, 2)
    assert 8 <= len(lane.settle(5).admitted) <= 10


def test_a_known_limit_is_used_again_soon_after_the_server_was_full() -> None:
    lane = Lane(Terms(requests=8))
    entered(lane, 100)
    for key in lane.settle(0).admitted:
        lane.end(key, WAIT, 0)
    assert lane.settle(0.5).admitted == ()
    now, sizes = 1.0, []
    for _ in range(5):
        admitted = lane.settle(now).admitted
        sizes.append(len(admitted))
        now += 1
        for key in admitted:
            lane.end(key, GOOD, now)
    assert sizes == [1, 2, 4, 8, 8]


# --- the breaker -----------------------------------------------------------------------------------


def broken(requests: int = 8) -> Lane:
    """A lane whose breaker is open until 30."""
    lane = Lane(Terms(requests=requests))
    entered(lane, 5)
    for key in lane.settle(0).admitted:
        lane.end(key, RETRY, 0)
    assert lane.breaker.state(0) is BreakerState.OPEN
    return lane


def test_an_open_breaker_sends_all_away_that_wait_and_that_come() -> None:
    lane = Lane(Terms(requests=5))
    entered(lane, 7)
    for key in lane.settle(0).admitted:
        lane.end(key, RETRY, 0)
    assert lane.settle(0).away == (5, 6)
    entered(lane, 1, now=10, first=9)
    assert lane.settle(10).away == (9,) and lane.away_until(10) == 30


def test_a_half_open_breaker_lets_exactly_one_through_and_its_success_all_others() -> None:
    lane = broken()
    entered(lane, 4, now=30, first=10)
    assert lane.settle(30).admitted == (10,)
    assert why(lane, 30) == "it failed, and one request tries whether it works again"
    lane.end(10, GOOD, 32)
    assert lane.settle(32).admitted == (11, 12, 13)


def test_the_failure_of_the_one_sends_the_others_away() -> None:
    lane = broken()
    entered(lane, 4, now=30, first=10)
    lane.settle(30)
    lane.end(10, RETRY, 32)
    assert lane.settle(32).away == (11, 12, 13) and lane.away_until(32) == 92


def test_a_trial_that_hangs_does_not_hold_the_others_for_long() -> None:
    lane = broken()
    entered(lane, 2, now=30, first=10)
    lane.settle(30)
    assert lane.wakes_at(30) == 30 + TRIAL_PATIENCE_S
    late = 30 + TRIAL_PATIENCE_S
    assert lane.settle(late).away == (11,) and lane.away_until(late) == late + 30


def test_a_changed_endpoint_is_tried_anew() -> None:
    lane = broken()
    lane.revise(Terms(requests=8), anew=True)
    entered(lane, 3, now=1, first=10)
    assert lane.settle(1).admitted == (10, 11, 12)


# --- what the engine says --------------------------------------------------------------------------


def test_one_request_goes_ahead_until_the_engine_has_said_how_many_it_runs() -> None:
    lane = Lane(Terms(tells_load=True))
    entered(lane, 50, tokens=10)
    assert (lane.settle(0).admitted, lane.wants) == ((0,), Wanting.LOAD)
    lane.look(IDLE, 0.1)
    assert (len(lane.settle(0.2).admitted), lane.wants) == (31, Wanting.NOTHING)


def test_an_engine_that_does_not_say_has_no_such_limit() -> None:
    lane = Lane(Terms(tells_load=True))
    entered(lane, 50)
    lane.settle(0)
    lane.look(None, 0.1)
    assert len(lane.settle(0.2).admitted) == 49


def test_requests_that_wait_at_the_server_itself_hold_further_ones() -> None:
    lane = Lane(Terms(requests=32, tells_load=True))
    entered(lane, 4)
    assert len(lane.settle(0).admitted) == 4
    lane.look(Load(32, 4, 100, 100_000, 32), 1)
    entered(lane, 1, now=1, first=10)
    assert lane.settle(1).admitted == (10,), "our own may still be on their way into the batch"
    lane.look(Load(32, 6, 100, 100_000, 32), 5)
    entered(lane, 1, now=5, first=11)
    assert lane.settle(5).admitted == ()
    assert why(lane, 5) == "requests wait at the server itself"
    lane.look(None, 7)
    assert lane.settle(7).admitted == (11,)


def test_a_crowded_server_is_kept_busy_and_no_more_until_nothing_waits_there() -> None:
    lane = Lane(Terms(requests=64, tells_load=True))
    entered(lane, 200)
    lane.settle(0)
    lane.look(Load(8, 56, 100, 10**9, 8), 10)
    for key in range(56):
        lane.end(key, GOOD, 11)
        assert lane.settle(11).admitted == ()
    lane.end(56, GOOD, 12)
    assert lane.settle(12).admitted == (64,), "its eight places are filled at once"
    lane.look(Load(8, 0, 100, 10**9, 8), 14)
    assert len(lane.settle(14).admitted) == 2
    for at in range(16, 60, 2):
        lane.look(Load(8, 0, 100, 10**9, 8), at)
        lane.settle(at)
    assert lane.running == 64


def test_a_crowd_of_others_lets_one_of_ours_through() -> None:
    lane = Lane(Terms(requests=64, tells_load=True))
    lane.look(Load(32, 16, 100, 10**9, 32), 0)
    entered(lane, 3)
    assert lane.settle(1).admitted == (0,)


def test_the_engines_pool_is_filled_to_nine_tenths() -> None:
    lane = Lane(Terms(requests=32, tells_load=True))
    lane.look(Load(3, 0, 70_000, 100_000, 32), 0)
    entered(lane, 3, now=1, tokens=10_000)
    assert lane.settle(1).admitted == (0, 1)
    hold = lane.hold(1)
    assert hold is not None and hold.reason is EndpointReason.SERVER_FULL
    lane.end(0, GOOD, 2)
    assert lane.settle(2).admitted == (2,), "what ended since the look takes no room any more"


def test_a_request_that_the_pool_cannot_hold_is_sent_when_nothing_else_runs() -> None:
    lane = Lane(Terms(requests=32, tells_load=True))
    lane.look(Load(1, 0, 500, 1500, 32), 0)
    entered(lane, 1, tokens=5000)
    assert lane.settle(0).admitted == ()
    lane.look(Load(0, 0, 0, 1500, 32), 2)
    assert lane.settle(2).admitted == (0,)


# --- for all histories -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Comes:
    ticket: Ticket


@dataclass(frozen=True)
class Goes:
    which: int


@dataclass(frozen=True)
class Ends:
    which: int
    how: Answered | ModelFailure | None


@dataclass(frozen=True)
class Passes:
    seconds: float


@dataclass(frozen=True)
class Looks:
    load: Load | None


@dataclass(frozen=True)
class Revised:
    terms: Terms
    anew: bool


outcomes = st.sampled_from(
    [GOOD, GOOD, GOOD, None, RETRY, RETRY, WAIT, failure(FailureKind.WAIT, 7),
     failure(FailureKind.CONFIGURATION), failure(FailureKind.CONTEXT)]
)  # fmt: skip
terms = st.builds(
    Terms,
    requests=st.none() | st.integers(1, 4),
    tokens=st.none() | st.integers(1, 8).map(lambda n: n * 1000),
    failures=st.integers(1, 3),
    tells_load=st.booleans(),
)
loads = st.builds(
    Load, st.integers(0, 3), st.integers(0, 3), st.integers(0, 9000), st.integers(0, 10_000),
    st.integers(0, 3),
)  # fmt: skip
steps = st.one_of(
    st.builds(
        lambda uid, priority, running, tokens: Comes(
            ticket(uid, priority=priority, running=running, tokens=tokens)
        ),
        st.integers(0, 99), st.integers(-2, 2), st.booleans(), st.integers(1, 9000),
    ),
    st.builds(Goes, st.integers(0, 99)),
    st.builds(Ends, st.integers(0, 99), outcomes),
    st.builds(Passes, st.sampled_from([0.1, 1.0, 10.0, 31.0, 300.0])),
    st.builds(Looks, st.none() | loads),
    st.builds(Revised, terms, st.booleans()),
)  # fmt: skip


class World:
    """A lane, and beside it what is plainly true of it."""

    def __init__(self, first: Terms) -> None:
        self.lane, self.now, self.key = Lane(first), 0.0, 0
        self.waiting: dict[int, Ticket] = {}
        self.inside: dict[int, Ticket] = {}
        self.last_load: Load | None = None
        self.looked = False

    def settle(self) -> None:
        lane = self.lane
        half_open = lane.breaker.state(self.now) is BreakerState.HALF_OPEN
        trying = lane.breaker.trying
        was_inside = dict(self.inside)
        settled = lane.settle(self.now)
        for key in settled.away:
            del self.waiting[key]
        for key in settled.admitted:
            self.inside[key] = self.waiting.pop(key)
            self.check_limits()
        if half_open:
            assert len(settled.admitted) <= (1 if trying is None else 0)
        if settled.away:
            assert lane.breaker.state(self.now) is not BreakerState.CLOSED and not self.waiting
        assert self.inside.keys() >= was_inside.keys()
        assert lane.running == len(self.inside) and lane.queued == len(self.waiting)
        assert (lane.hold(self.now) is not None) == bool(self.waiting), (
            "who waits, waits for a reason"
        )

    def check_limits(self) -> None:
        most = self.lane.terms
        assert most is not None
        if most.requests is not None:
            assert len(self.inside) <= most.requests
        tokens = sum(one.tokens for one in self.inside.values())
        if most.tokens is not None:
            assert tokens <= most.tokens or len(self.inside) == 1

    def do(self, step: object) -> None:
        match step:
            case Comes(one):
                self.key += 1
                self.waiting[self.key] = one
                self.lane.enter(self.key, one, self.now)
            case Goes(which) if self.waiting:
                key = sorted(self.waiting)[which % len(self.waiting)]
                del self.waiting[key]
                self.lane.leave(key)
            case Ends(which, how) if self.inside:
                key = sorted(self.inside)[which % len(self.inside)]
                del self.inside[key]
                self.lane.end(key, how, self.now)
            case Passes(seconds):
                self.now += seconds
            case Looks(load):
                self.lane.look(load, self.now)
            case Revised(new, anew):
                self.lane.revise(new, anew=anew)
            case _:
                pass
        self.settle()


@settings(max_examples=400, deadline=None)
@given(terms, st.lists(steps, max_size=80))
def test_limits_hold_one_tries_and_every_place_comes_back(
    first: Terms, history: list[object]
) -> None:
    world = World(first)
    for step in history:
        world.do(step)
    # Whatever happened: with a server that works again, everybody gets in and out.
    world.do(Looks(None))
    for _ in range(len(world.waiting) + len(world.inside) + 3):
        for key in tuple(world.inside):
            world.do(Ends(sorted(world.inside).index(key), GOOD))
        world.do(Passes(301.0))
    assert (world.lane.running, world.lane.queued) == (0, 0)


def test_a_place_is_given_back_only_by_whoever_has_one() -> None:
    lane = Lane(Terms(requests=1))
    entered(lane, 1)
    lane.settle(0)
    lane.end(0, GOOD, 1)
    with pytest.raises(KeyError):
        lane.end(0, GOOD, 1)
