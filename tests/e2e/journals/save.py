"""Saved journals, as kubectl prints them: test data for every later version.

    python -m tests.e2e.journals.save [SHAPE...]

plays the shapes of `tests/e2e/journals/shapes.py` on the cluster that is up, and writes
`tests/data/journals/v<journalVersion>`. Files of an earlier version are never written again.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ratchet.core.config import JOURNAL_VERSION
from ratchet.edges.kube import Kube

from tests.cluster import Cluster, current
from tests.contract.journal_homes import ClusterHome
from tests.e2e.conftest import connect
from tests.e2e.crds import install_crds
from tests.e2e.journals.shapes import SHAPES, played
from tests.e2e.kubectl import Kubectl

FOLDER = Path(__file__).resolve().parents[2] / "data" / "journals" / f"v{JOURNAL_VERSION}"


def kubectl_of(cluster: Cluster, namespace: str) -> Kubectl:
    """kubectl in a namespace."""
    return Kubectl(cluster.kubeconfig, cluster.path, namespace)


async def printed(kubectl: Kubectl) -> str:
    """The one task of a namespace with its journal, as `kubectl get -o json` gives them."""
    return await kubectl.run("get", "agenttasks,agentturns", "-o", "json")


async def save(cluster: Cluster, api: Kube, name: str) -> Path:
    """Play a shape in a namespace of its own, and write what kubectl prints of it."""
    async with _namespace(api) as namespace:
        home = ClusterHome(api, namespace)
        await home.prepare()
        await played(home, name)
        file = FOLDER / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(await printed(kubectl_of(cluster, namespace)), "utf-8")
        return file


@asynccontextmanager
async def _namespace(api: Kube) -> AsyncIterator[str]:
    name = f"journal-{uuid.uuid4().hex[:8]}"
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        yield name
    finally:
        await api.request("DELETE", f"/api/v1/namespaces/{name}")


async def main(wanted: list[str]) -> None:
    """Save the shapes that are named, or all."""
    cluster = current()
    install_crds(cluster)
    async with await connect(cluster) as api:
        for name in wanted or SHAPES:
            print(await save(cluster, api, name))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
