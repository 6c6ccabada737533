"""The gate: waiting, being told, being cancelled, being sent away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from itertools import pairwise

import pytest
from ratchet.core.admission import Terms, Wanting
from ratchet.core.breaker import BreakerState
from ratchet.core.facts import EndpointRef
from ratchet.core.replies import FailureKind
from ratchet.fakes import clock
from ratchet.fakes.clock import BEGIN
from ratchet.shell.gate import How, Listener, ModelGate

from tests.unit.gate.places import GOOD, comes, open_gate, steps
from tests.unit.gate.tickets import ENDPOINT, failure, ticket

RETRY = failure(FailureKind.RETRY)


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test in virtual time."""

    @wraps(test)
    def run() -> None:
        clock.run(test())

    del run.__wrapped__  # pytest would see a coroutine function
    return run


@virtual
async def test_whoever_finds_a_place_gets_it_at_once_and_is_told_nothing() -> None:
    one = comes(open_gate(Terms(requests=1)), ticket(1))
    await steps()
    assert one.inside and one.told == []


@virtual
async def test_a_free_place_wakes_the_next_in_the_same_step() -> None:
    gate = open_gate(Terms(requests=1))
    one, two = comes(gate, ticket(1)), comes(gate, ticket(2))
    await steps()
    assert one.inside and two.got is None
    one.permit.done(GOOD)
    await steps()
    assert two.inside
    assert asyncio.get_running_loop().time() == 0


@virtual
async def test_a_permit_can_be_given_back_once_only() -> None:
    gate = open_gate(Terms(requests=1))
    one = comes(gate, ticket(1))
    await steps()
    one.permit.done(GOOD)
    one.permit.done(GOOD)
    two, three = comes(gate, ticket(2)), comes(gate, ticket(3))
    await steps()
    assert two.inside and three.got is None


@virtual
async def test_whoever_waits_is_told_the_place_and_the_reason() -> None:
    gate = open_gate(Terms(requests=1))
    comers = [comes(gate, ticket(number)) for number in range(4)]
    await asyncio.sleep(1.1)
    assert [each.told for each in comers] == [
        [],
        [(1.0, "Place 1 of 3 at endpoint models/large: the only place is taken.", 1)],
        [(1.0, "Place 2 of 3 at endpoint models/large: the only place is taken.", 2)],
        [(1.0, "Place 3 of 3 at endpoint models/large: the only place is taken.", 3)],
    ]


@virtual
async def test_a_wait_of_less_than_a_second_is_not_told() -> None:
    gate = open_gate(Terms(requests=1))
    one, two = comes(gate, ticket(1)), comes(gate, ticket(2))
    await asyncio.sleep(0.9)
    one.permit.done(GOOD)
    await asyncio.sleep(5)
    assert two.inside and two.told == []


@virtual
async def test_news_of_the_queue_are_rare_and_only_told_when_there_are_any() -> None:
    gate = open_gate(Terms(requests=1))
    comers = [comes(gate, ticket(number)) for number in range(30)]
    for first in range(20):
        await asyncio.sleep(2)
        comers[first].permit.done(GOOD)
    last = comers[29].told
    assert [at for at, _, _ in last] == sorted({at for at, _, _ in last})
    assert all(b[0] - a[0] >= 15 and b[2] < a[2] for a, b in pairwise(last)) and len(last) >= 2
    await asyncio.sleep(100)
    assert comers[29].told[-1][2] == 9
    known = len(comers[29].told)
    await asyncio.sleep(100)
    assert len(comers[29].told) == known, "the place stays: nothing is told"


@virtual
async def test_places_in_a_long_queue_are_told_more_rarely_and_not_all_at_once() -> None:
    gate = open_gate(Terms(requests=1))
    comers = [comes(gate, ticket(number)) for number in range(1000)]
    for first in range(200):
        await asyncio.sleep(1)
        comers[first].permit.done(GOOD)
    times = Counter(int(at) for each in comers for at, _, _ in each.told)
    assert times.pop(1) == 999
    assert sum(times.values()) > 500 and max(times.values()) < 30


@virtual
async def test_whoever_is_cancelled_leaves_the_queue() -> None:
    gate = open_gate(Terms(requests=1))
    one, two, three = (comes(gate, ticket(number)) for number in range(3))
    await steps()
    assert two.work is not None
    two.work.cancel()
    await steps()
    assert gate.view(ENDPOINT).queued == 1
    one.permit.done(GOOD)
    await steps()
    assert three.inside and two.got is None


@virtual
async def test_a_place_that_was_given_at_the_moment_of_a_cancel_goes_to_the_next() -> None:
    gate = open_gate(Terms(requests=1))
    one, two, three = (comes(gate, ticket(number)) for number in range(3))
    await steps()
    assert two.work is not None
    one.permit.done(GOOD)  # two gets the place,
    two.work.cancel()  # and is cancelled before it can take it
    await steps()
    assert three.inside and two.got is None and gate.view(ENDPOINT).running == 1


@virtual
async def test_a_place_that_would_go_to_a_task_that_was_just_cancelled_goes_to_the_next() -> None:
    gate = open_gate(Terms(requests=1))
    one, two, three = (comes(gate, ticket(number)) for number in range(3))
    await steps()
    assert two.work is not None
    two.work.cancel()  # two has not run yet to leave the queue
    one.permit.done(GOOD)
    await steps()
    assert three.inside and gate.view(ENDPOINT).running == 1


