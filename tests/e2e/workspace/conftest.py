"""A namespace with an operator process that looks after it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

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
async def operator(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> AsyncIterator[OperatorProcess]:
    started = {"server": images.SERVER, "runner": images.RUNNER}
    log = tmp_path / "operator.log"
    async with OperatorProcess(cluster.kubeconfig, namespace, started, log) as process:
        yield process
        print(process.tail(60))
