"""What `docs/sandboxes.md` says of a class is what its pods are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ratchet.api.crd import openapi_schema
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.sandboxconfig import sandbox_config, sandbox_problems
from ratchet.build import paths, shell
from ratchet.build.generation import Generation
from ratchet.build.pod import sandbox_pod
from ratchet.build.settings import SandboxSettings
from ratchet.core.config import OnLoss, SandboxConfig
from ratchet_sandbox.runner import accounts
from ratchet_sandbox.runner.config import Config

from tests.unit.docs.test_docs import manifests

PAGE = (Path(__file__).resolve().parents[3] / "docs/sandboxes.md").read_text()
CLASSES = {item["metadata"]["name"]: item for item in manifests(PAGE)}
SETTINGS = SandboxSettings("server", "runner", "ratchet-system")


def config(name: str) -> SandboxConfig:
    spec = SandboxClass.model_validate(CLASSES[name]).spec
    return sandbox_config(spec, spec.image)


def pod(name: str) -> dict[str, Any]:
    return sandbox_pod(Generation("team", "task", "u" * 36, 1), config(name), SETTINGS)


def shell_of(name: str) -> dict[str, Any]:
    (found,) = [c for c in pod(name)["spec"]["containers"] if c["name"] == "shell"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_the_page_gives_a_pod(name: str) -> None:
    assert not sandbox_problems(config(name))
    assert shell_of(name)["image"] == CLASSES[name]["spec"]["image"]


def test_every_field_of_a_class_is_on_the_page() -> None:
    for field in openapi_schema(SandboxClass)["properties"]["spec"]["properties"]:
        assert re.search(rf"\b{field}\b", PAGE), field


def test_the_defaults_are_those_that_are_named() -> None:
    assert dict(SETTINGS.requests) == {"cpu": "100m", "memory": "128Mi"}
    assert dict(SETTINGS.limits) == {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "5Gi"}
    assert config("default").workspace_size_limit == "2Gi"
    assert config("default").on_loss is OnLoss.RESTART


def test_a_place_and_a_runtime_are_those_of_the_pod() -> None:
    spec = pod("large")["spec"]
    assert spec["runtimeClassName"] == "gvisor"
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    taint = {"key": "sandboxes", "operator": "Exists", "effect": "NoSchedule"}
    assert spec["tolerations"] == [taint]
    assert spec["imagePullSecrets"] == [{"name": "registry-key"}]
    assert shell_of("large")["resources"]["limits"]["ephemeral-storage"] == "20Gi"


def test_variables_are_given_under_names_that_the_runner_does_not_heed() -> None:
    given = {item["name"]: item["value"] for item in shell_of("with-variables")["env"]}
    assert given["RATCHET_ENV_NODE_ENV"] == "test" and "NODE_ENV" not in given


def test_an_image_volume_is_where_the_page_says() -> None:
    settings = replace(SETTINGS, image_volumes=True)
    made = sandbox_pod(Generation("team", "task", "u" * 36, 1), config("default"), settings)
    shown = [m["mountPath"] for m in made["spec"]["containers"][1]["volumeMounts"]]
    assert paths.BUNDLE in shown and f"`{paths.BUNDLE}`" in PAGE


def test_commands_are_nobody_special_unless_root_is_allowed() -> None:
    plain, root = (shell_of(name)["securityContext"] for name in ("default", "builds-packages"))
    assert f"uid {plain['runAsUser']} " in PAGE and plain["runAsUser"] == paths.RUNNER_UID
    assert root["runAsUser"] == 0 and root["capabilities"] == {"drop": list(shell.DROPPED)}
    assert all(f"`{name}`" in PAGE for name in shell.DROPPED)


def test_name_and_home_are_those_that_are_named() -> None:
    there = Config(workspace=Path("/workspace"), runtime=Path("/r"), control=Path("/c"))
    assert f"name is `{accounts.NAME}`" in PAGE and f"HOME is `{there.home}`" in PAGE


def test_a_locked_class_writes_to_two_places_alone() -> None:
    found = shell_of("locked")
    assert found["securityContext"]["readOnlyRootFilesystem"]
    writable = {m["mountPath"] for m in found["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/workspace", "/tmp"}
    assert config("locked").require_enforced_network


def test_a_claim_holds_the_workspace() -> None:
    claim = config("kept").claim
    assert claim is not None and (claim.size, claim.storage_class) == ("5Gi", "standard")
    assert config("kept").on_loss is OnLoss.FAIL
    assert "persistentVolumeClaim" in str(pod("kept")["spec"]["volumes"])
