"""The operator's chart: what it makes, and what it refuses with a sentence.

After a change that is meant: ``pytest tests/unit/charts --rewrite-golden``, then read the diff.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.api.crd import RESOURCES, openapi_schema
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.sandboxclass import SandboxClass
from ratchet.build.settings import SandboxSettings
from ratchet.shell.settings import Settings, read_settings

from tests.conftest import AssertGolden
from tests.unit.charts.helm import CHARTS, REGISTRY, helm, only, render, template

GOLDEN = Path(__file__).parent / "golden"
EVERYTHING = (
    REGISTRY,
    "--set=defaults.namespace=team",
    "--set=defaults.sandboxClass.runtimeClassName=gvisor",
    "--set=defaults.sandboxClass.resources.limits.memory=4Gi",
    "--set=defaults.sandboxClass.env[0].name=LANG",
    "--set=defaults.sandboxClass.env[0].value=C.UTF-8",
    "--set=defaults.sandboxClass.nodeSelector.disk=ssd",
    "--set=defaults.sandboxClass.tolerations[0].operator=Exists",
    "--set=defaults.sandboxClass.allowRoot=true",
    "--set=defaults.sandboxClass.readOnlyRoot=true",
    "--set=defaults.sandboxClass.imagePullSecrets[0].name=pull",
    "--set=defaults.sandboxClass.workspace.volumeClaim.size=5Gi",
    "--set=defaults.sandboxClass.workspace.onLoss=Fail",
    "--set=defaults.sandboxClass.egress[0].cidr=10.0.0.0/8",
    "--set=defaults.sandboxClass.egress[0].ports[0].port=443",
    "--set=defaults.sandboxClass.requireEnforcedNetwork=true",
    "--set=defaults.sandboxClass.hardTimeoutSeconds=60",
    "--set=endpoint.url=http://sglang.models:30000/v1",
    "--set=endpoint.model=some-model",
    "--set=endpoint.engine=SGLang",
    "--set=endpoint.apiKeySecret.name=model-key",
    "--set=endpoint.apiKeySecret.key=key",
    "--set=fake.enabled=true",
    "--set=fake.script=conversations: []",
    "--set=networkPolicy.enabled=true",
    "--set=images.pullSecrets={registry-key}",
    "--set=operator.watchNamespaces={team,other}",
    "--set=operator.probeTargets={10.0.0.1:6443}",
    "--set=operator.replicas=2",
    "--set=operator.imageVolumes=true",
)


@pytest.mark.parametrize(("name", "values"), [("plain", (REGISTRY,)), ("everything", EVERYTHING)])
def test_the_objects_are_those_of_the_golden_file(
    name: str, values: tuple[str, ...], assert_golden: AssertGolden
) -> None:
    file = GOLDEN / f"{name}.yaml"
    text = yaml.safe_dump_all(render(*values), sort_keys=False, width=100)
    assert_golden(file, text)


@pytest.mark.parametrize("replicas", [0, 1, 2, 3])
def test_a_new_version_stands_by_before_an_old_one_goes(replicas: int) -> None:
    deployment = only(render(REGISTRY, f"--set=operator.replicas={replicas}"), "Deployment")
    assert deployment["spec"]["replicas"] == replicas
    assert deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }


@pytest.mark.parametrize(("replicas", "several"), [(0, False), (1, False), (2, True), (3, True)])
def test_several_processes_are_spread_over_nodes_and_drained_one_by_one(
    replicas: int, several: bool
) -> None:
    objects = render(REGISTRY, f"--set=operator.replicas={replicas}")
    labels = only(objects, "Deployment")["spec"]["selector"]
    spread = only(objects, "Deployment")["spec"]["template"]["spec"].get(
        "topologySpreadConstraints", []
    )
    budgets = [item["spec"] for item in objects if item["kind"] == "PodDisruptionBudget"]
    assert [one["labelSelector"] for one in spread] == [labels] * several
    assert [one["whenUnsatisfiable"] for one in spread] == ["ScheduleAnyway"] * several
    assert budgets == [{"maxUnavailable": 1, "selector": labels}] * several


@pytest.mark.parametrize("values", [(), EVERYTHING])
def test_helm_lint_has_nothing_to_say(values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", str(CHARTS / "ratchet"), *values)
    assert done.returncode == 0, done.stdout


def test_without_a_registry_it_says_how_to_get_one() -> None:
    done = template()
    assert done.returncode != 0
    assert "make push REGISTRY=" in done.stderr


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("operator.replicas=-1", "replicas"),
        ("operator.logLevel=loud", "logLevel"),
        ("operator.unknown=1", "unknown"),
        ("unknown=1", "unknown"),
        ("images.operator.digest=sha256:short", "digest"),
        ("images.registry=registry.example.com/", "registry"),
        ("endpoint.engine=vLLM", "engine"),
        ("fake.enabled=maybe", "enabled"),
    ],
)
def test_the_schema_refuses_what_it_does_not_know(value: str, says: str) -> None:
    done = template(REGISTRY, f"--set={value}")
    assert done.returncode != 0
    assert "specifications of the schema" in done.stderr
    assert says in done.stderr


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("--set=endpoint.url=http://m/v1",), "defaults.namespace is empty"),
        (
            ("--set=endpoint.url=http://m/v1", "--set=defaults.namespace=team"),
            "endpoint.model is empty",
        ),
        (("--set=fake.enabled=true",), "--set-file fake.script"),
        (("--set=serviceAccount.create=false",), "serviceAccount.name"),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_a_sentence(
    values: tuple[str, ...], says: str
) -> None:
    done = template(REGISTRY, *values)
    assert done.returncode != 0
    assert says in done.stderr


def test_a_digest_wins_over_a_tag() -> None:
    digest = "sha256:" + "0" * 64
    objects = render(
        REGISTRY, f"--set=images.operator.digest={digest}", "--set=images.operator.tag=v7"
    )
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    image = pod["containers"][0]["image"]
    assert image == f"registry.example.com/ratchet/ratchet-operator@{digest}"


def test_one_tag_holds_for_all_images_that_have_none() -> None:
    objects = render(REGISTRY, "--set=images.tag=v9", "--set=images.runner.tag=v8")
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    given = {item["name"]: item.get("value") for item in container["env"]}
    assert container["image"].endswith("ratchet-operator:v9")
    assert given["RATCHET_SERVER_IMAGE"].endswith("ratchet-sandbox-server:v9")
    assert given["RATCHET_RUNNER_IMAGE"].endswith("ratchet-runner:v8")


def test_the_operator_understands_the_environment_that_it_gets() -> None:
    pod = only(render(*EVERYTHING), "Deployment", "ratchet-operator")["spec"]["template"]["spec"]
    given = {
        item["name"]: item.get("value", "from-the-pod") for item in pod["containers"][0]["env"]
    }
    settings = read_settings(given)
    assert settings.watch_namespaces == ("team", "other")
    assert settings.probe_targets == ("10.0.0.1:6443",)
    assert settings.runner_image == "registry.example.com/ratchet/ratchet-runner:0.1.0"
    assert set(given) == {f"RATCHET_{name.upper()}" for name in Settings.model_fields}


def test_the_network_policies_of_sandboxes_let_in_this_very_pod() -> None:
    labels = only(render(REGISTRY), "Deployment")["spec"]["template"]["metadata"]["labels"]
    wanted = SandboxSettings("server", "runner", "ratchet-system").operator_labels
    assert wanted
    assert dict(wanted).items() <= labels.items()


def test_the_probes_ask_where_the_operator_answers() -> None:
    pod = only(render(REGISTRY), "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    port = {item["name"]: item.get("value") for item in container["env"]}["RATCHET_PROBE_PORT"]
    assert {"name": "probes", "containerPort": int(port or 0)} in container["ports"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "probes"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "probes"}


def test_every_pod_passes_pod_security_restricted_and_writes_nothing() -> None:
    deployments = [item for item in render(*EVERYTHING) if item["kind"] == "Deployment"]
    assert len(deployments) == 2
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_the_rights_name_what_they_are_for_and_no_wildcard() -> None:
    roles = [item for item in render(REGISTRY) if item["kind"] in ("ClusterRole", "Role")]
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_nobody_may_change_or_delete_a_turn() -> None:
    for role in [item for item in render(REGISTRY) if item["kind"] == "ClusterRole"]:
        for rule in role["rules"]:
            if "agentturns" in rule["resources"]:
                assert not {"update", "patch", "delete", "deletecollection"} & set(rule["verbs"])


def test_users_may_read_turns_and_write_tasks() -> None:
    objects = render(REGISTRY)
    assert rights(objects, "ratchet-view", "agentturns") == {"get", "list", "watch"}
    assert {"create", "delete"} <= rights(objects, "ratchet-edit", "agenttasks")
    assert rights(objects, "ratchet-edit", "agentturns") == set()
    assert rights(objects, "ratchet-edit", "modelendpoints") == set()
    assert {"create", "update"} <= rights(objects, "ratchet-admin", "modelendpoints")


def test_every_kind_can_be_read_by_viewers() -> None:
    (rule,) = only(render(REGISTRY), "ClusterRole", "ratchet-view")["rules"]
    assert set(rule["resources"]) == {resource.KIND.plural for resource in RESOURCES}


def test_with_watched_namespaces_the_operator_has_rights_in_those_alone() -> None:
    objects = render(*EVERYTHING)
    assert not [item for item in objects if item["kind"] == "ClusterRoleBinding"]
    bound = {
        item["metadata"]["namespace"]
        for item in objects
        if item["kind"] == "RoleBinding" and item["roleRef"]["kind"] == "ClusterRole"
    }
    assert bound == {"team", "other"}


def test_the_defaults_are_objects_that_the_api_takes() -> None:
    objects = render(*EVERYTHING)
    endpoint = ModelEndpoint.model_validate(only(objects, "ModelEndpoint"))
    assert endpoint.spec.api_key_secret_ref is not None
    assert endpoint.spec.api_key_secret_ref.name == "model-key"
    sandbox = SandboxClass.model_validate(only(objects, "SandboxClass"))
    assert sandbox.spec.runtime_class_name == "gvisor"


def test_the_script_of_the_fake_model_arrives_as_it_was_written(tmp_path: Path) -> None:
    script = 'conversations:\n  - turns:\n      - reply: {content: "a: b # c"}\n\n'
    file = tmp_path / "script.yaml"
    file.write_text(script)
    objects = render(REGISTRY, "--set=fake.enabled=true", f"--set-file=fake.script={file}")
    stored = only(objects, "ConfigMap")["data"]["script.yaml"]
    assert yaml.safe_load(stored) == yaml.safe_load(script)
    assert only(objects, "ConfigMap")["metadata"]["labels"]["ratchet.run/scripted"] == "true"


def test_nothing_stays_after_an_uninstall() -> None:
    assert "helm.sh/resource-policy" not in json.dumps(render(*EVERYTHING))


def test_two_releases_do_not_share_names() -> None:
    assert not names(render(REGISTRY, release="one")) & names(render(REGISTRY, release="two"))


def names(objects: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Kinds and names of objects."""
    return {(item["kind"], item["metadata"]["name"]) for item in objects}


def rights(objects: list[dict[str, Any]], role: str, resource: str) -> set[str]:
    """What a ClusterRole allows on one resource."""
    rules = only(objects, "ClusterRole", role)["rules"]
    return {verb for rule in rules if resource in rule["resources"] for verb in rule["verbs"]}


def test_the_default_class_can_have_every_field_that_a_class_has() -> None:
    values = yaml.safe_load((CHARTS / "ratchet/values.yaml").read_text())
    schema = json.loads((CHARTS / "ratchet/values.schema.json").read_text())
    fields = openapi_schema(SandboxClass)["properties"]["spec"]["properties"].keys()
    assert values["defaults"]["sandboxClass"].keys() == fields
    known = schema["properties"]["defaults"]["properties"]["sandboxClass"]["properties"]
    assert known.keys() == fields
    assert only(render(*EVERYTHING), "SandboxClass")["spec"].keys() == fields


def test_a_default_class_that_says_nothing_asks_for_nothing() -> None:
    found = only(render(REGISTRY, "--set=defaults.namespace=team"), "SandboxClass")
    assert found["spec"] == {"image": "debian:bookworm-slim"}
