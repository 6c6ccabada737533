"""A namespace with two operator processes and one Lease."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.tasks.conftest import effects, scene
from tests.e2e.two_operators.pair import Pair

__all__ = ["effects", "pair", "scene"]


@pytest.fixture
async def pair(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two operators; the first one leads."""
    images_of_sandboxes = {"server": images.SERVER, "runner": images.RUNNER}

    def operator(pod: str) -> OperatorProcess:
        log = tmp_path / f"{pod}.log"
        return OperatorProcess(cluster.kubeconfig, namespace, images_of_sandboxes, log, pod=pod)

    pair = Pair(operator("first"), operator("second"))
    try:
        await pair.start()
        yield pair
    finally:
        await pair.stop()
