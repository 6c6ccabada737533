"""``docs/api.md``: every field of every kind, from the same schemas as the CRDs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TypeVar

from ratchet.api import names
from ratchet.api.base import Resource
from ratchet.api.conditions import CONDITION_TYPES, ENDPOINT_REASONS, PHASES, REASONS
from ratchet.api.crd import RESOURCES, Schema, openapi_schema

_Word = TypeVar("_Word", bound=StrEnum)

_HEAD = f"""\
# The API: {names.API_VERSION}

<!-- Written by `python -m ratchet.api.generate`; edit operator/ratchet/api instead. -->

All kinds are namespaced, and references stay in the namespace; that of a ModelEndpoint alone may
leave it, where both sides say so. A field that is not listed here is refused. `kubectl explain
agenttask.spec` shows the same text.
"""


def api_page() -> str:
    """The whole page, as Markdown."""
    parts = [_HEAD, *(_kind(resource) for resource in RESOURCES), _catalogue()]
    return "\n".join(parts)


def _kind(resource: type[Resource]) -> str:
    schema = openapi_schema(resource)
    short = ", ".join(f"`{name}`" for name in resource.KIND.short_names)
    lines = [f"## {resource.__name__}", "", schema["description"], ""]
    lines += [f"Plural `{resource.KIND.plural}`" + (f", short {short}." if short else "."), ""]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            lines += [*_table(part, schema["properties"][part]), ""]
    rules = list(_rules("", schema))
    if rules:
        lines += ["What else the API server refuses:", "", *rules, ""]
    return "\n".join(lines)


def _table(part: str, schema: Schema) -> list[str]:
    rows = [f"| `{path}` | {_type(node)} | {_cell(node)} |" for path, node in _walk(part, schema)]
    return [f"| field of {part} | type | meaning |", "|---|---|---|", *rows]


def _walk(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        yield below, child
        if child.get("type") == "array":
            yield from _walk(f"{below}[]", child["items"])
        else:
            yield from _walk(below, child)


def _type(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}s"
    if node.get("format") == "date-time":
        return "time"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}s"
    return str(node["type"])


def _cell(node: Schema) -> str:
    return str(node["description"]).replace("|", "\\|").replace("<", "&lt;")


def _rules(path: str, schema: Schema) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        where = (path + rule.get("fieldPath", "")).lstrip(".") or "the object"
        yield f"- `{where}`: {rule['message']}"
    for name, child in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", child)
    if "items" in schema:
        yield from _rules(f"{path}[]", schema["items"])


def _catalogue() -> str:
    return "\n".join(
        [
            "## Phases, conditions and reasons of an AgentTask",
            "",
            *_words("phase", PHASES),
            *_words("condition", CONDITION_TYPES),
            *_words("reason", REASONS),
            "## Reasons of a ModelEndpoint",
            "",
            *_words("reason", ENDPOINT_REASONS),
        ]
    )


def _words(title: str, words: Mapping[_Word, str]) -> list[str]:
    rows = [f"| {word} | {sentence} |" for word, sentence in words.items()]
    return [f"| {title} | meaning |", "|---|---|", *rows, ""]
