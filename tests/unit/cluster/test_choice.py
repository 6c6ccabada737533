"""Which cluster is used, what is built for it, and what tests are told about it."""

import re
from pathlib import Path

import pytest

from tests.cluster import (
    Cluster,
    ClusterError,
    current,
    description,
    folders,
    kind,
    providers,
)
from tests.cluster.local import binaries
from tests.cluster.local.binaries import Module
from tests.cluster.providers import Provider


def test_a_named_cluster_comes_first() -> None:
    named = {"RATCHET_CONTEXT": "prod", "REGISTRY": "r.example"}
    assert providers.choose(named, docker_answers=True) is Provider.GIVEN


def test_a_named_cluster_without_a_registry_is_refused() -> None:
    with pytest.raises(ClusterError, match="also needs REGISTRY"):
        providers.choose({"RATCHET_CONTEXT": "prod"}, docker_answers=True)


def test_a_current_context_is_never_taken_unasked() -> None:
    unasked = {"KUBECONFIG": "/home/me/.kube/config", "REGISTRY": "r.example"}
    assert providers.choose(unasked, docker_answers=False) is Provider.LOCAL


def test_kind_is_used_where_docker_answers() -> None:
    assert providers.choose({}, docker_answers=True) is Provider.KIND


def test_another_cluster_of_the_checkout_is_a_local_one_whatever_else_there_is() -> None:
    everything = {"RATCHET_CLUSTER": "proof", "RATCHET_CONTEXT": "prod", "REGISTRY": "r.example"}
    assert providers.choose(everything, docker_answers=True) is Provider.LOCAL


def test_another_cluster_has_a_folder_and_an_owner_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RATCHET_CLUSTER", raising=False)
    assert folders.build() == folders.CHECKOUT / "build" / "cluster"
    assert folders.owner() == str(folders.CHECKOUT)
    monkeypatch.setenv("RATCHET_CLUSTER", "proof")
    assert folders.build() == folders.CHECKOUT / "build" / "cluster-proof"
    assert folders.owner() == str(folders.build())


@pytest.mark.parametrize("name", ["../x", "a/b", "A", "-a", "a" * 33])
def test_a_name_that_is_no_plain_word_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_CLUSTER", name)
    with pytest.raises(ClusterError, match="a-z, 0-9"):
        folders.build()


def test_two_checkouts_have_two_kind_clusters() -> None:
    assert kind.cluster_name(Path("/a")) != kind.cluster_name(Path("/b"))


def test_only_what_is_missing_is_built_in_the_order_of_the_table() -> None:
    groups = binaries.groups({"helm", "etcd"})
    assert list(groups) == ["API server", "tools"]
    assert [binary.name for members in groups.values() for binary in members] == ["etcd", "helm"]


@pytest.mark.parametrize(
    "module", [binaries.CLUSTER, binaries.GVISOR, binaries.CILIUM], ids=lambda m: m.name
)
def test_every_program_outside_its_module_is_a_tool_of_the_module(module: Module) -> None:
    listed = (module.folder / "go.mod").read_text()
    outside = [entry for entry in module.binaries if not entry.package.startswith("./")]
    assert outside
    assert all(re.search(rf"^(tool |\t){entry.package}$", listed, re.M) for entry in outside)


def test_a_module_in_a_folder_below_changes_nothing_of_the_programs_above() -> None:
    shim = (binaries.GVISOR.folder / "shim" / "main.go").read_bytes()
    assert shim in binaries.inputs(binaries.GVISOR)
    assert shim not in binaries.inputs()


def test_programs_are_told_the_versions_that_the_module_requires() -> None:
    listed = (
        "module x\n\nrequire k8s.io/kubernetes v1.35.4\nrequire (\n"
        "\tgithub.com/containerd/containerd/v2 v2.2.9 // indirect\n\thelm.sh/helm/v3 v3.20.2\n)\n"
    )
    told = binaries.flags(listed)[-1]
    assert "version.gitVersion=v1.35.4 " in told
    assert "version.gitMinor=35 " in told
    assert "version.Version=v2.2.9 " in told
    assert told.endswith("version.version=v3.20.2")
    gvisor = binaries.flags("require gvisor.dev/gvisor v0.1.0\n", binaries.GVISOR)[-1]
    assert gvisor == "-s -w -X gvisor.dev/gvisor/runsc/version.version=v0.1.0"


def test_a_module_that_is_not_required_is_named() -> None:
    with pytest.raises(ClusterError, match="does not require a/b"):
        binaries.version("a/b", "module x\nrequire a/c v1\n")


def test_tests_read_what_up_wrote(tmp_path: Path) -> None:
    cluster = Cluster("local", "c", "/k", "", "/bin", "https://10.0.0.1", pids={"etcd": 7})
    description.write(cluster, tmp_path)
    assert current(tmp_path) == cluster
    description.forget(tmp_path)
    with pytest.raises(ClusterError, match="cluster-up"):
        current(tmp_path)


def test_a_damaged_description_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text('{"context": 1}')
    with pytest.raises(ClusterError, match="damaged: run"):
        current(tmp_path)
