"""L3's plan: which faults are made, and how tasks should end after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ratchet.core.config import UnknownPolicy
from ratchet.core.records import (
    Call,
    End,
    EndOutcome,
    Outcome,
    Patch,
    Record,
    Reply,
    Rerun,
    Result,
    Turn,
    Verdict,
)

from tests.proof.cluster.expected import amiss
from tests.proof.cluster.faults import FAULTS
from tests.proof.cluster.plan import KINDS, OOM, Kind, Loses, Moment, Trial, shapes, trials
from tests.proof.shapes import script

UID = "11111111-2222-3333-4444-555555555555"
SUCCEEDED = {"phase": "Succeeded", "owner": {"epoch": 1}, "sandbox": {"generation": 1}}


def trial(kind: Kind, turn: int = 1) -> Trial:
    return Trial(1, kind, turn, Moment.CALL, 0.5, (UnknownPolicy.REPORT,), 0.0)


def kind(loses: Loses) -> Kind:
    return next(kind for kind in KINDS if kind.loses is loses)


def turn(number: int, outcome: Outcome, *, reruns: int = 0, finish: bool = False) -> Turn:
    key = f"{UID}/{number}/0"
    call = Call(0, "abcdefghi", "finish" if finish else "bash", "{}")
    return Turn(
        number=number,
        epoch=1,
        generation=1,
        ledger="l",
        previous="p",
        request_digest="d",
        reply=Reply(Verdict.FINISH if finish else Verdict.CALLS, calls=(call,)),
        reruns=tuple(Rerun(0, f"{key}/r{n}", "unknown", 1) for n in range(1, reruns + 1)),
        results=(Result(0, key, outcome, "text"),),
    )


def end(patch: str | None) -> End:
    made = None if patch is None else Patch("b", "s", len(patch), patch)
    return End(3, 1, "p", EndOutcome.SUCCEEDED, "Finished", "", patch=made)


GOOD = (turn(1, Outcome.OK), turn(2, Outcome.OK, finish=True))
UNKNOWN = (turn(1, Outcome.UNKNOWN), turn(2, Outcome.OK, finish=True))


def wrong(
    loses: Loses,
    records: Sequence[Record],
    policy: UnknownPolicy = UnknownPolicy.REPORT,
    **status: Any,
) -> list[str]:
    return list(amiss(trial(kind(loses)), policy, {**SUCCEEDED, **status}, records))


# --- the plan ------------------------------------------------------------------------------------


def test_each_kind_of_fault_comes_up_before_any_comes_up_again() -> None:
    plan = trials(len(KINDS) + 2, seed=5)
    assert {one.kind.name for one in plan[: len(KINDS)]} == {kind.name for kind in KINDS}
    assert len({one.name for one in plan}) == len(KINDS) + 2


def test_every_kind_can_be_made_and_no_other() -> None:
    assert set(FAULTS) == {kind.name for kind in KINDS}


def test_the_seed_alone_decides() -> None:
    assert trials(60, seed=1) == trials(60, seed=1)
    assert trials(60, seed=1) != trials(60, seed=2)


def test_sixty_faults_hit_every_moment_and_every_policy() -> None:
    plan = trials(60, seed=1)
    assert {one.moment for one in plan} == set(Moment)
    assert {one.policies[0] for one in plan} == set(UnknownPolicy)


def test_a_fault_is_over_before_its_tasks_are() -> None:
    assert all(one.turn < one.kind.turns for one in trials(200, seed=1))


def test_a_name_that_no_fault_has_is_answered_with_all_names() -> None:
    with pytest.raises(ValueError, match="kubelet-away"):
        trials(1, seed=1, only="nonesuch")


def test_the_strict_model_takes_the_script_of_all_trials() -> None:
    plan = trials(60, seed=1)
    played = script(shapes(plan, lambda text: f"note {text}"))
    turns = {c.name: sum(turn.repeat for turn in c.turns) for c in played.conversations}
    assert turns == {one.name: one.kind.turns + 1 for one in plan}


# --- how tasks should end ------------------------------------------------------------------------


def test_a_task_that_went_on_as_before_is_in_order() -> None:
    assert wrong(Loses.NOTHING, GOOD) == []


def test_nothing_is_unknown_while_the_sandbox_lives() -> None:
    assert "lived on" in wrong(Loses.NOTHING, UNKNOWN)[0]
    assert wrong(Loses.SHELL, UNKNOWN) == []


def test_a_lost_operator_is_followed_by_another() -> None:
    assert wrong(Loses.OPERATOR, GOOD) == ["no other operator took it on"]
    assert wrong(Loses.OPERATOR, GOOD, owner={"epoch": 2}) == []


def test_a_lost_pod_is_followed_by_a_new_sandbox() -> None:
    assert wrong(Loses.POD, UNKNOWN) == ["it has the same sandbox as before"]
    assert wrong(Loses.POD, UNKNOWN, sandbox={"generation": 2}) == []


def test_a_sandbox_whose_workspace_was_not_lost_is_not_made_anew() -> None:
    assert "a new sandbox" in wrong(Loses.SHELL, UNKNOWN, sandbox={"generation": 2})[0]
    assert "a new sandbox" in wrong(Loses.NOTHING, GOOD, sandbox={"generation": 2})[0]


@pytest.mark.parametrize("loses", [Loses.NOTHING, Loses.SHELL])
def test_what_a_recorded_call_wrote_is_in_the_patch(loses: Loses) -> None:
    assert wrong(loses, (*GOOD, end("+turn 1\n+turn 2\n"))) == []
    assert "nothing of turn 1" in wrong(loses, (*GOOD, end("+turn 11\n")))[0]
    assert "nothing of turn 1" in wrong(loses, (*GOOD, end(None)))[0]


def test_what_a_call_of_unknown_outcome_wrote_need_not_be_in_the_patch() -> None:
    assert wrong(Loses.SHELL, (*UNKNOWN, end(""))) == []


def test_what_was_written_in_a_sandbox_that_is_lost_need_not_be_in_the_patch() -> None:
    assert wrong(Loses.POD, (*GOOD, end(None)), sandbox={"generation": 2}) == []


def test_retry_runs_a_call_of_unknown_outcome_again() -> None:
    assert "Retry" in wrong(Loses.SHELL, UNKNOWN, UnknownPolicy.RETRY)[0]
    often = (turn(1, Outcome.UNKNOWN, reruns=3), UNKNOWN[1])
    assert wrong(Loses.SHELL, often, UnknownPolicy.RETRY) == []


def test_fail_ends_a_task_at_an_unknown_outcome() -> None:
    first = UNKNOWN[:1]
    assert "that means Fail" in wrong(Loses.SHELL, first, UnknownPolicy.FAIL)[0]
    ended: dict[str, Any] = {"phase": "Failed", "reason": "UnknownOutcome"}
    assert wrong(Loses.SHELL, first, UnknownPolicy.FAIL, **ended) == []
    assert wrong(Loses.POD, first, UnknownPolicy.FAIL, **ended) == []


def test_a_task_that_failed_for_no_reason_of_its_own_is_told() -> None:
    assert "should have succeeded" in wrong(Loses.NOTHING, GOOD, phase="Failed")[0]


def test_a_result_may_be_lost_with_the_pod_and_with_nothing_else() -> None:
    lost: dict[str, Any] = {"phase": "Failed", "reason": "ResultLost", "sandbox": {"generation": 2}}
    assert wrong(Loses.POD, GOOD, **lost) == []
    assert "should have succeeded" in wrong(Loses.SHELL, GOOD, **lost)[0]


def test_a_command_that_got_all_the_memory_it_wanted_has_tried_nothing() -> None:
    greedy = trial(OOM)
    assert "nothing was tried" in next(amiss(greedy, UnknownPolicy.REPORT, SUCCEEDED, GOOD))
    killed = (turn(1, Outcome.FAILED), GOOD[1])
    assert not [*amiss(greedy, UnknownPolicy.REPORT, SUCCEEDED, killed)]
