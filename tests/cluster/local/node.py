"""containerd, kubelet, kube-proxy and coredns: how they are configured and started."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.cluster.local import dns, gvisor
from tests.cluster.local.controlplane import BIN, PKI, STATE
from tests.cluster.local.slots import Slot

SOCKET = "/run/containerd/containerd.sock"
PAUSE = "localhost/ratchet-pause:1"
CAP_SYS_RESOURCE = 24


@dataclass(frozen=True, slots=True)
class Facts:
    """What a configuration depends on besides the slot."""

    plugin_folders: tuple[str, ...]
    runc: str
    may_lower_oom_score: bool
    """False where CAP_SYS_RESOURCE is missing: containers must then not ask for less either."""


def may_lower_oom_score(status: str) -> bool:
    """Whether a process with this /proc/PID/status holds CAP_SYS_RESOURCE (capabilities(7))."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
    return False


def containerd(facts: Facts) -> str:
    """Configuration of containerd 2 (TOML, version 3)."""
    restrict = "false" if facts.may_lower_oom_score else "true"
    return f"""version = 3
root = "{STATE}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = {restrict}

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = {json.dumps(facts.plugin_folders)}
conf_dir = "{STATE}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{facts.runc}"
SystemdCgroup = false
"""


def cni(slot: Slot, more: Sequence[Mapping[str, object]] = ()) -> str:
    """A pair of interfaces per pod, routed by the node. No bridge: an answer that stayed on one
    would miss the address translation of a service. `more` are plugins that come after."""
    whole = {
        "cniVersion": "1.0.0",
        "name": "ratchet",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni/addresses",
                    "ranges": [[{"subnet": str(slot.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            *more,
        ],
    }
    return json.dumps(whole, indent=2) + "\n"


def kubelet(slot: Slot) -> str:
    """Configuration of the kubelet: prompt, and at ease with a nearly full disk."""
    whole = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(slot.node_ip),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{slot.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [str(slot.dns_ip)],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "imageServiceEndpoint": f"unix://{SOCKET}",
        "resolvConf": f"{STATE}/resolv.conf",
        "podLogsDir": f"{STATE}/pod-logs",
        "volumePluginDir": f"{STATE}/volume-plugins",
        "syncFrequency": "10s",
        "fileCheckFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
        "maxPods": 200,
        "podPidsLimit": 512,
        "makeIPTablesUtilChains": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
    }
    return json.dumps(whole, indent=2) + "\n"


def kube_proxy(slot: Slot) -> str:
    """Configuration of kube-proxy: nftables, in the node's own network namespace. Zeroes leave
    connection tracking alone, whose size belongs to the whole machine."""
    whole = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{STATE}/kube-proxy.json"},
        "clusterCIDR": str(slot.pods),
        "hostnameOverride": slot.name,
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return json.dumps(whole, indent=2) + "\n"


def corefile(slot: Slot) -> str:
    """Names of services and pods; nothing is asked of a server outside."""
    return f""".:53 {{
    bind {slot.node_ip}
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {STATE}/coredns.json ratchet
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def manifests(slot: Slot, names_from_pods: bool = False) -> str:
    """Objects that the cluster cannot do without: coredns' rights, the service kube-dns, which has
    a pod behind it or just the node, and the second runtime."""
    labels = {"k8s-app": "kube-dns", "kubernetes.io/service-name": "kube-dns"}
    rules = [
        {
            "apiGroups": [""],
            "resources": ["endpoints", "services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        },
    ]
    rbac = "rbac.authorization.k8s.io"
    service_ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    items = [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [
                {"apiGroup": rbac, "kind": "User", "name": "system:coredns"},
                dns.subject(),
            ],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "clusterIP": str(slot.dns_ip),
                "ports": service_ports,
                **({"selector": dns.LABELS} if names_from_pods else {}),
            },
        },
    ]
    on_the_node = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-node", "namespace": "kube-system", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(slot.node_ip)], "conditions": {"ready": True}}],
        "ports": service_ports,
    }
    items.extend(dns.objects() if names_from_pods else [on_the_node])
    items.append(gvisor.runtime_class())
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2) + "\n"


def commands(slot: Slot) -> dict[str, list[str]]:
    """Command line of each part of the node."""
    return {
        "containerd": [f"{BIN}/containerd", "--config", f"{STATE}/containerd.toml"],
        "kubelet": [
            f"{BIN}/kubelet",
            f"--config={STATE}/kubelet.json",
            f"--kubeconfig={STATE}/kubelet-kubeconfig.json",
            f"--root-dir={STATE}/kubelet",
            f"--hostname-override={slot.name}",
            f"--node-ip={slot.node_ip}",
        ],
        "kube-proxy": [f"{BIN}/kube-proxy", f"--config={STATE}/kube-proxy-config.json"],
        "coredns": [f"{BIN}/coredns", "-conf", f"{STATE}/Corefile"],
    }