@virtual
async def test_an_open_breaker_sends_away_until_it_lets_one_through() -> None:
    gate = open_gate(Terms(requests=5))
    comers = [comes(gate, ticket(number)) for number in range(12)]
    await steps()
    for each in comers[:5]:
        each.permit.done(RETRY)
    await steps()
    assert [each.inside for each in comers[5:]] == 4 * [True] + 3 * [False]
    assert comers[11].away.until == BEGIN + timedelta(seconds=30)
    assert comers[11].away.message == (
        "The endpoint models/large is left alone for a while, because it failed: It failed: Retry."
    )
    await asyncio.sleep(30)
    one, two = comes(gate, ticket(8)), comes(gate, ticket(9))
    await steps()
    assert one.inside and two.got is None
    assert gate.view(ENDPOINT).breaker is BreakerState.HALF_OPEN
    one.permit.done(GOOD)
    await steps()
    assert two.inside


@virtual
async def test_a_trial_that_hangs_sends_the_others_away_by_itself() -> None:
    gate = open_gate(Terms(failures=1))
    first = comes(gate, ticket(1))
    await steps()
    first.permit.done(RETRY)
    await asyncio.sleep(30)
    one, two = comes(gate, ticket(2)), comes(gate, ticket(3))
    await asyncio.sleep(10.1)
    assert one.inside and two.away.until == BEGIN + timedelta(seconds=70)


@virtual
async def test_a_pause_ends_by_itself() -> None:
    gate = open_gate(Terms(requests=1))
    one, two = comes(gate, ticket(1)), comes(gate, ticket(2))
    await steps()
    one.permit.done(failure(FailureKind.WAIT, 7))
    await asyncio.sleep(6.9)
    assert two.got is None
    assert two.told[0][1].endswith("it said that it is full, and is left alone for a moment.")
    await asyncio.sleep(0.2)
    assert two.inside


@virtual
async def test_who_can_go_elsewhere_does_not_wait_for_an_endpoint_that_is_full_for_long() -> None:
    gate = open_gate(Terms(requests=1))
    one = comes(gate, ticket(1))
    stays, goes = comes(gate, ticket(2)), comes(gate, ticket(3, patience_s=30))
    await steps()
    one.permit.done(failure(FailureKind.WAIT, 60))
    await steps()
    assert stays.got is None
    assert goes.away.full and goes.away.until == BEGIN + timedelta(seconds=60)
    assert goes.away.message == (
        "The endpoint models/large said that it is full, and is left alone until 00:01:00 UTC."
    )
    await asyncio.sleep(29)
    late = comes(gate, ticket(4, patience_s=30))
    await steps()
    assert late.away.full
    await asyncio.sleep(2)
    later = comes(gate, ticket(5, patience_s=30))
    await steps()
    assert later.got is None
    await asyncio.sleep(30)
    assert stays.inside and later.got is None


@virtual
async def test_endpoints_do_not_hold_up_one_another() -> None:
    other = EndpointRef("models", "small")
    gate = open_gate(Terms(requests=1))
    gate.revise(other, Terms(requests=1))
    comers = [
        comes(gate, ticket(n, endpoint=at)) for n, at in enumerate((ENDPOINT, ENDPOINT, other))
    ]
    await steps()
    assert [each.inside for each in comers] == [True, False, True]


class Notes(Listener):
    def __init__(self) -> None:
        self.wanted: list[tuple[EndpointRef, Wanting]] = []
        self.ends: list[How] = []

    def wanting(self, endpoint: EndpointRef, what: Wanting) -> None:
        self.wanted.append((endpoint, what))

    def ended(self, endpoint: EndpointRef, how: How) -> None:
        self.ends.append(how)


@virtual
async def test_an_endpoint_that_nobody_knows_is_asked_for_and_waited_for() -> None:
    gate, notes = open_gate(), Notes()
    gate.listen(notes)
    one, two = comes(gate, ticket(1)), comes(gate, ticket(2))
    await asyncio.sleep(1.5)
    assert notes.wanted == 2 * [(ENDPOINT, Wanting.TERMS)]
    assert one.told[0][1] == (
        "Place 1 of 2 at endpoint models/large: its ModelEndpoint is being read."
    )
    gate.revise(ENDPOINT, Terms(requests=1))
    await steps()
    assert one.inside and two.got is None
    one.permit.done(None)
    assert notes.ends == [None]


@virtual
async def test_an_endpoint_that_does_not_exist_any_more_sets_no_limit() -> None:
    gate = open_gate()
    one = comes(gate, ticket(1))
    await steps()
    gate.forget(ENDPOINT)
    await steps()
    assert one.inside


@virtual
async def test_tasks_of_a_deleted_endpoint_keep_its_limits() -> None:
    gate = open_gate(Terms(requests=1))
    one, two = comes(gate, ticket(1)), comes(gate, ticket(2))
    await steps()
    gate.forget(ENDPOINT)
    await steps()
    assert one.inside and two.got is None


def test_a_lane_of_five_thousand_is_entered_and_left_quickly() -> None:
    """A bound that only a quadratic queue breaks: 5,000 admissions in order take 0.1 s."""

    async def crowd() -> None:
        gate = open_gate(Terms(requests=8))
        comers = [comes(gate, ticket(number)) for number in range(5000)]
        await steps()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for each in comers:
            each.permit.done(GOOD)
            await asyncio.sleep(0)
        assert loop.time() - begun < 5

    asyncio.run(crowd())


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_forgotten_endpoint_leaves_nothing_behind(waiting: int) -> None:
    async def forget() -> ModelGate:
        gate = open_gate(Terms(requests=1))
        comers = [comes(gate, ticket(number)) for number in range(waiting)]
        await steps()
        for each in comers:
            each.permit.done(GOOD)
        gate.forget(ENDPOINT)
        return gate

    assert clock.run(forget()).endpoints == frozenset()
