"""Our CRDs, in a cluster that tests or figures use."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from tests.cluster import Cluster, ClusterError

CRDS = Path(__file__).parents[2] / "crds"
SERVED_S = 30.0
INITIALIZING = "storage is (re)initializing"


def install_crds(cluster: Cluster) -> None:
    """Have them as this checkout has them, and their objects served. Raises ClusterError."""
    _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    _kubectl(cluster, "wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
    plurals = _kubectl(cluster, "get", "-f", str(CRDS), "-o", "name").split()
    for plural in plurals:
        _wait_until_served(cluster, plural.partition("/")[2])


def _wait_until_served(cluster: Cluster, plural: str) -> None:
    # Established says that the names are taken. The storage behind them is made by the first
    # request, and until its cache is filled requests are refused with 429.
    deadline = time.monotonic() + SERVED_S
    while True:
        try:
            _kubectl(cluster, "get", plural, "--all-namespaces", "--chunk-size=1", "-o", "name")
        except ClusterError as error:
            if INITIALIZING not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _kubectl(cluster: Cluster, *arguments: str) -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", cluster.kubeconfig, "--context", cluster.context, *arguments],
        env={**os.environ, "PATH": f"{cluster.path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"the CRDs of {CRDS} could not be installed: {done.stderr}")
    return done.stdout
