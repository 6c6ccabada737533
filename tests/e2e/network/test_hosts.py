"""Rules that name a host, where the enforcer understands names."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.core.config import EgressPort, EgressRule

from tests.cluster import Cluster
from tests.e2e.box import Boxes
from tests.e2e.network import listeners
from tests.e2e.network.conftest import Around, cluster_targets, listener, sandbox
from tests.e2e.network.reach import Target, from_box, opened

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.usefixtures("enforcer"),
    pytest.mark.timeout(300),
]


def named(name: str, address: str, port: int) -> tuple[dict[str, Any], ...]:
    """What gives an address a name in the cluster: a headless service with an endpoint made by hand."""
    ports = [{"port": port, "protocol": "TCP"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "ports": ports},
    }
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }
    return service, slice_


@pytest.mark.parametrize("pattern", ["outside", "*"])
async def test_a_host_opens_the_address_that_its_name_stands_for(
    cluster: Cluster, boxes: Boxes, around: Around, pattern: str
) -> None:
    kubectl = boxes.kubectl
    zone = f"{kubectl.namespace}.svc.cluster.local"
    machine = around.machine
    await kubectl.apply(*named("outside", machine.address, machine.port))
    pod = await listener(kubectl)
    ports = (EgressPort(machine.port),)
    box = await sandbox(boxes, egress=(EgressRule(ports, host=f"{pattern}.{zone}"),))
    ask = from_box(box)
    others = [pod, around.node, around.metadata, *await cluster_targets(kubectl, cluster)]
    assert await opened(ask, [machine, *others]) == {"names", "names by UDP"}
    by_name = Target("by name", f"outside.{zone}", machine.port)
    assert await opened(ask, [by_name]) == {"by name"}
    with listeners.listening(machine.address) as other_port:
        aside = Target("another port", machine.address, other_port)
        reached = await opened(ask, [by_name, aside, *others])
    assert reached == {"by name", "names", "names by UDP"}


async def test_a_host_does_not_open_another_name(boxes: Boxes, around: Around) -> None:
    kubectl = boxes.kubectl
    zone = f"{kubectl.namespace}.svc.cluster.local"
    await kubectl.apply(*named("outside", around.machine.address, around.machine.port))
    rule = EgressRule((EgressPort(around.machine.port),), host=f"inside.{zone}")
    box = await sandbox(boxes, egress=(rule,))
    by_name = Target("by name", f"outside.{zone}", around.machine.port)
    assert await opened(from_box(box), [by_name]) == set()
