"""A namespace with sandboxes of either runtime that the cluster has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from ratchet.edges.kube import ApiError, Kube

from tests.cluster import Cluster
from tests.e2e import box
from tests.e2e.box import Box, Boxes, open_boxes

PATH = "/apis/node.k8s.io/v1/runtimeclasses"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What runs the containers of a sandbox."""

    name: str
    runtime_class: str
    """What the SandboxClass says; empty for the node's default runtime."""


RUNC = Runtime("runc", "")
GVISOR = Runtime("gvisor", "gvisor")


@pytest.fixture(params=[RUNC, GVISOR], ids=lambda runtime: runtime.name)
async def runtime(request: pytest.FixtureRequest, cluster: Cluster, api: Kube) -> Runtime:
    """Each in turn; a cluster that is not ours may lack the second."""
    wanted: Runtime = request.param
    try:
        if wanted.runtime_class:
            await api.request("GET", f"{PATH}/{wanted.runtime_class}")
    except ApiError as error:
        if cluster.provider == "local":
            raise
        pytest.skip(f"this cluster has no RuntimeClass {wanted.runtime_class}: {error}")
    return wanted


@pytest.fixture
async def boxes(cluster: Cluster, namespace: str) -> AsyncIterator[Boxes]:
    """Where the sandboxes come from."""
    async with open_boxes(cluster, namespace) as home:
        yield home


async def start(boxes: Boxes, runtime: Runtime, **sandbox: Any) -> Box:
    """A sandbox of this runtime that answers."""
    started = await boxes.make(box.config(runtime_class=runtime.runtime_class, **sandbox))
    await started.ready()
    return started
