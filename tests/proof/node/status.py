"""The status of a sandbox pod as a kubelet would write it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container's process ended. `code` is the exit code, 128 + signal where it was killed."""

    code: int
    began: datetime
    ended: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One container: running since `began`, or waiting for its start where that is None."""

    name: str
    image: str
    id: str
    began: datetime | None
    ready: bool
    restarts: int = 0
    last: Ended | None = None


def running(
    address: str, created: datetime, prepared: datetime, init: Seen, containers: list[Seen]
) -> Object:
    """The status of a pod whose init container is done."""
    ready = all(container.ready for container in containers)
    waiting = [container.name for container in containers if not container.ready]
    why = {} if ready else {"reason": "ContainersNotReady", "message": f"unready: {waiting}"}
    flags = {"Initialized": True, "PodReadyToStartContainers": True}
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": _at(created)}]
    conditions += [_condition(name, value, prepared, {}) for name, value in flags.items()]
    now = datetime.now(UTC)
    conditions += [_condition(name, ready, now, why) for name in ("ContainersReady", "Ready")]
    return {
        "phase": "Running",
        "hostIP": "127.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": _at(created),
        "conditions": conditions,
        "initContainerStatuses": [_done(init, prepared)],
        "containerStatuses": [_container(container) for container in containers],
    }


def evicted(message: str) -> Object:
    """The status of a pod that the kubelet has evicted; merged into the one that is there."""
    return {"phase": "Failed", "reason": "Evicted", "message": message}


def gone(seen: Seen) -> Seen:
    """The same container, not running any more."""
    return replace(seen, began=None, ready=False)


def _condition(name: str, value: bool, since: datetime, why: Object) -> Object:
    return {"type": name, "status": str(value), "lastTransitionTime": _at(since), **why}


def _container(seen: Seen) -> Object:
    state = {"waiting": {"reason": "ContainerCreating"}}
    if seen.began is not None:
        state = {"running": {"startedAt": _at(seen.began)}}
    return {
        "name": seen.name,
        "image": seen.image,
        "imageID": f"processes://{seen.image}",
        "containerID": seen.id,
        "ready": seen.ready,
        "started": seen.began is not None,
        "restartCount": seen.restarts,
        "state": state,
        "lastState": {} if seen.last is None else {"terminated": _terminated(seen.last)},
    }


def _done(init: Seen, prepared: datetime) -> Object:
    ended = Ended(0, init.began or prepared, prepared, init.id)
    return _container(init) | {"ready": True, "state": {"terminated": _terminated(ended)}}


def _terminated(ended: Ended) -> Object:
    return {
        "exitCode": ended.code,
        "reason": "Completed" if ended.code == 0 else "Error",
        "startedAt": _at(ended.began),
        "finishedAt": _at(ended.ended),
        "containerID": ended.id,
    }


def _at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
