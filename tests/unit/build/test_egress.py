"""What a class's egress rules become: two policies, the pod's DNS, and what is still tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.build.egress import CLOSED, Egress, denied_targets, opened
from ratchet.build.generation import Generation
from ratchet.build.networkpolicy import cilium_network_policy, sandbox_network_policy
from ratchet.build.pod import sandbox_pod
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import EgressPort, EgressRule, SandboxConfig

from tests.conftest import AssertGolden

GOLDEN = Path(__file__).parent / "golden"
GENERATION = Generation("team-a", "fix-it", "0f3c9a1e-5555-4444-8888-121212121212", 2)
POD_UID = "77777777-5555-4444-8888-121212121212"
API_SERVER, OPERATOR = "10.96.0.1:443", "10.88.0.7:8080"
SETTINGS = SandboxSettings(
    "server:1", "runner:1", "ratchet-system", probe_targets=(API_SERVER, OPERATOR)
)
WEB = (EgressPort(443),)
DATABASE = EgressRule((EgressPort(5432), EgressPort(5432, "UDP")), service="db", namespace="data")
EVERYWHERE = EgressRule(WEB, cidr="0.0.0.0/0", except_=("10.0.0.0/8", "192.168.0.0/16"))
INDEX = EgressRule(WEB, host="pypi.org")
BELOW = EgressRule(WEB, host="*.example.com")
SERVICES = {("data", "db"): {"app": "postgres"}}


def policy(*rules: EgressRule) -> dict[str, Any]:
    return sandbox_network_policy(GENERATION, POD_UID, SETTINGS, Egress(rules, SERVICES))


def cilium(*rules: EgressRule) -> dict[str, Any]:
    made = cilium_network_policy(GENERATION, POD_UID, Egress(rules, SERVICES))
    assert made is not None
    return made


def pod(*rules: EgressRule) -> dict[str, Any]:
    config = SandboxConfig(image="python:3.12", egress=rules)
    made = sandbox_pod(GENERATION, config, SETTINGS, Egress(rules, SERVICES))
    spec: dict[str, Any] = made["spec"]
    return spec


def block(cidr: str, *closed: str) -> dict[str, Any]:
    rule = EgressRule(WEB, cidr=cidr, except_=closed)
    found: dict[str, Any] = policy(rule)["spec"]["egress"][0]["to"][0]["ipBlock"]
    return found


def test_the_policy_of_a_class_with_every_rule_that_it_can_express(
    assert_golden: AssertGolden,
) -> None:
    made = yaml.safe_dump(policy(EVERYWHERE, DATABASE), sort_keys=False, width=100)
    assert_golden(GOLDEN / "networkpolicy-egress.yaml", made)


def test_the_policy_of_a_class_with_hosts(assert_golden: AssertGolden) -> None:
    made = yaml.safe_dump(cilium(INDEX, BELOW), sort_keys=False, width=100)
    assert_golden(GOLDEN / "ciliumnetworkpolicy.yaml", made)


def test_without_rules_nothing_is_opened() -> None:
    assert policy()["spec"]["egress"] == []
    assert policy()["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert cilium_network_policy(GENERATION, POD_UID, CLOSED) is None


@pytest.mark.parametrize(
    ("cidr", "given", "closed"),
    [
        ("0.0.0.0/0", (), ["169.254.169.254/32"]),
        ("169.254.0.0/16", ("169.254.1.0/24",), ["169.254.1.0/24", "169.254.169.254/32"]),
        ("0.0.0.0/0", ("169.254.0.0/16",), ["169.254.0.0/16"]),
        ("::/0", (), ["fd00:ec2::254/128"]),
        ("fd00::/8", (), ["fd00:ec2::254/128"]),
        ("10.1.2.3/16", (), None),
        ("2001:db8::/32", (), None),
    ],
)
def test_no_network_opens_the_clouds_metadata(
    cidr: str, given: tuple[str, ...], closed: list[str] | None
) -> None:
    assert block(cidr, *given).get("except") == closed


def test_a_network_is_written_as_kubernetes_wants_it() -> None:
    assert block("10.1.2.3/16")["cidr"] == "10.1.0.0/16"


@pytest.mark.parametrize("address", ["169.254.169.254/32", "fd00:ec2::254/128"])
def test_a_rule_for_the_metadata_itself_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"credentials of their machines.*take the rule out"):
        opened(Egress((EgressRule(WEB, cidr=address),)), "team-a")


def test_a_service_of_the_tasks_own_namespace_is_looked_for_there() -> None:
    rule = EgressRule(WEB, service="db")
    (to, dns) = opened(Egress((rule,), {("", "db"): {"app": "x"}}), "team-a")
    assert to["to"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "team-a"
    }
    assert [port["port"] for port in dns["ports"]] == [53, 53]


# --- names ---------------------------------------------------------------------------------------


def dns_rules(*rules: EgressRule) -> list[dict[str, Any]]:
    """Rules of the NetworkPolicy that open DNS."""
    return [r for r in policy(*rules)["spec"]["egress"] if r["ports"][0]["port"] == 53]


def test_dns_is_opened_for_names_alone() -> None:
    assert not dns_rules(EVERYWHERE)
    assert len(dns_rules(DATABASE)) == 1
    assert not dns_rules(DATABASE, INDEX), "the other policy does, so that it can limit the names"


def test_the_pod_has_a_resolver_only_where_dns_is_opened() -> None:
    assert pod()["dnsPolicy"] == pod(EVERYWHERE)["dnsPolicy"] == "None"
    assert pod(EVERYWHERE)["dnsConfig"]["nameservers"] == ["127.0.0.1"]
    assert pod(DATABASE)["dnsPolicy"] == "ClusterFirst" and "dnsConfig" not in pod(DATABASE)
    assert pod(INDEX)["dnsPolicy"] == "ClusterFirst"
    assert pod(INDEX)["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}


def test_with_hosts_alone_only_their_names_may_be_asked_for() -> None:
    def asked(*rules: EgressRule) -> list[dict[str, str]]:
        (ports,) = cilium(*rules)["spec"]["egress"][0]["toPorts"]
        found: list[dict[str, str]] = ports["rules"]["dns"]
        return found

    assert asked(INDEX, BELOW) == [{"matchName": "pypi.org"}, {"matchPattern": "**.example.com"}]
    assert asked(INDEX, DATABASE) == [{"matchPattern": "*"}]


def test_a_host_is_no_rule_of_the_plain_policy() -> None:
    assert policy(INDEX)["spec"]["egress"] == []


# --- what is tried -------------------------------------------------------------------------------


def tried(*rules: EgressRule, services: dict[tuple[str, str], dict[str, str]] | None = None) -> Any:
    return denied_targets(SETTINGS, Egress(rules, services or SERVICES))


def test_what_no_rule_opens_is_tried() -> None:
    both = (API_SERVER, OPERATOR)
    assert tried() == tried(EVERYWHERE) == tried(DATABASE) == tried(INDEX) == both
    udp = EgressRule((EgressPort(443, "UDP"),), cidr="10.96.0.0/16")
    assert tried(udp) == both


def test_what_a_network_opens_is_not_tried() -> None:
    assert tried(EgressRule(WEB, cidr="10.96.0.0/16")) == (OPERATOR,)
    both = EgressRule((EgressPort(8080), EgressPort(443)), cidr="10.0.0.0/8")
    assert tried(both) == ()
    assert tried(EgressRule(both.ports, cidr="10.0.0.0/8", except_=("10.96.0.0/12",))) == (
        API_SERVER,
    )


def test_what_a_service_may_open_is_not_tried() -> None:
    ours = EgressRule((EgressPort(8080),), service="metrics", namespace="ratchet-system")
    key = ("ratchet-system", "metrics")
    assert tried(ours, services={key: {"app.kubernetes.io/component": "operator"}}) == (API_SERVER,)
    assert tried(ours, services={key: {"app.kubernetes.io/name": "x"}}) == (API_SERVER,)
    other = {"app.kubernetes.io/component": "fake-sglang"}
    assert tried(ours, services={key: other}) == (API_SERVER, OPERATOR)


def test_addresses_of_ipv6_are_told_apart_from_those_of_ipv4() -> None:
    settings = SandboxSettings("s", "r", "n", probe_targets=("[fd00::1]:443", API_SERVER))
    for cidr, left in (("::/0", (API_SERVER,)), ("0.0.0.0/0", ("[fd00::1]:443",))):
        assert denied_targets(settings, Egress((EgressRule(WEB, cidr=cidr),))) == left


def test_the_server_is_told_what_to_try() -> None:
    def told(*rules: EgressRule) -> list[str]:
        server, shell = pod(*rules)["containers"]
        assert "RATCHET_PROBE_TARGETS" not in {e["name"] for e in shell["env"]}
        return [e["value"] for e in server["env"] if e["name"] == "RATCHET_PROBE_TARGETS"]

    assert told() == [f"{API_SERVER},{OPERATOR}"]
    assert told(EgressRule(WEB, cidr="10.96.0.0/16")) == [OPERATOR]
    assert told(EgressRule((EgressPort(8080), *WEB), cidr="10.0.0.0/8")) == []
