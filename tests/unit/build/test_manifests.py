"""The objects of a sandbox, as golden files that a person can review.

After a change that is meant: ``pytest tests/unit/build --rewrite-golden``, then read the diff.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.build import paths, shell
from ratchet.build.files import BYTES_MAX, FilesUnfit, StartFile, sandbox_files
from ratchet.build.generation import Generation
from ratchet.build.networkpolicy import sandbox_network_policy
from ratchet.build.pod import sandbox_pod
from ratchet.build.resources import quantity, shell_resources
from ratchet.build.secret import sandbox_secret
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import Resources, SandboxConfig, Toleration
from ratchet_sandbox import protocol
from ratchet_sandbox.runner import accounts, environment

from tests.conftest import AssertGolden

GOLDEN = Path(__file__).parent / "golden"
UID = "0f3c9a1e-5555-4444-8888-121212121212"
POD_UID = "77777777-5555-4444-8888-121212121212"
GENERATION = Generation("team-a", "fix-it", UID, 2)
SETTINGS = SandboxSettings(
    server_image="registry.example/ratchet/sandbox-server:1",
    runner_image="registry.example/ratchet/sandbox-runner:1",
    operator_namespace="ratchet-system",
    operator_labels=(("app.kubernetes.io/name", "ratchet"),),
)
PLAIN = SandboxConfig(image="python:3.12")
FULL = SandboxConfig(
    image="registry.example/tools:7",
    resources=Resources(
        requests=(("memory", "4Gi"),), limits=(("cpu", "50m"), ("example.com/gpu", "1"))
    ),
    runtime_class="gvisor",
    pull_secrets=("mine", "theirs"),
    workspace_size_limit="10Gi",
    hard_timeout_s=60,
    env=(("LANG", "de_DE.UTF-8"), ("PRICE", "$(HOME) is 5$"), ("PYTHONPATH", "/lib")),
    node_selector=(("disk", "ssd"), ("kubernetes.io/arch", "amd64")),
    tolerations=(
        Toleration("sandbox", "Equal", "yes", "NoExecute", 0),
        Toleration(operator="Exists"),
    ),
    read_only_root=True,
)
ROOT = replace(PLAIN, allow_root=True, env=(("USER", "me"),))


AssertManifest = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def assert_manifest(assert_golden: AssertGolden) -> AssertManifest:
    """Compares a manifest with the golden file of this name."""

    def compare(name: str, manifest: dict[str, Any]) -> None:
        assert_golden(GOLDEN / f"{name}.yaml", yaml.safe_dump(manifest, sort_keys=False, width=100))

    return compare


def test_the_pod_of_a_plain_task(assert_manifest: AssertManifest) -> None:
    assert_manifest("pod-plain", sandbox_pod(GENERATION, PLAIN, SETTINGS))


def test_the_pod_of_a_class_that_uses_every_field(assert_manifest: AssertManifest) -> None:
    assert_manifest("pod-full", sandbox_pod(GENERATION, FULL, SETTINGS))


def test_the_pod_of_a_class_that_allows_root(assert_manifest: AssertManifest) -> None:
    assert_manifest("pod-root", sandbox_pod(GENERATION, ROOT, SETTINGS))


def test_the_pod_whose_runner_comes_by_an_image_volume(assert_manifest: AssertManifest) -> None:
    settings = replace(SETTINGS, image_volumes=True)
    assert_manifest("pod-image-volume", sandbox_pod(GENERATION, PLAIN, settings))


def test_the_secret(assert_manifest: AssertManifest) -> None:
    assert_manifest(
        "secret", sandbox_secret(GENERATION, POD_UID, certificate="CERT", key="KEY", token="TOK")
    )


def test_the_network_policy(assert_manifest: AssertManifest) -> None:
    assert_manifest("networkpolicy", sandbox_network_policy(GENERATION, POD_UID, SETTINGS))


def test_the_files(assert_manifest: AssertManifest) -> None:
    files = [StartFile("src/a.py", b"print()\n"), StartFile("run", b"\xff\x00", "0755")]
    assert_manifest("files", sandbox_files(GENERATION, POD_UID, files))


# --- what must hold of every pod, whatever the golden files say ---

PODS = [sandbox_pod(GENERATION, config, SETTINGS) for config in (PLAIN, FULL)]
EVERY_POD = [*PODS, sandbox_pod(GENERATION, ROOT, SETTINGS)]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


def shell_of(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = (c for c in pod["spec"]["containers"] if c["name"] == "shell")
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("pod", PODS, ids=["plain", "full"])
def test_pod_security_restricted_has_nothing_to_object_to(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert not spec.get(field)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(k for k in v if k != "name") for v in spec["volumes"]} <= {
        "emptyDir", "secret", "configMap"
    }  # fmt: skip
    for container in containers(pod):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True and context["runAsUser"] >= 10_000
        assert "privileged" not in context


@pytest.mark.parametrize("pod", EVERY_POD, ids=["plain", "full", "root"])
def test_only_the_server_mounts_secret_and_ledger(pod: dict[str, Any]) -> None:
    mounts = {c["name"]: {m["name"]: m for m in c["volumeMounts"]} for c in containers(pod)}
    for volume in ("secret", "ledger"):
        assert [name for name, m in mounts.items() if volume in m] == ["server"]
    assert "workspace" not in mounts["server"]
    assert mounts["shell"]["runtime"]["readOnly"] and mounts["shell"]["control"]["readOnly"]
    uids = {c["name"]: c["securityContext"]["runAsUser"] for c in containers(pod)}
    assert uids["server"] != uids["shell"]


@pytest.mark.parametrize("pod", EVERY_POD, ids=["plain", "full", "root"])
def test_no_secret_is_in_the_environment(pod: dict[str, Any]) -> None:
    for container in containers(pod):
        assert "envFrom" not in container
        assert all("valueFrom" not in variable for variable in container["env"])


def test_root_is_for_the_commands_alone_and_within_pod_security_baseline() -> None:
    pod = sandbox_pod(GENERATION, ROOT, SETTINGS)
    plain = {c["name"]: c["securityContext"] for c in containers(PODS[0])}
    found = {c["name"]: c["securityContext"] for c in containers(pod)}
    commands = found.pop("shell")
    assert plain.pop("shell")["runAsUser"] == paths.RUNNER_UID
    assert found == plain
    assert (commands["runAsUser"], commands["runAsNonRoot"]) == (0, False)
    assert "add" not in commands["capabilities"] and "privileged" not in commands
    assert commands["seccompProfile"] == {"type": "RuntimeDefault"}
    spec = pod["spec"]
    assert all("hostPath" not in volume for volume in spec["volumes"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_no_variable_of_a_class_reaches_the_runner_under_its_own_name() -> None:
    names = [variable["name"] for variable in shell_of(PODS[1])["env"]]
    assert all(name.startswith("RATCHET_") or name == "PYTHONHOME" for name in names)
    assert f"{environment.ADDED}PYTHONPATH" in names


def test_kubernetes_finds_no_reference_in_the_value_of_a_variable() -> None:
    values = {variable["name"]: variable["value"] for variable in shell_of(PODS[1])["env"]}
    assert values["RATCHET_ENV_PRICE"] == "$$(HOME) is 5$$"


def test_a_read_only_root_leaves_a_place_for_passing_files() -> None:
    mounts = {mount["mountPath"]: mount for mount in shell_of(PODS[1])["volumeMounts"]}
    assert not mounts["/tmp"].get("readOnly")
    assert {"name": "tmp", "emptyDir": {}} in PODS[1]["spec"]["volumes"]


def test_root_may_change_the_list_of_users_and_others_have_one_with_their_name() -> None:
    for pod, mounted in ((PODS[0], True), (EVERY_POD[2], False)):
        found = [m for m in shell_of(pod)["volumeMounts"] if m["mountPath"] == "/etc/passwd"]
        assert [m["readOnly"] for m in found] == [True] * mounted


def test_the_pod_and_the_images_agree_on_where_things_are() -> None:
    assert paths.HTTPS_PORT == protocol.HTTPS_PORT
    assert (paths.SERVER_UID, paths.RUNNER_UID) == (protocol.SERVER_UID, protocol.RUNNER_UID)
    assert paths.SHARED_GID == protocol.SHARED_GID
    assert paths.WORKSPACE == protocol.WORKSPACE
    assert paths.RUNTIME == protocol.RUNTIME_DIR
    assert paths.CONTROL == protocol.CONTROL_DIR
    assert protocol.LEDGER_FILE.startswith(paths.LEDGER + "/")
    assert paths.SECRET == protocol.SECRET_DIR
    assert paths.PASSWD == accounts.PASSWD
    assert shell.ENV_PREFIX == environment.ADDED
    assert protocol.FILES_INDEX == paths.FILES + "/index.json"


def test_the_name_of_the_longest_task_still_fits() -> None:
    pod = sandbox_pod(Generation("n", "t" * 200, UID, 99), PLAIN, SETTINGS)
    assert len(pod["metadata"]["name"]) <= 253


def test_what_a_pod_needs_goes_with_the_pod_and_the_pod_with_the_task() -> None:
    (owner,) = PODS[0]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("AgentTask", UID)
    policy = sandbox_network_policy(GENERATION, POD_UID, SETTINGS)
    for part in (policy, sandbox_files(GENERATION, POD_UID, [])):
        (owner,) = part["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["name"]) == ("Pod", POD_UID, GENERATION.name)
        assert owner["blockOwnerDeletion"] is False


# --- resources ---


def test_what_a_class_asks_for_wins_over_the_defaults() -> None:
    asked = Resources(requests=(("cpu", "1"),), limits=(("cpu", "4"), ("memory", "8Gi")))
    assert shell_resources(asked, SETTINGS) == {
        "requests": {"cpu": "1", "memory": "128Mi"},
        "limits": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "5Gi"},
    }


@pytest.mark.parametrize(
    "asked",
    [
        Resources(limits=(("memory", "64Mi"), ("cpu", "0.05"))),
        Resources(requests=(("memory", "4Gi"), ("cpu", "3000m"), ("ephemeral-storage", "20Gi"))),
        Resources(),
    ],
)
def test_a_request_is_never_above_its_limit(asked: Resources) -> None:
    found = shell_resources(asked, SETTINGS)
    for name, amount in found["requests"].items():
        assert quantity(amount) <= quantity(found["limits"][name])


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("500m", 0.5), ("1Ki", 1024), ("2G", 2e9), ("1e3", 1000)]
)
def test_quantities_are_numbers(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "much", "1Qi", "Mi"])
def test_anything_else_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        quantity(text)


# --- files ---


def test_files_of_any_bytes_come_back_by_the_index() -> None:
    files = [StartFile("a", b"\x00\xff"), StartFile("d/b.sh", "ä".encode(), "0755")]
    manifest = sandbox_files(GENERATION, POD_UID, files)
    index = json.loads(manifest["data"]["index.json"])
    found = [
        StartFile(e["path"], base64.b64decode(manifest["binaryData"][e["source"]]), e["mode"])
        for e in index
    ]
    assert found == files


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../up", "a/../b", "a//b", "", ".", "a/.git/config", ".git", "a\\b", "a\nb",
     ".ratchet/x"],
)  # fmt: skip
def test_a_path_out_of_the_workspace_is_refused(path: str) -> None:
    with pytest.raises(FilesUnfit, match="not a path inside the workspace"):
        sandbox_files(GENERATION, POD_UID, [StartFile(path, b"")])


def test_files_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(FilesUnfit, match="twice"):
        sandbox_files(GENERATION, POD_UID, [StartFile("a", b""), StartFile("a", b"")])
    with pytest.raises(FilesUnfit, match="both a file and a folder"):
        sandbox_files(GENERATION, POD_UID, [StartFile("a/b", b""), StartFile("a", b"")])
    with pytest.raises(FilesUnfit, match="mode"):
        sandbox_files(GENERATION, POD_UID, [StartFile("a", b"", "0777")])


def test_files_that_are_too_large_are_refused() -> None:
    with pytest.raises(FilesUnfit, match="more than"):
        sandbox_files(GENERATION, POD_UID, [StartFile("a", b"x" * (BYTES_MAX + 1))])
