"""The network policies of a sandbox: in from the operator alone, out to what its class opens."""

from __future__ import annotations

from ratchet.build.egress import (
    CLOSED,
    DNS_LABELS,
    DNS_NAMESPACE,
    DNS_PORT,
    NAMESPACE_LABEL,
    Egress,
    opened,
)
from ratchet.build.generation import Generation, Manifest
from ratchet.build.paths import HTTPS_PORT
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import EgressRule


def sandbox_network_policy(
    generation: Generation, pod_uid: str, settings: SandboxSettings, egress: Egress = CLOSED
) -> Manifest:
    """Holds only where the cluster's network plugin enforces policies; policies are additive.

    Raises ValueError for a rule that cannot be meant.
    """
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
            "egress": opened(egress, generation.namespace),
        },
    }


def cilium_network_policy(generation: Generation, pod_uid: str, egress: Egress) -> Manifest | None:
    """Opens the hosts that the rules name, beside the NetworkPolicy; None where they name none.

    Cilium learns the addresses of a name from the answers of the cluster's DNS, whose questions go
    through its agent for that. So only the names of the rules may be asked for: a question for any
    other name would be a way out. With Services in the rules every name may be, since the names of
    Services depend on the cluster's domain.
    """
    if not egress.hosts:
        return None
    names = [_name(rule) for rule in egress.hosts]
    if any(rule.service for rule in egress.rules):
        names = [{"matchPattern": "*"}]
    dns = {
        "toEndpoints": [
            {
                "matchLabels": {
                    "k8s:io.kubernetes.pod.namespace": DNS_NAMESPACE,
                    **{f"k8s:{name}": value for name, value in DNS_LABELS.items()},
                }
            }
        ],
        "toPorts": [{"ports": [_port(DNS_PORT, "ANY")], "rules": {"dns": names}}],
    }
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": generation.part_metadata(pod_uid),
        "spec": {
            "endpointSelector": {"matchLabels": generation.labels},
            "egress": [dns, *(_host(rule) for rule in egress.hosts)],
        },
    }


def _host(rule: EgressRule) -> Manifest:
    ports = [_port(port.port, port.protocol) for port in rule.ports]
    return {"toFQDNs": [_name(rule)], "toPorts": [{"ports": ports}]}


def _name(rule: EgressRule) -> dict[str, str]:
    """`*.example.com` is every name below it, at any depth: two stars are that in Cilium."""
    if rule.host.startswith("*."):
        return {"matchPattern": f"*{rule.host}"}
    return {"matchName": rule.host}


def _port(port: int, protocol: str) -> dict[str, str]:
    return {"port": str(port), "protocol": protocol}
