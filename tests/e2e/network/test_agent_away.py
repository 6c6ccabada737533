"""The enforcer's agent ends while sandboxes run: nothing opens, and no pod starts without it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster import Cluster, folders
from tests.cluster.local import cilium, machine
from tests.e2e.box import Boxes
from tests.e2e.kubectl import Refused
from tests.e2e.network import listeners
from tests.e2e.network.conftest import Around, listener, ready_address, sandbox
from tests.e2e.network.reach import from_box, opened

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("enforcer"),
    pytest.mark.timeout(400),
]
WAITS_S = 20
"""How long a new pod is watched waiting. With the agent one is ready within 2 s."""


@pytest.fixture
def agent_stopped(cluster: Cluster) -> Iterator[None]:
    """The agent is stopped when the test says so, and runs again afterwards."""
    if not folders.name():
        pytest.skip(f"stops a part of the cluster: name one for it by {folders.NAME}")
    yield
    machine.start_part(cilium.PART)


@pytest.mark.usefixtures("agent_stopped")
async def test_without_the_agent_sandboxes_stay_shut_in_and_new_pods_wait_for_it(
    boxes: Boxes, around: Around
) -> None:
    kubectl = boxes.kubectl
    box = await sandbox(boxes)
    targets = [await listener(kubectl), around.node, around.machine, around.metadata]
    await asyncio.to_thread(machine.stop_part, cilium.PART)
    await kubectl.apply(listeners.pod("late"))
    with pytest.raises(Refused, match="timed out"):
        await kubectl.run("wait", "--for=condition=Ready", "pod/late", f"--timeout={WAITS_S}s")
    assert await opened(from_box(box), targets) == set()
    await asyncio.to_thread(machine.start_part, cilium.PART)
    # The plugin and the kubelet look again only after a while.
    await ready_address(kubectl, "late", within_s=240)
    assert await opened(from_box(box), targets) == set()
