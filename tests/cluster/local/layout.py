"""Everything of a slot that is decided before anything starts: files and command lines."""

from pathlib import Path

from tests.cluster import folders
from tests.cluster.commands import find
from tests.cluster.errors import ClusterError
from tests.cluster.local import (
    binaries,
    certificates,
    cilium,
    controlplane,
    gvisor,
    node,
    packages,
    record,
)
from tests.cluster.local.slots import Slot
from tests.cluster.networks import Network

CONTEXT = "ratchet-local"
FIRST = ("etcd", "containerd", "kube-apiserver")
"""Parts started before the API server answers."""
LATER = ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")
"""Parts that need it."""
PARTS = (*FIRST, *LATER, cilium.PART)
"""All that a local cluster can have."""


def later(network: Network) -> tuple[str, ...]:
    """Parts that need the API server, in the order of their start: the enforcer before the kubelet,
    which makes pods. Where there is one, coredns runs in a pod, which policies can name."""
    if network is Network.PLAIN:
        return LATER
    return (cilium.PART, *(name for name in LATER if name != "coredns"))


def parts(network: Network) -> tuple[str, ...]:
    """What a cluster with this network has."""
    return (*FIRST, *later(network))


def _facts(network: Network) -> node.Facts:
    status = Path("/proc/self/status").read_text()
    folder, runc = packages.plugin_folder(), find("runc")
    if folder is None or runc is None:
        raise ClusterError("runc and the network plugins are missing: run `make cluster-up` again")
    more = (cilium.HOME,) if network is Network.CILIUM else ()
    return node.Facts((str(folder), *more), runc, node.may_lower_oom_score(status))


def configuration(slot: Slot, network: Network) -> dict[str, str]:
    """Content of every file of configuration, by name."""
    enforced = network is Network.CILIUM
    return {
        "containerd.toml": node.containerd(_facts(network)) + gvisor.containerd(),
        gvisor.SETTINGS: gvisor.settings(),
        "cni/10-ratchet.conflist": node.cni(slot, (cilium.cni_plugin(),) if enforced else ()),
        "kubelet.json": node.kubelet(slot),
        "kube-proxy-config.json": node.kube_proxy(slot),
        "Corefile": node.corefile(slot),
        "manifests.json": node.manifests(slot, names_from_pods=enforced),
        "resolv.conf": f"nameserver {slot.dns_ip}\n",
        **({cilium.OBJECTS: cilium.objects(slot)} if enforced else {}),
    }


def commands(slot: Slot, network: Network) -> dict[str, list[str]]:
    """Command line of every part, by name."""
    return {
        "etcd": controlplane.etcd(),
        "kube-apiserver": controlplane.apiserver(slot),
        "kube-controller-manager": controlplane.controller_manager(),
        "kube-scheduler": controlplane.scheduler(),
        **node.commands(slot),
        **({cilium.PART: cilium.agent(slot)} if network is Network.CILIUM else {}),
    }


def modules(network: Network) -> tuple[binaries.Module, ...]:
    """Modules whose programs the node has."""
    enforcer = (binaries.CILIUM,) if network is Network.CILIUM else ()
    return (binaries.CLUSTER, binaries.GVISOR, *enforcer)


def settings(slot: Slot, network: Network) -> str:
    """Digest of all that decides how the parts run: another one means a new start."""
    files = sorted(configuration(slot, network).items())
    built = [text for module in modules(network) for text in binaries.inputs(module)]
    return folders.digest(str(files), str(sorted(commands(slot, network).items())), *built)


def write_files(slot: Slot, network: Network) -> None:
    """Write configuration, certificates and kubeconfigs into the slot's folder."""
    state = record.folder(slot)
    for name in ("etcd", "logs", "pki"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "etcd").chmod(0o700)
    for name, content in configuration(slot, network).items():
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
    if network is Network.CILIUM:
        _name_clang(state / "tools")


def _name_clang(tools: Path) -> None:
    """The distribution's compiler, by the name that Cilium calls."""
    compiler = find("clang-19")
    if compiler is None:
        raise ClusterError("clang-19 is missing: run `make cluster-up NETWORK=cilium` again")
    tools.mkdir(exist_ok=True)
    (tools / "clang").symlink_to(compiler)
