"""The runner performs wishes and nothing else: one at a time each, none forgotten, none in a hurry."""

from __future__ import annotations

import asyncio

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.fakes.model import calls
from ratchet.ports import JournalAway, JournalRefused, OwnershipLost, SandboxRefused

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    FINISHED,
    JOURNAL_OPERATIONS,
    World,
    later,
    virtual,
)


@pytest.mark.parametrize("operation", [*JOURNAL_OPERATIONS[:2], "mark_asking", "summarise"])
@virtual
async def test_a_lost_ownership_stops_the_loop_at_once(operation: str) -> None:
    world = World(calls(BASH), FINISHED)
    world.on(operation, BEFORE, OwnershipLost("somebody else has it"))
    owner = world.start()
    assert owner.work is not None
    state = await owner.work
    assert state is not None and state.lost
    assert not owner.runner or not owner.runner._under_way


@virtual
async def test_a_stale_epoch_at_the_sandbox_stops_the_loop() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("run", BEFORE, SandboxRefused("stale_epoch", "epoch 1 is below 2"))
    owner = world.start()
    assert owner.work is not None
    state = await owner.work
    assert state is not None and state.lost


@virtual
async def test_a_stale_epoch_while_a_call_is_ended_stops_the_loop_too() -> None:
    world = World(calls(BASH), FINISHED, tool_s=100)
    world.on("run", BEFORE, lambda: later(1, world.cancel))
    world.on("interrupt", BEFORE, SandboxRefused("stale_epoch", "epoch 1 is below 2"))
    owner = world.start()
    assert owner.work is not None
    state = await owner.work
    assert state is not None and state.lost and world.turns[0].results is None


@virtual
async def test_another_ledger_is_a_lost_sandbox() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("run", BEFORE, SandboxRefused("wrong_ledger", "another ledger is there"))
    await world.run_to_end()
    assert len(world.events(e.SandboxVanished)) == 1
    assert world.task.sandbox.generation == 2


@virtual
async def test_a_record_that_the_api_server_refuses_stops_the_task_with_a_condition() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", BEFORE, JournalRefused("the object is too large"))
    await world.run_to_end(check=False)
    assert world.task.summary is not None
    assert world.task.summary.reason == Reason.JOURNAL_CONFLICT
    assert "too large" in world.task.summary.message


@virtual
async def test_a_final_status_that_is_refused_is_not_written_again_and_again() -> None:
    world = World(FINISHED)
    refused = 0

    def refuse() -> None:
        nonlocal refused
        if world.task.records.get(2) is not None:
            refused += 1
            raise JournalRefused("the status is too large")

    world.on("summarise", BEFORE, refuse, times=99)
    owner = world.start()
    assert owner.work is not None
    with pytest.raises(JournalRefused):
        await owner.work
    assert refused == 1


@virtual
async def test_what_nobody_foresaw_is_raised_and_not_swallowed() -> None:
    world = World(FINISHED)
    world.on("ask", BEFORE, ZeroDivisionError("a bug"))
    owner = world.start()
    assert owner.work is not None
    with pytest.raises(ZeroDivisionError):
        await owner.work


@virtual
async def test_a_stopped_runner_leaves_nothing_behind() -> None:
    world = World(calls(BASH), FINISHED, think_s=100)
    before = asyncio.all_tasks()
    owner = world.start()
    await world.until(e.AskingMarked)
    world.kill(owner)
    assert owner.work is not None
    await asyncio.wait([owner.work])
    assert asyncio.all_tasks() <= before


@virtual
async def test_an_api_server_that_is_away_is_not_asked_in_a_hurry() -> None:
    world = World(calls(BASH), FINISHED)
    world.latency = lambda: 0.0
    asked: list[float] = []

    def away() -> None:
        asked.append(world.now)
        if world.now < 100:
            raise JournalAway("no answer")

    for operation in (*JOURNAL_OPERATIONS, "prepare", "remove"):
        world.on(operation, BEFORE, away, times=10**6)
    await world.run_to_end()
    assert sum(at < 100 for at in asked) < 80


@virtual
async def test_an_api_server_that_is_away_at_the_end_is_not_asked_in_a_hurry() -> None:
    world = World(FINISHED)
    world.latency = lambda: 0.0
    tries = 0

    def away() -> None:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise JournalAway("no answer")

    world.on("remove", BEFORE, away, times=99)
    await world.run_to_end()
    ended = next(seen.at for seen in world.seen if isinstance(seen.event, e.Concluded))
    assert world.now - ended > 1


@virtual
async def test_listeners_hear_every_event_in_order_with_the_state_it_led_to() -> None:
    world = World(calls(BASH), FINISHED)
    await world.run_to_end()
    kinds = [type(seen.event) for seen in world.seen]
    assert kinds.index(e.Replied) < kinds.index(e.TurnStored) < kinds.index(e.CallEnded)
    assert kinds[-1] is e.SandboxRemoved and world.seen[-1].state.removed
    stored = next(seen for seen in world.seen if isinstance(seen.event, e.TurnStored))
    assert len(stored.state.turns) == 1


@virtual
async def test_the_next_request_is_under_way_while_results_are_recorded() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("record_results", AFTER, lambda: asyncio.sleep(1.5))
    await world.run_to_end()
    recorded = next(s.at for s in world.seen if isinstance(s.event, e.ResultsStored))
    replied = [s.at for s in world.seen if isinstance(s.event, e.Replied)][1]
    assert replied - recorded < 1


@virtual
async def test_the_sandbox_is_made_beside_the_first_request() -> None:
    world = World(calls(BASH), FINISHED, think_s=10)
    world.sandboxes.start_delay_s = 9
    await world.run_to_end()
    first = next(s.at for s in world.seen if isinstance(s.event, e.CallEnded))
    assert first < 12
