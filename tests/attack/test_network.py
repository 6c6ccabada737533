"""What can be reached from the sandbox where policies are enforced: nothing that the class did not open."""

from __future__ import annotations

import pytest

from tests.attack.conftest import ON_ONE_LOOP
from tests.cluster import Cluster
from tests.e2e.box import Box, Boxes, shown
from tests.e2e.conftest import enforcer
from tests.e2e.network.conftest import (
    Around,
    around,
    cluster_targets,
    listener,
    listening_service,
    ready_address,
    sandbox_target,
    udp,
)
from tests.e2e.network.reach import Reach, Target, from_box, look

__all__ = ["around", "enforcer"]

pytestmark = [ON_ONE_LOOP, pytest.mark.usefixtures("enforcer")]


async def closed(box: Box, *targets: Target) -> None:
    """None of them can be reached. That they listen is shown by the tests of the network."""
    found = await look(from_box(box), targets)
    assert Reach.OPEN not in found.values(), found


async def test_the_metadata_service(box: Box, around: Around) -> None:
    await closed(box, around.metadata)


async def test_the_node_and_its_kubelet(box: Box, around: Around) -> None:
    kubelet = Target("kubelet", around.node.address, 10250)
    await closed(box, around.node, kubelet)


async def test_the_machine_outside(box: Box, around: Around) -> None:
    await closed(box, around.machine)


async def test_the_api_server_and_names(box: Box, cluster: Cluster) -> None:
    await closed(box, *await cluster_targets(box.kubectl, cluster))


async def test_another_pod_by_tcp_and_udp(box: Box) -> None:
    pod = await listener(box.kubectl, "attacked")
    await closed(box, pod, udp(pod))


async def test_a_service_of_the_same_namespace(box: Box) -> None:
    await listener(box.kubectl, "served")
    await closed(box, await listening_service(box.kubectl, "attacked-service"))


async def test_the_server_of_another_sandbox(box: Box, fresh: Box) -> None:
    await closed(box, await sandbox_target(fresh, "another sandbox"))


async def test_another_spelling_of_an_address(box: Box, around: Around) -> None:
    octets = [int(part) for part in around.metadata.address.split(".")]
    whole = sum(octet << shift for octet, shift in zip(octets, (24, 16, 8, 0), strict=True))
    port = around.metadata.port
    await closed(
        box,
        Target("decimal", str(whole), port),
        Target("hexadecimal", hex(whole), port),
        Target("octal", ".".join(f"0{octet:o}" for octet in octets), port),
        Target("IPv6-mapped", f"::ffff:{around.metadata.address}", port),
    )


async def test_data_in_questions_for_names(box: Box) -> None:
    asked = await box.bash("getent hosts secret-data.example.invalid")
    assert asked.outcome == "Failed", shown(asked)


async def test_the_sandbox_cannot_be_reached_by_other_pods(box: Box, boxes: Boxes) -> None:
    await listener(boxes.kubectl, "stranger")
    address = await ready_address(boxes.kubectl, box.pod)
    told = await boxes.kubectl.run(
        "exec", "stranger", "--", "bash", "-c",
        f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/8443' && echo open || echo closed",
    )  # fmt: skip
    assert told.strip().endswith("closed")
