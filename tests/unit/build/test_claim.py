"""A workspace on a claim: its manifest, what the claim's object says, and how a pod mounts it."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.api import names
from ratchet.build import paths
from ratchet.build.claim import Standing, standing, workspace_claim
from ratchet.build.generation import Generation
from ratchet.build.pod import sandbox_pod
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import AccessMode, SandboxConfig, VolumeClaim
from ratchet_sandbox import protocol

UID = "0f3c9a1e-5555-4444-8888-121212121212"
SECOND = Generation("team-a", "fix-it", UID, 2)
NAME = "fix-it-0f3c9a1e-workspace"
SETTINGS = SandboxSettings("server:1", "runner:1", "ratchet-system")
PLAIN = SandboxConfig(image="python:3.12")
CLAIMED = SandboxConfig(image="python:3.12", claim=VolumeClaim("1Gi"))


def found(**metadata: Any) -> dict[str, Any]:
    """A claim as the API server shows it, of the first generation, with some metadata changed."""
    claim = workspace_claim(Generation("team-a", "fix-it", UID, 1), VolumeClaim("1Gi"))
    return {**claim, "metadata": {**claim["metadata"], **metadata}, "status": {"phase": "Bound"}}


def test_the_claim_is_the_tasks_and_the_same_for_all_generations() -> None:
    claim = workspace_claim(SECOND, VolumeClaim("1Gi"))
    (owner,) = claim["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("AgentTask", UID)
    assert claim["metadata"]["name"] == NAME == found()["metadata"]["name"]
    assert claim["metadata"]["labels"][names.LABEL_GENERATION] == "2"


def test_the_claim_asks_for_what_the_class_says() -> None:
    wanted = VolumeClaim("3Gi", "fast", AccessMode.READ_WRITE_ONCE_POD)
    assert workspace_claim(SECOND, wanted)["spec"] == {
        "accessModes": ["ReadWriteOncePod"],
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": "fast",
    }
    assert "storageClassName" not in workspace_claim(SECOND, VolumeClaim("3Gi"))["spec"], (
        "so the cluster's default class serves it"
    )


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (None, Standing.ABSENT),
        (found(), Standing.OURS),
        (found(ownerReferences=[]), Standing.FOREIGN),
        (found(ownerReferences=[{"uid": "another"}]), Standing.FOREIGN),
        (found(labels={names.LABEL_GENERATION: "3"}), Standing.NEWER),
        (found(labels={}), Standing.OURS),
        (found(labels={names.LABEL_GENERATION: "x"}), Standing.OURS),
        (found(deletionTimestamp="2026-01-01T00:00:00Z"), Standing.LEAVING),
        ({**found(), "status": {"phase": "Lost"}}, Standing.LOST),
        ({**found(), "status": {"phase": "Pending"}}, Standing.OURS),
    ],
)
def test_what_a_claim_is_to_a_generation(claim: dict[str, Any] | None, said: Standing) -> None:
    assert standing(claim, SECOND) is said


def mounts(container: str) -> dict[str, tuple[str, str]]:
    """Volume and folder in it by path of a container of a pod with a claim."""
    spec = sandbox_pod(SECOND, CLAIMED, SETTINGS)["spec"]
    every = (*spec["initContainers"], *spec["containers"])
    (one,) = (c for c in every if c["name"] == container)
    return {m["mountPath"]: (m["name"], m.get("subPath", "")) for m in one["volumeMounts"]}


def test_each_container_sees_its_own_folders_of_the_claim_alone() -> None:
    claimed = {
        name: {path: where[1] for path, where in mounts(name).items() if where[0] == "claim"}
        for name in ("prepare", "server", "shell")
    }
    assert claimed == {
        "prepare": {paths.WORKSPACE: "workspace", paths.KEPT: "kept"},
        "server": {paths.LEDGER: "ledger"},
        "shell": {paths.WORKSPACE: "workspace"},
    }


def test_a_pod_with_a_claim_has_no_other_workspace_or_ledger() -> None:
    pod = sandbox_pod(SECOND, CLAIMED, SETTINGS)
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert volumes == {"runtime", "claim", "control", "secret", "files"}
    assert {"name": "claim", "persistentVolumeClaim": {"claimName": NAME}} in pod["spec"]["volumes"]


def test_only_a_pod_with_a_claim_says_where_things_are_kept() -> None:
    for config, wanted in ((CLAIMED, [paths.KEPT]), (PLAIN, [])):
        (prepare,) = sandbox_pod(SECOND, config, SETTINGS)["spec"]["initContainers"]
        assert [e["value"] for e in prepare["env"] if e["name"] == "RATCHET_KEPT"] == wanted
    assert paths.KEPT == protocol.KEPT_DIR
