"""etcd, API server, controller manager and scheduler: how they are started."""

import base64
import json
from pathlib import Path

from tests.cluster.local.slots import Slot

BIN, STATE = "/run/ratchet/bin", "/run/ratchet/state"
PKI = f"{STATE}/pki"
"""Paths as the node sees them (see nodeinit)."""
ISSUER = "https://kubernetes.default.svc.cluster.local"
PORT = 6443


def server(slot: Slot) -> str:
    """URL of the API server, from this machine, from the node and from pods alike."""
    return f"https://{slot.node_ip}:{PORT}"


def etcd() -> list[str]:
    """etcd on the node's loopback, on a real disk with real fsync."""
    return [
        f"{BIN}/etcd",
        "--name=ratchet",
        f"--data-dir={STATE}/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=ratchet=http://127.0.0.1:2380",
        "--quota-backend-bytes=8589934592",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=10m",
        "--log-level=warn",
    ]


def apiserver(slot: Slot) -> list[str]:
    """The API server, with its default admission (PodSecurity among it)."""
    return [
        f"{BIN}/kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={slot.node_ip}",
        f"--secure-port={PORT}",
        f"--service-cluster-ip-range={slot.services}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--anonymous-auth=false",
        "--profiling=false",
        f"--client-ca-file={PKI}/ca.crt",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={PKI}/service-account.pub",
        f"--service-account-signing-key-file={PKI}/service-account.key",
    ]


def controller_manager() -> list[str]:
    """All default controllers, each with its own account."""
    return [
        f"{BIN}/kube-controller-manager",
        f"--kubeconfig={STATE}/controller-manager.json",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={PKI}/service-account.key",
        f"--root-ca-file={PKI}/ca.crt",
        f"--cluster-signing-cert-file={PKI}/ca.crt",
        f"--cluster-signing-key-file={PKI}/ca.key",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]


def scheduler() -> list[str]:
    """The default scheduler."""
    return [
        f"{BIN}/kube-scheduler",
        f"--kubeconfig={STATE}/scheduler.json",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
    ]


def kubeconfig(slot: Slot, pki: Path, person: str, context: str) -> str:
    """A kubeconfig (JSON is YAML) that holds its certificates itself."""

    def content(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    cluster = {"server": server(slot), "certificate-authority-data": content("ca.crt")}
    user = {
        "client-certificate-data": content(f"{person}.crt"),
        "client-key-data": content(f"{person}.key"),
    }
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": person, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": person}}],
        "current-context": context,
    }
    return json.dumps(whole, indent=2) + "\n"
