"""What a test needs to know about the cluster it runs on."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tests.cluster import folders
from tests.cluster.errors import ClusterError
from tests.cluster.folders import write_text


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up, as `build/cluster/env.json` tells it."""

    provider: str
    """`given` (by RATCHET_CONTEXT), `kind` or `local`."""
    context: str
    """Name of the kubeconfig context."""
    kubeconfig: str
    """Path of the kubeconfig file."""
    registry: str
    """Registry that images are pushed to; empty where they are loaded without one."""
    path: str
    """Folder with helm, kubectl and the other binaries."""
    apiserver: str
    """URL of the API server."""
    host_ip: str = ""
    """Address at which pods reach this machine; empty where it is not known."""
    network: str = ""
    """`plain` or `cilium` for a local cluster: whether NetworkPolicies are enforced. Empty where it
    is not known."""
    pids: dict[str, int] = field(default_factory=dict)
    """Process of each component, by name; only for a local cluster."""


def write(cluster: Cluster, folder: Path | None = None) -> None:
    """Leave the description where `current` finds it."""
    write_text(
        (folder or folders.build()) / "env.json", json.dumps(asdict(cluster), indent=2) + "\n"
    )


def forget(folder: Path | None = None) -> None:
    """Remove description and kubeconfig."""
    for name in ("env.json", "kubeconfig"):
        ((folder or folders.build()) / name).unlink(missing_ok=True)


def with_pids(cluster: Cluster, pids: dict[str, int]) -> Cluster:
    """The same cluster with other processes."""
    return replace(cluster, pids=dict(pids))


def current(folder: Path | None = None) -> Cluster:
    """The cluster of this checkout; the one that RATCHET_CLUSTER names, or that of a folder.

    Raises `ClusterError` if none was started.
    """
    file = (folder or folders.build()) / "env.json"
    try:
        return Cluster(**json.loads(file.read_text()))
    except FileNotFoundError as error:
        raise ClusterError("this checkout has no cluster: run `make cluster-up`") from error
    except (ValueError, TypeError) as error:
        raise ClusterError(f"{file} is damaged: run `make cluster-up`") from error
