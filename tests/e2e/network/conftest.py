"""A namespace with sandboxes, and things around them that listen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.cluster import Cluster
from tests.e2e import box
from tests.e2e.box import Box, Boxes, open_boxes
from tests.e2e.kubectl import Kubectl
from tests.e2e.network import listeners
from tests.e2e.network.listeners import METADATA, TCP_PORT, UDP_PORT
from tests.e2e.network.reach import ASK_DNS, Target

LISTENER = {"app": "listener"}


@pytest.fixture
async def boxes(cluster: Cluster, namespace: str) -> AsyncIterator[Boxes]:
    """Where the sandboxes come from. The operator they expect is in their own namespace."""
    async with open_boxes(cluster, namespace) as home:
        yield home


@dataclass(frozen=True, slots=True)
class Around:
    """What listens on the machine that the sandbox runs on."""

    node: Target
    machine: Target
    metadata: Target


@pytest.fixture
def around(cluster: Cluster) -> Iterator[Around]:
    """Listeners on the node, on this machine, and at the address of a cloud's metadata service."""
    if cluster.provider != "local":
        pytest.skip("needs a node in which the test can listen")
    node_ip = urlsplit(cluster.apiserver).hostname or ""
    with ExitStack() as stack:
        on_node = stack.enter_context(listeners.listening(node_ip, inside=listeners.node(cluster)))
        here = stack.enter_context(listeners.listening(cluster.host_ip))
        metadata = stack.enter_context(listeners.metadata_service(cluster))
        yield Around(
            Target("node", node_ip, on_node),
            Target("this machine", cluster.host_ip, here),
            Target("metadata service", METADATA, metadata),
        )


async def listener(kubectl: Kubectl, name: str = "listener") -> Target:
    """A pod that listens; by UDP it answers too (`udp`)."""
    await kubectl.apply(listeners.pod(name, LISTENER))
    return Target(f"pod {name}", await ready_address(kubectl, name), TCP_PORT)


async def listening_service(kubectl: Kubectl, name: str = "listeners") -> Target:
    """A service of the pods that `listener` made."""
    await kubectl.apply(listeners.service(name, LISTENER))
    found = await kubectl.get("service", name)
    return Target(f"service {name}", found["spec"]["clusterIP"], TCP_PORT)


def udp(target: Target) -> Target:
    """The same by UDP."""
    return Target(f"{target.name} by UDP", target.address, UDP_PORT, "UDP")


async def cluster_targets(kubectl: Kubectl, cluster: Cluster) -> tuple[Target, ...]:
    """What every cluster has: the API server, by both of its addresses, and names."""
    server = urlsplit(cluster.apiserver)
    default = Kubectl(kubectl.kubeconfig, kubectl.path, "default")
    kubernetes = (await default.get("service", "kubernetes"))["spec"]["clusterIP"]
    system = Kubectl(kubectl.kubeconfig, kubectl.path, "kube-system")
    names = (await system.get("service", "kube-dns"))["spec"]["clusterIP"]
    return (
        Target("API server", server.hostname or "", server.port or 443),
        Target("API server's service", kubernetes, 443),
        Target("names", names, 53),
        Target("names by UDP", names, 53, "UDP", ASK_DNS),
    )


async def ready_address(kubectl: Kubectl, pod: str, within_s: int = 120) -> str:
    """Address of a pod, once it is ready."""
    await kubectl.run("wait", "--for=condition=Ready", f"pod/{pod}", f"--timeout={within_s}s")
    return str((await kubectl.get("pod", pod))["status"]["podIP"])


async def sandbox(boxes: Boxes, **fields: object) -> Box:
    """A sandbox that answers."""
    made = await boxes.make(box.config(**fields))
    await made.ready()
    return made


async def sandbox_target(made: Box, name: str = "sandbox") -> Target:
    """The server of a sandbox."""
    return Target(name, str((await made.object())["status"]["podIP"]), 8443)
