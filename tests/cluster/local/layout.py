"""Everything of a slot that is decided before anything starts: files and command lines."""

from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import find
from tests.cluster.errors import ClusterError
from tests.cluster.local import (
    binaries,
    certificates,
    controlplane,
    gvisor,
    node,
    packages,
    record,
)
from tests.cluster.local.slots import Slot

CONTEXT = "ratchet-local"
FIRST = ("etcd", "containerd", "kube-apiserver")
"""Parts started before the API server answers."""
LATER = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")
"""Parts that need it."""
PARTS = (*FIRST, *LATER)


def _facts() -> node.Facts:
    status = Path("/proc/self/status").read_text()
    folder, runc = packages.plugin_folder(), find("runc")
    if folder is None or runc is None:
        raise ClusterError("runc and the network plugins are missing: run `make cluster-up` again")
    return node.Facts(str(folder), runc, node.may_lower_oom_score(status))


def configuration(slot: Slot) -> dict[str, str]:
    """Content of every file of configuration, by name."""
    return {
        "containerd.toml": node.containerd(_facts()) + gvisor.containerd(),
        gvisor.SETTINGS: gvisor.settings(),
        "cni/10-ratchet.conflist": node.cni(slot),
        "kubelet.json": node.kubelet(slot),
        "kube-proxy-config.json": node.kube_proxy(slot),
        "Corefile": node.corefile(slot),
        "manifests.json": node.manifests(slot),
        "resolv.conf": f"nameserver {slot.dns_ip}\n",
    }


def commands(slot: Slot) -> dict[str, list[str]]:
    """Command line of every part, by name."""
    return {
        "etcd": controlplane.etcd(),
        "kube-apiserver": controlplane.apiserver(slot),
        "kube-controller-manager": controlplane.controller_manager(),
        "kube-scheduler": controlplane.scheduler(),
        **node.commands(slot),
    }


def modules() -> tuple[binaries.Module, ...]:
    """Modules whose programs the node has."""
    return (binaries.CLUSTER, binaries.GVISOR)


def settings(slot: Slot) -> str:
    """Digest of all that decides how the parts run: another one means a new start."""
    files = sorted(configuration(slot).items())
    built = [text for module in modules() for text in binaries.inputs(module)]
    return folders.digest(str(files), str(sorted(commands(slot).items())), *built)


def write_files(slot: Slot) -> None:
    """Write configuration, certificates and kubeconfigs into the slot's folder."""
    state = record.folder(slot)
    for name in ("etcd", "logs", "pki"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "etcd").chmod(0o700)
    for name, content in configuration(slot).items():
        folders.write_text(state / name, content)
    addresses = [str(slot.node_ip), str(slot.apiserver_service_ip), "127.0.0.1"]
    certificates.create(state / "pki", slot.name, addresses)
    owners = {
        "controller-manager.json": "controller-manager",
        "scheduler.json": "scheduler",
        "kubelet-kubeconfig.json": "kubelet",
        "kube-proxy.json": "kube-proxy",
        "coredns.json": "coredns",
        "admin.json": "admin",
    }
    for name, person in owners.items():
        context = CONTEXT if person == "admin" else "ratchet"
        text = controlplane.kubeconfig(slot, state / "pki", person, context)
        folders.write_text(state / name, text, mode=0o600)
