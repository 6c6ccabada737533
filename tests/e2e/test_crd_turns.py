"""Records of the journal on a real API server: taken once, never changed."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from tests.e2e.crd_server import Kube, said, unique, with_crds

pytestmark = pytest.mark.cluster

SHA = "a" * 64


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    with with_crds() as server:
        yield server


def turn_spec(kind: str = "Turn", number: int = 1, **parts: Any) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "Start": {"start": {"config": "{}"}},
        "Turn": {
            "previous": SHA,
            "requestDigest": SHA,
            "reply": {
                "verdict": "Calls",
                "calls": [
                    {
                        "index": 0,
                        "id": "abcdefghi",
                        "tool": "bash",
                        "arguments": "{}",
                        "digest": f"sha256:{SHA}",
                    }
                ],
                "usage": {"prompt": 10, "completion": 2},
            },
        },
        "End": {"previous": SHA, "end": {"outcome": "Succeeded", "reason": "Finished"}},
    }
    head = {
        "taskRef": {"name": "t", "uid": "u-1"},
        "number": number,
        "kind": kind,
        "journalVersion": 1,
        "epoch": 1,
    }
    return {**head, **bodies[kind], **parts}


def make_turn(kube: Kube) -> str:
    created = kube.create("agentturns", unique("turn"), turn_spec(), field_validation="Strict")
    return str(created["metadata"]["name"])


RESULT: dict[str, Any] = {
    "index": 0,
    "key": "u-1/1/0",
    "outcome": "Ok",
    "content": "done",
    "exitCode": 0,
}
RERUN: dict[str, Any] = {"index": 0, "key": "u-1/1/0/r1", "reason": "lost", "generation": 2}


@pytest.mark.parametrize(("kind", "number"), [("Start", 0), ("Turn", 1), ("Turn", 200), ("End", 2)])
def test_each_kind_of_record_is_taken(kube: Kube, kind: str, number: int) -> None:
    spec = turn_spec(kind, number)
    taken = kube.create("agentturns", unique("turn"), spec, field_validation="Strict")
    assert taken["spec"] == spec


def test_records_of_the_largest_size_are_taken(kube: Kube) -> None:
    start = turn_spec("Start", 0, start={"config": "x" * 1_000_000})
    kube.create("agentturns", unique("turn"), start)
    patch = {"base": "c", "sha256": SHA, "size": 102_400, "inline": "x" * 136_536}
    end = {"outcome": "Succeeded", "reason": "Finished", "patch": {**patch, "encoding": "base64"}}
    kube.create("agentturns", unique("turn"), turn_spec("End", 2, end=end))


def test_results_of_the_largest_size_are_taken(kube: Kube) -> None:
    name = make_turn(kube)
    results = [{**RESULT, "index": n, "content": "x" * 5120} for n in range(32)]
    kube.patch(
        "agentturns",
        name,
        [{"op": "add", "path": "/status", "value": {"results": results}}],
        status=True,
    )
    answer = kube.refuse("agentturns", name, {"status": {"results": results[:31]}}, status=True)
    assert "status.results is immutable" in answer


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (turn_spec("Start", 1), "record 0 is of kind Start"),
        (turn_spec("Turn", 0), "record 0 is of kind Start"),
        (turn_spec("Start", 0, previous=SHA), "names the digest of the previous"),
        (turn_spec("Turn", 1, end={"outcome": "Failed", "reason": "X"}), "start, reply or end"),
        (turn_spec("Turn", 1, previous="abc"), "spec.previous"),
        (turn_spec("Turn", 1, mood="good"), 'unknown field \\"spec.mood\\"'),
    ],
)
def test_a_record_that_is_not_in_order_is_refused(
    kube: Kube, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ApiException) as refusal:
        kube.create("agentturns", "one", spec, dry_run="All", field_validation="Strict")
    assert sentence in said(refusal.value)


@pytest.mark.parametrize(
    "patch",
    [
        {"epoch": 2},
        {"generation": 1},
        {"requestDigest": None},
        {"reply": {"text": "more"}},
        {"reply": {"calls": []}},
        {"taskRef": {"uid": "u-2"}},
    ],
)
def test_a_record_is_not_changed(kube: Kube, patch: dict[str, Any]) -> None:
    name = make_turn(kube)
    assert "an AgentTurn is immutable" in kube.refuse("agentturns", name, {"spec": patch})


def test_results_are_written_once_whatever_the_way(kube: Kube) -> None:
    name = make_turn(kube)
    value = {"results": [RESULT], "committedAt": "2026-01-02T03:04:05.678901Z"}
    kube.patch("agentturns", name, [{"op": "add", "path": "/status", "value": value}], status=True)
    for change in (
        {"op": "replace", "path": "/status/results/0/content", "value": "other"},
        {"op": "add", "path": "/status/results/-", "value": {**RESULT, "index": 1}},
        {"op": "remove", "path": "/status/results/0"},
        {"op": "remove", "path": "/status/results"},
        {"op": "remove", "path": "/status"},
    ):
        answer = kube.refuse("agentturns", name, [change], status=True)
        assert "status.results is immutable once it is written" in answer
    for time_patch in ({"committedAt": None}, {"committedAt": "2027-01-02T03:04:05Z"}):
        answer = kube.refuse("agentturns", name, {"status": time_patch}, status=True)
        assert "status.committedAt is immutable once it is written" in answer


def test_the_test_that_results_are_absent_lets_one_of_two_writers_through(kube: Kube) -> None:
    name = make_turn(kube)
    kube.patch("agentturns", name, {"status": {"reruns": [RERUN]}}, status=True)
    write = [
        {"op": "test", "path": "/status/results", "value": None},
        {"op": "add", "path": "/status/results", "value": [RESULT]},
    ]
    kube.patch("agentturns", name, write, status=True)
    with pytest.raises(ApiException) as refusal:
        kube.patch("agentturns", name, write, status=True)
    # What a failed test looks like: 422 without a cause, unlike the refusals of rules.
    assert refusal.value.status == 422 and '"details":{}' in str(refusal.value.body)


def test_reruns_are_added_never_changed_or_removed(kube: Kube) -> None:
    name = make_turn(kube)
    second = {**RERUN, "key": "u-1/1/0/r2"}
    for reruns in ([RERUN], [RERUN, second]):
        kube.patch("agentturns", name, {"status": {"reruns": reruns}}, status=True)
    for refused in ([second], [], None, [RERUN, {**second, "reason": "other"}]):
        answer = kube.refuse("agentturns", name, {"status": {"reruns": refused}}, status=True)
        assert "an entry of status.reruns is immutable" in answer
    kube.patch("agentturns", name, {"status": {"results": [RESULT]}}, status=True)


def test_turns_are_selected_by_the_uid_of_their_task_and_have_columns(kube: Kube) -> None:
    uid = str(uuid.uuid4())
    spec = turn_spec("Turn", 7, taskRef={"name": "t", "uid": uid})
    name = kube.create("agentturns", unique("turn"), spec)["metadata"]["name"]
    listed = kube.kubectl("get", "aturn", "--field-selector", f"spec.taskRef.uid={uid}")
    header, row = listed.splitlines()
    assert header.split() == ["NAME", "TASK", "N", "KIND", "VERDICT", "EPOCH", "AGE"]
    assert row.split()[:6] == [name, "t", "7", "Turn", "Calls", "1"]
