"""What the cluster says of a class's egress rules, before a sandbox is made by them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from ratchet.build.egress import Egress, opened
from ratchet.core.config import EgressRule
from ratchet.edges.answers import find
from ratchet.edges.kube import Api, ApiError, core
from ratchet.ports import JournalAway

CILIUM: Final = "/apis/cilium.io/v2"
CILIUM_POLICIES: Final = "ciliumnetworkpolicies"


class ServiceMissing(LookupError):
    """A Service that an egress rule names is not there."""


class EgressUnfit(ValueError):
    """An egress rule that cannot be kept in this cluster. The text says why and what to change."""


def cilium_policies(namespace: str) -> str:
    """Path of all CiliumNetworkPolicies of a namespace."""
    return f"{CILIUM}/namespaces/{namespace}/{CILIUM_POLICIES}"


async def read_egress(api: Api, namespace: str, rules: tuple[EgressRule, ...]) -> Egress:
    """The rules with the selectors of their Services.

    Raises ServiceMissing, EgressUnfit or another ValueError, and JournalAway where the API server is
    away.
    """
    hosts = [rule.host for rule in rules if rule.host]
    if hosts and not await _serves_cilium(api):
        raise EgressUnfit(
            f"egress: host {hosts[0]!r} needs Cilium, and this cluster does not serve its"
            " CiliumNetworkPolicy: use cidr or service in the SandboxClass, or a proxy behind one"
        )
    named = sorted({(rule.namespace, rule.service) for rule in rules if rule.service})
    found = await asyncio.gather(*(_service(api, n or namespace, name) for n, name in named))
    services = dict(zip(named, found, strict=True))
    for rule in rules:
        if rule.service:
            _expect_ports(rule, services[rule.namespace, rule.service])
    egress = Egress(rules, {key: service["selector"] for key, service in services.items()})
    opened(egress, namespace)  # so that what cannot be meant is said before anything is made
    return egress


async def _serves_cilium(api: Api) -> bool:
    found = await find(api, CILIUM)
    served = (found or {}).get("resources") or ()
    return any(resource.get("name") == CILIUM_POLICIES for resource in served)


async def _service(api: Api, namespace: str, name: str) -> dict[str, Any]:
    """The spec of a Service that has a selector."""
    try:
        found = await find(api, core("services", namespace, name))
    except JournalAway as away:
        if _is_forbidden(away):
            raise EgressUnfit(
                f"egress: the operator may not read Service {name!r} of namespace {namespace!r};"
                " let it watch that namespace (operator.watchNamespaces of its chart), or use cidr"
            ) from away
        raise
    if found is None:
        raise ServiceMissing(
            f"egress: there is no Service {name!r} in namespace {namespace!r}; create it"
        )
    spec: dict[str, Any] = found.get("spec") or {}
    if not spec.get("selector") or spec.get("type") == "ExternalName":
        raise EgressUnfit(
            f"egress: Service {name!r} of namespace {namespace!r} has no selector, so that nobody"
            " can say which pods it stands for; use cidr for what is behind it"
        )
    return spec


def _is_forbidden(away: JournalAway) -> bool:
    """A role lacks the right, which waiting does not change (but see `answers.Meaning.LATER`)."""
    cause = away.__cause__
    return isinstance(cause, ApiError) and cause.status == HTTPStatus.FORBIDDEN


def _expect_ports(rule: EgressRule, service: dict[str, Any]) -> None:
    """Ports are those of the pods: one that is only the Service's would open nothing."""
    ports = service.get("ports") or ()
    targets = {
        (port.get("targetPort", port["port"]), port.get("protocol", "TCP")) for port in ports
    }
    if any(isinstance(target, str) for target, _ in targets):
        return  # named: only the pods know which number that is
    own = {(port["port"], port.get("protocol", "TCP")) for port in ports}
    for port in rule.ports:
        if (port.port, port.protocol) in own - targets:
            raise EgressUnfit(
                f"egress: {port.port} is a port of Service {rule.service!r}, whose pods listen on"
                f" others ({_numbers(targets)}): name those, since a network policy is about pods"
            )


def _numbers(targets: set[tuple[Any, str]]) -> str:
    return ", ".join(sorted(f"{number}/{protocol}" for number, protocol in targets))
