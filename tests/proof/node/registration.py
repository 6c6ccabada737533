"""What makes the cluster send pods here: a Node object with its Lease, and a RuntimeClass.

The RuntimeClass carries the node selector and the tolerations (admission plugin RuntimeClass, on
by default), so a SandboxClass that names it sends a task's pods here, and nothing else changes.
https://kubernetes.io/docs/concepts/containers/runtime-class/#scheduling
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from ratchet.edges.kube import MERGE_PATCH, ApiError, ApiUnreachable, Kube

Object = dict[str, Any]
LABEL = "ratchet.run/process-node"
NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
HEARTBEAT_S = 10.0
"""The node controller waits 50 s for one (Kubernetes 1.32 and later; 40 s before)."""
RETRY_S = 1.0
ABANDONED = timedelta(minutes=3)
"""A process node whose Lease nobody has renewed for so long is removed by the next one."""


class Registration:
    """The objects of one process node; all have its name."""

    def __init__(self, api: Kube, name: str) -> None:
        self._api = api
        self.name = name

    async def make(self) -> None:
        """Make them; remove those that a killed test has left."""
        await self._sweep()
        await self._api.request("POST", NODES, self._node())
        status = {"status": self._node_status()}
        path = f"{NODES}/{self.name}/status"
        await self._api.request("PATCH", path, status, content_type=MERGE_PATCH)
        await self._api.request("POST", LEASES, self._lease())
        await self._api.request("POST", RUNTIME_CLASSES, self._runtime_class())

    async def keep(self) -> None:
        """Renew the Lease, until cancelled; an API server that is away is waited for."""
        while True:
            try:
                body = {"spec": {"renewTime": _micro(datetime.now(UTC))}}
                path = f"{LEASES}/{self.name}"
                await self._api.request("PATCH", path, body, content_type=MERGE_PATCH)
                await asyncio.sleep(HEARTBEAT_S)
            except (ApiError, ApiUnreachable):
                await asyncio.sleep(RETRY_S)

    async def remove(self) -> None:
        """Delete them all."""
        await self._remove(self.name)

    async def _sweep(self) -> None:
        leases = await self._api.request("GET", LEASES, params={"labelSelector": LABEL})
        for lease in leases["items"]:
            renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
            if datetime.now(UTC) - renewed > ABANDONED:
                await self._remove(lease["metadata"]["name"])

    async def _remove(self, name: str) -> None:
        for path in (RUNTIME_CLASSES, NODES, LEASES):
            with contextlib.suppress(ApiError):  # not there
                await self._api.request("DELETE", f"{path}/{name}")

    def _metadata(self) -> Object:
        return {"name": self.name, "labels": {LABEL: self.name}}

    def _node(self) -> Object:
        taint = {"key": LABEL, "value": self.name, "effect": "NoSchedule"}
        metadata = self._metadata()
        metadata["labels"] |= {"kubernetes.io/os": "linux", "kubernetes.io/hostname": self.name}
        return {"kind": "Node", "metadata": metadata, "spec": {"taints": [taint]}}

    def _node_status(self) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        room = {"cpu": "10k", "memory": "100Ti", "ephemeral-storage": "100Ti", "pods": "10k"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "sandboxes are processes of a test",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        return {"capacity": room, "allocatable": room, "conditions": [ready]}

    def _lease(self) -> Object:
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40}
        return {
            "kind": "Lease",
            "metadata": self._metadata(),
            "spec": {**spec, "renewTime": _micro(datetime.now(UTC))},
        }

    def _runtime_class(self) -> Object:
        return {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": self._metadata(),
            "handler": "processes",
            "scheduling": {
                "nodeSelector": {LABEL: self.name},
                "tolerations": [{"operator": "Exists"}],
            },
        }


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
