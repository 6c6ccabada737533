"""Calls: their order, what follows a bad end, finish, and what nobody can know."""

from __future__ import annotations

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import Reason
from ratchet.core.config import UnknownPolicy
from ratchet.core.records import EndOutcome, Outcome
from ratchet.fakes.model import calls

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    CHANGE,
    FINISH,
    FINISHED,
    READ,
    WRITE,
    World,
    configured,
    failing,
    later,
    virtual,
)

TODO = ("todo", {"action": "read"})


@virtual
async def test_calls_run_one_after_another_in_their_order() -> None:
    world = World(calls(BASH, WRITE, READ), FINISHED)
    await world.run_to_end()
    assert [effect.tool for effect in world.effects] == ["bash", "write_file", "read_file"]
    assert world.outcomes(1) == [Outcome.OK] * 3


@virtual
async def test_no_call_runs_before_its_turn_is_recorded() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", BEFORE, lambda: world_is_idle(world))
    await world.run_to_end()
    assert len(world.effects) == 1


def world_is_idle(world: World) -> None:
    assert world.effects == []


@virtual
async def test_a_failed_command_does_not_keep_the_next_from_running() -> None:
    world = World(calls(BASH, BASH), FINISHED)
    world.sandboxes.tool = failing(Outcome.FAILED)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.FAILED, Outcome.OK]


@virtual
async def test_beside_a_command_that_still_runs_the_next_call_runs_and_finish_does_not() -> None:
    world = World(calls(BASH, READ, FINISH), FINISHED)
    world.sandboxes.tool = failing(Outcome.STILL_RUNNING)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.STILL_RUNNING, Outcome.OK, Outcome.NOT_RUN]


@pytest.mark.parametrize("end", [Outcome.KILLED, Outcome.TIMED_OUT, Outcome.DENIED])
@virtual
async def test_after_a_bad_end_the_later_calls_are_answered_and_not_run(end: Outcome) -> None:
    world = World(calls(BASH, WRITE, TODO), FINISHED)
    world.sandboxes.tool = failing(end)
    await world.run_to_end(check=end is not Outcome.DENIED)
    assert world.outcomes(1) == [end, Outcome.NOT_RUN, Outcome.NOT_RUN]
    assert world.ran("write_file") == 0
    assert "did not end well" in world.asked()[1]


@virtual
async def test_finish_beside_other_calls_runs_last() -> None:
    world = World(calls(FINISH, WRITE))
    await world.run_to_end()
    assert world.end.reason == Reason.FINISHED
    assert world.end.patch is not None and "sum.py" in world.end.patch.inline


@virtual
async def test_finish_beside_a_failed_call_is_not_taken() -> None:
    world = World(calls(BASH, FINISH), FINISHED)
    world.sandboxes.tool = failing(Outcome.FAILED)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.FAILED, Outcome.NOT_RUN]
    assert len(world.turns) == 2 and world.end.reason == Reason.FINISHED


@virtual
async def test_finish_carries_summary_result_and_patch_into_the_end() -> None:
    finish = ("finish", {"summary": "mended", "result": {"sum": 2}})
    world = World(calls(WRITE), calls(finish))
    await world.run_to_end()
    assert (world.end.outcome, world.end.summary) == (EndOutcome.SUCCEEDED, "mended")
    assert world.end.result == '{"sum":2}'
    assert world.end.patch is not None


@virtual
async def test_a_killed_owner_leaves_its_call_running_and_the_next_takes_the_receipt() -> None:
    world = World(calls(BASH), FINISHED, tool_s=10)
    world.on("run", BEFORE, lambda: later(5, world.kill))
    await world.run_to_end()
    assert world.ran("bash") == 1
    assert world.outcomes(1) == [Outcome.OK]
    assert world.turns[0].reruns == ()


@virtual
async def test_a_reply_recorded_by_a_killed_owner_is_run_by_the_next() -> None:
    world = World(calls(BASH, WRITE), FINISHED)
    world.on("append", AFTER, world.kill)
    await world.run_to_end()
    assert [effect.epoch for effect in world.effects] == [2, 2]
    assert len(world.model.seen) == 2


@virtual
async def test_results_known_to_a_killed_owner_alone_are_in_the_ledger() -> None:
    world = World(calls(BASH, WRITE), FINISHED)
    world.on("record_results", BEFORE, world.kill)
    await world.run_to_end()
    assert world.ran("bash") == world.ran("write_file") == 1
    assert world.outcomes(1) == [Outcome.OK, Outcome.OK]


# --- unknown outcomes in a workspace that is still there -----------------------------------------


def shell_lost_in(world: World, call: int = 0) -> None:
    """The shell is lost half a second after the call with this number was sent."""
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell), skip=call)


