"""The NetworkPolicy of a sandbox: in from the operator alone, out to nothing."""

from __future__ import annotations

from ratchet.build.generation import Generation, Manifest
from ratchet.build.paths import HTTPS_PORT
from ratchet.build.settings import SandboxSettings

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Set on every namespace by the API server."""


def sandbox_network_policy(
    generation: Generation, pod_uid: str, settings: SandboxSettings
) -> Manifest:
    """Holds only where the cluster's network plugin enforces policies; policies are additive."""
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: settings.operator_namespace}},
        "podSelector": {"matchLabels": dict(settings.operator_labels)},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": generation.part_metadata(pod_uid),
        "spec": {
            "podSelector": {"matchLabels": generation.labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [operator], "ports": [{"protocol": "TCP", "port": HTTPS_PORT}]}],
            "egress": [],
        },
    }
