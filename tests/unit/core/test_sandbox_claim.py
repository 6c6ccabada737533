"""A workspace on a claim: the pod is lost, the claim is not. And what `workspace.onLoss` says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.config import Config, OnLoss, UnknownPolicy, VolumeClaim
from ratchet.core.facts import SandboxRef
from ratchet.core.policy import MAX_GENERATIONS, after_loss
from ratchet.core.records import EndOutcome, Outcome
from ratchet.core.transcript import SANDBOX_LOST
from ratchet.fakes.model import calls

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    CONFIG,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    later,
    virtual,
)


def sandboxed(config: Config = CONFIG, *, claim: bool = True, on_loss: str = "Restart") -> Config:
    changed = replace(
        config.sandbox, claim=VolumeClaim("1Gi") if claim else None, on_loss=OnLoss(on_loss)
    )
    return replace(config, sandbox=changed)


def pod_lost_in_call(world: World, call: int = 0, *, claim_too: bool = False) -> None:
    def lose() -> None:
        world.lose_pod(claim_too=claim_too)

    world.on("run", BEFORE, lambda: later(0.5, lose), skip=call)


@virtual
async def test_generation_ledger_and_workspace_outlive_the_pod() -> None:
    world = World(calls(WRITE), calls(BASH), calls(READ), FINISHED, config=sandboxed())
    pod_lost_in_call(world, call=1)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.task.sandbox.generation == 1 and world.events(e.GenerationRaised) == []
    assert world.outcomes(2) == [Outcome.UNKNOWN] and world.ran("bash") == 1
    assert world.outcomes(3) == [Outcome.OK], "the file of the first turn is still there"
    assert not any(SANDBOX_LOST in body for body in world.asked())


@virtual
async def test_a_call_that_ended_before_the_loss_is_read_from_the_ledger() -> None:
    world = World(calls(BASH, READ), FINISHED, config=sandboxed())
    world.on("run", AFTER, world.kill)  # its result was never recorded
    world.on("claim", BEFORE, lambda: world.lose_pod(claim_too=False), skip=1)
    await world.run_to_end()
    assert world.outcomes(1)[0] is Outcome.OK and world.ran("bash") == 1


@virtual
async def test_a_pure_call_runs_again_in_the_same_generation() -> None:
    world = World(calls(WRITE, READ), FINISHED, config=sandboxed())
    pod_lost_in_call(world, call=1)
    await world.run_to_end()
    assert [effect.key[-4:] for effect in world.effects] == ["/1/0", "/1/1", "1/r1"]
    assert [rerun.generation for rerun in world.turns[0].reruns] == [1]
    assert world.outcomes(1) == [Outcome.OK, Outcome.OK]


@virtual
async def test_a_claim_that_is_lost_too_is_a_sandbox_lost() -> None:
    world = World(calls(BASH), calls(BASH), FINISHED, config=sandboxed())
    pod_lost_in_call(world, claim_too=True)
    await world.run_to_end()
    assert world.task.sandbox.generation == 2
    assert any(SANDBOX_LOST in body for body in world.asked())


@virtual
async def test_the_status_says_why_the_pod_is_made_again() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed())
    pod_lost_in_call(world)
    world.sandboxes.start_delay_s = 30
    await world.run_to_end()
    assert Reason.EVICTED in [summary.reason for summary in world.summaries]


@virtual
async def test_on_loss_fail_ends_the_task_with_the_loss_as_its_reason() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed(claim=False, on_loss="Fail"))
    pod_lost_in_call(world, claim_too=True)
    await world.run_to_end()
    assert (world.end.outcome, world.end.reason) == (EndOutcome.FAILED, Reason.SANDBOX_LOST)
    assert "onLoss is Fail" in world.end.message
    assert world.outcomes(1)[0] is Outcome.UNKNOWN, "the call that ran is settled first"
    assert world.task.sandbox.generation == 1


@virtual
async def test_on_loss_fail_holds_for_the_next_owner_too() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed(claim=False, on_loss="Fail"))
    world.on("run", BEFORE, lambda: later(0.3, world.kill))
    world.on("claim", BEFORE, world.lose_pod, skip=1)
    await world.run_to_end()
    assert world.end.reason == Reason.SANDBOX_LOST


@virtual
async def test_on_loss_fail_is_none_while_the_claim_lives() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed(on_loss="Fail"))
    pod_lost_in_call(world)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED


def test_what_a_loss_means_by_policy() -> None:
    fails, restarts = sandboxed(on_loss="Fail"), sandboxed(on_loss="Restart")
    used, unused = SandboxRef(1, "ledger"), SandboxRef(1)
    assert after_loss(restarts, used, "m") is None
    assert after_loss(fails, unused, "m") is None, "nothing had run in it"
    stop = after_loss(fails, used, "evicted")
    assert stop is not None and stop.reason is Reason.SANDBOX_LOST and "evicted" in stop.message
    last = after_loss(restarts, SandboxRef(MAX_GENERATIONS, "l"), "m")
    assert last is not None and last.reason is Reason.SANDBOX_FAILED


def never_back(world: World, reason: Reason, *, hopeless: bool = False) -> None:
    """The pod is lost in the first call, and the one after it is never ready."""
    pod_lost_in_call(world)
    world.on("run", BEFORE, lambda: setattr(world.sandboxes, "start_delay_s", 1e9))
    world.sandboxes.look_again_s = 5
    world.sandboxes.waits, world.sandboxes.hopeless = (reason, "it waits"), hopeless


@virtual
async def test_a_used_sandbox_that_does_not_come_back_ends_the_task() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed())
    never_back(world, Reason.SANDBOX_RESTARTING)
    await world.run_to_end()
    assert world.end.reason == Reason.SANDBOX_FAILED and "did not come back" in world.end.message
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert 600 < world.now < 640


@virtual
async def test_a_node_that_does_not_answer_is_waited_for() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed())
    never_back(world, Reason.NODE_LOST)
    world.start()
    await asyncio.sleep(7_200)
    assert not world.task.finished and world.summaries[-1].reason is Reason.NODE_LOST
    world.cancel()
    await world.run_to_end()


@virtual
async def test_after_a_node_came_back_its_sandbox_has_its_time_again() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed())
    never_back(world, Reason.NODE_LOST)
    world.start()
    await asyncio.sleep(7_200)
    world.sandboxes.waits = (Reason.SANDBOX_RESTARTING, "it starts again")
    await asyncio.sleep(500)
    assert not world.task.finished
    await world.run_to_end()
    assert world.end.reason == Reason.SANDBOX_FAILED and world.now > 7_200 + 590


@virtual
async def test_a_used_sandbox_that_waiting_does_not_help_has_the_same_time() -> None:
    world = World(calls(BASH), FINISHED, config=sandboxed())
    never_back(world, Reason.IMAGE_UNAVAILABLE, hopeless=True)
    await world.run_to_end()
    assert "it waits" in world.end.message and 600 < world.now < 640


@pytest.mark.parametrize("policy", list(UnknownPolicy))
def test_the_new_sandboxs_wait_names_the_loss_before_it(policy: UnknownPolicy) -> None:
    @virtual
    async def story() -> None:
        world = World(calls(BASH), FINISHED, config=configured(on_unknown=policy))
        pod_lost_in_call(world, claim_too=True)
        world.sandboxes.start_delay_s = 30
        await world.run_to_end()
        told = [s.message for s in world.summaries if s.reason is Reason.SANDBOX_STARTING]
        lost = [message for message in told if "The sandbox before it was lost" in message]
        assert bool(lost) == (policy is not UnknownPolicy.FAIL)

    story()
