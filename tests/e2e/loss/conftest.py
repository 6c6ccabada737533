"""A namespace with an operator process, and volumes for the claims of its tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from ratchet.edges.kube import Kube

from tests.cluster import Cluster
from tests.e2e.tasks.conftest import effects, operator, scene
from tests.e2e.volumes import claimable

__all__ = ["effects", "operator", "scene", "volume_claim"]


@pytest.fixture
async def volume_claim(cluster: Cluster, api: Kube) -> AsyncIterator[dict[str, str]]:
    """A `volumeClaim` that this cluster serves once."""
    async with claimable(cluster, api) as claim:
        yield claim
