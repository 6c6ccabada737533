"""What a sandbox pod's object says about the sandbox, in one reason and one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from ratchet.build import git
from ratchet.build import pod as build
from ratchet.core.conditions import Reason

Object = Mapping[str, Any]

MESSAGE_MAX = 500
"""Longest text of the kubelet or scheduler that is passed on, in characters."""

IMAGE_REASONS = frozenset(
    {
        "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
        "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed",
    }
)  # fmt: skip
CREATE_REASONS = frozenset(
    {
        "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
        "CreatePodSandboxError", "ConfigPodSandboxError", "PreCreateHookError",
    }
)  # fmt: skip
START_REASONS = frozenset({"StartError", "ContainerCannotRun"})
"""How a container ended that never ran: its command cannot be started in this image."""
PATIENCE_RESTARTS = 3
"""Restarts of our own containers before their failure counts as lasting."""
KILLED = 137
"""Exit code of a process that SIGKILL ended. Nothing in its own container can send it to PID 1
(pid_namespaces(7)): it came from the kernel, for want of memory, or from the node."""
DISK_WORDS = (
    "ephemeral-storage", "ephemeral local storage", "local ephemeral storage", "emptydir volume",
    "diskpressure", "inodes", "no space left on device", "disk is full", "disk quota exceeded",
)  # fmt: skip
"""What the kubelet says when it evicts for disk (its pkg/kubelet/eviction/helpers.go, Kubernetes
1.35), and what the C library and SQLite say where a volume is full."""
LOST_NODE_REASONS = frozenset({"DeletionByPodGC", "NodeLost"})
"""Why a pod ended whose node is no more: of its condition DisruptionTarget, or its status."""


class Stage(Enum):
    """Where a sandbox pod is."""

    STARTING = auto()
    """It may become ready by itself, or is being deleted."""
    READY = auto()
    """Server and runner answer."""
    BROKEN = auto()
    """It will not become ready unless somebody changes something."""
    FAILED = auto()
    """It has ended and never starts again; its processes are gone, the object is still there."""
    GONE = auto()
    """There is no such pod."""


@dataclass(frozen=True, slots=True)
class PodState:
    """`message` is a sentence that says what is the case and, where it helps, what to do."""

    stage: Stage
    reason: Reason
    message: str


def sandbox_condition(pod: Object | None) -> PodState:
    """The state of a sandbox pod. Total: whatever object comes, an answer is returned."""
    if pod is None:
        return PodState(Stage.GONE, Reason.SANDBOX_FAILED, "The sandbox pod is gone.")
    name = str(_get(pod, "metadata").get("name", ""))
    status = _get(pod, "status")
    if status.get("phase") in ("Failed", "Succeeded"):
        return _ended(name, status)
    stuck = _unreachable(name, pod) or _deleting(name, pod)
    if stuck:
        return stuck
    if _condition(status, "Ready").get("status") == "True":
        return PodState(Stage.READY, Reason.RUNNING_TOOLS, f"Sandbox pod {name} is ready.")
    return (
        _unscheduled(name, status)
        or _container_trouble(name, status)
        or PodState(Stage.STARTING, Reason.SANDBOX_STARTING, _progress(name, status))
    )


def _ended(name: str, status: Object) -> PodState:
    disruption = _condition(status, "DisruptionTarget")
    why = str(status.get("reason") or disruption.get("reason") or status.get("phase"))
    words = status.get("message") or disruption.get("message")
    reason = Reason.EVICTED
    if _tells_of_disk(words):
        reason = Reason.SANDBOX_DISK_FULL
    elif LOST_NODE_REASONS & {why, str(disruption.get("reason"))}:
        reason = Reason.NODE_LOST
    told = _short(words) if words else _no_message(name)
    return PodState(Stage.FAILED, reason, f"Sandbox pod {name} has ended ({why}): {told}")


def _no_message(name: str) -> str:
    """A kubelet that is busy may end an evicted pod without a word; its event has them all the same."""
    events = f"kubectl get events --field-selector involvedObject.name={name}"
    return f"the kubelet gave no message; its events may tell why: {events}"


def _unreachable(name: str, pod: Object) -> PodState | None:
    if _condition(_get(pod, "status"), "Ready").get("reason") != "NodeStatusUnknown":
        return None
    node = _get(pod, "spec").get("nodeName", "")
    return PodState(
        Stage.STARTING,
        Reason.NODE_LOST,
        f"Node {node} does not answer, so sandbox pod {name} may still run there; waiting until "
        "the node is back or the pod is gone. If the node is dead for good, delete the Node "
        f"object, or the pod with: kubectl delete pod {name} --force",
    )


def _deleting(name: str, pod: Object) -> PodState | None:
    if not _get(pod, "metadata").get("deletionTimestamp"):
        return None
    disruption = _condition(_get(pod, "status"), "DisruptionTarget")
    if disruption.get("status") == "True":
        why = _short(disruption.get("message") or disruption.get("reason") or "no reason given")
        return PodState(
            Stage.STARTING,
            Reason.EVICTED,
            f"Sandbox pod {name} is being evicted ({why}); waiting until it is gone.",
        )
    return PodState(
        Stage.STARTING,
        Reason.SANDBOX_RESTARTING,
        f"Sandbox pod {name} is being deleted; waiting until it is gone.",
    )


def _unscheduled(name: str, status: Object) -> PodState | None:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") != "False":
        return None
    message = _short(scheduled.get("message") or scheduled.get("reason") or "no reason given")
    return PodState(
        Stage.STARTING,
        Reason.SANDBOX_UNSCHEDULABLE,
        f"No node can take sandbox pod {name}: {message}",
    )


def _container_trouble(name: str, status: Object) -> PodState | None:
    for container in _containers(status):
        waiting = _get(container, "state", "waiting")
        found = (
            _image_trouble(name, container, waiting)
            or _create_trouble(name, container, waiting)
            or _restart_trouble(name, container)
        )
        if found:
            return found
    return None


def _image_trouble(name: str, container: Object, waiting: Object) -> PodState | None:
    if waiting.get("reason") not in IMAGE_REASONS:
        return None
    return PodState(
        Stage.BROKEN,
        Reason.IMAGE_UNAVAILABLE,
        f"Image {container.get('image')!r} of container {container.get('name')} cannot be had "
        f"({waiting['reason']}): {_short(waiting.get('message') or 'no message')}. Check its name "
        "and the imagePullSecrets of the SandboxClass.",
    )


def _create_trouble(name: str, container: Object, waiting: Object) -> PodState | None:
    ended = _get(container, "state", "terminated") or _get(container, "lastState", "terminated")
    cause = waiting if waiting.get("reason") in CREATE_REASONS else ended
    if cause.get("reason") not in CREATE_REASONS | START_REASONS:
        return None
    return PodState(
        Stage.BROKEN,
        Reason.SANDBOX_FAILED,
        f"Container {container.get('name')} of sandbox pod {name} cannot be started "
        f"({cause['reason']}): {_short(cause.get('message') or 'no message')}",
    )


def _restart_trouble(name: str, container: Object) -> PodState | None:
    ended = _get(container, "state", "terminated") or _get(container, "lastState", "terminated")
    init = container.get("name") in (build.PREPARE, git.CLONE)
    if not ended or (ended.get("exitCode") == 0 and init):
        return None
    # The user's commands may well kill their shell time and again; ours should not fail twice.
    ours = init or container.get("name") == build.SERVER
    lasting = ours and int(container.get("restartCount") or 0) >= PATIENCE_RESTARTS
    if container.get("name") == git.CLONE:
        return _clone_trouble(name, ended, lasting)
    how = f"{ended.get('reason') or 'ended'}, exit code {ended.get('exitCode')}"
    words = f": {_short(ended['message'])}" if ended.get("message") else ""
    if _out_of_memory(container, ended):
        return PodState(Stage.STARTING, Reason.SANDBOX_OUT_OF_MEMORY, _killed(name, how))
    reason = Reason.SANDBOX_FAILED if lasting else Reason.SANDBOX_RESTARTING
    return PodState(
        Stage.BROKEN if lasting else Stage.STARTING,
        Reason.SANDBOX_DISK_FULL if _tells_of_disk(words) else reason,
        f"Container {container.get('name')} of sandbox pod {name} was lost ({how}) and is being "
        f"started again{words}",
    )


def _clone_trouble(name: str, ended: Object, lasting: bool) -> PodState:
    """Its own words say what is wrong and what to do; only an end without any needs ours."""
    lasting = lasting or ended.get("exitCode") == git.LASTING
    how = f"{ended.get('reason') or 'ended'}, exit code {ended.get('exitCode')}"
    words = ended.get("message") or f"the container of pod {name} ended without a word ({how})"
    return PodState(
        Stage.BROKEN if lasting else Stage.STARTING,
        Reason.GIT_CLONE_FAILED,
        f"The clone failed{'' if lasting else ' and is tried again'}: {_short(words)}",
    )


def _out_of_memory(container: Object, ended: Object) -> bool:
    """Whether the whole shell container was killed. One process of it is no news of the pod's."""
    killed = ended.get("reason") == "OOMKilled" or ended.get("exitCode") == KILLED
    return bool(killed and container.get("name") == build.SHELL)


