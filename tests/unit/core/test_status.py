"""What each state shows: the table of the status contract."""

from __future__ import annotations

import pytest
from ratchet.core import events as e
from ratchet.core.conditions import ConditionType, Phase, Reason
from ratchet.core.evolve import evolve
from ratchet.core.records import Outcome
from ratchet.core.status import (
    MAX_MESSAGE,
    Condition,
    Summary,
    conditions_of_failure,
    conditions_of_wait,
    summarise,
)
from ratchet.fakes.clock import BEGIN
from ratchet.fakes.model import calls

from tests.unit.core.world import (
    AFTER,
    BASH,
    BEFORE,
    BROKEN,
    BUSY,
    FINISH,
    FINISHED,
    World,
    configured,
    later,
    virtual,
)

T, F = True, False


def table(conditions: tuple[Condition, ...]) -> dict[str, bool | None]:
    """All but what is said of the sandbox's network (test_network.py)."""
    kinds = {str(condition.type): condition.status for condition in conditions}
    kinds.pop(ConditionType.NETWORK_ENFORCED, None)
    return kinds


async def summary_at(world: World, kind: type[e.Event]) -> Summary:
    world.start()
    state = await world.until(kind)
    return summarise(state, BEGIN)


def last(world: World) -> Summary:
    assert world.task.summary is not None
    return world.task.summary


@virtual
async def test_a_running_task_reconciles() -> None:
    summary = await summary_at(World(calls(BASH)), e.LedgerBound)
    assert summary.phase is Phase.RUNNING and summary.doing == "Model"
    assert table(summary.conditions) == {"Ready": F, "Reconciling": T}


@virtual
async def test_a_task_that_succeeded_is_ready_and_complete() -> None:
    world = World(calls(BASH), FINISHED)
    await world.run_to_end()
    assert last(world).phase is Phase.SUCCEEDED and last(world).doing == ""
    assert table(last(world).conditions) == {
        "Ready": T, "Reconciling": F, "Complete": T, "Finished": T,
    }  # fmt: skip


@virtual
async def test_a_task_that_failed_is_stalled_and_finished() -> None:
    world = World(FINISHED, config=configured(active_deadline_s=1))
    await world.run_to_end()
    assert last(world).phase is Phase.FAILED and last(world).reason is Reason.DEADLINE_EXCEEDED
    assert table(last(world).conditions) == {
        "Ready": F, "Reconciling": F, "Stalled": T, "Failed": T, "Finished": T,
    }  # fmt: skip


@virtual
async def test_a_cancelled_task_looks_to_tools_like_a_failed_one() -> None:
    world = World(FINISHED)
    world.on("ask", BEFORE, world.cancel)
    await world.run_to_end()
    assert last(world).phase is Phase.CANCELLED
    assert table(last(world).conditions)["Stalled"] is True


def test_every_condition_carries_reason_and_message() -> None:
    conditions = conditions_of_failure(Reason.CONFIG_INVALID, "Mend it.")
    assert {(c.reason, c.message) for c in conditions} == {(Reason.CONFIG_INVALID, "Mend it.")}


def test_a_task_that_waits_to_begin_still_reconciles() -> None:
    assert table(conditions_of_wait(Reason.PROFILE_NOT_FOUND, "")) == {"Ready": F, "Reconciling": T}


@virtual
async def test_doing_names_the_tool_that_runs() -> None:
    world = World(calls(BASH), FINISHED, tool_s=10)
    summary = await summary_at(world, e.TurnStored)
    assert summary.doing == "Tool:bash"


@virtual
async def test_doing_names_the_sandbox_where_a_call_waits_for_it() -> None:
    world = World(calls(BASH), FINISHED)
    world.sandboxes.start_delay_s = 60
    summary = await summary_at(world, e.TurnStored)
    assert summary.doing == "Sandbox" and summary.reason is Reason.SANDBOX_STARTING


@pytest.mark.parametrize(
    ("failure", "reason"), [(BUSY, Reason.MODEL_BUSY), (BROKEN, Reason.MODEL_RETRYING)]
)
@virtual
async def test_what_is_in_the_way_is_said(failure: object, reason: Reason) -> None:
    world = World(FINISHED)
    world.model.failures = [failure]  # type: ignore[list-item]
    summary = await summary_at(world, e.AskFailed)
    assert summary.reason is reason and summary.message == failure.message  # type: ignore[attr-defined]


@virtual
async def test_a_sandbox_that_is_looked_at_again_is_still_starting() -> None:
    world = World(FINISHED, think_s=60)
    world.sandboxes.start_delay_s = 60
    summary = await summary_at(world, e.SandboxChanged)
    assert summary.reason is Reason.SANDBOX_STARTING


@virtual
async def test_counters_count() -> None:
    world = World(calls(BASH, BASH), calls(BASH), FINISHED)
    world.on("run", BEFORE, lambda: later(0.3, world.lose_shell))
    await world.run_to_end()
    summary = last(world)
    assert (summary.turns, summary.tool_calls, summary.unknown_outcomes) == (3, 4, 1)
    assert (summary.usage.prompt, summary.usage.completion) == (30, 3)


@virtual
async def test_the_result_is_shown_in_short() -> None:
    finish = ("finish", {"summary": "ä" * 2000, "result": {"text": "x" * 5000}})
    world = World(calls(finish))
    await world.run_to_end()
    result = last(world).result
    assert result is not None and result.record == 2
    assert len(result.summary.encode()) <= MAX_MESSAGE and result.summary.endswith(" ...")
    assert result.result == "" and result.patch_bytes > 0
    assert world.end.summary == "ä" * 2000


@virtual
async def test_small_results_are_shown_whole() -> None:
    world = World(calls(("finish", {"summary": "done", "result": {"sum": 2}})))
    await world.run_to_end()
    result = last(world).result
    assert result is not None and result.result == '{"sum":2}'


@virtual
async def test_the_urgent_part_is_phase_and_conditions() -> None:
    world = World(calls(BASH), FINISHED)
    world.on("append", AFTER, lambda: None)
    await world.run_to_end()
    phases = [summary.phase for summary in world.summaries]
    assert phases[-1] is Phase.SUCCEEDED and set(phases[:-1]) == {Phase.RUNNING}
    assert ConditionType.FINISHED in {c.type for c in last(world).conditions}
    assert world.outcomes(2) == [Outcome.OK] and FINISH[0] == "finish"


@virtual
async def test_a_sandbox_that_answered_again_and_is_looked_at_is_no_trouble() -> None:
    world = World(calls(BASH), FINISHED)
    world.start()
    state = await world.until(e.LedgerBound)
    for event in (
        e.SandboxUnreachable("no answer", BEGIN),
        e.SandboxUnreachable("no answer", BEGIN),
        e.SandboxAnswered(state.sandbox.ref),
        e.SandboxChanged(),
    ):
        state = evolve(state, event)
    assert summarise(state, BEGIN).reason is Reason.ACCEPTED
    await world.run_to_end()
