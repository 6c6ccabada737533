"""Whose the Lease is, and how it is taken, kept, lost and given back; in virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ratchet.edges.kube import JSON, TIMEOUT_S, ApiError, ApiUnreachable, Params
from ratchet.edges.lease import (
    DURATION_S,
    PROOF_WITHIN_S,
    RENEW_DEADLINE_S,
    RENEW_EVERY_S,
    Free,
    LeaseLock,
    Others,
    Ours,
    Sighting,
    judge,
    uptime,
)


def lease(holder: str | None, duration: int | None = 15) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": duration}
    return {"metadata": {"resourceVersion": "1"}, "spec": spec}


@pytest.mark.parametrize(
    ("seen", "now", "verdict"),
    [
        (None, 0.0, Free()),
        (Sighting(lease(""), 100.0), 100.0, Free()),
        (Sighting(lease(None), 100.0), 100.0, Free()),
        (Sighting({"metadata": {}}, 100.0), 100.0, Free()),
        (Sighting(lease("me"), 100.0), 1000.0, Ours()),
        (Sighting(lease("you"), 100.0), 114.9, Others("you", 115.0)),
        (Sighting(lease("you"), 100.0), 115.0, Free()),
        (Sighting(lease("you", 60), 100.0), 115.0, Others("you", 160.0)),
        (Sighting(lease("you", None), 100.0), 114.9, Others("you", 115.0)),
    ],
)
def test_whose_a_lease_is(seen: Sighting | None, now: float, verdict: Free | Ours | Others) -> None:
    assert judge(seen, "me", now) == verdict


def test_the_time_that_a_lease_tells_does_not_count() -> None:
    ancient = lease("you")
    ancient["spec"]["renewTime"] = "1970-01-01T00:00:00.000000Z"
    assert judge(Sighting(ancient, 100.0), "me", 101.0) == Others("you", 115.0)


@dataclass(slots=True)
class World:
    """One Lease on an API server, and a clock that only sleeping moves."""

    now: float = 1000.0
    stored: dict[str, Any] | None = None
    version: int = 0
    away: bool = False
    requests: list[str] = field(default_factory=list)
    while_asleep: list[Callable[[], None]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.while_asleep:
            self.while_asleep.pop(0)()

    def lock(self, holder: str) -> LeaseLock:
        return LeaseLock(self, "space", "operator", holder, self.clock, self.sleep)

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Params | None = None,
        content_type: str = JSON,
        timeout_s: float = TIMEOUT_S,
    ) -> dict[str, Any]:
        self.requests.append(method)
        if self.away:
            self.now += timeout_s
            raise ApiUnreachable("the API server is away")
        if method == "GET":
            if self.stored is None:
                raise ApiError(404, "NotFound", "no such lease")
            return self.stored
        if method == "POST" and self.stored is not None:
            raise ApiError(409, "AlreadyExists", "it is there")
        if method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            raise ApiError(409, "Conflict", "it has changed")
        return self.store(body)

    def store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.stored = {**body, "metadata": metadata}
        return self.stored

    def steal(self) -> None:
        assert self.stored is not None
        self.store({**self.stored, "spec": {**self.stored["spec"], "holderIdentity": "thief"}})

    @property
    def holder(self) -> str:
        assert self.stored is not None
        return str(self.stored["spec"]["holderIdentity"])


async def test_the_first_one_takes_it_at_once() -> None:
    world = World()
    lock = world.lock("a")
    assert not lock.held()
    await lock.acquire()
    assert (world.holder, world.now, lock.held()) == ("a", 1000.0, True)
    assert lock.held_until() == 1000.0 + RENEW_DEADLINE_S


async def test_a_second_one_waits_until_the_first_has_been_silent_for_the_whole_duration() -> None:
    world = World()
    await world.lock("a").acquire()
    second = world.lock("b")
    await second.acquire()
    assert world.holder == "b"
    assert world.now == pytest.approx(1000.0 + DURATION_S, abs=1.1)
    assert world.stored is not None and world.stored["spec"]["leaseTransitions"] == 1


async def test_two_never_hold_it_at_the_same_moment() -> None:
    world = World()
    first, second = world.lock("a"), world.lock("b")
    await first.acquire()
    await second.acquire()
    assert not first.held()
    assert not await first.attempt()
    assert second.held()


async def test_one_that_waits_begins_when_the_time_of_a_lost_holder_is_up() -> None:
    world = World()
    await world.lock("a").acquire()
    world.now += 0.3  # between two of its looks
    second = world.lock("b")
    assert not await second.attempt()
    seen = world.now
    await second.acquire()
    assert world.now == pytest.approx(seen + DURATION_S)


async def test_one_that_waits_says_so_while_it_sees_a_holder() -> None:
    world = World()
    await world.lock("a").acquire()
    second = world.lock("b")
    assert not second.stands_by()
    await second.attempt()
    assert second.stands_by()
    world.away = True
    for _ in range(3):
        await second.attempt()
    assert not second.stands_by()


async def test_nobody_stands_by_for_a_lease_that_is_free_or_its_own() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    assert not lock.stands_by()
    second = world.lock("b")
    await second.attempt()
    world.now += DURATION_S
    assert not second.stands_by()


async def test_a_holder_that_stood_still_and_was_followed_stops_before_it_sleeps_again() -> None:
    world = World()
    first, second = world.lock("a"), world.lock("b")
    await first.acquire()

    def stand_still() -> None:
        world.now += 2 * DURATION_S
        world.steal()

    world.while_asleep = [stand_still]
    await first.keep()
    woke = 1000.0 + 1 + 2 * DURATION_S
    assert world.now == woke
    assert not first.held()
    assert not await second.attempt()
    assert world.holder == "thief"


async def test_a_holder_that_stood_still_and_was_not_followed_goes_on() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    world.requests.clear()
    held: list[bool] = []

    def stand_still() -> None:
        world.now += 2 * DURATION_S
        held.append(lock.held())

    world.while_asleep = [stand_still, lambda: held.append(lock.held()), world.steal]
    regained: list[bool] = []
    await lock.keep(lambda: regained.append(lock.held()))
    assert held == [False, True]
    assert world.requests[0] == "PUT"
    assert regained == [True], "what ended in the lapse was not told that it may begin again"


async def test_a_holder_whose_lease_was_held_by_another_meanwhile_stops_although_it_is_free() -> (
    None
):
    world = World()
    first, second = world.lock("a"), world.lock("b")
    await first.acquire()

    def stand_still() -> None:
        world.now += 2 * DURATION_S
        world.steal()
        assert world.stored is not None
        world.store({**world.stored, "spec": {**world.stored["spec"], "holderIdentity": ""}})

    world.while_asleep = [stand_still]
    await first.keep()
    assert not first.held()
    assert await second.attempt()


async def test_no_request_of_a_holder_lasts_much_longer_than_its_time() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    world.away = True
    await lock.keep()
    assert world.now - 1000.0 <= RENEW_DEADLINE_S + PROOF_WITHIN_S


def test_the_clock_goes_on_while_the_machine_is_suspended() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= uptime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_after_a_release_a_successor_is_quick() -> None:
    world = World()
    first, second = world.lock("a"), world.lock("b")
    await first.acquire()
    assert not await second.attempt()
    await first.release()
    assert not first.held()
    begin = world.now
    await second.acquire()
    assert world.now - begin < 3.0


async def test_a_process_of_the_same_name_goes_on_at_once() -> None:
    world = World()
    await world.lock("pod-1").acquire()
    again = world.lock("pod-1")
    assert await again.attempt()


async def test_it_is_renewed_with_one_request_every_few_seconds() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    world.requests.clear()
    world.while_asleep = [*[lambda: None] * 12, world.steal]
    await lock.keep()
    assert world.requests[:2] == ["PUT", "PUT"]
    assert world.now - 1000.0 >= 3 * RENEW_EVERY_S


async def test_keep_returns_when_somebody_else_has_it() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    world.while_asleep = [world.steal]
    await lock.keep()
    assert not lock.held()
    assert "held by thief" in lock.problem
    assert world.holder == "thief"


async def test_keep_returns_before_anybody_else_can_begin_when_the_api_server_is_away() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    renewed = world.now
    world.away = True
    await lock.keep()
    assert not lock.held()
    assert lock.held_until() < world.now
    assert "was not renewed" in lock.problem
    assert world.now - renewed < DURATION_S


async def test_a_short_absence_of_the_api_server_is_got_over() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    world.away = True
    assert await lock.attempt()
    world.away = False
    assert await lock.attempt()
    assert lock.held_until() == world.now + RENEW_DEADLINE_S


async def test_a_release_does_not_take_the_lease_of_another() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    world.steal()
    await lock.release()
    assert world.holder == "thief"


async def test_a_lost_answer_to_a_renewal_is_read_again() -> None:
    world = World()
    lock = world.lock("a")
    await lock.acquire()
    assert world.stored is not None
    world.store(world.stored)  # our own renewal, of which we never heard
    assert await lock.attempt()  # refused; still held by the one before
    assert await lock.attempt()
    assert lock.held_until() == world.now + RENEW_DEADLINE_S
