"""The CRDs: structural, described, bounded, small, and in step with what is committed."""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml
from ratchet.api import conditions, generate, names
from ratchet.api.base import Model, Resource, Rule, immutable_rules
from ratchet.api.common import ToolName
from ratchet.api.crd import RESOURCES, crd, openapi_schema, structural
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.task import AgentTask
from ratchet.core.tools import CATALOGUE, FINISH

ROOT = Path(__file__).parents[3]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for below in ("items", "additionalProperties"):
        if below in schema:
            yield from nodes(schema[below], f"{path}[]")


EVERY_NODE = [
    pytest.param(node, id=f"{resource.__name__}{path}")
    for resource in RESOURCES
    for path, node in nodes(openapi_schema(resource))
    if not path.startswith((".apiVersion", ".kind", ".metadata"))
]


@pytest.mark.parametrize("node", EVERY_NODE)
def test_every_field_is_described_typed_and_bounded(node: dict[str, Any]) -> None:
    if node.get("x-kubernetes-int-or-string"):
        assert node["maxLength"] > 0 and node["description"]
        return
    assert not {"$ref", "title", "anyOf", "const", "nullable", "propertyNames"} & node.keys()
    assert "x-kubernetes-preserve-unknown-fields" not in node
    match node["type"]:
        case "string":
            assert "maxLength" in node or "enum" in node or node.get("format") == "date-time"
        case "integer" | "number":
            assert "minimum" in node
        case "array":
            assert "maxItems" in node and "x-kubernetes-list-type" in node
        case "object":
            assert node["maxProperties"] if "additionalProperties" in node else node["properties"]
        case other:
            assert other == "boolean"


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_named_field_has_a_sentence(resource: type[Resource]) -> None:
    for path, node in nodes(openapi_schema(resource)):
        if not path.endswith("[]") and path != ".metadata":
            assert node["description"].endswith("."), path


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_crd_is_far_below_what_client_side_apply_takes(resource: type[Resource]) -> None:
    assert len(generate.crd_yaml(resource)) < 200_000


def test_every_work_field_of_a_task_is_immutable_and_only_priority_and_cancel_are_not() -> None:
    spec = openapi_schema(AgentTask)["properties"]["spec"]
    said = [rule["message"] for rule in spec["x-kubernetes-validations"]]
    immutable = {text.split()[0] for text in said if " is immutable" in text}
    assert immutable == spec["properties"].keys() - {"priority", "cancel"}


def test_every_refusal_says_what_to_do() -> None:
    for resource in RESOURCES:
        for _, node in nodes(openapi_schema(resource)):
            for rule in node.get("x-kubernetes-validations", ()):
                assert re.search(r"[:;,] \w", rule["message"]), rule["message"]
                assert len(rule["message"]) < 300


def test_no_rule_calls_a_field_by_a_word_that_cel_keeps_for_itself() -> None:
    # Such a field has underscores around it in CEL; without them the API server cannot bound the
    # cost of the rule and refuses the whole CRD (k8s.io/apiserver, pkg/cel/escaping.go).
    kept = "as|break|const|continue|else|for|function|if|import|in|let|loop|namespace|package"
    for resource in RESOURCES:
        for _, node in nodes(openapi_schema(resource)):
            for rule in node.get("x-kubernetes-validations", ()):
                assert not re.search(rf"\.({kept}|return|var|void|while)\b", rule["rule"]), rule


def test_an_immutability_rule_sees_adding_changing_and_removing() -> None:
    optional, required = immutable_rules("a", "b", required=("b",), why="make another")
    assert optional.rule == (
        "has(self.a) == has(oldSelf.a) && (!has(self.a) || self.a == oldSelf.a)"
    )
    assert required == Rule(
        rule="self.b == oldSelf.b",
        message="b is immutable: make another",
        reason="FieldValueForbidden",
        field=".b",
    )


def test_a_new_task_reads_as_pending_and_unseen() -> None:
    status = openapi_schema(AgentTask)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1, "phase": "Pending"}


