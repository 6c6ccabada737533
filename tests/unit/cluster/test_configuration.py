"""What the parts of the local cluster are told."""

import json
import re
import tomllib
from dataclasses import replace

import pytest

from tests.cluster.local import (
    binaries,
    certificates,
    cgroups,
    cleanup,
    controlplane,
    dns,
    gvisor,
    layout,
    node,
    packages,
)
from tests.cluster.local.slots import Slot
from tests.cluster.networks import Network

FACTS = node.Facts(plugin_folders=("/plugins",), runc="/sbin/runc", may_lower_oom_score=True)


@pytest.mark.parametrize(("may_lower", "restricted"), [(True, False), (False, True)])
def test_containers_ask_for_no_lower_oom_score_than_the_machine_allows(
    may_lower: bool, restricted: bool
) -> None:
    text = node.containerd(replace(FACTS, may_lower_oom_score=may_lower))
    runtime = tomllib.loads(text)["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"] is restricted
    assert runtime["cni"]["bin_dirs"] == ["/plugins"]


def test_pods_that_name_gvisor_get_the_runtime_that_containerd_has_under_its_handler() -> None:
    config = tomllib.loads(node.containerd(FACTS) + gvisor.containerd())
    runtimes = config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    items = json.loads(node.manifests(Slot(0)))["items"]
    handlers = {x["metadata"]["name"]: x["handler"] for x in items if x["kind"] == "RuntimeClass"}
    assert handlers == {"gvisor": "runsc"}
    assert set(runtimes) == {"runc", "runsc"}
    assert runtimes["runsc"]["options"]["ConfigPath"].endswith(f"/{gvisor.SETTINGS}")
    assert tomllib.loads(gvisor.settings())["runsc_config"] == {"platform": "systrap"}


def test_the_node_sees_the_programs_that_its_configuration_names() -> None:
    built = {
        f"/run/ratchet/{module.name}/{binary.name}"
        for module in layout.modules(Network.PLAIN)
        for binary in module.binaries
    }
    assert tomllib.loads(gvisor.settings())["binary_name"] in built
    runtime = tomllib.loads(gvisor.containerd())["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["containerd"]["runtimes"]["runsc"]["runtime_path"] in built


def test_the_capability_is_read_from_the_effective_set() -> None:
    assert node.may_lower_oom_score("Name:\tx\nCapEff:\t000001ffffffffff\n")
    assert not node.may_lower_oom_score("Name:\tx\nCapEff:\t000001fffeffffff\n")


def test_the_kubelet_stays_in_its_slot_and_never_evicts_for_disk() -> None:
    kubelet = json.loads(node.kubelet(Slot(4)))
    assert kubelet["cgroupRoot"] == "/ratchet-4"
    assert kubelet["clusterDNS"] == [str(Slot(4).dns_ip)]
    disk = {k: v for k, v in kubelet["evictionHard"].items() if not k.startswith("memory")}
    assert set(disk.values()) == {"0%"}
    assert kubelet["imageGCHighThresholdPercent"] == 100


def test_pods_get_addresses_of_their_slot() -> None:
    plugin = json.loads(node.cni(Slot(2)))["plugins"][0]
    assert plugin["ipam"]["ranges"] == [[{"subnet": str(Slot(2).pods)}]]


def test_coredns_is_told_only_of_plugins_that_were_compiled_in() -> None:
    source = (binaries.MODULE / "coredns" / "main.go").read_text()
    lines = re.findall(r"^ {4}(\w+)", node.corefile(Slot(0)) + dns.COREFILE, re.MULTILINE)
    assert "kubernetes" in lines
    assert all(f'"{plugin}"' in source for plugin in lines)


def test_the_api_server_is_reached_at_the_node_from_everywhere() -> None:
    assert controlplane.server(Slot(1)) == "https://10.201.0.2:6443"
    assert f"--advertise-address={Slot(1).node_ip}" in controlplane.apiserver(Slot(1))


def test_certificates_name_user_and_group_as_kubernetes_reads_them() -> None:
    subjects = {person.file: person.subject for person in certificates.people("n")}
    assert subjects["kubelet"] == "/O=system:nodes/CN=system:node:n"
    assert subjects["scheduler"] == "/CN=system:kube-scheduler"
    names = certificates.alternative_names(["a", "b"], ["10.0.0.1"])
    assert names == "subjectAltName=DNS:a,DNS:b,IP:10.0.0.1"


def test_both_kinds_of_control_groups_are_found() -> None:
    v1 = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
    v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nproc /proc proc rw 0 0\n"
    assert cgroups.parse_mounts(v1) == ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified")
    assert cgroups.parse_mounts(v2) == ("/sys/fs/cgroup",)


def test_only_the_first_process_of_this_very_slot_is_recognised() -> None:
    argv = ("python3", "-I", "/x/tests/cluster/local/nodeinit.py", "/state/ratchet-1/spec.json")
    assert cleanup.is_init(argv, "/state/ratchet-1/spec.json")
    assert not cleanup.is_init(argv, "/state/ratchet-2/spec.json")
    assert not cleanup.is_init(("vi", "/state/ratchet-1/spec.json"), "/state/ratchet-1/spec.json")


def test_a_package_is_asked_for_once_and_only_if_something_of_it_is_missing() -> None:
    needs = [packages.Need("a", "one"), packages.Need("b", "one"), packages.Need("c", "two")]
    assert packages.missing(needs, has=lambda need: need.program == "c") == ("one",)
