"""A namespace with an operator whose sandboxes try to reach the API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.kubectl import Kubectl
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene


@pytest.fixture
def scene(cluster: Cluster, namespace: str) -> Scene:
    return Scene(Kubectl(cluster.kubeconfig, cluster.path, namespace), images.SHELL)


@pytest.fixture
async def api_server(cluster: Cluster) -> str:
    """The API server's address and port within the cluster, as Kubernetes tells every pod."""
    kubectl = Kubectl(cluster.kubeconfig, cluster.path, "default")
    spec = (await kubectl.get("service", "kubernetes"))["spec"]
    return f"{spec['clusterIP']}:{spec['ports'][0]['port']}"


@pytest.fixture
async def operator(
    cluster: Cluster, namespace: str, api_server: str, tmp_path: Path
) -> AsyncIterator[OperatorProcess]:
    """It is no pod, so that it has to be told what its sandboxes are to try."""
    started = {"server": images.SERVER, "runner": images.RUNNER}
    log = tmp_path / "operator.log"
    process = OperatorProcess(cluster.kubeconfig, namespace, started, log)
    process.more["RATCHET_PROBE_TARGETS"] = api_server
    async with process:
        yield process
        print(process.tail(60))


async def sandbox_class(scene: Scene, **spec: Any) -> None:
    """The class of the tasks that follow."""
    spec = {"image": scene.shell_image, **spec}
    await scene.kubectl.run("delete", "sandboxclass", "default")
    await scene.kubectl.apply(scene.object("SandboxClass", "default", **spec))


def verdict(task: dict[str, Any]) -> tuple[str, str, str]:
    """Status, reason and message of what a task says of its sandbox's network."""
    (found,) = [c for c in task["status"]["conditions"] if c["type"] == "NetworkEnforced"]
    return found["status"], found["reason"], found["message"]
