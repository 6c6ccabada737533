"""The status of a task: what is written, and under which conditions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ratchet.api import names
from ratchet.api.task import AgentTaskStatus
from ratchet.core.conditions import ConditionType, Phase, Reason
from ratchet.core.facts import Asking, SandboxRef
from ratchet.core.replies import Usage
from ratchet.core.status import (
    Condition,
    ResultSummary,
    Summary,
    conditions_of_failure,
    conditions_of_wait,
)
from ratchet.edges import taskstatus as ts
from ratchet.ports import TaskRef

TASK = TaskRef("space", "task", "0f3c9a1e-5555-4444-8888-121212121212")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 3, 1, 13, tzinfo=UTC)
RUNNING = Summary(
    Phase.RUNNING, "Model", Reason.ACCEPTED, "It goes.", 2, 3, Usage(10, 4, 5, 1), 1, 2,
    conditions_of_wait(Reason.ACCEPTED, "It goes."),
)  # fmt: skip
RESULT = ResultSummary(3, "Done.", '{"a":1}', "c" * 40, 12, "ab" * 32)
ENDED = replace(
    RUNNING, phase=Phase.FAILED, doing="", reason=Reason.TURN_LIMIT, result=RESULT,
    conditions=conditions_of_failure(Reason.TURN_LIMIT, "Too many."),
)  # fmt: skip


def task(**status: Any) -> dict[str, Any]:
    metadata = {"uid": TASK.uid, "generation": 4, "resourceVersion": "7"}
    return {"metadata": metadata, "status": {"owner": {"holder": "one", "epoch": 3}, **status}}


def after(current: dict[str, Any], fields: ts.Fields) -> dict[str, Any]:
    """The task once the patch is applied."""
    status = dict(current.get("status", {}))
    for step in ts.changes(current, fields):
        name = step["path"].removeprefix("/status").lstrip("/")
        if step["op"] == "remove":
            del status[name]
        elif name:
            status[name] = step["value"]
    return {**current, "status": status}


def test_every_field_that_is_written_is_one_of_the_api() -> None:
    ended = replace(ENDED, cost="0.012345", lost_tokens=77)
    fields = ts.summary_fields(TASK, task(), ended, NOON)
    assert fields["lost"] == {"requests": 1, "tokens": 77}
    fields |= ts.asking_fields(Asking(1, 1, "ab" * 32, 2, 900), 3) | ts.sandbox_fields(
        SandboxRef(2, "ledger", "pod")
    )
    written = {name: value for name, value in fields.items() if value is not None}
    parsed = AgentTaskStatus.model_validate(written)
    dumped = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert dumped == written


def test_an_unchanged_summary_needs_no_write() -> None:
    first = after(task(), ts.summary_fields(TASK, task(), RUNNING, NOON))
    assert ts.changes(first, ts.summary_fields(TASK, first, RUNNING, LATER)) == []


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = after(task(), ts.summary_fields(TASK, task(), RUNNING, NOON))
    second = after(first, ts.summary_fields(TASK, first, ENDED, LATER))
    times = {c["type"]: c["lastTransitionTime"] for c in second["status"]["conditions"]}
    assert times["Ready"] == "2026-03-01T12:00:00Z"  # False before and after
    assert times["Reconciling"] == times["Finished"] == "2026-03-01T13:00:00Z"
    assert {c["observedGeneration"] for c in second["status"]["conditions"]} == {4}


def test_what_is_known_of_the_network_is_true_false_or_unknown() -> None:
    for known, word in ((True, "True"), (False, "False"), (None, "Unknown")):
        found = Condition(ConditionType.NETWORK_ENFORCED, known, Reason.PROBE_INCONCLUSIVE, "x")
        summary = replace(RUNNING, conditions=(*RUNNING.conditions, found))
        written = ts.summary_fields(TASK, task(), summary, NOON)["conditions"]
        assert [c["status"] for c in written if c["type"] == "NetworkEnforced"] == [word]


def test_who_only_writes_the_end_leaves_what_was_found_out_of_the_network() -> None:
    found = Condition(ConditionType.NETWORK_ENFORCED, True, Reason.POLICY_ENFORCED, "x")
    summary = replace(RUNNING, conditions=(*RUNNING.conditions, found))
    first = after(task(), ts.summary_fields(TASK, task(), summary, NOON))
    (kept,) = first["status"]["conditions"][2:]
    assert ts.summary_fields(TASK, first, ENDED, LATER)["conditions"][-1] == kept
    going_on = ts.summary_fields(TASK, first, RUNNING, LATER)["conditions"]
    assert kept not in going_on, "a new owner, or a new sandbox, has not tried it yet"
    knows = replace(ENDED, conditions=(*ENDED.conditions, found))
    types = [c["type"] for c in ts.summary_fields(TASK, first, knows, LATER)["conditions"]]
    assert types.count("NetworkEnforced") == 1


def test_the_time_of_the_end_is_written_once() -> None:
    first = after(task(), ts.summary_fields(TASK, task(), ENDED, NOON))
    assert first["status"]["completionTime"] == "2026-03-01T12:00:00Z"
    again = ts.summary_fields(TASK, first, ENDED, LATER)
    assert again["completionTime"] == "2026-03-01T12:00:00Z"
    assert ts.is_finished(first) and not ts.is_finished(task())


def test_the_result_names_the_record_that_holds_it() -> None:
    found = ts.summary_fields(TASK, task(), ENDED, NOON)["result"]
    assert found == {
        "summary": "Done.",
        "value": '{"a":1}',
        "baseCommit": "c" * 40,
        "patchBytes": 12,
        "patchSha256": "ab" * 32,
        "turn": "task-0f3c9a1e-t3",
    }


def test_a_mark_of_a_request_is_dropped_once_its_turn_is_recorded() -> None:
    asking = ts.asking_fields(Asking(3, 1, "ab" * 32), 3)["asking"]
    assert "asking" not in ts.summary_fields(TASK, task(asking=asking), RUNNING, NOON)
    three = replace(RUNNING, turns=3)
    assert ts.summary_fields(TASK, task(asking=asking), three, NOON)["asking"] is None
    assert ts.summary_fields(TASK, task(asking=asking), ENDED, NOON)["asking"] is None


def test_a_mark_is_dropped_by_the_summary_that_counts_its_request_as_lost() -> None:
    asking = ts.asking_fields(Asking(3, 2, "ab" * 32), 3)["asking"]
    for kept in (1, 2):
        fields = ts.summary_fields(TASK, task(asking=asking), replace(RUNNING, attempt=kept), NOON)
        assert "asking" not in fields
    for over in (3, None):
        lost = replace(RUNNING, attempt=over, lost_requests=1)
        fields = ts.summary_fields(TASK, task(asking=asking), lost, NOON)
        assert (fields["asking"], fields["lostRequests"]) == (None, 1)


def test_only_what_changes_is_written_and_only_what_is_there_is_removed() -> None:
    current = task(doing="Model", phase="Running")
    wanted: ts.Fields = {"doing": None, "phase": "Running", "turns": 1, "message": None}
    assert ts.changes(current, wanted) == [
        {"op": "remove", "path": "/status/doing"},
        {"op": "add", "path": "/status/turns", "value": 1},
    ]


def test_a_task_without_a_status_gets_one() -> None:
    bare: dict[str, Any] = {"metadata": {}}
    assert ts.changes(bare, {"turns": 1})[0] == {"op": "add", "path": "/status", "value": {}}
    assert ts.changes(bare, {"turns": None}) == []


def test_a_write_is_tied_to_uid_epoch_and_the_version_it_follows() -> None:
    tests = {step["path"]: step["value"] for step in ts.is_ours(task(phase="Running", turns=2))}
    assert tests == {
        "/metadata/uid": TASK.uid,
        "/status/owner/epoch": 3,
        "/metadata/resourceVersion": "7",
    }
    assert {step["op"] for step in ts.is_ours(task())} == {"test"}


def test_a_long_message_is_cut_to_what_a_condition_takes() -> None:
    long = replace(RUNNING, conditions=conditions_of_wait(Reason.ACCEPTED, "x" * 1020))
    (first, *_) = ts.summary_fields(TASK, task(), long, NOON)["conditions"]
    assert len(first["message"]) == ts.CONDITION_MESSAGE and first["message"].endswith(" ...")


def test_a_task_that_was_never_claimed_has_epoch_0_and_the_first_sandbox() -> None:
    fresh: dict[str, Any] = {"metadata": {}, "status": {"phase": "Pending"}}
    assert (ts.epoch(fresh), ts.sandbox_of(fresh), ts.asking_of(fresh)) == (0, SandboxRef(1), None)


def test_the_result_names_the_cloned_commit_and_the_claim_where_the_work_stays() -> None:
    kept = replace(RESULT, upstream="d" * 40, kept=True)
    fields = ts.summary_fields(TASK, task(), replace(ENDED, result=kept), NOON)
    assert fields["result"]["upstreamCommit"] == "d" * 40
    assert fields["result"]["workspaceClaim"] == names.workspace_claim_name(TASK.name, TASK.uid)
    bare = ts.summary_fields(TASK, task(), ENDED, NOON)["result"]
    assert "upstreamCommit" not in bare and "workspaceClaim" not in bare


def test_what_is_lost_is_read_as_it_was_written_by_this_version_or_an_earlier_one() -> None:
    summary = replace(RUNNING, lost_requests=3, lost_tokens=77)
    written = after(task(), ts.summary_fields(TASK, task(), summary, NOON))
    assert ts.lost_of(written) == (3, 77)
    assert ts.lost_of(task(lostRequests=2)) == (2, 0)
    assert ts.lost_of(task()) == (0, 0)


def test_a_cost_that_nobody_knows_is_not_shown() -> None:
    assert ts.summary_fields(TASK, task(), RUNNING, NOON)["cost"] is None


def test_the_estimate_of_a_request_under_way_is_kept_with_its_mark() -> None:
    asking = Asking(1, 1, "ab" * 32, tokens=900)
    assert ts.asking_of(task(**ts.asking_fields(asking, 3))) == asking
