"""What kubectl printed, as objects of ours. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.api import names

Object = Mapping[str, Any]


CONFIG_MAP = "ConfigMap"
"""What parts of a large patch are in."""


class UnreadableInput(Exception):
    """The input is not what can be checked. The text says where, and what to give instead."""


def objects(name: str, text: str) -> Iterator[Object]:
    """AgentTasks, AgentTurns and ConfigMaps in a text: JSON objects one after another, or lists."""
    decoder = json.JSONDecoder()
    place = 0
    while rest := text[place:].lstrip():
        place = len(text) - len(rest)
        try:
            found, place = decoder.raw_decode(text, place)
        except ValueError as error:
            what = f"{name} is not JSON ({error}): give what `kubectl get -o json` prints"
            raise UnreadableInput(what) from error
        yield from _unpacked(name, found)


def _unpacked(name: str, found: object) -> Iterator[Object]:
    if not isinstance(found, Mapping):
        raise UnreadableInput(f"{name} holds JSON that is no object of Kubernetes")
    if "items" not in found:
        yield _ours(name, found)
        return
    items = found["items"]
    if not isinstance(items, list):
        raise UnreadableInput(f"{name} holds a list whose items are none")
    for item in items:
        yield _ours(name, item if isinstance(item, Mapping) else {})


def _ours(name: str, found: Object) -> Object:
    """The object, if it has the shape that the rest of the program may rely on."""
    kind = str(found.get("kind"))
    group = str(found.get("apiVersion")).split("/")[0]
    if (group, kind) == ("v1", CONFIG_MAP):
        if not isinstance(found.get("metadata"), Mapping) or not _is_metadata(found["metadata"]):
            raise UnreadableInput(f"{name} holds an object of kind {kind} that is not whole")
        return found
    if group != names.GROUP or kind not in (names.TASK_KIND, names.TURN_KIND):
        wanted = f"AgentTurns of {names.GROUP}, perhaps with their AgentTask and ConfigMaps"
        raise UnreadableInput(f"{name} holds an object of kind {kind}: only {wanted} are checked")
    metadata = found.get("metadata")
    parts = [metadata, found.get("spec"), found.get("status", {})]
    if not all(isinstance(part, Mapping) for part in parts) or not _is_metadata(metadata):
        raise UnreadableInput(f"{name} holds an object of kind {kind} that is not whole")
    return found


def _is_metadata(metadata: Any) -> bool:
    owners = metadata.get("ownerReferences", [])
    return (
        isinstance(metadata.get("name"), str)
        and isinstance(metadata.get("labels", {}), Mapping)
        and isinstance(owners, list)
        and all(isinstance(owner, Mapping) for owner in owners)
    )
