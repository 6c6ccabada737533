"""The faults themselves: each is made, and undone where it would last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ratchet.edges import kube

from tests.cluster import ClusterError
from tests.proof.cluster import containers
from tests.proof.cluster.place import NAMESPACE, Place, Task
from tests.proof.cluster.plan import KUBELET_AWAY_S, OPERATOR_AWAY_S, Trial
from tests.proof.cluster.waiting import comes_true
from tools.install import NAMESPACE as SYSTEM
from tools.install import RELEASE

MERGE = "application/merge-patch+json"
PRESSURE_WITHIN_S = 120.0
SERVER, SHELL = "server", "shell"

Fault = Callable[[Place, Trial, Sequence[Task]], Awaitable[int]]
"""Returns how many processes were killed or stopped by a signal of ours."""


async def strike(place: Place, trial: Trial, tasks: Sequence[Task]) -> int:
    """Make the fault of a trial; returns when it is over. Raises ClusterError, ApiError."""
    return await FAULTS[trial.kind.name](place, trial, tasks)


# --- the operator --------------------------------------------------------------------------------


def _operator_deleted(**options: Any) -> Fault:
    async def fault(place: Place, _: Trial, __: Sequence[Task]) -> int:
        for pod in await place.operators():
            await _delete(place, "pods", SYSTEM, pod["metadata"]["name"], **options)
        return 0

    return fault


async def _operator_killed(place: Place, _: Trial, __: Sequence[Task]) -> int:
    pods = await place.operators()
    for pod in pods:
        containers.kill(pod, "operator")
    return len(pods)


async def _operator_away(place: Place, _: Trial, __: Sequence[Task]) -> int:
    path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/{RELEASE}-operator/scale"
    for replicas, rest_s in ((0, OPERATOR_AWAY_S), (1, 0.0)):
        body = {"spec": {"replicas": replicas}}
        await place.api.request("PATCH", path, body, content_type=MERGE)
        await asyncio.sleep(rest_s)
    return 0


async def _chart_upgraded(place: Place, trial: Trial, __: Sequence[Task]) -> int:
    changed = f"operator.podAnnotations.proof=trial-{trial.number}"
    await place.tool("tools.install", "--set", changed)
    return 0


async def _chart_reinstalled(place: Place, _: Trial, __: Sequence[Task]) -> int:
    await place.tool("tools.install", "--uninstall")
    await place.tool("tools.install")
    return 0


# --- sandboxes -----------------------------------------------------------------------------------


async def _pods_deleted(place: Place, _: Trial, tasks: Sequence[Task]) -> int:
    pods = await asyncio.gather(*(place.sandbox(task) for task in tasks))
    names = [pod["metadata"]["name"] for pod in pods]
    await asyncio.gather(*(_delete(place, "pods", NAMESPACE, name) for name in names))
    return 0


async def _pod_evicted(place: Place, _: Trial, tasks: Sequence[Task]) -> int:
    name = (await place.sandbox(tasks[0]))["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await place.api.request("POST", kube.core("pods", NAMESPACE, name, "eviction"), body)
    return 0


def _containers_killed(*names: str) -> Fault:
    async def fault(place: Place, _: Trial, tasks: Sequence[Task]) -> int:
        pod = await place.sandbox(tasks[0])
        for name in names:
            containers.kill(pod, name)
        return len(names)

    return fault


async def _shell_memory(*_: object) -> int:
    return 0  # the call itself asks for more memory than there is


async def _secret_deleted(place: Place, _: Trial, tasks: Sequence[Task]) -> int:
    name = (await place.sandbox(tasks[0]))["metadata"]["name"]  # the secret is named like its pod
    await _delete(place, "secrets", NAMESPACE, name)
    return 0


async def _delete(place: Place, kind: str, namespace: str, name: str, **options: Any) -> None:
    await place.api.request("DELETE", kube.core(kind, namespace, name), options or None)


# --- node and control plane ----------------------------------------------------------------------


def _part(name: str, signal: str = "TERM") -> Fault:
    async def fault(place: Place, _: Trial, __: Sequence[Task]) -> int:
        await place.parts("stop", name, "--signal", signal)
        await place.parts("start", name)
        return 1

    return fault


async def _kubelet_away(place: Place, trial: Trial, _: Sequence[Task]) -> int:
    signal = ("TERM", "KILL", "STOP")[int(trial.choice * 3)]
    await place.parts("stop", "kubelet", "--signal", signal)
    await asyncio.sleep(KUBELET_AWAY_S)
    await place.parts("start", "kubelet")
    return 1


async def _memory_pressure(place: Place, _: Trial, tasks: Sequence[Task]) -> int:
    """The kubelet is told to want more free memory than there is, until it has evicted all."""
    doomed = [(await place.sandbox(task))["metadata"]["uid"] for task in tasks]
    free, all_there_is = await _memory(place)
    wanted = free + (all_there_is - free) // 2
    await place.parts("stop", "kubelet")
    await place.parts("start", "kubelet", "--", f"--eviction-hard=memory.available<{wanted}")
    try:
        if not await comes_true(lambda: _none_lives(place, doomed), PRESSURE_WITHIN_S):
            raise ClusterError("the kubelet evicted nobody under memory pressure")
    finally:
        await place.parts("stop", "kubelet")
        await place.parts("start", "kubelet")
    return 2


async def _memory(place: Place) -> tuple[int, int]:
    """Bytes of memory that the kubelet counts as free, and those of the node."""
    node = f"/api/v1/nodes/{await place.node()}"
    stats = await place.api.request("GET", f"{node}/proxy/stats/summary")
    capacity = (await place.api.request("GET", node))["status"]["capacity"]["memory"]
    return int(stats["node"]["memory"]["availableBytes"]), int(capacity.removesuffix("Ki")) * 1024


async def _none_lives(place: Place, uids: Sequence[str]) -> bool:
    found = await place.api.request("GET", kube.core("pods", NAMESPACE))
    return not any(
        pod["metadata"]["uid"] in uids and pod["status"].get("phase") == "Running"
        for pod in found["items"]
    )


FAULTS: Mapping[str, Fault] = {
    "operator-deleted": _operator_deleted(),
    "operator-forced": _operator_deleted(gracePeriodSeconds=0),
    "operator-killed": _operator_killed,
    "pod-deleted": _pods_deleted,
    "pod-evicted": _pod_evicted,
    "claim-pod-deleted": _pods_deleted,
    "claim-pod-evicted": _pod_evicted,
    "pods-deleted": _pods_deleted,
    "shell-killed": _containers_killed(SHELL),
    "shell-memory": _shell_memory,
    "server-killed": _containers_killed(SERVER),
    "both-killed": _containers_killed(SERVER, SHELL),
    "secret-deleted": _secret_deleted,
    "kubelet-away": _kubelet_away,
    "kubelet-restarted": _part("kubelet"),
    "containerd-restarted": _part("containerd"),
    "apiserver-restarted": _part("kube-apiserver"),
    "apiserver-killed": _part("kube-apiserver", "KILL"),
    "etcd-restarted": _part("etcd"),
    "etcd-killed": _part("etcd", "KILL"),
    "memory-pressure": _memory_pressure,
    "chart-upgraded": _chart_upgraded,
    "chart-reinstalled": _chart_reinstalled,
    "operator-away": _operator_away,
}
