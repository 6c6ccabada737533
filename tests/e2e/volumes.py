"""Volumes for claims on the local cluster, which has no provisioner: folders of its node."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ratchet.edges.kube import Kube

from tests.cluster import Cluster

SIZE = "64Mi"


@asynccontextmanager
async def claimable(cluster: Cluster, api: Kube) -> AsyncIterator[dict[str, str]]:
    """A `volumeClaim` that this cluster serves once.

    On the local cluster its volume is made here, as a person would make it, and goes at the end with
    all that is in it. Elsewhere the default StorageClass serves the claim.
    """
    if cluster.provider != "local":
        yield {"size": SIZE}
        return
    name = f"volume-{uuid.uuid4().hex[:8]}"
    folder = Path(cluster.kubeconfig).parent / "volumes" / name
    folder.mkdir(parents=True)
    try:
        volume = _volume(name, folder, await real_node(api))
        await api.request("POST", "/api/v1/persistentvolumes", volume)
        try:
            yield {"size": SIZE, "storageClassName": name}
        finally:
            await api.request("DELETE", f"/api/v1/persistentvolumes/{name}")
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def real_node(api: Kube) -> str:
    """Name of the only node with a kubelet; those that a test pretends have no architecture."""
    real = {"labelSelector": "kubernetes.io/arch"}
    nodes = await api.request("GET", "/api/v1/nodes", params=real)
    return str(nodes["items"][0]["metadata"]["name"])


def _volume(name: str, folder: Path, node: str) -> dict[str, Any]:
    """A local volume: unlike one of a hostPath, it gets the pod's fsGroup."""
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        },
    }
