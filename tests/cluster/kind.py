"""A cluster made by kind, where Docker answers. A thin path: kind does all of the work."""

from pathlib import Path

from tests.cluster import description, folders
from tests.cluster.commands import run, step
from tests.cluster.description import Cluster
from tests.cluster.local import binaries


def cluster_name(checkout: Path = folders.CHECKOUT) -> str:
    """Name of this checkout's cluster: two checkouts never share one."""
    return f"ratchet-{folders.digest(str(checkout))[:8]}"


def _exists(kind: str) -> bool:
    return cluster_name() in run([kind, "get", "clusters"]).split()


def up() -> Cluster:
    """Create the cluster if it is not there, and describe it."""
    kind, path = binaries.ensure_kind(), binaries.ensure(names=binaries.TOOLS)
    target = folders.build() / "kubeconfig"
    target.parent.mkdir(parents=True, exist_ok=True)
    if _exists(kind):
        run([kind, "export", "kubeconfig", "--name", cluster_name(), f"--kubeconfig={target}"])
    else:
        with step(f"create {cluster_name()} with kind"):
            words = ["--name", cluster_name(), "--kubeconfig", str(target), "--wait", "120s"]
            run([kind, "create", "cluster", *words], timeout=600)
    server = "jsonpath={.clusters[0].cluster.server}"
    kubectl = [str(path / "kubectl"), "--kubeconfig", str(target)]
    gateway = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    gateways = run(["docker", "network", "inspect", "kind", "--format", gateway]).split()
    cluster = Cluster(
        provider="kind",
        context=f"kind-{cluster_name()}",
        kubeconfig=str(target),
        registry="",
        path=str(path),
        apiserver=run([*kubectl, "config", "view", "--minify", "-o", server]),
        host_ip=next((address for address in gateways if "." in address), ""),
    )
    description.write(cluster)
    return cluster


def down() -> None:
    """Delete the cluster of this checkout."""
    kind = binaries.ensure_kind()
    if _exists(kind):
        with step(f"delete {cluster_name()}"):
            run([kind, "delete", "cluster", "--name", cluster_name()], timeout=300)
    description.forget()


def load(tar: Path) -> None:
    """Bring the images of a docker-archive onto the node."""
    with step(f"load {tar.name}"):
        run(
            [binaries.ensure_kind(), "load", "image-archive", "--name", cluster_name(), tar],
            timeout=600,
        )
