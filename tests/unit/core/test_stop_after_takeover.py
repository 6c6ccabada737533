"""A task that is to end when a new owner finds it: the sandbox hears of that owner first."""

from __future__ import annotations

import asyncio

from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.facts import CallOrder
from ratchet.core.records import Outcome
from ratchet.fakes.model import calls
from ratchet.fakes.sandbox import FakePod
from ratchet.ports import SandboxAway

from tests.unit.core.world import BASH, BEFORE, FINISHED, World, virtual


async def with_a_turn_of(world: World) -> None:
    """Have an owner record the first turn and begin with its calls."""
    world.start()
    await world.until(e.TurnStored)


@virtual
async def test_a_call_that_a_lost_owner_left_running_is_ended_and_its_end_recorded() -> None:
    world = World(calls(BASH, BASH), FINISHED, tool_s=30)
    began, note = asyncio.Event(), world.sandboxes.began

    def begin(pod: FakePod, order: CallOrder) -> None:
        note(pod, order)
        began.set()

    world.sandboxes.began = begin
    await with_a_turn_of(world)
    await began.wait()
    world.kill()
    world.cancel()
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED
    assert world.outcomes(1) == [Outcome.KILLED, Outcome.NOT_RUN]


@virtual
async def test_an_owner_that_stood_still_runs_nothing_after_the_end() -> None:
    world = World(calls(BASH, BASH, BASH), FINISHED, tool_s=1)
    await with_a_turn_of(world)
    (first,) = world.owners
    first.frozen = world.now + 20
    world.cancel()
    world.start()
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED
    assert first.work is not None
    await first.work
    assert world.pod is not None and world.pod.epoch == 2
    assert world.ran("bash") <= 1


@virtual
async def test_a_sandbox_that_does_not_answer_the_new_owner_does_not_hold_up_the_end() -> None:
    world = World(calls(BASH), FINISHED, tool_s=30)
    await with_a_turn_of(world)
    world.kill()
    world.cancel()
    world.on("prepare", BEFORE, SandboxAway("no answer"), times=10**9)
    before = world.now
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert world.now - before < 10
