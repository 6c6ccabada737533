"""What a sandbox can reach, and what can reach it, where the network enforces its policy."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from ratchet.build.settings import SandboxSettings
from ratchet.core.records import Outcome
from ratchet.edges.kube import Kube

from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.box import Boxes, shown
from tests.e2e.kubectl import Kubectl
from tests.e2e.network import listeners
from tests.e2e.network.conftest import (
    Around,
    cluster_targets,
    listener,
    listening_service,
    ready_address,
    sandbox,
    sandbox_target,
    udp,
)
from tests.e2e.network.reach import Target, from_box, from_pod, opened

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("enforcer"),
    pytest.mark.timeout(300),
]


async def test_a_sandbox_without_rules_reaches_nothing_that_its_neighbour_reaches(
    cluster: Cluster, boxes: Boxes, around: Around
) -> None:
    kubectl = boxes.kubectl
    box, other = await sandbox(boxes), await sandbox(boxes)
    pod = await listener(kubectl)
    service = await listening_service(kubectl)
    targets = [pod, udp(pod), service, udp(service)]
    targets += [around.node, around.machine, around.metadata]
    targets += await cluster_targets(kubectl, cluster)
    everything = {target.name for target in targets}
    assert await opened(from_pod(kubectl, "listener"), targets) == everything
    targets.append(await sandbox_target(other))
    assert await opened(from_box(box), targets) == set()


@pytest.fixture
async def elsewhere(api: Kube, cluster: Cluster) -> AsyncIterator[Kubectl]:
    """Another namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield Kubectl(cluster.kubeconfig, cluster.path, name)
    await api.request("DELETE", f"/api/v1/namespaces/{name}")


async def test_only_a_pod_with_the_operators_labels_in_its_namespace_reaches_a_sandbox(
    boxes: Boxes, elsewhere: Kubectl
) -> None:
    kubectl = boxes.kubectl
    expected = SandboxSettings(images.SERVER, images.RUNNER, kubectl.namespace)
    labels = dict(expected.operator_labels)
    box = await sandbox(boxes)
    server = await sandbox_target(box)
    port = listeners.TCP_PORT
    began = await box.bash(
        f"python3 -m http.server {port} >/dev/null 2>&1 & "
        f"until (exec 3<>/dev/tcp/{server.address}/{port}) 2>/dev/null; do sleep 0.1; done"
    )
    assert began.outcome == Outcome.OK, shown(began)
    own = Target("a port of the model's", server.address, port)
    for home, name, of in (
        (kubectl, "operator", labels),
        (kubectl, "stranger", {"app": "other"}),
        (elsewhere, "impostor", labels),
    ):
        await home.apply(listeners.pod(name, of))
    seen = {}
    for home, name in ((kubectl, "operator"), (kubectl, "stranger"), (elsewhere, "impostor")):
        await ready_address(home, name)
        seen[name] = await opened(from_pod(home, name), [server, own])
    assert seen == {"operator": {"sandbox"}, "stranger": set(), "impostor": set()}
