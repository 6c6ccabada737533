"""A sandbox that answers and says no, again and again, does not keep a task from its end."""

from __future__ import annotations

import pytest
from ratchet.core.conditions import Reason
from ratchet.core.records import Outcome
from ratchet.fakes.model import calls
from ratchet.ports import SandboxAway, SandboxRefused

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    CHANGE,
    FINISHED,
    WRITE,
    World,
    configured,
    later,
    virtual,
)  # fmt: skip

ALWAYS = 10**9


@pytest.mark.parametrize("reason", [Reason.SANDBOX_DISK_FULL, Reason.SANDBOX_FAILED])
@virtual
async def test_a_sandbox_that_can_write_nothing_down_ends_the_task_in_the_end(
    reason: Reason,
) -> None:
    world = World(calls(BASH), FINISHED)
    world.on("run", BEFORE, SandboxAway("no room for the ledger", reason), times=ALWAYS)
    await world.run_to_end()
    assert (world.end.reason, world.ran("bash")) == (reason, 0)
    assert "no room for the ledger" in world.end.message
    assert reason in [summary.reason for summary in world.summaries]
    assert 500 < world.now < 700


@virtual
async def test_a_sandbox_whose_disk_has_room_again_goes_on() -> None:
    world = World(calls(BASH), FINISHED)
    away = SandboxAway("no room for the ledger", Reason.SANDBOX_DISK_FULL)
    world.on("run", BEFORE, away, times=50)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED and world.outcomes(1) == [Outcome.OK]


@pytest.mark.parametrize(
    "no",
    [SandboxRefused("failed", "git add failed"), SandboxAway("no answer within 60 s")],
    ids=["refused", "too slow"],
)
@virtual
async def test_a_finish_whose_patch_cannot_be_had_ends_without_result(no: Exception) -> None:
    world = World(calls(BASH), FINISHED)
    world.on("patch", BEFORE, no, times=ALWAYS)
    before = world.now
    await world.run_to_end()
    assert world.end.reason == Reason.RESULT_LOST
    assert str(no) in world.end.message
    assert 10 < world.now - before < 60


@virtual
async def test_a_patch_that_can_be_had_a_little_later_is_the_result() -> None:
    world = World(FINISHED)
    world.on("patch", BEFORE, SandboxRefused("failed", "the disk is full"), times=5)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.end.patch is not None


@virtual
async def test_a_call_that_the_sandbox_does_not_take_is_denied_and_the_model_told() -> None:
    world = World(calls(BASH, WRITE), FINISHED)
    world.on("run", BEFORE, SandboxRefused("bad_request", "that is no call"), times=1)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.outcomes(1) == [Outcome.DENIED, Outcome.NOT_RUN]
    assert "that is no call" in world.result(1, 0).content


@virtual
async def test_a_file_that_cannot_be_looked_at_leaves_its_change_unknown() -> None:
    world = World(calls(WRITE), calls(CHANGE), FINISHED)
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell), skip=1)
    world.on("digest", BEFORE, SandboxRefused("bad_path", "a folder"), times=ALWAYS)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.outcomes(2) == [Outcome.UNKNOWN]


@virtual
async def test_a_sandbox_that_fails_each_call_is_asked_ever_more_rarely() -> None:
    world = World(calls(BASH), FINISHED, config=configured(active_deadline_s=300))
    world.on("run", BEFORE, SandboxAway("the ledger cannot be written"), times=ALWAYS)
    asked = 0

    def count() -> None:
        nonlocal asked
        asked += 1

    world.on("prepare", AFTER, count, times=ALWAYS)
    await world.run_to_end()
    assert world.end.reason == Reason.DEADLINE_EXCEEDED
    assert asked < 80
