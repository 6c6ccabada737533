"""A namespace whose sandboxes are processes, with an operator that looks after it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.e2e.effects import Effects
from tests.e2e.kubectl import Kubectl
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.scene import Scene
from tests.proof.node import ProcessNode

IMAGE = "sandbox:processes"
"""A name only: nothing is pulled."""


@pytest.fixture
def scene(cluster: Cluster, namespace: str) -> Scene:
    return Scene(Kubectl(cluster.kubeconfig, cluster.path, namespace), IMAGE)


@pytest.fixture
async def node(cluster: Cluster, tmp_path: Path) -> AsyncIterator[ProcessNode]:
    async with ProcessNode(cluster, tmp_path / "sandboxes") as node:
        yield node
        for sandbox in node.sandboxes.values():
            print(sandbox.name, sandbox.tail())


@pytest.fixture
async def operator(
    cluster: Cluster, namespace: str, tmp_path: Path, node: ProcessNode
) -> AsyncIterator[OperatorProcess]:
    images = {"server": IMAGE, "runner": IMAGE}
    log = tmp_path / "operator.log"
    async with OperatorProcess(cluster.kubeconfig, namespace, images, log) as process:
        yield process
        print(process.tail(60))


@pytest.fixture
async def effects() -> AsyncIterator[Effects]:
    async with Effects("127.0.0.1") as ledger:
        yield ledger
