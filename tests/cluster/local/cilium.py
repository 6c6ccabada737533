"""Cilium's agent as the enforcer of NetworkPolicies, without its operator and without images.

It is chained onto the plain network ("generic-veth" in Cilium's documentation of CNI chaining):
the plugin `ptp` makes the pair of interfaces, Cilium puts its programs on the node's end. Routing
and the translation of service addresses stay with the kernel and kube-proxy. All that Cilium makes
(programs, maps, firewall rules, interfaces) lives in the node's namespaces and ends with them.
"""

import json

from tests.cluster.local.controlplane import STATE
from tests.cluster.local.slots import Slot

PART = "cilium-agent"
HOME = "/run/ratchet/cilium"
"""Programs, the sources of the eBPF programs in `bpf/`, and the CRDs, as the node sees them."""
TOOLS = f"{STATE}/tools"
"""Holds `clang`, by the name that the agent calls."""
STATUS = (f"{HOME}/cilium-dbg", "status", "--brief")
"""Succeeds while the agent is at work."""
OBJECTS = "cilium.json"
CRDS = (
    "v2/ciliumcidrgroups",
    "v2/ciliumclusterwidenetworkpolicies",
    "v2/ciliumendpoints",
    "v2/ciliumidentities",
    "v2/ciliumloadbalancerippools",
    "v2/ciliumnetworkpolicies",
    "v2/ciliumnodes",
    "v2alpha1/ciliuml2announcementpolicies",
    "v2alpha1/ciliumpodippools",
)
"""What this agent waits for (Cilium 1.20, pkg/k8s/synced/crd.go). The operator would make them."""

_OFF = (
    "enable-dynamic-config",
    "enable-endpoint-health-checking",
    "enable-health-check-nodeport",
    "enable-health-checking",
    "enable-hubble",
    "enable-ipv4-masquerade",
    "enable-ipv6",
    "enable-ipv6-masquerade",
    "enable-l2-neigh-discovery",
    "enable-local-node-route",
    "kube-proxy-replacement",
    "preallocate-bpf-maps",
)
_SETTINGS = {
    "bpf-ct-global-tcp-max": "16384",
    "bpf-lb-map-max": "1024",
    "bpf-policy-map-max": "4096",
    "bpf-policy-stats-map-max": "4096",
    "bpf-root": "/sys/fs/bpf",
    "cgroup-root": "/run/cilium/cgroupv2",
    "cni-chaining-mode": "generic-veth",
    # A pattern that no interface has: the node's own is left alone.
    "devices": "none+",
    # The proxy of names (toFQDNs) needs it. No Envoy is started or waited for.
    "enable-l7-proxy": "true",
    "external-envoy-proxy": "true",
    "enable-host-legacy-routing": "true",
    "identity-allocation-mode": "crd",
    "identity-management-mode": "agent",
    "ipam": "cluster-pool",
    "lib-dir": HOME,
    "monitor-aggregation": "medium",
    "procfs": "/proc",
    "routing-mode": "native",
    "state-dir": "/run/cilium",
}


def cni_plugin() -> dict[str, object]:
    """The plugin that comes after the one which makes the interfaces."""
    return {"type": "cilium-cni", "chaining-mode": "generic-veth"}


def agent(slot: Slot) -> list[str]:
    """Command line of the agent."""
    settings = {
        **_SETTINGS,
        **dict.fromkeys(_OFF, "false"),
        "ipv4-native-routing-cidr": str(slot.pods),
        "k8s-kubeconfig-path": f"{STATE}/admin.json",
    }
    environment = {
        "K8S_NODE_NAME": slot.name,
        "CILIUM_K8S_NAMESPACE": "kube-system",
        "PATH": f"{TOOLS}:{HOME}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    flags = [f"--{name}={value}" for name, value in sorted(settings.items())]
    words = [f"{name}={value}" for name, value in environment.items()]
    return ["env", *words, f"{HOME}/{PART}", *flags]


def own_address(slot: Slot) -> list[str]:
    """Words for `ip`: what makes the address by which the node reaches its pods one of the node's.

    The plugin `ptp` puts it on every pair, where Cilium does not look for addresses of the node; on
    `lo` it does. Without this the kubelet's probes come from nowhere known, and are denied.
    """
    return ["address", "add", f"{slot.pods[1]}/32", "dev", "lo"]


def objects(slot: Slot) -> str:
    """The CiliumNode that the operator would make, and what lets this machine in.

    The node's range holds the agent's own addresses and no pod's: those come from the plain network's
    plugin. Cilium lets a node reach its pods whatever the policies say. Tests on this machine take
    the place of such a node: they reach pods as the kubelet does, and pods do not reach them.
    """
    node = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNode",
        "metadata": {"name": slot.name},
        "spec": {"ipam": {"podCIDRs": [f"{slot.network[192 * 256]}/24"]}},
    }
    door = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "this-machine"},
        "spec": {
            "endpointSelector": {},
            "enableDefaultDeny": {"ingress": False, "egress": False},
            "ingress": [{"fromCIDR": [f"{slot.host_ip}/32"]}],
        },
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [node, door]}, indent=2) + "\n"