def _killed(name: str, how: str) -> str:
    return (
        f"The whole shell container of sandbox pod {name} was killed ({how}), as happens when it "
        "uses more memory than its limit, and is being started again. If it happens again, raise "
        "resources.limits.memory of the SandboxClass."
    )


def _tells_of_disk(words: Any) -> bool:
    text = str(words).lower()
    return any(part in text for part in DISK_WORDS)


def _progress(name: str, status: Object) -> str:
    if _condition(status, "PodScheduled").get("status") != "True":
        return f"Sandbox pod {name} waits for a node."
    for container in _containers(status):
        if _get(container, "state", "waiting"):
            image = container.get("image")
            return (
                f"Sandbox pod {name} starts; container {container.get('name')} ({image}) is next."
            )
    return f"Sandbox pod {name} has started; its runner has not connected yet."


def _containers(status: Object) -> list[Object]:
    return [
        *_list(status.get("initContainerStatuses")),
        *_list(status.get("containerStatuses")),
    ]


def _condition(status: Object, type: str) -> Object:
    found = (c for c in _list(status.get("conditions")) if c.get("type") == type)
    return next(found, {})


def _list(value: Any) -> list[Object]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


def _get(value: Object, *path: str) -> Object:
    for name in path:
        found = value.get(name)
        value = found if isinstance(found, Mapping) else {}
    return value


def _short(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= MESSAGE_MAX else line[: MESSAGE_MAX - 1] + "…"
