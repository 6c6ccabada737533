"""The same sandbox and the same policy, in a cluster whose network enforces none."""

from __future__ import annotations

import pytest

from tests.cluster import Cluster
from tests.e2e.box import Boxes
from tests.e2e.network.conftest import (
    Around,
    cluster_targets,
    listener,
    listening_service,
    sandbox,
    sandbox_target,
)
from tests.e2e.network.reach import from_box, opened

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("no_enforcer"),
    pytest.mark.timeout(300),
]


async def test_a_policy_that_nothing_enforces_keeps_a_sandbox_from_nothing(
    cluster: Cluster, boxes: Boxes, around: Around
) -> None:
    kubectl = boxes.kubectl
    box, other = await sandbox(boxes), await sandbox(boxes)
    policy = (await kubectl.get("networkpolicy", box.pod))["spec"]
    assert "Egress" in policy["policyTypes"] and not policy.get("egress")
    targets = [await listener(kubectl), await listening_service(kubectl)]
    targets += [around.node, around.machine, around.metadata, await sandbox_target(other)]
    targets += await cluster_targets(kubectl, cluster)
    assert await opened(from_box(box), targets) == {target.name for target in targets}
