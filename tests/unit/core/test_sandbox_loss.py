"""A sandbox that is lost with its volumes: what is recorded, in which order, and what is told."""

from __future__ import annotations

from dataclasses import replace

from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.config import UnknownPolicy
from ratchet.core.evolve import evolve
from ratchet.core.policy import MAX_GENERATIONS
from ratchet.core.records import EndOutcome, Outcome
from ratchet.core.state import SandboxPhase
from ratchet.core.transcript import SANDBOX_LOST
from ratchet.fakes.model import calls
from ratchet.ports import SandboxAway

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    FINISH,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    later,
    virtual,
)


def pod_lost_in(world: World, call: int = 0) -> None:
    world.on("run", BEFORE, lambda: later(0.5, world.lose_pod), skip=call)


def position(world: World, kind: type[e.Event]) -> int:
    return next(i for i, seen in enumerate(world.seen) if isinstance(seen.event, kind))


@virtual
async def test_the_lost_call_is_recorded_as_unknown_before_a_new_sandbox_is_named() -> None:
    world = World(calls(BASH, WRITE), FINISHED)
    pod_lost_in(world)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.UNKNOWN, Outcome.NOT_RUN]
    assert position(world, e.SandboxVanished) < position(world, e.ResultsStored)
    assert position(world, e.ResultsStored) < position(world, e.GenerationRaised)
    assert world.ran("bash") == 1


@virtual
async def test_the_model_is_told_once_and_goes_on_in_a_new_sandbox() -> None:
    world = World(calls(BASH), calls(WRITE), FINISHED)
    pod_lost_in(world)
    await world.run_to_end()
    assert [turn.generation for turn in world.turns] == [1, 2, 2]
    assert [body.count(SANDBOX_LOST) for body in (world.asked()[0], world.asked()[-1])] == [0, 1]
    assert world.end.reason == Reason.FINISHED
    assert {effect.generation for effect in world.effects} == {1, 2}


@virtual
async def test_a_pure_call_runs_again_in_the_new_sandbox_under_a_recorded_key() -> None:
    world = World(calls(WRITE, READ), FINISHED)
    pod_lost_in(world, call=1)
    await world.run_to_end()
    assert [e.key[-4:] for e in world.effects] == ["/1/0", "/1/1", "1/r1"]
    assert position(world, e.RerunStored) < position(world, e.GenerationRaised)
    assert [rerun.generation for rerun in world.turns[0].reruns] == [2]


@virtual
async def test_what_a_lost_owner_alone_knew_of_a_lost_sandbox_is_unknown() -> None:
    """The result of the first call was in memory only when sandbox and owner were lost."""
    world = World(calls(BASH, READ), FINISHED)
    pod_lost_in(world, call=1)
    world.on("set_sandbox", AFTER, world.kill, skip=1)
    await world.run_to_end()
    assert world.ran("bash") == 1
    assert world.outcomes(1)[0] is Outcome.UNKNOWN


@virtual
async def test_of_an_inherited_turn_every_call_may_have_run() -> None:
    world = World(calls(READ, BASH, WRITE), FINISHED)
    world.on("run", AFTER, world.kill, skip=1)
    world.on("claim", BEFORE, world.lose_pod, skip=1)
    await world.run_to_end()
    assert world.ran("bash") == 1
    assert world.outcomes(1) == [Outcome.UNKNOWN] * 3
    assert position(world, e.ResultsStored) < position(world, e.GenerationRaised)


@virtual
async def test_an_inherited_turn_of_pure_calls_is_repeated() -> None:
    world = World(calls(READ, WRITE), FINISHED)
    world.on("run", AFTER, world.kill)
    world.on("claim", BEFORE, world.lose_pod, skip=1)
    await world.run_to_end()
    assert [rerun.key[-5:] for rerun in world.turns[0].reruns] == ["/0/r1", "/1/r1"]
    assert world.outcomes(1)[1] is Outcome.OK


@virtual
async def test_a_rerun_meant_for_the_next_sandbox_is_not_doubted_again() -> None:
    world = World(calls(READ), FINISHED)
    pod_lost_in(world)
    world.on("record_rerun", AFTER, world.kill)
    await world.run_to_end()
    assert [rerun.key[-3:] for rerun in world.turns[0].reruns] == ["/r1"]


