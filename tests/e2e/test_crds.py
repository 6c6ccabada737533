"""The CRDs on a real API server: what it takes, what it refuses, and in which words."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from ratchet.api import names
from ratchet.api.base import Resource
from ratchet.api.crd import RESOURCES, crd, openapi_schema

from tests.e2e.crd_server import ROOT, Kube, said, unique, with_crds

pytestmark = pytest.mark.cluster

FULL: dict[str, Any] = {
    "goal": "Fix the test.",
    "context": "It is a small project.",
    "contextImages": [{"mediaType": "image/png", "data": "iVBORw0KGgo="}],
    "files": [
        {"path": "src/a.py", "content": "1"},
        {"path": "b", "configMapKeyRef": {"name": "c", "key": "k"}, "mode": "0755"},
    ],
    "git": {
        "url": "https://git.example.com/team/project.git",
        "ref": "main",
        "secretRef": {"name": "git"},
        "depth": 1,
    },
    "profileRef": {"name": "p"},
    "model": {
        "endpointRef": {"name": "e"},
        "fallbacks": [{"name": "e", "namespace": "models"}, {"name": "e2"}],
        "reasoningEffort": "high",
        "temperature": 0.5,
        "maxOutputTokens": 100,
        "seed": 1,
    },
    "tools": {"enabled": ["bash", "grep"], "disabled": ["todo"]},
    "sandbox": {"classRef": {"name": "s"}, "image": "debian:12"},
    "limits": {"turns": 5, "tokens": 1000, "cost": "2.50"},
    "activeDeadlineSeconds": 60,
    "retryPolicy": {"model": {"attempts": 2, "repairs": 0, "giveUpSeconds": 60}},
    "onUnknownOutcome": "Fail",
    "completion": "Text",
    "constraints": ["Keep the public interface.", "Add no dependency."],
    "policy": {
        "rules": [
            {
                "name": "no-push",
                "when": "tool == 'bash' && args.command.contains('git push')",
                "action": "Deny",
                "message": "People push.",
            },
            {"name": "few", "when": "calls.total > 100", "action": "Deny"},
        ]
    },
}
OTHER: dict[str, Any] = {
    "context": "It is a large project.",
    "contextImages": [{"mediaType": "image/gif", "data": "R0lGODlh"}],
    "files": [{"path": "src/a.py", "content": "2"}],
    "git": {"url": "ssh://git@git.example.com:2222/team/project.git"},
    "profileRef": {"name": "p2"},
    "model": {"endpointRef": {"name": "e2"}},
    "tools": {"enabled": ["bash"]},
    "sandbox": {"image": "debian:13"},
    "limits": {"turns": 6},
    "activeDeadlineSeconds": 61,
    "retryPolicy": {"model": {"attempts": 3}},
    "onUnknownOutcome": "Retry",
    "completion": "Explicit",
    "constraints": ["Keep the public interface."],
    "policy": {"rules": [{"name": "few", "when": "calls.total > 9", "action": "Deny"}]},
}
MUTABLE = {"cancel", "priority"}
OPTIONAL = sorted(OTHER)
WEB = [{"port": 443}]
WRONG_EGRESS: list[tuple[dict[str, Any], str]] = [
    ({"ports": WEB}, "give one of the three"),
    ({"cidr": "10.0.0.0/8", "host": "a.example", "ports": WEB}, "give one of the three"),
    ({"cidr": "10.0.0.0/8"}, "ports: Required"),
    ({"cidr": "10.0.0.0/8", "ports": []}, "should have at least 1 items"),
    ({"cidr": "10.0.0.0/8", "ports": [{"port": 0}]}, "greater than or equal to 1"),
    ({"cidr": "10.0.0.0/8", "ports": [{"port": 1, "protocol": "ICMP"}]}, "supported values"),
    ({"cidr": "10.0.0.0/33", "ports": WEB}, "cidr is not a network"),
    ({"cidr": "10.0.0.1", "ports": WEB}, "egress[0].cidr"),
    ({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"], "ports": WEB}, "lies inside of cidr"),
    ({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"], "ports": WEB}, "lies inside of cidr"),
    ({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/40"], "ports": WEB}, "lies inside of cidr"),
    ({"host": "a.example", "except": ["10.0.0.0/8"], "ports": WEB}, "except belongs to cidr"),
    ({"host": "10.0.0.1", "ports": WEB}, "write addresses as cidr"),
    ({"host": "localhost", "ports": WEB}, "egress[0].host"),
    ({"service": {"name": "a.b"}, "ports": WEB}, "egress[0].service.name"),
]


PNG = {"mediaType": "image/png", "data": "iVBORw0KGgo="}
WRONG_IMAGES: list[tuple[list[dict[str, str]], str]] = [
    ([PNG] * 9, "must have at most 8 items"),
    ([{"data": PNG["data"]}], "spec.contextImages[0].mediaType: Required"),
    ([{"mediaType": "image/png"}], "spec.contextImages[0].data: Required"),
    ([{**PNG, "mediaType": "image/svg+xml"}], 'supported values: \\"image/png\\"'),
    ([PNG, {**PNG, "name": "a"}], 'unknown field \\"spec.contextImages[1].name\\"'),
    *(
        ([PNG, {**PNG, "data": data}], "data is not base64: give the bytes of the image as")
        for data in (
            "iVBORw0KGgo",
            "iVBO\nRw0KGgo=",
            "iVBORw0KGgo=AAA=",
            "iVBORw0K====",
            "data:image/png;base64,iVBORw0KGgo=",
            "äöüß",
        )
    ),
]
WRONG_ROUTING: list[tuple[dict[str, Any], str]] = [
    ({"limits": {"cost": cost}}, sentence)
    for cost, sentence in (
        ("-1", "spec.limits.cost"),
        ("1,5", "spec.limits.cost"),
        ("1e3", "spec.limits.cost"),
        (1.5, "spec.limits.cost"),
        ("0.00", "cost leaves nothing to spend"),
    )
]
WRONG_ROUTING += [
    ({"model": model}, sentence)
    for model, sentence in (
        ({"reasoningEffort": "extreme"}, 'supported values: \\"none\\"'),
        ({"endpointRef": {"name": "a", "namespace": "a.b"}}, "spec.model.endpointRef.namespace"),
        ({"endpointRef": {"namespace": "a"}}, "spec.model.endpointRef.name: Required"),
        ({"fallbacks": [{"name": f"e{n}"} for n in range(5)]}, "must have at most 4 items"),
        ({"fallbacks": [{"name": "a"}, {"name": "a"}]}, "names the same ModelEndpoint twice"),
        (
            {"fallbacks": [{"name": "a", "namespace": "n"}, {"name": "a", "namespace": "n"}]},
            "names the same ModelEndpoint twice",
        ),
        ({"endpointRef": {"name": "a"}, "fallbacks": [{"name": "a"}]}, "leads back to"),
        (
            {
                "endpointRef": {"name": "a", "namespace": "n"},
                "fallbacks": [{"name": "a"}, {"name": "a", "namespace": "n"}],
            },
            "leads back to",
        ),
    )
]
WRONG_ROUTING += [
    ({"policy": {"rules": [{"name": "a", "when": "true", "action": "Deny", **rule}]}}, sentence)
    for rule, sentence in (
        ({"name": "A"}, "spec.policy.rules[0].name"),
        ({"when": ""}, "spec.policy.rules[0].when"),
        ({"when": "x" * 1025}, "may not be more than 1024"),
        ({"message": "x" * 501}, "may not be more than 500"),
        ({"action": "Ask"}, 'supported values: \\"Allow\\"'),
        ({"tool": "bash"}, 'unknown field \\"spec.policy.rules[0].tool\\"'),
    )
]
WRONG_ROUTING += [
    ({"policy": {"rules": [{"name": "a"}]}}, "spec.policy.rules[0].when: Required"),
    (
        {"policy": {"rules": [{"name": "a", "when": "true", "action": "Deny"}] * 2}},
        "Duplicate value",
    ),
    (
        {
            "policy": {
                "rules": [{"name": f"r{n}", "when": "true", "action": "Deny"} for n in range(33)]
            }
        },
        "must have at most 32 items",
    ),
    ({"constraints": ["x"] * 33}, "must have at most 32 items"),
    ({"constraints": ["x" * 501]}, "may not be more than 500"),
    ({"constraints": [""]}, "spec.constraints[0]"),
    ({"retryPolicy": {"model": {"giveUpSeconds": -1}}}, "should be greater than or equal to 0"),
    ({"retryPolicy": {"model": {"giveUpSeconds": 86_401}}}, "less than or equal to 86400"),
]


@pytest.fixture(scope="module")
def kube() -> Iterator[Kube]:
    with with_crds() as server:
        yield server


@pytest.fixture(scope="module")
def full(kube: Kube) -> str:
    """Name of a task with every optional field."""
    return str(kube.task(FULL)["metadata"]["name"])


@pytest.fixture(scope="module")
def bare(kube: Kube) -> str:
    """Name of a task with a goal alone."""
    return str(kube.task({"goal": "Fix the test."})["metadata"]["name"])


def test_the_api_server_finds_nothing_to_complain_about(kube: Kube) -> None:
    for resource in RESOURCES:
        found: Any = client.ApiextensionsV1Api(kube.api).read_custom_resource_definition(
            f"{resource.KIND.plural}.{names.GROUP}"
        )
        assert {c.type: c.status for c in found.status.conditions} == {
            "NamesAccepted": "True",
            "Established": "True",
        }


# The chart

# A helm that was built from its Go module takes an old Kubernetes for the newest one.
KUBE_VERSION = ("--kube-version", "1.35.0")


def helm(kube: Kube, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["helm", "template", "crds", str(ROOT / "charts/ratchet-crds"), *KUBE_VERSION, *arguments],
        env=kube.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("values", "annotations"),
    [((), {"helm.sh/resource-policy": "keep"}), (("--set", "keep=false"), None)],
)
def test_the_chart_holds_the_crds_and_keeps_them_unless_told_otherwise(
    kube: Kube, values: tuple[str, ...], annotations: dict[str, str] | None
) -> None:
    rendered = list(yaml.safe_load_all(helm(kube, *values).stdout))
    assert [found["metadata"].pop("annotations", None) for found in rendered] == [annotations] * 5
    by_name = {resource.KIND.plural: crd(resource) for resource in RESOURCES}
    assert {found["spec"]["names"]["plural"]: found for found in rendered} == by_name


def test_the_chart_refuses_values_that_it_does_not_know(kube: Kube) -> None:
    done = helm(kube, "--set", "kep=false")
    assert done.returncode != 0 and "kep" in done.stderr


# The work is immutable


def test_the_lists_of_this_file_cover_every_field() -> None:
    fields = names_of("spec")
    assert fields - {"goal", *MUTABLE} == set(OPTIONAL)
    assert fields - MUTABLE == set(FULL)


def names_of(part: str) -> set[str]:
    return set(openapi_schema(RESOURCES[0])["properties"][part]["properties"])


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_is_not_changed(kube: Kube, full: str, field: str) -> None:
    patch = [{"op": "replace", "path": f"/spec/{field}", "value": OTHER[field]}]
    assert f"{field} is immutable" in kube.refuse("agenttasks", full, patch)


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_is_not_added(kube: Kube, bare: str, field: str) -> None:
    patch = {"spec": {field: FULL[field]}}
    assert f"{field} is immutable" in kube.refuse("agenttasks", bare, patch)


@pytest.mark.parametrize("field", OPTIONAL)
def test_an_optional_field_is_not_removed(kube: Kube, full: str, field: str) -> None:
    patch = {"spec": {field: None}}
    answer = kube.refuse("agenttasks", full, patch)
    assert f"{field} is immutable" in answer and "create a new AgentTask" in answer


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/spec/model/seed", None),
        ("/spec/model/endpointRef/name", "other"),
        ("/spec/limits/turns", None),
        ("/spec/limits/tokens", 2000),
        ("/spec/limits/cost", "2.5"),
        ("/spec/limits/cost", None),
        ("/spec/model/fallbacks", []),
        ("/spec/model/fallbacks/1", None),
        ("/spec/model/fallbacks/0/namespace", None),
        ("/spec/model/reasoningEffort", "low"),
        ("/spec/constraints/1", None),
        ("/spec/constraints/0", "Keep nothing."),
        ("/spec/policy/rules", None),
        ("/spec/policy/rules/0", None),
        ("/spec/policy/rules/0/message", None),
        ("/spec/policy/rules/1/action", "Allow"),
        ("/spec/tools/disabled", None),
        ("/spec/files/1", None),
        ("/spec/files/1/mode", None),
        ("/spec/retryPolicy/model/repairs", 1),
        ("/spec/retryPolicy/model/giveUpSeconds", None),
        ("/spec/sandbox/classRef", None),
        ("/spec/git/depth", None),
        ("/spec/git/secretRef/name", "other"),
    ],
)
def test_a_field_further_inside_is_neither_changed_nor_removed(
    kube: Kube, full: str, path: str, value: object
) -> None:
    patch = {"op": "remove"} if value is None else {"op": "replace", "value": value}
    answer = kube.refuse("agenttasks", full, [{**patch, "path": path}])
    assert "is immutable" in answer


@pytest.mark.parametrize(
    ("spec", "added"),
    [
        ({"limits": {"turns": 3}}, {"limits": {"tokens": 5}}),
        ({"limits": {"turns": 3}}, {"limits": {"cost": "5"}}),
        ({"model": {"seed": 3}}, {"model": {"fallbacks": []}}),
        ({"model": {"seed": 3}}, {"model": {"reasoningEffort": "none"}}),
        ({"policy": {}}, {"policy": {"rules": []}}),
        ({"retryPolicy": {}}, {"retryPolicy": {"model": {"giveUpSeconds": 0}}}),
    ],
)
def test_a_field_further_inside_is_not_added(
    kube: Kube, spec: dict[str, Any], added: dict[str, Any]
) -> None:
    name = kube.task({"goal": "x", **spec})["metadata"]["name"]
    (field,) = spec
    assert f"{field} is immutable" in kube.refuse("agenttasks", name, {"spec": added})


def test_the_goal_is_not_changed_or_removed(kube: Kube, full: str) -> None:
    answer = kube.refuse("agenttasks", full, {"spec": {"goal": "Something else."}})
    assert "goal is immutable" in answer and "create a new AgentTask" in answer
    assert "spec.goal: Required" in kube.refuse("agenttasks", full, {"spec": {"goal": None}})


def test_the_same_work_again_labels_and_status_are_taken(kube: Kube, full: str) -> None:
    body = {"spec": FULL, "metadata": {"labels": {"team": "a"}}}
    assert kube.patch("agenttasks", full, body)["metadata"]["labels"] == {"team": "a"}
    kube.patch("agenttasks", full, {"status": {"phase": "Running"}}, status=True)


def test_cancel_goes_from_false_to_true_only(kube: Kube) -> None:
    name = kube.task({"goal": "x"})["metadata"]["name"]
    for value in (False, True):
        taken = kube.patch("agenttasks", name, {"spec": {"cancel": value}})
        assert taken["spec"]["cancel"] is value
    for taken_back in (False, None):
        answer = kube.refuse("agenttasks", name, {"spec": {"cancel": taken_back}})
        assert "cancel cannot be taken back" in answer


def test_priority_is_added_changed_and_removed_at_any_time(kube: Kube) -> None:
    name = kube.task({"goal": "x"})["metadata"]["name"]
    for value in (7, -1000, 1000, 0):
        taken = kube.patch("agenttasks", name, {"spec": {"priority": value}})
        assert taken["spec"]["priority"] == value
    assert "priority" not in kube.patch("agenttasks", name, {"spec": {"priority": None}})["spec"]


# Bad input gets a sentence


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({}, "spec.goal: Required value"),
        ({"goal": ""}, "say in words what the agent is to do"),
        ({"goal": " \n\t"}, "say in words what the agent is to do"),
        ({"goal": "x" * 1_000_000}, "spec.goal: Too long: may not be more than 65536"),
        ({"goal": "x", "mood": "good"}, 'unknown field \\"spec.mood\\"'),
        ({"goal": "x", "model": {"top": 1}}, 'unknown field \\"spec.model.top\\"'),
        ({"goal": "x", "limits": {"turns": 0}}, "should be greater than or equal to 1"),
        ({"goal": "x", "limits": {"turns": 1001}}, "should be less than or equal to 1000"),
        ({"goal": "x", "limits": {"tokens": 0}}, "should be greater than or equal to 1"),
        ({"goal": "x", "activeDeadlineSeconds": 0}, "should be greater than or equal to 1"),
        ({"goal": "x", "activeDeadlineSeconds": 604801}, "less than or equal to 604800"),
        ({"goal": "x", "model": {"temperature": 2.1}}, "should be less than or equal to 2"),
        ({"goal": "x", "retryPolicy": {"model": {"attempts": 0}}}, "greater than or equal to 1"),
        ({"goal": "x", "tools": {"enabled": ["sudo"]}}, 'supported values: \\"bash\\"'),
        ({"goal": "x", "tools": {"enabled": ["finish"]}}, 'supported values: \\"bash\\"'),
        ({"goal": "x", "tools": {"enabled": []}}, "should have at least 1 items"),
        (
            {"goal": "x", "tools": {"enabled": ["bash"], "disabled": ["bash"]}},
            "take it out of one of the two lists",
        ),
        ({"goal": "x", "onUnknownOutcome": "Ask"}, 'supported values: \\"Report\\"'),
        ({"goal": "x", "completion": "Any"}, 'supported values: \\"Explicit\\"'),
        ({"goal": "x", "profileRef": {"name": "No Name"}}, "spec.profileRef.name"),
        ({"goal": "x", "profileRef": {}}, "spec.profileRef.name: Required"),
        ({"goal": "x", "git": {}}, "spec.git.url: Required"),
        ({"goal": "x", "git": {"url": "https://user:word@h/p.git"}}, "spec.git.url"),
        ({"goal": "x", "git": {"url": "ssh://-oProxyCommand=id/p"}}, "spec.git.url"),
        ({"goal": "x", "git": {"url": "file:///etc"}}, "spec.git.url"),
        ({"goal": "x", "git": {"url": "https://h/p", "ref": "-x"}}, "spec.git.ref"),
        ({"goal": "x", "git": {"url": "https://h/p", "depth": 0}}, "greater than or equal to 1"),
        ({"goal": "x", "priority": 1001}, "should be less than or equal to 1000"),
        ({"goal": "x", "priority": -1001}, "should be greater than or equal to -1000"),
        *(({"goal": "x", **wrong}, sentence) for wrong, sentence in WRONG_ROUTING),
        *(({"goal": "x", "contextImages": wrong}, sentence) for wrong, sentence in WRONG_IMAGES),
    ],
)
def test_a_task_that_does_not_fit_is_refused(
    kube: Kube, spec: dict[str, Any], sentence: str
) -> None:
    assert sentence in kube.try_task(spec)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", ".git/hooks/pre-commit", ".."]
)
def test_a_file_stays_in_the_workspace(kube: Kube, path: str) -> None:
    answer = kube.try_task({"goal": "x", "files": [{"path": path, "content": ""}]})
    assert "spec.files[0].path" in answer and "write it like src/main.py" in answer


@pytest.mark.parametrize(
    "file",
    [
        {"path": "a"},
        {"path": "a", "content": "", "configMapKeyRef": {"name": "c", "key": "k"}},
    ],
)
def test_a_file_has_exactly_one_source(kube: Kube, file: dict[str, Any]) -> None:
    assert "give one of the two" in kube.try_task({"goal": "x", "files": [file]})


def test_a_path_comes_once_and_its_mode_is_one_of_two(kube: Kube) -> None:
    twice = [{"path": "a", "content": ""}, {"path": "a", "content": "1"}]
    assert "Duplicate value" in kube.try_task({"goal": "x", "files": twice})
    odd = [{"path": "a", "content": "", "mode": "4755"}]
    assert 'supported values: \\"0644\\", \\"0755\\"' in kube.try_task({"goal": "x", "files": odd})


def files_of(total: int) -> list[dict[str, str]]:
    """64 inline files of ``total`` bytes together."""
    share, rest = divmod(total, 64)
    sizes = [share + rest if number == 0 else share for number in range(64)]
    return [{"path": f"f{n}", "content": "y" * size} for n, size in enumerate(sizes)]


def test_goal_context_and_files_have_200_kib_together_and_not_a_byte_more(kube: Kube) -> None:
    spec = {"goal": "g" * 1000, "context": "c" * 1000}
    room = 200 * 1024 - 2000
    kube.task({**spec, "files": files_of(room)}, dry_run="All")
    answer = kube.try_task({**spec, "files": files_of(room + 1)})
    assert "more than 204800 bytes (200 KiB) together" in answer and "ConfigMap" in answer


def test_images_share_the_200_kib_of_goal_context_and_files(kube: Kube) -> None:
    images = [{**PNG, "data": "A" * 25_596}] * 8
    left = 200 * 1024 - 8 * 25_596
    kube.task({"goal": "g" * left, "contextImages": images}, dry_run="All")
    answer = kube.try_task({"goal": "g" * (left + 1), "contextImages": images})
    assert "more than 204800 bytes (200 KiB) together" in answer and "smaller" in answer


def test_it_is_bytes_that_count_not_characters(kube: Kube) -> None:
    kube.task({"goal": "a" * 60_000, "context": "a" * 60_000}, dry_run="All")
    assert "200 KiB" in kube.try_task({"goal": "ä" * 60_000, "context": "ä" * 60_000})


def test_a_name_leaves_room_for_the_names_of_turns_and_pods(kube: Kube) -> None:
    kube.task({"goal": "x"}, "a" * 200, dry_run="All")
    for length in (201, 253):
        assert "choose a shorter name" in kube.try_task({"goal": "x"}, "a" * length)


@pytest.mark.parametrize(
    ("plural", "spec", "sentence"),
    [
        ("sandboxclasses", {}, "spec.image: Required"),
        ("sandboxclasses", {"image": "a b"}, "spec.image"),
        ("sandboxclasses", {"image": "a", "hardTimeoutSeconds": 3601}, "equal to 3600"),
        (
            "sandboxclasses",
            {"image": "a", "resources": {"limits": {"memory": "lots"}}},
            "spec.resources.limits.memory",
        ),
        ("sandboxclasses", {"image": "a", "env": [{"name": "A"}]}, "spec.env[0].value: Required"),
        (
            "sandboxclasses",
            {"image": "a", "env": [{"name": "A-B", "value": ""}]},
            "spec.env[0].name",
        ),
        *(
            (
                "sandboxclasses",
                {"image": "a", "env": [{"name": name, "value": ""}]},
                "are the sandbox's own",
            )
            for name in ("RATCHET_TASK_UID", "LD_PRELOAD", "PYTHONHOME")
        ),
        (
            "sandboxclasses",
            {"image": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
            "Duplicate value",
        ),
        ("sandboxclasses", {"image": "a", "nodeSelector": {"a": "b c"}}, "spec.nodeSelector.a"),
        (
            "sandboxclasses",
            {"image": "a", "nodeSelector": {f"k{n}": "" for n in range(33)}},
            "must have at most 32 items",
        ),
        ("sandboxclasses", {"image": "a", "tolerations": [{}]}, "set operator to Exists"),
        (
            "sandboxclasses",
            {"image": "a", "tolerations": [{"key": "k", "operator": "Exists", "value": "v"}]},
            "operator Exists compares no value",
        ),
        (
            "sandboxclasses",
            {"image": "a", "tolerations": [{"key": "k", "tolerationSeconds": 1}]},
            "goes with effect NoExecute alone",
        ),
        (
            "sandboxclasses",
            {"image": "a", "workspace": {"sizeLimit": "1Gi", "volumeClaim": {"size": "1Gi"}}},
            "has the claim's size",
        ),
        (
            "sandboxclasses",
            {"image": "a", "workspace": {"volumeClaim": {}}},
            "spec.workspace.volumeClaim.size: Required",
        ),
        (
            "sandboxclasses",
            {"image": "a", "workspace": {"onLoss": "Ignore"}},
            'supported values: \\"Restart\\"',
        ),
        *(
            ("sandboxclasses", {"image": "a", "egress": [rule]}, sentence)
            for rule, sentence in WRONG_EGRESS
        ),
        ("agentprofiles", {"instructions": "x" * 32_769}, "may not be more than 32768"),
        ("agentprofiles", {"goal": "x"}, 'unknown field \\"spec.goal\\"'),
        ("agentprofiles", {"priority": 1}, 'unknown field \\"spec.priority\\"'),
        *(("agentprofiles", wrong, sentence) for wrong, sentence in WRONG_ROUTING),
    ],
)
def test_other_kinds_that_do_not_fit_are_refused(
    kube: Kube, plural: str, spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ApiException) as refusal:
        kube.create(plural, "one", spec, dry_run="All", field_validation="Strict")
    assert sentence in said(refusal.value)


@pytest.mark.parametrize(
    ("plural", "spec"),
    [
        (
            "sandboxclasses",
            {
                "image": "debian:12",
                "resources": {
                    "requests": {"cpu": "250m", "memory": "512Mi"},
                    "limits": {"cpu": 2, "memory": "1.5Gi", "ephemeral-storage": "1e9"},
                },
                "runtimeClassName": "gvisor",
                "imagePullSecrets": [{"name": "pull"}],
                "workspace": {"sizeLimit": "2Gi", "onLoss": "Restart"},
                "hardTimeoutSeconds": 60,
                "env": [{"name": "LANG", "value": "C.UTF-8"}, {"name": "EMPTY", "value": ""}],
                "nodeSelector": {"kubernetes.io/arch": "amd64", "empty": ""},
                "tolerations": [
                    {"key": "a/b", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5},
                    {"operator": "Exists", "value": ""},
                ],
                "allowRoot": True,
                "readOnlyRoot": True,
                "requireEnforcedNetwork": True,
                "egress": [
                    {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": WEB},
                    {"cidr": "fd00::/8", "ports": [{"port": 53, "protocol": "UDP"}]},
                    {"service": {"name": "git", "namespace": "tools"}, "ports": WEB},
                    {"host": "*.example.com", "ports": WEB},
                ],
            },
        ),
        (
            "sandboxclasses",
            {
                "image": "debian:12",
                "workspace": {
                    "onLoss": "Fail",
                    "volumeClaim": {
                        "size": "5Gi",
                        "storageClassName": "fast",
                        "accessMode": "ReadWriteOncePod",
                    },
                },
            },
        ),
        ("agentprofiles", {"instructions": "Be brief.", "limits": {"turns": 9}}),
        (
            "agentprofiles",
            {
                field: FULL[field]
                for field in ("model", "limits", "retryPolicy", "constraints", "policy")
            },
        ),
        ("agentprofiles", {}),
    ],
)
def test_other_kinds_that_fit_are_taken_and_stay_editable(
    kube: Kube, plural: str, spec: dict[str, Any]
) -> None:
    name = unique("one")
    assert kube.create(plural, name, spec, field_validation="Strict")["spec"] == spec
    for field in spec:
        if field != "image":
            kube.patch(plural, name, {"spec": {field: None}})


# What people and tools read


def test_a_new_task_is_pending_before_any_operator_has_seen_it(kube: Kube, bare: str) -> None:
    told = kube.kubectl("get", "agenttask", bare, "-o", "jsonpath={.status}")
    assert told == '{"observedGeneration":-1,"phase":"Pending"}'
    found = kube.kubectl("get", "at", "--field-selector", "status.phase=Pending", "-o", "name")
    assert f"agenttask.ratchet.run/{bare}" in found.split()


def test_columns_of_tasks(kube: Kube) -> None:
    name = kube.task({"goal": "x"})["metadata"]["name"]
    status = {
        "phase": "Running",
        "endpoint": "e",
        "doing": "Tool:bash",
        "reason": "RunningTools",
        "turns": 3,
        "tokens": {"total": 1200},
        "cost": "0.012300",
        "lost": {"requests": 1, "tokens": 300},
        "sandbox": {"generation": 1, "ledger": "l", "pod": "pod-g1"},
    }
    kube.patch("agenttasks", name, {"status": status}, status=True)
    header, row = kube.kubectl("get", "at", name).splitlines()
    assert header.split() == ["NAME", "PHASE", "DOING", "TURN", "TOKENS", "AGE"]
    assert row.split()[:5] == [name, "Running", "Tool:bash", "3", "1200"]
    header, row = kube.kubectl("get", "at", name, "-o", "wide").splitlines()
    assert header.split()[6:] == ["REASON", "MODEL", "COST", "SANDBOX", "FINISHED"]
    assert row.split()[6:] == ["RunningTools", "e", "0.012300", "pod-g1"]


def test_every_kind_is_in_the_category_and_has_its_short_names(kube: Kube, bare: str) -> None:
    listed = kube.kubectl("api-resources", "--categories", names.CATEGORY, "-o", "name").split()
    assert sorted(listed) == sorted(f"{r.KIND.plural}.{names.GROUP}" for r in RESOURCES)
    for short in ("at", "atask"):
        assert kube.kubectl("get", short, bare, "-o", "name") == f"agenttask.ratchet.run/{bare}\n"


@pytest.mark.parametrize("resource", RESOURCES)
def test_kubectl_explain_has_a_description_for_every_field(
    kube: Kube, resource: type[Resource]
) -> None:
    for path in objects_of(openapi_schema(resource), resource.__name__.lower()):
        page = kube.kubectl("explain", path)
        assert "<empty>" not in page, path
        fields = page.partition("FIELDS:\n")[2]
        assert fields, path
        for entry in re.split(r"\n(?=  \S+\t)", fields.rstrip("\n")):
            heading, *rest = entry.splitlines()
            described = [line for line in rest if line.strip() and not line.startswith("  enum:")]
            assert described, f"{path}: {heading}"


def objects_of(schema: dict[str, Any], path: str) -> Iterator[str]:
    if "items" in schema:
        schema = schema["items"]
    if "properties" in schema:
        yield path
        for name, child in schema["properties"].items():
            yield from objects_of(child, f"{path}.{name}")
