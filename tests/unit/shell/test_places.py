"""A place at an endpoint is given back whatever becomes of the task that has it."""

from __future__ import annotations

import asyncio

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.replies import FailureKind, ModelFailure
from ratchet.fakes.model import calls
from ratchet.ports import Answered, JournalAway, OwnershipLost

from tests.unit.core.invariants import places_are_given_back
from tests.unit.core.world import (
    BASH,
    BEFORE,
    BROKEN,
    FINISHED,
    World,
    configured,
    later,
    virtual,
)


def returns(world: World) -> list[object]:
    """How the places were given back, in the order in which they were taken."""
    return [permit.returns[0] if permit.returns else "never" for permit in world.gate.given]


@virtual
async def test_a_reply_gives_the_place_back_with_its_latency_and_usage() -> None:
    world = World(calls(BASH, tokens=77), FINISHED, think_s=3)
    await world.run_to_end()
    (first, _) = world.gate.given
    (how,) = first.returns
    assert isinstance(how, Answered)
    assert how.latency_s == pytest.approx(3.01) and how.usage.prompt == 77


@virtual
async def test_it_is_given_back_before_the_reply_is_recorded() -> None:
    world = World(FINISHED)
    inside: list[int] = []
    world.on("append", BEFORE, lambda: inside.append(len(world.gate.inside)), times=9)
    await world.run_to_end()
    assert inside == [0, 0]


@virtual
async def test_a_failure_gives_it_back_and_says_which() -> None:
    world = World(FINISHED)
    full = ModelFailure(FailureKind.WAIT, "full", 503)
    world.model.failures = [full, BROKEN]
    await world.run_to_end()
    assert returns(world)[:2] == [full, BROKEN]


@virtual
async def test_no_place_is_kept_between_attempts() -> None:
    world = World(FINISHED)
    world.model.failures = [ModelFailure(FailureKind.WAIT, "full", 429, retry_after_s=300)]
    world.start()
    await world.until(e.AskFailed)
    await asyncio.sleep(100)
    assert not world.gate.inside
    await world.run_to_end()


@virtual
async def test_a_request_that_is_withdrawn_gives_it_back() -> None:
    world = World(calls(BASH), FINISHED, think_s=50)
    world.on("ask", BEFORE, lambda: later(5, world.cancel))
    await world.run_to_end()
    assert returns(world) == [None] and world.end.reason == Reason.CANCELLED


@virtual
async def test_a_deadline_gives_it_back() -> None:
    world = World(FINISHED, think_s=50, config=configured(active_deadline_s=10))
    await world.run_to_end()
    assert returns(world) == [None] and world.end.reason == Reason.DEADLINE_EXCEEDED


@virtual
async def test_a_sandbox_that_is_lost_takes_the_place_of_the_outdated_request_along() -> None:
    world = World(calls(BASH), FINISHED, think_s=5)
    world.on("ask", BEFORE, lambda: later(1, world.lose_pod), skip=1)
    await world.run_to_end()
    assert [isinstance(how, Answered) for how in returns(world)] == [True, False, True]


@pytest.mark.parametrize("operation", ["mark_asking", "ask"])
@virtual
async def test_a_runner_that_is_stopped_gives_it_back(operation: str) -> None:
    world = World(FINISHED, think_s=50)
    world.on(operation, BEFORE, lambda: later(0, world.kill))
    owner = world.start()
    assert owner.work is not None
    await asyncio.wait([owner.work])
    assert returns(world) == [None]


@virtual
async def test_a_runner_that_is_stopped_in_the_queue_leaves_it() -> None:
    world = World(FINISHED)
    world.gate.close()
    owner = world.start()
    await world.until(e.Queued)
    world.kill(owner)
    assert owner.work is not None
    await asyncio.wait([owner.work])
    places_are_given_back(world.gate)


@virtual
async def test_a_task_that_is_cancelled_in_the_queue_leaves_it() -> None:
    world = World(FINISHED)
    world.gate.close()
    later(60, world.cancel)
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED and not world.gate.given


@virtual
async def test_a_place_that_comes_with_a_cancel_is_given_back() -> None:
    """In the same moment: whichever is told first."""
    world = World(FINISHED)
    world.gate.close()
    world.start()
    await world.until(e.Queued)
    world.gate.open()
    world.cancel()
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED and not world.gate.inside


@virtual
async def test_a_lost_ownership_gives_it_back() -> None:
    world = World(FINISHED)
    world.on("mark_asking", BEFORE, OwnershipLost("somebody else has it"))
    owner = world.start()
    assert owner.work is not None
    await asyncio.wait([owner.work])
    assert returns(world) == [None]


@virtual
async def test_what_nobody_foresaw_gives_it_back() -> None:
    world = World(FINISHED)
    world.on("ask", BEFORE, ZeroDivisionError("a bug"))
    owner = world.start()
    assert owner.work is not None
    with pytest.raises(ZeroDivisionError):
        await owner.work
    assert returns(world) == [None]


@virtual
async def test_no_place_is_kept_while_the_api_server_is_away() -> None:
    world = World(FINISHED)
    kept: list[float] = []
    world.witnesses.append(
        lambda seen: (
            kept.append(len(world.gate.inside))
            if isinstance(seen.event, e.AdmissionLapsed)
            else None
        )
    )
    world.on("mark_asking", BEFORE, JournalAway("no answer"), times=5)
    await world.run_to_end()
    assert kept and set(kept) == {0}
    assert returns(world)[:5] == [None] * 5


@virtual
async def test_a_mark_that_was_written_for_nothing_is_written_anew_before_the_request() -> None:
    """The place lapses after the mark: the status forgets the mark, so the next attempt has its own."""
    world = World(calls(BASH), FINISHED, think_s=1)

    async def lose() -> None:
        world.lose_pod()
        await asyncio.sleep(5)

    world.on("mark_asking", BEFORE, lose, skip=1)
    world.on("set_sandbox", BEFORE, lambda: asyncio.sleep(20), skip=1)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    marks = [(m.asking.turn, m.asking.attempt) for m in world.events(e.AskingMarked)]
    rids = [request.rid.rsplit("-", 3)[1:3] for request in world.model.seen]
    assert rids == [["t1", "a1"], ["t2", "a2"]]
    assert marks == [(1, 1), (2, 1), (2, 2)]


@virtual
async def test_two_tasks_at_one_place_take_turns() -> None:
    """A gate with one place: nobody keeps what the other one waits for."""
    world = World(*[calls(BASH)] * 5, FINISHED, think_s=1)
    places: list[int] = []
    world.hooks.append(_count(world, places))
    await world.run_to_end()
    assert max(places) == 1


def _count(world: World, places: list[int]):  # type: ignore[no-untyped-def]
    async def count(_operation: str, _stage: object) -> None:
        places.append(len(world.gate.inside))

    return count
