"""Which network a local cluster gets, and what an enforcer changes of it."""

import json
from pathlib import Path

import pytest

from tests.cluster import ClusterError, networks, providers
from tests.cluster.local import binaries, cilium, dns, layout, node, record, slots
from tests.cluster.local.processes import Identity
from tests.cluster.local.record import Record
from tests.cluster.local.slots import Slot
from tests.cluster.networks import Network
from tests.cluster.providers import Provider


def test_no_network_is_taken_for_asked_where_none_is_named() -> None:
    assert networks.asked({}) is None
    assert networks.asked({"RATCHET_NETWORK": ""}) is None


def test_a_network_is_asked_for_by_its_name() -> None:
    assert networks.asked({"RATCHET_NETWORK": "cilium"}) is Network.CILIUM
    with pytest.raises(ClusterError, match="use plain or cilium"):
        networks.asked({"RATCHET_NETWORK": "calico"})


def test_a_named_network_means_a_local_cluster_also_where_docker_answers() -> None:
    assert providers.choose({"RATCHET_NETWORK": "cilium"}, docker_answers=True) is Provider.LOCAL


def test_a_network_cannot_be_asked_of_a_cluster_that_is_not_ours() -> None:
    given = {"RATCHET_CONTEXT": "prod", "REGISTRY": "r.example", "RATCHET_NETWORK": "cilium"}
    with pytest.raises(ClusterError, match="RATCHET_CONTEXT=prod names one"):
        providers.choose(given, docker_answers=False)


def test_the_plain_network_has_nothing_of_the_enforcer() -> None:
    assert cilium.PART not in layout.parts(Network.PLAIN)
    assert binaries.CILIUM not in layout.modules(Network.PLAIN)
    assert [plugin["type"] for plugin in json.loads(node.cni(Slot(0)))["plugins"]] == ["ptp"]


def test_the_enforcer_comes_after_the_plugin_that_makes_the_interfaces() -> None:
    chain = json.loads(node.cni(Slot(0), (cilium.cni_plugin(),)))["plugins"]
    assert [plugin["type"] for plugin in chain] == ["ptp", "cilium-cni"]
    assert f"--cni-chaining-mode={chain[-1]['chaining-mode']}" in cilium.agent(Slot(0))


def test_the_enforcer_starts_before_the_kubelet_makes_pods() -> None:
    parts = layout.parts(Network.CILIUM)
    assert parts.index("kube-apiserver") < parts.index(cilium.PART) < parts.index("kubelet")


def test_the_enforcers_own_addresses_are_nobody_elses() -> None:
    slot = Slot(3)
    (node_object, _) = json.loads(cilium.objects(slot))["items"]
    (own,) = node_object["spec"]["ipam"]["podCIDRs"]
    (network,) = slots.parse_routes(json.dumps([{"dst": own}]))
    assert network.subnet_of(slot.network)
    assert not network.overlaps(slot.pods)
    assert not network.overlaps(slot.services)
    assert slot.node_ip not in network


def test_this_machine_is_let_in_by_a_policy_that_denies_nothing() -> None:
    (_, door) = json.loads(cilium.objects(Slot(3)))["items"]
    assert door["spec"]["ingress"] == [{"fromCIDR": ["10.203.0.1/32"]}]
    assert not any(door["spec"]["enableDefaultDeny"].values())
    assert "egress" not in door["spec"]


def test_names_are_answered_by_a_pod_where_policies_are_enforced() -> None:
    assert "coredns" not in layout.parts(Network.CILIUM)
    items = json.loads(node.manifests(Slot(0), names_from_pods=True))["items"]
    kinds = {item["kind"]: item for item in items}
    assert "EndpointSlice" not in kinds
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"] == labels
    assert dns.subject() in kinds["ClusterRoleBinding"]["subjects"]


def test_the_agent_leaves_the_nodes_own_interface_and_services_alone() -> None:
    flags = cilium.agent(Slot(0))
    assert "--devices=none+" in flags
    assert "--kube-proxy-replacement=false" in flags
    assert "--enable-ipv4-masquerade=false" in flags


def test_a_record_keeps_the_network_and_an_older_one_was_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    known = Record(Identity(1, 2, "boot"), "/bin", "digest", network=Network.CILIUM)
    record.save(Slot(0), known)
    assert record.read(Slot(0)) == known
    file = record.folder(Slot(0)) / "node.json"
    older = {k: v for k, v in json.loads(file.read_text()).items() if k != "network"}
    file.write_text(json.dumps(older))
    assert (found := record.read(Slot(0))) is not None
    assert found.network is Network.PLAIN