def test_a_new_endpoint_reads_as_unseen() -> None:
    status = openapi_schema(ModelEndpoint)["properties"]["status"]
    assert status["default"] == {"observedGeneration": -1}


def test_specs_have_no_defaults_so_that_the_server_never_changes_what_was_applied() -> None:
    for resource in RESOURCES:
        spec = openapi_schema(resource)["properties"]["spec"]
        assert not [path for path, node in nodes(spec) if "default" in node]


def test_columns_and_selectable_fields_name_fields_that_exist() -> None:
    for resource in RESOURCES:
        paths = {path for path, _ in nodes(openapi_schema(resource))}
        columns = {re.sub(r"\[\?.*?\]", "[]", column.path) for column in resource.KIND.columns}
        asked = columns | set(resource.KIND.selectable)
        assert asked - paths <= {".metadata.creationTimestamp"}


def test_the_tools_of_the_api_are_those_of_the_catalogue_but_finish() -> None:
    assert [str(tool) for tool in ToolName] == [
        n for n in CATALOGUE if n != FINISH.name and not n.startswith("bash_")
    ]


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (conditions.Phase, conditions.PHASES),
        (conditions.ConditionType, conditions.CONDITION_TYPES),
        (conditions.Reason, conditions.REASONS),
        (conditions.EndpointReason, conditions.ENDPOINT_REASONS),
    ],
)
def test_every_word_of_the_catalogue_has_a_sentence(
    words: type[StrEnum], sentences: dict[StrEnum, str]
) -> None:
    assert list(words) == list(sentences)
    for word, sentence in sentences.items():
        assert re.fullmatch(r"[A-Z][A-Za-z]+", word)
        assert sentence.endswith(".") and len(sentence) < 1024


def test_a_union_of_types_is_refused_with_the_reason() -> None:
    class Odd(Model):
        either: int | str

    with pytest.raises(ValueError, match="no unions"):
        structural(Odd.model_json_schema(), {})


def test_the_committed_files_are_those_that_the_types_give() -> None:
    assert generate.drifted(ROOT, generate.wanted()) == []


def test_check_names_files_that_differ_are_missing_or_are_left_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").touch()
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert generate.main(["--root", str(tmp_path), "--check"]) == 0
    (tmp_path / "docs/api.md").write_text("old")
    (tmp_path / "crds/agenttasks.yaml").unlink()
    (tmp_path / "crds/agentthings.yaml").touch()
    capsys.readouterr()
    assert generate.main(["--root", str(tmp_path), "--check"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == [
        "crds/agenttasks.yaml",
        "crds/agentthings.yaml",
        "docs/api.md",
    ]
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert generate.main(["--root", str(tmp_path), "--check"]) == 0
    assert not (tmp_path / "crds/agentthings.yaml").exists()


def test_words_that_go_reads_as_booleans_are_quoted() -> None:
    assert "name: 'N'" in generate.crd_yaml(RESOURCES[1])


def test_the_chart_keeps_the_crds_only_where_its_values_say_so() -> None:
    for resource in RESOURCES:
        text = (ROOT / generate.TEMPLATES / f"{resource.KIND.plural}.yaml").read_text()
        kept = re.sub(r" *\{\{-[^}]*\}\}\n", "", text)
        found = yaml.safe_load(kept)
        assert found["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert found == crd(resource)
        assert "{{- if .Values.keep }}" in text


def test_the_chart_has_the_version_of_the_package() -> None:
    from ratchet import __version__

    chart = yaml.safe_load((ROOT / generate.CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_a_map_is_named_as_one_on_the_page() -> None:
    page = (ROOT / generate.PAGE).read_text()
    assert "| `spec.nodeSelector` | map of strings |" in page


def test_the_page_names_every_field_of_every_kind() -> None:
    page = (ROOT / generate.PAGE).read_text()
    for resource in RESOURCES:
        for path, _ in nodes(openapi_schema(resource)):
            if path.startswith((".spec.", ".status.")) and not path.endswith("[]"):
                assert f"`{path[1:]}`" in page
    assert names.API_VERSION in page
