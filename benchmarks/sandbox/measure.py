"""One benchmark of sandboxes from its namespace to its figures."""

from __future__ import annotations

import secrets
from pathlib import Path

from ratchet.build.settings import SandboxSettings
from ratchet.edges.kube import Kube

from benchmarks.sandbox import calls, memory
from benchmarks.sandbox.figures import SandboxFigures
from benchmarks.sandbox.starts import Starts
from tests.cluster import Cluster
from tests.e2e import images
from tests.e2e.box import config, open_boxes
from tests.e2e.crds import install_crds

STARTS, ROUNDS = 11, 200
QUICK_STARTS, QUICK_ROUNDS = 3, 30


async def measure(
    cluster: Cluster, folder: Path, *, starts: int = STARTS, rounds: int = ROUNDS
) -> SandboxFigures:
    """Start pods, run calls, weigh what runs. Raises NotMeasured."""
    install_crds(cluster)
    namespace = f"ratchet-bench-{secrets.token_hex(4)}"
    settings = SandboxSettings(images.SERVER, images.RUNNER, namespace)
    async with await Kube.connect(Path(cluster.kubeconfig), cluster.context) as api:
        await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        try:
            async with open_boxes(cluster, namespace, settings) as boxes:
                begin = Starts(api, boxes, config(), settings)
                await begin.round(0)  # images are read from disk for the first time
                found = [await begin.round(number) for number in range(1, starts + 1)]
                box = await boxes.make(config())
                await box.ready()
                rounds_found = await calls.measure(box, folder, rounds)
                fresh = await boxes.make(config())
                await fresh.ready()
                await fresh.bash("true")
                weighed = await memory.measure(fresh)
        finally:
            await api.request("DELETE", f"/api/v1/namespaces/{namespace}")
    return SandboxFigures(tuple(found), tuple(rounds_found), weighed)
