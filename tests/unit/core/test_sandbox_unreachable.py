"""A pod that starts and can then not be reached, as with a network policy in the way."""

from __future__ import annotations

import asyncio

from ratchet.core.conditions import Reason
from ratchet.fakes.model import calls
from ratchet.ports import SandboxAway

from tests.unit.core.world import BASH, BEFORE, World, virtual


@virtual
async def test_it_ends_the_task_as_one_that_does_not_start() -> None:
    world = World(calls(BASH))
    world.sandboxes.start_delay_s = 5
    world.on("prepare", BEFORE, SandboxAway("no route to the pod"), skip=1, times=10**9)
    await world.run_to_end()
    assert world.end.reason == Reason.SANDBOX_FAILED
    assert 600 < world.now < 620


@virtual
async def test_one_whose_ledger_was_used_is_waited_for() -> None:
    world = World(calls(BASH))
    world.on("run", BEFORE, SandboxAway("no route to the pod"), times=10**9)
    world.start()
    await asyncio.sleep(3_600)
    assert not world.task.finished
    world.cancel()
    await world.run_to_end()
    assert world.end.reason == Reason.CANCELLED
