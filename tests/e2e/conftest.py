"""The API server for the tests that talk to it: CRDs in it, and a namespace for each test."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ratchet.edges.kube import Kube

from tests.cluster import Cluster, ClusterError, current
from tests.cluster.networks import Network
from tests.contract.journal_homes import ClusterHome
from tests.e2e.crds import install_crds


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of this checkout, with our CRDs.

    Without one the test is skipped, unless RATCHET_NEED_CLUSTER says that there has to be one.
    """
    try:
        found = current()
    except ClusterError as error:
        if os.environ.get("RATCHET_NEED_CLUSTER"):
            pytest.fail(str(error))
        pytest.skip(f"{error} (set RATCHET_NEED_CLUSTER=1 to have this fail)")
    install_crds(found)
    return found


@pytest.fixture(scope="session")
def enforcer(cluster: Cluster) -> Cluster:
    """The cluster, with a network that enforces NetworkPolicies.

    With another one the test is skipped, unless RATCHET_NEED_ENFORCER says that there has to be one.
    """
    if cluster.network == Network.CILIUM.value:
        return cluster
    why = f"policies are not enforced here (network: {cluster.network or 'not known'})"
    advice = "run `make cluster-up NETWORK=cilium`"
    if os.environ.get("RATCHET_NEED_ENFORCER"):
        pytest.fail(f"{why}: {advice}")
    pytest.skip(f"{why}: {advice} (set RATCHET_NEED_ENFORCER=1 to have this fail)")


@pytest.fixture(scope="session")
def no_enforcer(cluster: Cluster) -> Cluster:
    """The cluster, with a network that enforces no policy; with another one the test is skipped."""
    if cluster.network != Network.PLAIN.value:
        pytest.skip(f"needs a network without an enforcer, not {cluster.network or 'an unknown'}")
    return cluster


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[Kube]:
    """A client of the API server."""
    async with await connect(cluster) as client:
        yield client


@pytest.fixture
async def namespace(api: Kube) -> AsyncIterator[str]:
    """A fresh namespace; its deletion begins when the test ends."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    await api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
async def home(api: Kube, namespace: str) -> ClusterHome:
    """Where journals are kept: the API server, with a namespace of the test."""
    found = ClusterHome(api, namespace)
    await found.prepare()
    return found


async def connect(cluster: Cluster) -> Kube:
    """A client of the API server of a cluster."""
    return await Kube.connect(Path(cluster.kubeconfig), cluster.context)