@virtual
async def test_every_sandbox_lost_repeats_under_a_new_key_and_the_task_gives_up_in_the_end() -> (
    None
):
    world = World(calls(BASH), FINISHED, config=configured(on_unknown=UnknownPolicy.RETRY))
    world.on("run", BEFORE, lambda: later(0.5, world.lose_pod), times=99)
    await world.run_to_end()
    assert world.ran("bash") == 4
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert world.task.sandbox.generation <= MAX_GENERATIONS


@virtual
async def test_generations_are_limited() -> None:
    world = World(calls(BASH))
    world.on("run", BEFORE, lambda: later(0.5, world.lose_pod), times=99)
    await world.run_to_end()
    assert world.end.reason == Reason.SANDBOX_FAILED
    assert world.task.sandbox.generation == MAX_GENERATIONS


@virtual
async def test_a_request_under_way_is_given_up_when_the_model_must_be_told_of_a_new_sandbox() -> (
    None
):
    world = World(calls(BASH), FINISHED, think_s=5)
    world.on("ask", BEFORE, lambda: later(1, world.lose_pod), skip=1)
    await world.run_to_end()
    (withdrawn,) = world.events(e.AskWithdrawn)
    assert (withdrawn.turn, withdrawn.attempt) == (2, 1) and withdrawn.tokens > 0
    assert SANDBOX_LOST in world.asked()[-1]
    assert world.model.aborted == 1


@virtual
async def test_finish_without_its_workspace_is_a_result_lost() -> None:
    world = World(calls(WRITE), FINISHED)
    world.on("append", AFTER, world.lose_pod, skip=1)
    await world.run_to_end()
    assert (world.end.outcome, world.end.reason) == (EndOutcome.FAILED, Reason.RESULT_LOST)
    assert world.end.summary == "" and world.end.patch is None


@virtual
async def test_a_finish_taken_by_a_lost_owner_still_needs_its_patch() -> None:
    world = World(calls(WRITE), FINISHED)
    world.on("record_results", AFTER, world.kill, skip=1)
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED and world.end.patch is not None


@virtual
async def test_a_finish_taken_whose_sandbox_is_then_lost_has_no_result() -> None:
    world = World(calls(WRITE), FINISHED)
    world.on("record_results", AFTER, world.kill, skip=1)
    world.on("claim", BEFORE, world.lose_pod, skip=1)
    await world.run_to_end()
    assert world.end.reason == Reason.RESULT_LOST


@virtual
async def test_finish_beside_a_call_that_was_lost_is_not_taken() -> None:
    world = World(calls(BASH, FINISH), FINISHED)
    pod_lost_in(world)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.UNKNOWN, Outcome.NOT_RUN]
    assert world.end.reason == Reason.FINISHED and len(world.turns) == 2


@virtual
async def test_a_sandbox_that_does_not_answer_is_looked_at_and_asked_again() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("run", BEFORE, SandboxAway("reset"), times=2)
    world.on("run", AFTER, SandboxAway("reset"))
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.OK] and world.ran("bash") == 1
    assert world.turns[0].reruns == ()


@virtual
async def test_a_pod_that_never_starts_ends_the_task_although_it_is_looked_at_all_the_time() -> (
    None
):
    world = World(calls(BASH))
    world.sandboxes.start_delay_s = 100_000
    await world.run_to_end()
    assert world.end.reason == Reason.SANDBOX_FAILED
    assert 600 < world.now < 620


@virtual
async def test_a_sandbox_that_starts_slowly_costs_few_status_writes() -> None:
    world = World(calls(BASH), FINISHED)
    world.sandboxes.start_delay_s = 60
    await world.run_to_end()
    assert world.task.summaries < 15


@virtual
async def test_the_news_that_a_pod_came_up_is_none_to_who_has_its_answer() -> None:
    world = World(calls(BASH), FINISHED)
    world.start()
    answered = await world.until(e.LedgerBound)
    assert evolve(answered, e.SandboxChanged(came_up=True)) == answered
    waiting = replace(answered, sandbox=replace(answered.sandbox, phase=SandboxPhase.WAITING))
    assert evolve(waiting, e.SandboxChanged(came_up=True)).sandbox.phase is SandboxPhase.UNSEEN
    await world.run_to_end()
