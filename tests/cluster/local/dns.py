"""Names of services from a pod, as in most clusters: a policy can then name that pod.

Without an enforcer coredns runs on the node itself, which no policy can name.
"""

from typing import Any

IMAGE = "localhost/ratchet-coredns:1"
NAME, NAMESPACE = "coredns", "kube-system"
LABELS = {"k8s-app": "kube-dns"}
"""What policies select in practice: kubeadm and most others name it so."""

COREFILE = """.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
    cache 5
}
"""
"""Nothing is asked of a server outside."""


def objects() -> list[dict[str, Any]]:
    """Account, settings and pod. The rights are the manifests' (node.manifests)."""
    settings = _object("v1", "ConfigMap", data={"Corefile": COREFILE})
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "readinessProbe": {"tcpSocket": {"port": 53}, "periodSeconds": 1},
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/coredns"}],
    }
    pod = {
        "serviceAccountName": NAME,
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "settings", "configMap": {"name": NAME}}],
    }
    spec = {
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
    }
    account = _object("v1", "ServiceAccount")
    return [account, settings, _object("apps/v1", "Deployment", spec=spec)]


def subject() -> dict[str, str]:
    """The account, as a binding of rights names it."""
    return {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}


def _object(version: str, kind: str, **content: Any) -> dict[str, Any]:
    metadata = {"name": NAME, "namespace": NAMESPACE}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
