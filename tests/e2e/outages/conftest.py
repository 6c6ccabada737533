"""A namespace, and an operator that reaches its API server through a proxy that can spoil it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.operator_process import OperatorProcess
from tests.e2e.tasks.conftest import effects, operator, scene
from tests.proof.apiproxy import ApiProxy
from tests.proof.upstream import upstream

__all__ = ["behind", "effects", "operator", "proxy", "scene"]

FIRST_TOKEN = "first"


@pytest.fixture
async def proxy(cluster: Cluster, tmp_path: Path) -> AsyncIterator[ApiProxy]:
    async with ApiProxy(await upstream(cluster), tmp_path) as proxy:
        write_token(proxy, FIRST_TOKEN)
        yield proxy


@pytest.fixture
async def behind(proxy: ApiProxy, namespace: str, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    """An operator behind the proxy, not started yet; one process is all that a test may need."""
    pod = {"server": images.SERVER, "runner": images.RUNNER}
    log = tmp_path / "operator.log"
    log.touch()
    process = OperatorProcess(str(proxy.kubeconfig), namespace, pod, log, pod="operator")
    try:
        yield process
        assert process.process is not None
        assert process.process.returncode is None, "the operator ended"
        assert process.starts == 1
    finally:
        print(process.tail(60))
        await process.stop()


def write_token(proxy: ApiProxy, token: str) -> None:
    """Have the operator's kubeconfig hold this token from now on."""
    config = json.loads(proxy.kubeconfig.read_text())
    config["users"] = [{"name": "proxy", "user": {"token": token}}]
    new = proxy.kubeconfig.with_suffix(".new")
    new.write_text(json.dumps(config))
    new.replace(proxy.kubeconfig)
