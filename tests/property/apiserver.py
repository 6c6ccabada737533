"""An API server in memory: objects, versions, JSON patches, the rules of our CRDs, and changes.

It answers as a real one answers the few requests that the operator sends (tests/contract and
tests/e2e hold the real one to the same), at once: the way there and back is the network's.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

from ratchet.api import names
from ratchet.edges.kube import ApiError, Params

Object = dict[str, Any]
Listener = Callable[[str, str, Object], None]
"""Told of each change: ADDED, MODIFIED or DELETED, the path, and the object as it is then."""

_MISFIT = "the server rejected our request due to an error in our request"
_ONCE = ("results", "committedAt")


class ApiServer:
    """What etcd holds, and what may be done to it. A stored object is never changed, but replaced."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.listeners: list[Listener] = []
        self._version = 0
        self._uids = 0

    # --- what a test does, as people and kubelets do ---------------------------------------------

    def put(self, path: str, body: Object, uid: str = "") -> Object:
        """Create an object as it is given."""
        stored: Object = json.loads(json.dumps(body))
        text = stored.pop("stringData", {})
        if text:
            stored["data"] = {k: base64.b64encode(v.encode()).decode() for k, v in text.items()}
        self._uids += 1
        stored["metadata"].setdefault("generation", 1)
        stored["metadata"].setdefault("creationTimestamp", "2030-01-01T00:00:00Z")
        stored["metadata"]["uid"] = uid or f"00000000-uid-{self._uids}"
        self._store("ADDED", path, stored)
        return stored

    def change(self, path: str, change: Callable[[Object], None]) -> None:
        """Edit an object that is there."""
        edited = copy.deepcopy(self.objects[path])
        change(edited)
        self._store("MODIFIED", path, edited)

    def remove(self, path: str) -> None:
        """Delete an object, and what belongs to it, as the garbage collector does soon after."""
        gone = self.objects.pop(path)
        self._tell("DELETED", path, gone)
        uid = gone["metadata"]["uid"]
        for other, found in list(self.objects.items()):
            owners = found["metadata"].get("ownerReferences") or ()
            if other in self.objects and any(owner["uid"] == uid for owner in owners):
                self.remove(other)

    # --- what the operator asks ------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any, params: Params | None) -> Object:
        """Answer one request. Raises ApiError as the edges' client does."""
        match method:
            case "GET" if params:
                return {"items": self._selected(path, params)}
            case "GET":
                return self._find(path)
            case "POST":
                where = f"{path}/{body['metadata']['name']}"
                if where in self.objects:
                    raise ApiError(409, "AlreadyExists", f"{where} already exists")
                return self.put(where, body)
            case "PATCH":
                return self._patch(path, body)
            case "DELETE":
                self._find(path)
                self.remove(path)
                return {}
            case _:
                raise ApiError(405, "MethodNotAllowed", f"{method} {path}")

    def _find(self, path: str) -> Object:
        if path not in self.objects:
            raise ApiError(404, "NotFound", f"{path} not found")
        return self.objects[path]

    def _selected(self, path: str, params: Params) -> list[Object]:
        wanted = dict(pair.split("=") for pair in str(params["labelSelector"]).split(","))
        inside = [o for where, o in self.objects.items() if where.rsplit("/", 1)[0] == path]
        return [
            o for o in inside if wanted.items() <= (o["metadata"].get("labels") or {}).items()
        ]  # fmt: skip

    def _patch(self, path: str, patch: list[Object]) -> Object:
        """A JSON patch of fields of the status; its tests see the whole object."""
        path = path.removesuffix("/status")
        before = self._find(path)
        after = {**before, "metadata": {**before["metadata"]}}
        if "status" in before:
            after["status"] = {**before["status"]}
        for operation in patch:
            _apply(operation, after)
        if path.rsplit("/", 2)[-2] == names.TURN_PLURAL:
            _check_turn(before, after)
        if after != before:
            self._store("MODIFIED", path, after)
        return self.objects[path]

    def _store(self, kind: str, path: str, stored: Object) -> None:
        self._version += 1
        stored["metadata"]["resourceVersion"] = str(self._version)
        self.objects[path] = stored
        self._tell(kind, path, stored)

    def _tell(self, kind: str, path: str, found: Object) -> None:
        for listener in self.listeners:
            listener(kind, path, found)


def _apply(operation: Object, target: Object) -> None:
    *way, last = operation["path"].strip("/").split("/")
    try:
        for step in way:
            target = target[step]
        match operation["op"]:
            case "test" if target[last] != operation["value"]:
                raise KeyError(last)
            case "add":
                target[last] = operation["value"]
            case "remove":
                del target[last]
            case _:
                pass
    except KeyError as error:
        raise ApiError(422, "Invalid", f"{_MISFIT}: {operation}") from error


def _check_turn(before: Object, after: Object) -> None:
    """The rules of the AgentTurn's CRD: what is written once stays, re-runs are only added."""
    old, new = before.get("status") or {}, after.get("status") or {}
    kept = all(name not in old or new.get(name) == old[name] for name in _ONCE)
    if not kept or any(rerun not in (new.get("reruns") or ()) for rerun in old.get("reruns") or ()):
        raise ApiError(422, "Invalid", "status is immutable once it is written")