@pytest.mark.parametrize("policy", UnknownPolicy)
@pytest.mark.parametrize("call", [READ, WRITE])
@virtual
async def test_pure_and_idempotent_calls_are_repeated_under_a_recorded_key(
    policy: UnknownPolicy, call: tuple[str, dict[str, str]]
) -> None:
    world = World(calls(call, BASH), FINISHED, config=configured(on_unknown=policy))
    shell_lost_in(world)
    await world.run_to_end()
    (rerun,) = world.turns[0].reruns
    assert world.result(1, 0).key == rerun.key == f"{world.task.ref.uid}/1/0/r1"
    assert world.ran(call[0]) == 2 and world.ran("bash") == 1
    assert world.end.reason == Reason.FINISHED
    assert world.task.summary is not None and world.task.summary.unknown_outcomes == 1


@virtual
async def test_a_command_of_unknown_outcome_is_reported_and_not_repeated() -> None:
    world = World(calls(BASH, WRITE), FINISHED)
    shell_lost_in(world)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.UNKNOWN, Outcome.NOT_RUN]
    assert world.ran("bash") == 1 and world.turns[0].reruns == ()
    assert "may have happened in full, in part, or not at all" in world.asked()[1]
    assert world.task.summary is not None and world.task.summary.unknown_outcomes == 1


@virtual
async def test_a_command_is_repeated_where_the_task_asks_for_it() -> None:
    world = World(calls(BASH), FINISHED, config=configured(on_unknown=UnknownPolicy.RETRY))
    shell_lost_in(world)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.OK]
    assert len(world.turns[0].reruns) == 1


@virtual
async def test_reruns_end_and_then_the_outcome_is_reported() -> None:
    world = World(calls(READ), FINISHED)
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell), times=4)
    await world.run_to_end()
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert len(world.turns[0].reruns) == 3 and world.ran("read_file") == 4


@virtual
async def test_an_unknown_command_ends_the_task_where_it_asks_for_that() -> None:
    world = World(calls(BASH), FINISHED, config=configured(on_unknown=UnknownPolicy.FAIL))
    shell_lost_in(world)
    await world.run_to_end()
    assert world.end.reason == Reason.UNKNOWN_OUTCOME
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert "call 0 of turn 1 (bash)" in world.end.message
    assert len(world.model.seen) == 1


@virtual
async def test_unknown_with_fail_ends_the_task_although_the_owner_that_recorded_it_is_lost() -> (
    None
):
    world = World(calls(BASH), FINISHED, config=configured(on_unknown=UnknownPolicy.FAIL))
    world.on("run", BEFORE, lambda: later(0.5, world.lose_shell))
    world.on("record_results", AFTER, world.kill)
    await world.run_to_end()
    assert world.end.reason == Reason.UNKNOWN_OUTCOME
    assert len(world.owners) == 2 and len(world.turns) == 1


@virtual
async def test_a_change_whose_file_has_changed_did_happen() -> None:
    world = World(calls(WRITE), calls(CHANGE, BASH), FINISHED)
    world.on("run", BEFORE, lambda: later(0.8, world.lose_shell), skip=1)
    await world.run_to_end()
    assert world.outcomes(2) == [Outcome.OK, Outcome.OK]
    assert world.ran("search_replace") == 1 and world.turns[1].reruns == ()
    assert "Read the file" in world.result(2, 0).content


@virtual
async def test_a_change_whose_file_is_as_before_is_made_again() -> None:
    world = World(calls(WRITE), calls(CHANGE), FINISHED)
    shell_lost_in(world, call=1)
    await world.run_to_end()
    assert world.outcomes(2) == [Outcome.OK]
    assert world.ran("search_replace") == 2
    assert world.result(2, 0).key.endswith("/r1")


@virtual
async def test_a_rerun_whose_record_was_acknowledged_to_nobody_is_recorded_once() -> None:
    world = World(calls(READ), FINISHED)
    shell_lost_in(world)
    world.on("record_rerun", AFTER, world.kill)
    await world.run_to_end()
    assert [rerun.key[-3:] for rerun in world.turns[0].reruns] == ["/r1"]
    assert world.ran("read_file") == 2


@virtual
async def test_a_task_that_ends_while_a_rerun_is_being_recorded_records_it_first() -> None:
    world = World(calls(READ), FINISHED)
    shell_lost_in(world)
    world.on("record_rerun", BEFORE, world.cancel)
    await world.run_to_end()
    assert world.end.outcome is EndOutcome.CANCELLED
    assert world.outcomes(1) == [Outcome.UNKNOWN]
    assert len(world.turns[0].reruns) == 1
    assert world.events(e.JournalBroken) == []
