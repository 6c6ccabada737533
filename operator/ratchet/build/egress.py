"""What a class's egress rules open, in a NetworkPolicy's terms. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet.build.settings import SandboxSettings
from ratchet.core.config import EgressRule

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Set on every namespace by the API server."""
DNS_NAMESPACE = "kube-system"
DNS_LABELS = {"k8s-app": "kube-dns"}
"""The pods of the cluster's DNS: CoreDNS bears this label too, for the sake of what selects it."""
DNS_PORT = 53
METADATA = (ipaddress.ip_network("169.254.169.254/32"), ipaddress.ip_network("fd00:ec2::254/128"))
"""Where clouds hand out the credentials of the machine (AWS, Azure, Google; AWS also by IPv6). No
rule opens them."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Labels = Mapping[str, str]
Rule = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Egress:
    """The rules of a class, with what the cluster says of the Services that they name."""

    rules: tuple[EgressRule, ...] = ()
    services: Mapping[tuple[str, str], Labels] = field(default_factory=dict)
    """The selector of each Service, by namespace (empty: the task's own) and name."""

    @property
    def hosts(self) -> tuple[EgressRule, ...]:
        """The rules that name hosts, which no NetworkPolicy can express."""
        return tuple(rule for rule in self.rules if rule.host)


CLOSED = Egress()
"""No rules: nothing is opened."""


def needs_dns(rules: tuple[EgressRule, ...]) -> bool:
    """Whether a destination has a name that the sandbox must look up."""
    return any(rule.service or rule.host for rule in rules)


def opened(egress: Egress, namespace: str) -> list[Rule]:
    """The egress rules of the NetworkPolicy. Raises ValueError for a rule that cannot be meant.

    Where hosts are named, DNS is opened by the policy for those, which also limits the questions.
    """
    rules = [_rule(rule, egress, namespace) for rule in egress.rules if not rule.host]
    if needs_dns(egress.rules) and not egress.hosts:
        ports = [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]
        rules.append({"to": [_pods(DNS_NAMESPACE, DNS_LABELS)], "ports": ports})
    return rules


def _rule(rule: EgressRule, egress: Egress, namespace: str) -> Rule:
    ports = [{"protocol": port.protocol, "port": port.port} for port in rule.ports]
    if rule.cidr:
        return {"to": [{"ipBlock": _block(rule)}], "ports": ports}
    labels = egress.services[rule.namespace, rule.service]
    return {"to": [_pods(rule.namespace or namespace, labels)], "ports": ports}


def _pods(namespace: str, labels: Labels) -> Rule:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: namespace}},
        "podSelector": {"matchLabels": dict(labels)},
    }


def _block(rule: EgressRule) -> Rule:
    network = _network(rule.cidr)
    if network in METADATA:
        raise ValueError(
            f"egress: {rule.cidr} is where clouds hand out the credentials of their machines, and a"
            " sandbox never gets there; take the rule out of the SandboxClass"
        )
    closed = [_network(text) for text in rule.except_]
    closed += [
        one
        for one in METADATA
        if _within(one, network) and not any(_within(one, c) for c in closed)
    ]
    block: Rule = {"cidr": str(network)}
    return {**block, "except": [str(one) for one in closed]} if closed else block


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"egress: {text!r} is no network: {error}") from error


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


# --- what the sandbox tries ----------------------------------------------------------------------


def denied_targets(settings: SandboxSettings, egress: Egress) -> tuple[str, ...]:
    """Of the operator's probe targets (`address:port`) those that no rule may open."""
    return tuple(
        target
        for target in settings.probe_targets
        if not any(_may_open(rule, target, settings, egress) for rule in egress.rules)
    )


def _may_open(rule: EgressRule, target: str, settings: SandboxSettings, egress: Egress) -> bool:
    host, _, port = target.rpartition(":")
    if (int(port), "TCP") not in {(one.port, one.protocol) for one in rule.ports}:
        return False
    if rule.cidr:
        address = _network(host.strip("[]"))
        closed = (_network(text) for text in rule.except_)
        return _within(address, _network(rule.cidr)) and not any(
            _within(address, c) for c in closed
        )
    return bool(rule.service) and _may_select_operator(rule, settings, egress)


def _may_select_operator(rule: EgressRule, settings: SandboxSettings, egress: Egress) -> bool:
    """Whether the operator may be among the pods of a Service: not all of its labels are known."""
    if rule.namespace != settings.operator_namespace:
        return False
    labels, known = egress.services[rule.namespace, rule.service], dict(settings.operator_labels)
    return all(known.get(name, value) == value for name, value in labels.items())
