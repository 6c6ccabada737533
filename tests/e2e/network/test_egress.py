"""Rules of a SandboxClass open what they name and nothing else, where policies are enforced."""

from __future__ import annotations

import pytest
from ratchet.core.config import EgressPort, EgressRule

from tests.cluster import Cluster
from tests.e2e.box import Boxes
from tests.e2e.network.conftest import (
    Around,
    cluster_targets,
    listener,
    listening_service,
    sandbox,
    udp,
)
from tests.e2e.network.listeners import METADATA, TCP_PORT, UDP_PORT
from tests.e2e.network.reach import Reach, Target, from_box, look, opened

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("enforcer"),
    pytest.mark.timeout(300),
]


async def test_a_range_of_addresses_opens_its_ports_and_nothing_else(
    cluster: Cluster, boxes: Boxes, around: Around
) -> None:
    kubectl = boxes.kubectl
    rule = EgressRule((EgressPort(around.machine.port),), cidr=f"{around.machine.address}/32")
    box = await sandbox(boxes, egress=(rule,))
    targets = [await listener(kubectl), await listening_service(kubectl)]
    targets += [around.machine, around.node, around.metadata]
    targets += await cluster_targets(kubectl, cluster)
    assert await opened(from_box(box), targets) == {"this machine"}


async def test_an_exception_stays_closed_though_everything_around_it_is_open(
    boxes: Boxes, around: Around
) -> None:
    ports = (EgressPort(around.machine.port), EgressPort(around.metadata.port))
    rule = EgressRule(ports, cidr="0.0.0.0/0", except_=(f"{METADATA}/32",))
    box = await sandbox(boxes, egress=(rule,))
    targets = [around.machine, around.metadata]
    assert await opened(from_box(box), targets) == {"this machine"}


async def test_a_service_opens_its_pods_at_its_ports_and_names(
    cluster: Cluster, boxes: Boxes, around: Around
) -> None:
    kubectl = boxes.kubectl
    pod = await listener(kubectl)
    service = await listening_service(kubectl)
    box = await sandbox(boxes, egress=(EgressRule((EgressPort(TCP_PORT),), service="listeners"),))
    targets = [pod, udp(pod), service, udp(service), around.machine, around.node, around.metadata]
    targets += await cluster_targets(kubectl, cluster)
    reached = await opened(from_box(box), targets)
    assert reached == {pod.name, service.name, "names", "names by UDP"}
    by_name = Target("by name", f"listeners.{kubectl.namespace}.svc.cluster.local", TCP_PORT)
    assert await opened(from_box(box), [by_name]) == {"by name"}


async def test_a_rule_for_udp_does_not_open_tcp(boxes: Boxes) -> None:
    kubectl = boxes.kubectl
    service = await listening_service(kubectl)
    pod = await listener(kubectl)
    rule = EgressRule((EgressPort(UDP_PORT, "UDP"),), service="listeners")
    box = await sandbox(boxes, egress=(rule,))
    # Nothing listens there: without a policy the pod would refuse.
    twin = Target("the same port by TCP", pod.address, UDP_PORT)
    found = await look(from_box(box), [udp(pod), udp(service), twin, pod, service])
    assert found == {
        udp(pod).name: Reach.OPEN,
        udp(service).name: Reach.OPEN,
        twin.name: Reach.SILENT,
        pod.name: Reach.SILENT,
        service.name: Reach.SILENT,
    }
