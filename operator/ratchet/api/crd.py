"""From the pydantic models to CustomResourceDefinitions.

Kubernetes takes a subset of JSON Schema, the structural schemas: no references, no titles, no
``anyOf`` with types (but for integer-or-string), every type spelled out. pydantic writes full JSON
Schema; what lies between is done here, by pure functions over plain dicts.
"""

from __future__ import annotations

from typing import Any, Final

from ratchet.api import names
from ratchet.api.base import Column, Resource
from ratchet.api.endpoint import ModelEndpoint
from ratchet.api.profile import AgentProfile
from ratchet.api.sandboxclass import SandboxClass
from ratchet.api.task import AgentTask
from ratchet.api.turn import AgentTurn

RESOURCES: Final[tuple[type[Resource], ...]] = (
    AgentTask,
    AgentTurn,
    AgentProfile,
    ModelEndpoint,
    SandboxClass,
)

Schema = dict[str, Any]
"""A JSON object of unknown depth: schemas are recursive, and only this module reads them."""

_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_DROPPED: Final = frozenset({"title", "default"})
# The order in which people read a schema; what is not named follows in its own order.
_ORDER: Final = ("description", "type", "format", "enum", "default", "required", "properties")


def crd(resource: type[Resource]) -> Schema:
    """The CustomResourceDefinition of a kind, ready for YAML."""
    kind = resource.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.KIND.plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": _names(resource, kind),
            "versions": [_version(resource)],
        },
    }


def openapi_schema(resource: type[Resource]) -> Schema:
    """The structural schema of a whole object of a kind."""
    raw = resource.model_json_schema(by_alias=True)
    definitions = raw.pop("$defs", {})
    schema = structural(raw, definitions)
    properties = schema["properties"]
    properties["apiVersion"] = {
        "description": f"Version of the API: {names.API_VERSION}.",
        "type": "string",
    }
    properties["kind"] = {"description": f"{resource.__name__}.", "type": "string"}
    # The API server has its own schema of metadata and allows no other.
    properties["metadata"] = {"type": "object"}
    if resource.KIND.status_default is not None:
        properties["status"]["default"] = dict(resource.KIND.status_default)
    return schema


def structural(node: Schema, definitions: Schema) -> Schema:
    """``node`` without references, titles, defaults and unions with null."""
    node = _without_null(_inlined(node, definitions))
    if node.get(_INT_OR_STRING):
        return _ordered({key: value for key, value in node.items() if key not in _DROPPED})
    out = {key: _value(key, value) for key, value in node.items() if key not in _DROPPED}
    if "properties" in out:
        out["properties"] = {
            name: structural(child, definitions) for name, child in out["properties"].items()
        }
    if isinstance(out.get("items"), dict):
        out["items"] = structural(out["items"], definitions)
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = structural(out["additionalProperties"], definitions)
    if out.get("type") == "integer":
        out["format"] = "int64"
    return _ordered(out)


def _names(resource: type[Resource], kind: str) -> Schema:
    named: Schema = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": resource.KIND.plural,
        "singular": kind.lower(),
        "categories": [names.CATEGORY],
    }
    if resource.KIND.short_names:
        named["shortNames"] = list(resource.KIND.short_names)
    return named


def _version(resource: type[Resource]) -> Schema:
    version: Schema = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in resource.KIND.columns],
    }
    if resource.KIND.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in resource.KIND.selectable]
    if "status" in resource.model_fields:
        version["subresources"] = {"status": {}}
    version["schema"] = {"openAPIV3Schema": openapi_schema(resource)}
    return version


def _column(column: Column) -> Schema:
    out: Schema = {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        "description": column.description,
    }
    return {**out, "priority": 1} if column.wide else out


def _inlined(node: Schema, definitions: Schema) -> Schema:
    """``node`` with its reference, if any, replaced by its target; its own keys win."""
    while "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node and not node.get(_INT_OR_STRING):
        variants = [_inlined(variant, definitions) for variant in node["anyOf"]]
        return {**node, "anyOf": variants}
    return node


def _without_null(node: Schema) -> Schema:
    """``node`` where "T or null" is just T: the API server drops a null before it validates."""
    if "anyOf" not in node or node.get(_INT_OR_STRING):
        return node
    variants = [variant for variant in node["anyOf"] if variant.get("type") != "null"]
    if len(variants) != 1:
        raise ValueError(f"a structural schema has no unions; use one type instead of {node}")
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**variants[0], **rest}


def _value(key: str, value: Any) -> Any:
    if key == "description" and isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _ordered(node: Schema) -> Schema:
    first: Schema = {key: node[key] for key in _ORDER if key in node}
    return {**first, **{key: value for key, value in node.items() if key not in first}}
