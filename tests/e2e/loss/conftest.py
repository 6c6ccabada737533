"""A namespace with an operator process, and volumes for the claims of its tasks."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ratchet.edges.kube import Kube

from tests.cluster import Cluster
from tests.e2e.tasks.conftest import effects, operator, scene

__all__ = ["effects", "operator", "scene", "volume_claim"]


@pytest.fixture
async def volume_claim(cluster: Cluster, api: Kube) -> AsyncIterator[dict[str, str]]:
    """A `volumeClaim` that this cluster can serve.

    The local cluster has no provisioner: there the claim's volume is a folder of the node, made here
    as a person would make it. Elsewhere the default StorageClass serves the claim.
    """
    if cluster.provider != "local":
        yield {"size": "64Mi"}
        return
    name = f"loss-{uuid.uuid4().hex[:8]}"
    folder = Path(cluster.kubeconfig).parent / "volumes" / name
    folder.mkdir(parents=True)
    try:
        volume = _volume(name, folder, await _node(api))
        await api.request("POST", "/api/v1/persistentvolumes", volume)
        yield {"size": "64Mi", "storageClassName": name}
        await api.request("DELETE", f"/api/v1/persistentvolumes/{name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _node(api: Kube) -> str:
    nodes = await api.request("GET", "/api/v1/nodes")
    return str(nodes["items"][0]["metadata"]["name"])


def _volume(name: str, folder: Path, node: str) -> dict[str, Any]:
    """A local volume: unlike one of a hostPath, it gets the pod's fsGroup."""
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": name,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}},
        },
    }
