"""A cluster that somebody else runs, named by RATCHET_CONTEXT. It is used, never changed."""

import os
from pathlib import Path

from tests.cluster import description, image_builder
from tests.cluster.commands import run, step
from tests.cluster.description import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.local import binaries, images


def _kubeconfig() -> str:
    named = os.environ.get("KUBECONFIG", "").split(":")[0]
    return named or str(Path.home() / ".kube" / "config")


def up() -> Cluster:
    """Check that the cluster answers and describe it."""
    context, kubeconfig = os.environ["RATCHET_CONTEXT"], _kubeconfig()
    path = binaries.ensure(names=binaries.TOOLS)
    kubectl = [str(path / "kubectl"), "--kubeconfig", kubeconfig, "--context", context]
    run([*kubectl, "get", "--raw", "/readyz"], timeout=30)
    server = "jsonpath={.clusters[0].cluster.server}"
    cluster = Cluster(
        provider="given",
        context=context,
        kubeconfig=kubeconfig,
        registry=os.environ["REGISTRY"],
        path=str(path),
        apiserver=run([*kubectl, "config", "view", "--minify", "-o", server]),
    )
    description.write(cluster)
    return cluster


def load(tar: Path) -> None:
    """Push the images of a docker-archive to REGISTRY."""
    registry = os.environ.get("REGISTRY") or description.current().registry
    for tag in images.contents(tar):
        target = pushed_name(registry, tag)
        with step(f"push {target}"):
            if image_builder.docker_answers():
                run(["docker", "load", "--input", tar], timeout=600)
                run(["docker", "tag", tag, target])
                run(["docker", "push", target], timeout=1800)
            else:
                source = f"docker-archive:{tar}:{tag}"
                run([*image_builder.buildah(), "pull", source], timeout=600)
                run([*image_builder.buildah(), "push", tag, f"docker://{target}"], timeout=1800)


def pushed_name(registry: str, tag: str) -> str:
    """Name of an image in a registry: its last part and tag, below the registry's name."""
    if not registry:
        raise ClusterError("REGISTRY is not set: name a registry that you can push to")
    return f"{registry.rstrip('/')}/{tag.rpartition('/')[2]}"
