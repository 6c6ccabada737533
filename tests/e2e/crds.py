"""Our CRDs, in a cluster that tests or figures use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.cluster import Cluster, ClusterError

CRDS = Path(__file__).parents[2] / "crds"


def install_crds(cluster: Cluster) -> None:
    """Have them as this checkout has them, and served. Raises ClusterError."""
    _kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    _kubectl(cluster, "wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))


def _kubectl(cluster: Cluster, *arguments: str) -> None:
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
