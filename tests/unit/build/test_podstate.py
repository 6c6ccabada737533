"""What a person is told about a sandbox pod, by what the pod's object says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ratchet.build.podstate import MESSAGE_MAX, PodState, Stage, sandbox_condition
from ratchet.core.conditions import Reason


def pod(phase: str = "Pending", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "fix-g1"},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": phase, **status},
    }


def scheduled(status: str = "True", **more: str) -> dict[str, str]:
    return {"type": "PodScheduled", "status": status, **more}


def container(name: str, restarts: int = 0, **state: Any) -> dict[str, Any]:
    last = {"lastState": state.pop("last")} if "last" in state else {}
    return {
        "name": name, "image": f"{name}:1", "restartCount": restarts, "state": state, **last
    }  # fmt: skip


def waiting(reason: str, message: str = "") -> dict[str, str]:
    return {"reason": reason, "message": message}


def ended(reason: str, code: int, message: str = "") -> dict[str, Any]:
    return {"terminated": {"reason": reason, "exitCode": code, "message": message}}


def state(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> PodState:
    return sandbox_condition(
        pod(
            conditions=[scheduled(), {"type": "Ready", "status": "False"}],
            initContainerStatuses=list(init),
            containerStatuses=list(containers),
        )
    )


def test_no_pod_is_gone() -> None:
    assert sandbox_condition(None).stage is Stage.GONE


def test_a_ready_pod_is_ready() -> None:
    found = sandbox_condition(
        pod("Running", conditions=[scheduled(), {"type": "Ready", "status": "True"}])
    )
    assert found.stage is Stage.READY


def test_a_fresh_pod_waits_for_a_node() -> None:
    found = sandbox_condition(pod())
    assert (found.stage, found.reason) == (Stage.STARTING, Reason.SANDBOX_STARTING)
    assert "waits for a node" in found.message


def test_a_pod_without_room_says_what_the_scheduler_said() -> None:
    why = "0/3 nodes are available: 3 Insufficient memory."
    found = sandbox_condition(
        pod(conditions=[scheduled("False", reason="Unschedulable", message=why)])
    )
    assert (found.stage, found.reason) == (Stage.STARTING, Reason.SANDBOX_UNSCHEDULABLE)
    assert why in found.message


@pytest.mark.parametrize(
    "reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"]
)
def test_an_image_that_cannot_be_had_is_named(reason: str) -> None:
    found = state(container("shell", waiting=waiting(reason, "manifest unknown")))
    assert (found.stage, found.reason) == (Stage.BROKEN, Reason.IMAGE_UNAVAILABLE)
    for part in (reason, "'shell:1'", "manifest unknown", "imagePullSecrets"):
        assert part in found.message


def test_an_image_of_the_init_container_counts_too() -> None:
    found = state(
        container("shell", waiting=waiting("PodInitializing")),
        init=(container("prepare", waiting=waiting("ErrImagePull", "denied")),),
    )
    assert found.reason is Reason.IMAGE_UNAVAILABLE


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError"])
def test_a_container_that_cannot_be_created_is_broken(reason: str) -> None:
    found = state(container("server", waiting=waiting(reason, 'secret "x" not found')))
    assert (found.stage, found.reason) == (Stage.BROKEN, Reason.SANDBOX_FAILED)
    assert 'secret "x" not found' in found.message


@pytest.mark.parametrize("reason", ["StartError", "ContainerCannotRun"])
def test_a_command_that_the_image_cannot_start_is_broken(reason: str) -> None:
    found = state(
        container(
            "shell",
            1,
            waiting=waiting("CrashLoopBackOff", "back-off"),
            last=ended(reason, 128, "exec format error"),
        )
    )
    assert (found.stage, found.reason) == (Stage.BROKEN, Reason.SANDBOX_FAILED)
    assert "exec format error" in found.message


def test_a_shell_that_was_killed_is_started_again_however_often() -> None:
    found = state(
        container("server", running={}),
        container("shell", 9, waiting=waiting("CrashLoopBackOff"), last=ended("OOMKilled", 137)),
    )
    assert (found.stage, found.reason) == (Stage.STARTING, Reason.SANDBOX_OUT_OF_MEMORY)
    assert "OOMKilled, exit code 137" in found.message and "limits.memory" in found.message


def test_a_shell_that_runs_again_is_still_said_to_restart() -> None:
    found = state(container("shell", 1, running={}, last=ended("Error", 1)))
    assert found.reason is Reason.SANDBOX_RESTARTING


@pytest.mark.parametrize(
    ("name", "reason", "code", "told"),
    [
        ("shell", "OOMKilled", 137, Reason.SANDBOX_OUT_OF_MEMORY),
        ("shell", "Error", 137, Reason.SANDBOX_OUT_OF_MEMORY),
        ("shell", "Error", 143, Reason.SANDBOX_RESTARTING),
        ("shell", "Completed", 0, Reason.SANDBOX_RESTARTING),
        ("server", "OOMKilled", 137, Reason.SANDBOX_RESTARTING),
    ],
)
def test_a_shell_killed_as_a_whole_is_told_from_one_that_ended(
    name: str, reason: str, code: int, told: Reason
) -> None:
    assert state(container(name, 1, running={}, last=ended(reason, code))).reason is told


@pytest.mark.parametrize(
    "words", ["[Errno 28] No space left on device", "ledger x: database or disk is full"]
)
def test_a_container_of_ours_that_found_a_full_disk_says_so(words: str) -> None:
    found = state(container("server", 1, running={}, last=ended("Error", 1, words)))
    assert found.reason is Reason.SANDBOX_DISK_FULL and words in found.message


@pytest.mark.parametrize(("restarts", "stage"), [(1, Stage.STARTING), (3, Stage.BROKEN)])
def test_our_own_container_may_not_fail_for_ever(restarts: int, stage: Stage) -> None:
    last = ended("Error", 1, "ledger belongs to another task")
    found = state(container("server", restarts, waiting=waiting("CrashLoopBackOff"), last=last))
    assert found.stage is stage
    assert "ledger belongs to another task" in found.message


def test_a_prepared_init_container_is_no_trouble() -> None:
    found = state(
        container("shell", waiting=waiting("PodInitializing")),
        init=(container("prepare", **ended("Completed", 0)),),
    )
    assert (found.stage, found.reason) == (Stage.STARTING, Reason.SANDBOX_STARTING)
    assert "container shell" in found.message


def test_a_failing_init_container_says_why() -> None:
    found = state(init=(container("prepare", 4, **ended("Error", 1, "no space left")),))
    assert found.stage is Stage.BROKEN and "no space left" in found.message


def test_started_containers_wait_for_the_runner() -> None:
    found = state(container("server", running={}), container("shell", running={}))
    assert "runner has not connected" in found.message


@pytest.mark.parametrize(
    ("why", "message", "reason"),
    [
        ("Evicted", "The node was low on resource: memory. Threshold quantity: 100Mi.", "Evicted"),
        ("Evicted", 'Usage of EmptyDir volume "workspace" exceeds the limit "2Gi".', "DiskFull"),
        (
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 5Gi.",
            "DiskFull",
        ),
        ("Evicted", "The node was low on resource: ephemeral-storage.", "DiskFull"),
        ("Evicted", "The node had condition: [DiskPressure]. ", "DiskFull"),
        (
            "Evicted",
            'Container shell exceeded its local ephemeral storage limit "1Gi".',
            "DiskFull",
        ),
        ("Terminated", "Pod was terminated in response to imminent node shutdown.", "Evicted"),
        ("NodeLost", "Node node-1 which was running pod is unresponsive", "NodeLost"),
    ],
)
def test_a_pod_that_has_ended_says_why(why: str, message: str, reason: str) -> None:
    found = sandbox_condition(pod("Failed", reason=why, message=message))
    wanted = {"DiskFull": Reason.SANDBOX_DISK_FULL, "NodeLost": Reason.NODE_LOST}
    assert (found.stage, found.reason) == (Stage.FAILED, wanted.get(reason, Reason.EVICTED))
    assert why in found.message and message.strip() in found.message


def test_a_pod_that_ended_without_a_word_says_where_to_look() -> None:
    found = sandbox_condition(pod("Succeeded"))
    assert found.stage is Stage.FAILED and found.reason is Reason.EVICTED
    assert "kubectl get events --field-selector involvedObject.name=" in found.message


def test_the_name_of_a_pod_tells_nothing_of_its_disk() -> None:
    ended = pod("Succeeded")
    ended["metadata"]["name"] = "count-inodes-11111111-g1"
    assert sandbox_condition(ended).reason is Reason.EVICTED


def test_a_pod_that_ended_with_its_node_says_so() -> None:
    gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists"}  # fmt: skip
    found = sandbox_condition(pod("Failed", conditions=[gone]))
    assert (found.stage, found.reason) == (Stage.FAILED, Reason.NODE_LOST)
    assert "node no longer exists" in found.message


def test_a_pod_that_is_drained_is_said_to_be_evicted() -> None:
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
               "message": "Eviction API: evicting"}  # fmt: skip
    dying = pod("Running", conditions=[scheduled(), drained])
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = sandbox_condition(dying)
    assert (found.stage, found.reason) == (Stage.STARTING, Reason.EVICTED)
    assert "Eviction API: evicting" in found.message


def test_a_pod_under_deletion_is_waited_for_even_if_it_is_ready() -> None:
    dying = pod("Running", conditions=[scheduled(), {"type": "Ready", "status": "True"}])
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = sandbox_condition(dying)
    assert found.stage is Stage.STARTING and "being deleted" in found.message


def test_a_pod_that_ended_under_deletion_has_failed() -> None:
    dying = pod("Failed", reason="NodeShutdown")
    dying["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert sandbox_condition(dying).stage is Stage.FAILED


@pytest.mark.parametrize("deleted", [False, True])
def test_a_pod_on_a_lost_node_may_still_run(deleted: bool) -> None:
    lost = pod(
        "Running",
        conditions=[scheduled(), {"type": "Ready", "status": "False", "reason": "NodeStatusUnknown"}],
    )  # fmt: skip
    if deleted:
        lost["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = sandbox_condition(lost)
    assert (found.stage, found.reason) == (Stage.STARTING, Reason.NODE_LOST)
    assert "node-1" in found.message and "--force" in found.message


def test_long_messages_are_cut() -> None:
    found = state(container("shell", waiting=waiting("ErrImagePull", "x" * 9999)))
    assert len(found.message) < MESSAGE_MAX + 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["metadata", "status", "phase", "conditions", "type", "containerStatuses", "state",
             "waiting", "terminated", "reason", "message", "lastState", "name", "exitCode", "restartCount"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["metadata", "status", "spec"]), JSON))
def test_whatever_object_comes_an_answer_is_given(strange: dict[str, Any]) -> None:
    assert isinstance(sandbox_condition(strange), PodState)
