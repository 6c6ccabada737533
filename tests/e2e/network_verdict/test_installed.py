"""The operator as its chart installs it knows by itself what its sandboxes are to try."""

from __future__ import annotations

import pytest

from examples import demo
from tests.cluster import Cluster
from tests.cluster.networks import Network
from tests.e2e.charts.test_install import Release
from tests.e2e.charts.test_install import release as release
from tests.e2e.kubectl import finished
from tests.e2e.network_verdict.conftest import verdict

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


async def test_the_api_server_and_the_operators_own_pod_are_tried(
    cluster: Cluster, api_server: str, release: Release
) -> None:
    kubectl = release.kubectl
    enforced = cluster.network == Network.CILIUM.value
    await release.start_example(requireEnforcedNetwork=True)
    ended = await kubectl.wait_until("agenttask", demo.TASK, finished)
    (operator,) = await kubectl.names("pod", "app.kubernetes.io/component=operator")
    address = (await kubectl.get("pod", operator))["status"]["podIP"]
    status, _, message = verdict(ended)
    assert status == ("True" if enforced else "False")
    for target in (api_server, f"{address}:8080"):
        assert f"{target} {'did not answer' if enforced else 'answered'}" in message
    assert (ended["status"]["reason"] == "NetworkNotEnforced") is not enforced
