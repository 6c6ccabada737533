"""What goes over the wire of an API server: requests read, events and documents made. All pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Object = dict[str, Any]

_COLLECTION = re.compile(r"^(/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/([^/]+))?/([^/]+)$")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object that is served."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Where its version is served."""
        return f"/apis/{self.group_version}" if self.group else f"/api/{self.version}"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came in."""

    verb: str
    """discovery, list, watch, or the method of a write."""
    path: str
    plural: str = ""
    namespace: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    token: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A write, as the history keeps it."""

    version: int
    kind: str
    plural: str
    now: Object
    before: Object | None


def read_request(request: web.Request) -> Asked:
    """What a request asks for. Only lists and watches name a resource."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if request.method != "GET":
        return Asked(request.method, request.path, token=token)
    found = _COLLECTION.match(request.path)
    if found is None:
        return Asked("discovery", request.path, token=token)
    verb = "watch" if request.query.get("watch") == "true" else "list"
    return Asked(verb, request.path, found[3], found[2], dict(request.query), token)


def seen_by(asked: Asked, change: Change) -> Object | None:
    """The event that a watch gets of a change, if any.

    An object that begins to match is ADDED, and one that ceases to is DELETED.
    """
    matches = change.kind != "DELETED" and fits(asked, change.now)
    fitted = change.before is not None and fits(asked, change.before)
    if matches:
        return {"type": "MODIFIED" if fitted else "ADDED", "object": change.now}
    if not fitted or change.before is None:
        return None
    version = {"resourceVersion": str(change.version)}
    gone = {**change.before, "metadata": {**change.before["metadata"], **version}}
    return {"type": "DELETED", "object": gone}


def status(code: int, reason: str, message: str = "") -> Object:
    """The object that says what went wrong."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message or reason,
        "reason": reason,
        "code": code,
    }


def resources_of(resources: list[Resource]) -> Object:
    """The document of one version of a group."""
    return {
        "kind": "APIResourceList",
        "groupVersion": resources[0].group_version,
        "resources": [
            {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            for resource in resources
        ],
    }


def groups_of(resources: list[Resource]) -> Object:
    """The document at /apis."""
    versions = {(resource.group, resource.version) for resource in resources if resource.group}
    groups = []
    for group, version in sorted(versions):
        served = {"groupVersion": f"{group}/{version}", "version": version}
        groups.append({"name": group, "versions": [served], "preferredVersion": served})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def fits(asked: Asked, found: Object) -> bool:
    """Whether an object is of the namespace and has the labels that are asked for."""
    meta = found["metadata"]
    labels: Mapping[str, str] = meta.get("labels", {})
    wanted = dict(_pairs(asked.query.get("labelSelector", "")))
    return asked.namespace in (None, meta["namespace"]) and wanted.items() <= labels.items()


def _pairs(selector: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, selector.split(",")):
        key, _, value = part.partition("=")
        yield key, value
