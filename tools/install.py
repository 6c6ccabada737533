"""Install both charts into the cluster of this checkout: `python3 -m tools.install`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import Cluster, ClusterError, current
from tools import images

NAMESPACE = "ratchet-system"
RELEASE = "ratchet"
FAKE_URL = f"http://{RELEASE}-fake-sglang.{NAMESPACE}.svc:30000/v1"
"""Where the scripted model is when it is installed."""
TIMEOUT_S = 180


def environment(cluster: Cluster) -> dict[str, str]:
    """Variables with which helm and kubectl talk to this cluster and no other."""
    return {
        **os.environ,
        "KUBECONFIG": cluster.kubeconfig,
        "HELM_KUBECONTEXT": cluster.context,
        "PATH": f"{cluster.path}:{os.environ.get('PATH', '')}",
    }


def install(cluster: Cluster, *, fake_script: Path | None = None, more: Sequence[str] = ()) -> None:
    """Install or upgrade both charts and wait until the operator is ready.

    `fake_script`: also install the scripted model with this script. `more`: words for helm, for the
    operator's chart. Ends the process if helm refuses.
    """
    _helm(cluster, "ratchet-crds", "--take-ownership")
    words = [*_image_values(cluster), *more]
    if fake_script is not None:
        words += ["--set=fake.enabled=true", f"--set-file=fake.script={fake_script}"]
    _helm(cluster, "ratchet", *words)


def uninstall(cluster: Cluster) -> None:
    """Remove the operator. Definitions, tasks and their histories stay."""
    _run(cluster, ["helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found"])


def _helm(cluster: Cluster, chart: str, *words: str) -> None:
    argv = ["helm", "upgrade", "--install", chart, str(images.ROOT / "charts" / chart)]
    argv += ["--namespace", NAMESPACE, "--create-namespace", "--wait", f"--timeout={TIMEOUT_S}s"]
    _run(cluster, [*argv, *words])


def _image_values(cluster: Cluster) -> list[str]:
    """Names of the images that were built last, and digests that make changed ones roll out."""
    built = images.built()
    operator = built["ratchet-operator"].digest
    return [
        f"--set=images.registry={cluster.registry or images.REGISTRY}",
        f"--set=images.tag={images.TAG}",
        f"--set-string=operator.podAnnotations.ratchet\\.run/build={operator}",
    ]


def _run(cluster: Cluster, argv: Sequence[str]) -> None:
    done = subprocess.run(
        argv,
        env=environment(cluster),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        _show_pods(cluster)
        sys.exit(f"error: `{' '.join(argv[:5])} ...` failed: see above")


def _show_pods(cluster: Cluster) -> None:
    """What is there of the operator, on stderr: helm tells no more than that time was up."""
    kubectl = ["kubectl", f"--context={cluster.context}", f"--namespace={NAMESPACE}"]
    for words in (["get", "pods"], ["logs", f"deployment/{RELEASE}-operator", "--tail=15"]):
        subprocess.run([*kubectl, *words], env=environment(cluster), stdout=2, check=False)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.install", description=__doc__)
    parser.add_argument("--fake-script", type=Path, help="install the scripted model with it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--uninstall", action="store_true", help="remove the operator instead")
    options = parser.parse_args()
    try:
        cluster = current()
    except ClusterError as error:
        sys.exit(f"error: {error}")
    if options.uninstall:
        uninstall(cluster)
        return
    install(cluster, fake_script=options.fake_script, more=[f"--set={s}" for s in options.set])
    print(f"Ratchet is installed in namespace {NAMESPACE}")
    print(f"export KUBECONFIG={cluster.kubeconfig}  # context {cluster.context}")


if __name__ == "__main__":
    main()
